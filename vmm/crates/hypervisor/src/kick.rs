//! Getting a thread out of KVM_RUN without a race: the signal's handler sets `immediate_exit` of the
//! very vCPU the thread runs, so a kick just before KVM_RUN counts as much as one during it.

use std::cell::Cell;
use std::io;
use std::ptr;

use crate::HypervisorError;

thread_local! {
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn on_kick(_signal: libc::c_int) {
    let flag = IMMEDIATE_EXIT.with(Cell::get);
    if !flag.is_null() {
        // SAFETY: while it is not null the pointer is to the kvm_run page of the vCPU this thread
        // runs; only this thread and the kernel touch that byte.
        unsafe { ptr::write_volatile(flag, 1) };
    }
}

/// Installs the handler of the kick signal; once per process, before any [`Kicker`] is used.
///
/// # Errors
/// [`HypervisorError::Kvm`] when sigaction(2) fails.
pub fn install_kick_handler() -> Result<(), HypervisorError> {
    // SAFETY: an all-zero sigaction is a valid one; the handler only does what signal-safety(7) allows.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_kick as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(kick_signal(), &action, ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(HypervisorError::Kvm(
            "sigaction",
            io::Error::last_os_error(),
        ))
    }
}

/// Says which byte a kick of this thread is to set; null for none.
pub(crate) fn aim(flag: *mut u8) {
    IMMEDIATE_EXIT.with(|cell| cell.set(flag));
}

/// Kicks one host thread out of KVM_RUN and out of interruptible host calls.
#[derive(Clone, Copy, Debug)]
pub struct Kicker {
    pid: i32,
    tid: i32,
}

impl Kicker {
    /// A kicker of the calling thread.
    #[must_use]
    pub fn of_this_thread() -> Self {
        // SAFETY: both calls have no arguments and cannot fail.
        unsafe {
            Self {
                pid: libc::getpid(),
                tid: libc::gettid(),
            }
        }
    }

    /// Sends the kick; a thread that is gone is no error.
    pub fn kick(&self) {
        // SAFETY: tgkill(2) takes plain numbers.
        unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.tid, kick_signal()) };
    }
}
