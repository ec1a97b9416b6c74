//! `cloister-vm`: one process, one micro-VM.
//!
//! It begins as a C program does. What Rust's runtime would do before `main` is for programs that want to be told of a stack overflow in words: it reads the
//! process's mappings, and has a second stack mapped for each thread. Here any fault of the monitor's own ends it.
#![cfg_attr(not(test), no_main)]

mod abort;
mod command;
mod confine;
mod counters;
mod cpu;
mod crew;
mod guest;
mod host_calls;
mod order;
mod process;
mod report;
mod reset;
mod runner;
mod snapshot;
mod usage;

use std::io::{self, Write};

use vmm_hypervisor::HostFacts;

use crate::command::Command;

#[cfg(not(any(panic = "abort", test, clippy)))]
compile_error!(
    "a panic ends this program at once: build it with the settings of .cargo/config.toml"
);

/// A command line that cannot be understood.
const EXIT_USAGE: u8 = 2;
/// The monitor, not its guest, could not go on.
pub(crate) const EXIT_FAILED: u8 = 125;

#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(_argc: libc::c_int, _argv: *const *const libc::c_char) -> libc::c_int {
    let code = match settle() {
        Ok(()) => act(),
        Err(error) => {
            eprintln!("cloister-vm: it cannot begin: {error}");
            EXIT_FAILED
        }
    };
    libc::c_int::from(code)
}

/// What a program in Rust may rely on: descriptors 0 to 2 are open, and who has gone away is an error of a write.
#[cfg_attr(test, expect(dead_code, reason = "called by main alone"))]
fn settle() -> io::Result<()> {
    const STANDARD: [libc::c_int; 3] = [0, 1, 2];
    let mut look = STANDARD.map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: the host writes to `look`, which is as long as it is told.
    while unsafe { libc::poll(look.as_mut_ptr(), STANDARD.len() as libc::nfds_t, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    for _ in look.iter().filter(|one| one.revents & libc::POLLNVAL != 0) {
        // The lowest that is free, which is this one.
        // SAFETY: the path is a text that ends with a zero.
        if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: takes numbers only.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Does what the command line asks for; answers the exit status.
#[cfg_attr(test, expect(dead_code, reason = "called by main alone"))]
fn act() -> u8 {
    let command = match command::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("cloister-vm: {error}");
            return EXIT_USAGE;
        }
    };
    let text = match command {
        Command::Help => Ok(command::HELP.to_owned()),
        Command::Syscalls => Ok(vmm_kernel::syscalls::page()),
        Command::SyscallNames => Ok(format!("{}\n", report::syscall_names())),
        Command::HostCalls => host_calls::page()
            .map_err(|error| format!("the list of host calls is malformed: {error}")),
        Command::HostFacts => HostFacts::ask()
            .map(|facts| format!("{}\n", serde_json::json!(facts)))
            .map_err(|error| error.to_string()),
        Command::Run(options) => return ended(guest::run(&options)),
        Command::Restore(options) => return ended(guest::restore(&options)),
    };
    let told = text.and_then(|text| {
        let mut out = io::stdout().lock();
        let told = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        told.map_err(|error| format!("the answer cannot be written: {error}"))
    });
    match told {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("cloister-vm: {error}");
            1
        }
    }
}

fn ended(result: Result<u8, guest::GuestError>) -> u8 {
    result.unwrap_or_else(|error| {
        eprintln!("cloister-vm: {error}");
        EXIT_FAILED
    })
}
