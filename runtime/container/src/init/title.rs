use std::ffi::CStr;
use std::slice;

/// The memory of the process's arguments, which is what ps shows. setproctitle(3) does the same where there is one.
pub struct Title {
    room: &'static mut [u8],
}

impl Title {
    /// # Safety
    /// `argv` must be the array the kernel made for this process, of `argc` strings one behind the other, and nobody else may use it afterwards.
    pub unsafe fn over(argc: libc::c_int, argv: *mut *mut libc::c_char) -> Title {
        let Some(last) = usize::try_from(argc)
            .ok()
            .and_then(|count| count.checked_sub(1))
        else {
            return Title { room: &mut [] };
        };
        // SAFETY: the caller vouches for argv[0] and argv[argc - 1] being strings of one stretch of memory, in this order.
        let room = unsafe {
            let first = *argv;
            let end = *argv.add(last);
            let tail = CStr::from_ptr(end).to_bytes_with_nul().len();
            let length = usize::try_from(end.offset_from(first))
                .unwrap_or_default()
                .saturating_add(tail);
            slice::from_raw_parts_mut(first.cast::<u8>(), length)
        };
        Title { room }
    }

    /// Shows `text`, cut to the room there is, and names the process by its first word.
    pub fn set(&mut self, text: &str) {
        self.room.fill(0);
        // The last byte stays zero: a title without an end would run on into the environment (proc_pid_cmdline(5)).
        let room = self.room.len().saturating_sub(1);
        for (place, byte) in self.room.iter_mut().take(room).zip(text.bytes()) {
            *place = byte;
        }
        let _ = rustix::thread::set_name(c"cloister-init");
    }
}
