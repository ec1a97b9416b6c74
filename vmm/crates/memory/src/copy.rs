//! Copies to and from memory whose pages may be missing, protected or gone at any moment: a fault ends the copy, not the monitor.
//!
//! A copy is a few instructions at known addresses. The handler of SIGSEGV and SIGBUS lets a thread that faulted at one of them go on behind it; any other
//! fault is left to whoever handled the signal before (sigaction(2), SA_SIGINFO).

use std::arch::global_asm;
use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

use libc::{c_int, sigaction, siginfo_t, ucontext_t};
use parking_lot::Mutex;

// rdi: to, rsi: from, rdx: bytes; answers in rax how many were not copied. Words such as futexes are moved by one instruction each, so that an aligned one is
// never seen in two parts; one that cannot be had whole is tried byte by byte, which tells how far it goes.
global_asm!(
    ".pushsection .text.vmm_memory_copy, \"ax\", @progbits",
    ".balign 16",
    "vmm_memory_copy:",
    "mov rcx, rdx",
    "cmp rdx, 8",
    "je 8f",
    "cmp rdx, 4",
    "jne vmm_memory_copy_bytes",
    "vmm_memory_copy_words:",
    "mov eax, dword ptr [rsi]",
    "mov dword ptr [rdi], eax",
    "xor eax, eax",
    "ret",
    "8:",
    "mov rax, qword ptr [rsi]",
    "mov qword ptr [rdi], rax",
    "xor eax, eax",
    "ret",
    "vmm_memory_copy_bytes:",
    "rep movsb",
    "vmm_memory_copy_end:",
    "mov rax, rcx",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn vmm_memory_copy(to: *mut u8, from: *const u8, count: usize) -> usize;
    static vmm_memory_copy_words: u8;
    static vmm_memory_copy_bytes: u8;
    static vmm_memory_copy_end: u8;
}

/// The signals by which the kernel tells of a page that cannot be had.
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// What handled [`SIGNALS`] before.
static BEFORE: OnceLock<[sigaction; 2]> = OnceLock::new();

/// Has faults of copies end them, in the whole process; once is enough.
///
/// # Errors
/// What sigaction(2) says.
pub(crate) fn settle() -> io::Result<()> {
    static SETTLED: Mutex<bool> = Mutex::new(false);
    let mut settled = SETTLED.lock();
    if *settled {
        return Ok(());
    }
    let mut before = [MaybeUninit::<sigaction>::uninit(); 2];
    for (signal, before) in SIGNALS.into_iter().zip(&mut before) {
        ask_or_set(signal, ptr::null(), before.as_mut_ptr())?;
    }
    // SAFETY: sigaction(2) has written both.
    let before = before.map(|action| unsafe { action.assume_init() });
    BEFORE.get_or_init(|| before);
    // SAFETY: an all-zero sigaction is a valid one.
    let mut action: sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for signal in SIGNALS {
        ask_or_set(signal, &raw const action, ptr::null_mut())?;
    }
    *settled = true;
    Ok(())
}

fn ask_or_set(signal: c_int, new: *const sigaction, old: *mut sigaction) -> io::Result<()> {
    // SAFETY: each pointer is null or to one action; the handler only does what signal-safety(7) allows.
    match unsafe { sigaction(signal, new, old) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let words = (&raw const vmm_memory_copy_words).addr();
    let bytes = (&raw const vmm_memory_copy_bytes).addr();
    let end = (&raw const vmm_memory_copy_end).addr();
    let registers = context.cast::<ucontext_t>();
    // SAFETY: the kernel gives a handler with SA_SIGINFO the context of the thread that it interrupts, which nobody else has.
    let Some(rip) = (unsafe {
        (*registers)
            .uc_mcontext
            .gregs
            .get_mut(libc::REG_RIP as usize)
    }) else {
        return pass_on(signal, info, context);
    };
    let at = *rip as usize;
    if (words..bytes).contains(&at) {
        *rip = bytes as i64;
    } else if (bytes..end).contains(&at) {
        *rip = end as i64;
    } else {
        pass_on(signal, info, context);
    }
}

/// A fault that is no copy's.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let place = SIGNALS.iter().position(|one| *one == signal);
    let before = place.and_then(|place| BEFORE.get()?.get(place));
    let handler = before.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
    let with_info = before.is_some_and(|action| action.sa_flags & libc::SA_SIGINFO != 0);
    if with_info && handler != libc::SIG_DFL && handler != libc::SIG_IGN {
        // SAFETY: a handler that was installed with SA_SIGINFO is such a function, and gets what it would have got.
        unsafe {
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                std::mem::transmute(handler);
            handler(signal, info, context);
        }
        return;
    }
    // The instruction faults again, and the signal then does what it does by default.
    // SAFETY: an all-zero sigaction is a valid one, of the default action.
    let default: sigaction = unsafe { std::mem::zeroed() };
    let _ = ask_or_set(signal, &raw const default, ptr::null_mut());
}

/// Copies `count` bytes; answers how many were copied before a page could not be read or written.
///
/// # Safety
/// [`settle`] was called. Both ranges are the caller's to read and to write, wherever there is memory; nothing that Rust knows of lies in the one whose pages
/// may be missing.
pub(crate) unsafe fn copy(to: *mut u8, from: *const u8, count: usize) -> usize {
    // SAFETY: as above; what it touches beside the ranges are registers that a call may change.
    let left = unsafe { vmm_memory_copy(to, from, count) };
    count.saturating_sub(left)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    /// Two pages, of which the second cannot be touched.
    struct Edge(*mut u8);

    impl Edge {
        fn new(first: c_int) -> Self {
            settle().unwrap();
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a mapping of its own.
            unsafe {
                let base = libc::mmap(ptr::null_mut(), 2 * PAGE, libc::PROT_NONE, flags, -1, 0);
                assert_ne!(base, libc::MAP_FAILED);
                assert_eq!(libc::mprotect(base, PAGE, first), 0);
                Self(base.cast())
            }
        }

        fn before_the_end(&self, bytes: usize) -> *mut u8 {
            self.0.wrapping_add(PAGE - bytes)
        }
    }

    impl Drop for Edge {
        fn drop(&mut self) {
            // SAFETY: the mapping is this one's.
            unsafe { libc::munmap(self.0.cast(), 2 * PAGE) };
        }
    }

    #[test]
    fn a_copy_ends_where_the_pages_end_whatever_its_length() {
        let edge = Edge::new(libc::PROT_READ | libc::PROT_WRITE);
        let from: Vec<u8> = (1..=64).collect();
        for count in 1..from.len() {
            for room in 0..=count {
                // SAFETY: the first page is there, and the copy ends before the other.
                unsafe {
                    let end = edge.before_the_end(room);
                    assert_eq!(
                        copy(end, from.as_ptr(), count),
                        room,
                        "{count} bytes to {room}"
                    );
                    let mut back = vec![0; count];
                    assert_eq!(copy(back.as_mut_ptr(), end, count), room);
                    assert_eq!(back[..room], from[..room]);
                    assert!(back[room..].iter().all(|byte| *byte == 0));
                }
            }
        }
    }

    #[test]
    fn a_page_that_may_only_be_read_takes_nothing() {
        let edge = Edge::new(libc::PROT_READ);
        for count in [1, 4, 8, 100] {
            let bytes = vec![1; count];
            // SAFETY: nothing is written.
            assert_eq!(unsafe { copy(edge.0, bytes.as_ptr(), count) }, 0);
        }
    }

    #[test]
    fn a_file_that_ends_before_its_mapping_ends_the_copy() {
        settle().unwrap();
        let file = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, PAGE as u64).unwrap();
        let mut bytes = vec![1; 2 * PAGE];
        // SAFETY: a mapping of its own, and a buffer as long.
        unsafe {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
            let base = libc::mmap(
                ptr::null_mut(),
                2 * PAGE,
                libc::PROT_READ,
                libc::MAP_SHARED,
                fd,
                0,
            );
            assert_ne!(base, libc::MAP_FAILED);
            assert_eq!(copy(bytes.as_mut_ptr(), base.cast(), 2 * PAGE), PAGE);
            libc::munmap(base, 2 * PAGE);
        }
        assert!(bytes[..PAGE].iter().all(|byte| *byte == 0));
        assert!(bytes[PAGE..].iter().all(|byte| *byte == 1));
    }

    #[test]
    fn any_other_fault_ends_the_process_as_before() {
        settle().unwrap();
        // SAFETY: the child only faults, and ends by it.
        let status = unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::setrlimit(
                    libc::RLIMIT_CORE,
                    &libc::rlimit {
                        rlim_cur: 0,
                        rlim_max: 0,
                    },
                );
                ptr::read_volatile(ptr::without_provenance::<u8>(16));
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            status
        };
        assert!(libc::WIFSIGNALED(status), "{status}");
        assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
    }
}
