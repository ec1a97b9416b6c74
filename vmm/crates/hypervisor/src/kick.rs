//! Getting a thread out of KVM_RUN without a race: the signal's handler sets `immediate_exit` of the
//! very vCPU that is bound to the thread, so a kick before KVM_RUN counts as much as one during it.

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
        // SAFETY: while it is not null the pointer is to the kvm_run page of the vCPU bound to this thread,
        // which outlives its [`Aim`]; only this thread and the kernel touch that byte.
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

/// While it lives, kicks of the thread that made it set a byte.
#[derive(Debug)]
pub(crate) struct Aim {
    /// Not to be sent: another thread has another handler's pointer.
    flag: *mut u8,
}

impl Aim {
    /// From now on and for the calling thread; an earlier aim of that thread counts no more.
    ///
    /// # Safety
    /// The byte must be there to be written as long as the aim lives.
    pub unsafe fn at(flag: *mut u8) -> Self {
        IMMEDIATE_EXIT.with(|cell| cell.set(flag));
        Self { flag }
    }

    /// A kicker of this thread.
    #[expect(clippy::unused_self, reason = "without an aim a kick would be lost")]
    pub fn kicker(&self) -> Kicker {
        // SAFETY: both calls have no arguments and cannot fail.
        unsafe {
            Kicker {
                pid: libc::getpid(),
                tid: libc::gettid(),
            }
        }
    }
}

impl Drop for Aim {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.with(|cell| {
            if cell.get() == self.flag {
                cell.set(ptr::null_mut());
            }
        });
    }
}

/// Kicks one host thread out of KVM_RUN and out of interruptible host calls.
#[derive(Clone, Copy, Debug)]
pub struct Kicker {
    pid: i32,
    tid: i32,
}

impl Kicker {
    /// Sends the kick; a thread that is gone is no error.
    pub fn kick(&self) {
        // SAFETY: tgkill(2) takes plain numbers.
        unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.tid, kick_signal()) };
    }
}
