//! Hears every system call of a program that it starts, by ptrace(2) and `SECCOMP_RET_TRACE` (seccomp(2)): unlike a call that seccomp_unotify(2) tells
//! of, none is ended by a signal before somebody has heard it, so none fails with EINTR that never does so by itself.

use std::io::{self, Read, Write};
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};

/// A system call as it was made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub tid: i32,
    pub number: i32,
    pub args: [u64; 6],
}

/// What a program did.
pub struct Recorded {
    pub status: ExitStatus,
    pub stderr: String,
    pub calls: Vec<Call>,
}

/// Runs a program to its end.
#[expect(clippy::zombie_processes, reason = "the tracer reaps it")]
pub fn record(command: &mut Command) -> Recorded {
    let (inside, outside) = UnixStream::pair().unwrap();
    let socket = inside.as_raw_fd();
    // SAFETY: only system calls, on memory of the child's own, happen between fork and exec.
    unsafe { command.pre_exec(move || wait_for_the_tracer(socket)) };
    // The child's exec is heard too, so somebody must let it go on before spawn returns.
    let tracing = std::thread::spawn(move || trace(outside));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(inside);
    let mut stderr = String::new();
    let mut from = child.stderr.take().unwrap();
    from.read_to_string(&mut stderr).unwrap();
    let (status, calls) = tracing.join().unwrap();
    Recorded {
        status,
        stderr,
        calls,
    }
}

/// In the child: tells who it is, and has every call from here on traced once it is answered.
fn wait_for_the_tracer(socket: libc::c_int) -> io::Result<()> {
    let mut steps = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_TRACE,
    }];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: number and byte lie on this stack, and the program outlives the calls.
    let done = unsafe {
        let pid = libc::getpid();
        let mut answer = 0_u8;
        libc::write(socket, (&raw const pid).cast(), 4) == 4
            && libc::read(socket, (&raw mut answer).cast(), 1) == 1
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    match done {
        true => Ok(()),
        false => Err(io::Error::last_os_error()),
    }
}

/// Until nothing is left of the program: how its first process ended, and its calls in their order.
fn trace(mut child: UnixStream) -> (ExitStatus, Vec<Call>) {
    let mut pid = [0; 4];
    child.read_exact(&mut pid).unwrap();
    let pid = i32::from_ne_bytes(pid);
    let options = libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK;
    // SAFETY: passes numbers alone.
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, options) };
    assert_eq!(seized, 0, "{}", io::Error::last_os_error());
    child.write_all(&[0]).unwrap();
    let (mut ended, mut calls) = (None, Vec::new());
    loop {
        let mut status = 0;
        // SAFETY: the status is this function's. Without __WNOTHREAD it would take children of other threads away from them.
        let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if tid < 0 {
            return (ended.expect("the end of the program"), calls);
        }
        if !libc::WIFSTOPPED(status) {
            // A traced child of another thread of this process is reaped here.
            if tid == pid {
                ended = Some(ExitStatus::from_raw(status));
            }
            continue;
        }
        let signal = match status >> 16 {
            0 => libc::WSTOPSIG(status),
            libc::PTRACE_EVENT_SECCOMP => {
                calls.extend(call_of(tid));
                0
            }
            // A thread begins.
            _ => 0,
        };
        // SAFETY: passes numbers alone. A thread that was killed meanwhile is not there: its end comes next.
        unsafe { libc::ptrace(libc::PTRACE_CONT, tid, 0, signal) };
    }
}

/// The call before which a thread stopped; none if it was killed meanwhile.
fn call_of(tid: i32) -> Option<Call> {
    // SAFETY: zero is a valid value, and the kernel writes no more than the length it is told.
    unsafe {
        let mut info: libc::ptrace_syscall_info = zeroed();
        let length = size_of_val(&info);
        let told = libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid, length, &raw mut info);
        (told > 0 && info.op == libc::PTRACE_SYSCALL_INFO_SECCOMP).then_some(Call {
            tid,
            number: info.u.seccomp.nr as i32,
            args: info.u.seccomp.args,
        })
    }
}
