//! The runner of native programs: reads frames at file descriptor 3, runs the function's program once per invocation with the event
//! on its stdin, and sends what it writes to stdout as the answer and to stderr as the log.

mod call;
mod entry;
mod function_url;
mod log;
mod messages;
mod serve;

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Instant;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use serve::{Ended, Runner};

#[cfg(not(any(panic = "abort", test, clippy)))]
compile_error!(
    "a panic ends this program at once: build it with the settings of .cargo/config.toml"
);

const SOCKET_FD: i32 = 3;
/// sysexits.h: usage, I/O error, protocol error.
const EXIT_USAGE: u8 = 64;
const EXIT_IO: u8 = 74;
const EXIT_PROTOCOL: u8 = 76;

fn main() -> ExitCode {
    let started = Instant::now();
    let Some(socket) = take_socket() else {
        eprintln!("File descriptor 3 is not open: this program is started by sandboxd.");
        return ExitCode::from(EXIT_USAGE);
    };
    let ended = match Runner::new(socket, started) {
        Ok(mut runner) => runner.run(),
        Err(error) => Ended::from(error),
    };
    match ended {
        Ended::Closed => ExitCode::SUCCESS,
        Ended::Protocol(what) => {
            eprintln!("[cloister] protocol error: {what}");
            ExitCode::from(EXIT_PROTOCOL)
        }
        Ended::Io(error) => {
            eprintln!("[cloister] the socket failed: {error}");
            ExitCode::from(EXIT_IO)
        }
    }
}

/// The socket at descriptor 3, which no program of the function may inherit.
fn take_socket() -> Option<UnixStream> {
    // SAFETY: the borrow lasts for the two calls below, which fail with EBADF if the descriptor is not open; nothing else
    // in the process has opened or closed descriptors yet.
    let borrowed = unsafe { BorrowedFd::borrow_raw(SOCKET_FD) };
    fcntl_getfd(borrowed).ok()?;
    fcntl_setfd(borrowed, FdFlags::CLOEXEC).ok()?;
    // SAFETY: the descriptor is open (checked above) and nothing else in this process owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(SOCKET_FD) };
    Some(UnixStream::from(owned))
}
