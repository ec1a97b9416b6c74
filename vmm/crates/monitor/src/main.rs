//! `cloister-vm`: one process, one micro-VM.

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

use std::process::ExitCode;

#[cfg(not(any(panic = "abort", test, clippy)))]
compile_error!(
    "a panic ends this program at once: build it with the settings of .cargo/config.toml"
);

fn main() -> ExitCode {
    match command::parse(std::env::args_os().skip(1)) {
        Ok(command::Command::Help) => {
            print!("{}", command::HELP);
            ExitCode::SUCCESS
        }
        Ok(command::Command::Syscalls) => {
            print!("{}", vmm_kernel::syscalls::page());
            ExitCode::SUCCESS
        }
        Ok(command::Command::SyscallNames) => {
            println!("{}", report::syscall_names());
            ExitCode::SUCCESS
        }
        Ok(command::Command::HostCalls) => match host_calls::page() {
            Ok(page) => {
                print!("{page}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("cloister-vm: the list of host calls is malformed: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(command::Command::HostFacts) => match vmm_hypervisor::HostFacts::ask() {
            Ok(facts) => {
                println!("{}", serde_json::json!(facts));
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("cloister-vm: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(command::Command::Run(options)) => ended(guest::run(&options)),
        Ok(command::Command::Restore(options)) => ended(guest::restore(&options)),
        Err(error) => {
            eprintln!("cloister-vm: {error}");
            ExitCode::from(2)
        }
    }
}

fn ended(result: Result<u8, guest::GuestError>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("cloister-vm: {error}");
            ExitCode::from(125)
        }
    }
}
