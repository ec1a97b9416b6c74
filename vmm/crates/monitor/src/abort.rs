//! An abort (a panic, memory that is not to be had, a damaged heap) ends the monitor also where it is pid 1 of a sandbox. The kernel keeps from a pid 1
//! what it sends itself and has no handler for (pid_namespaces(7)); abort(3) would then go on to calls that the list of host calls ends with SIGSYS.

use std::io;

use libc::SIGABRT;

/// As a shell and cloister-init tell of a signal.
const EXIT_ABORTED: libc::c_int = 128 + SIGABRT;

extern "C" fn on_abort(_signal: libc::c_int) {
    // SAFETY: takes a number, and is safe in a handler (signal-safety(7)).
    unsafe { libc::_exit(EXIT_ABORTED) };
}

/// Has an abort of pid 1 exit with 128 + SIGABRT. Any other process ends by the signal itself.
///
/// # Errors
/// What sigaction(2) says.
pub fn settle() -> io::Result<()> {
    if std::process::id() != 1 {
        return Ok(());
    }
    // SAFETY: an all-zero sigaction is a valid one; the handler only does what signal-safety(7) allows.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_abort as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(SIGABRT, &action, std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
