//! Hears every system call of a program that it starts, by seccomp_unotify(2).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// A system call as it was made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub tid: u32,
    pub number: i32,
    pub args: [u64; 6],
}

/// Where the child hands out its listener: the one call that is not heard.
const DOOR: libc::c_int = 200;
const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;
/// A signal does not end the wait for the answer to a call that has been heard: no call fails with EINTR that never does so by itself (Linux 5.19).
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Runs a program to its end.
pub fn record(command: &mut Command) -> (Output, Vec<Call>) {
    let (inside, outside) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let inside_raw = inside.as_raw_fd();
    // SAFETY: only system calls, on memory of the child's own, happen between fork and exec.
    unsafe { command.pre_exec(move || listen(inside_raw)) };
    // The child's exec is heard too, so somebody must answer before spawn returns.
    let hearing = std::thread::spawn(move || hear(&receive(&outside)));
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(inside);
    let output = child.wait_with_output().unwrap();
    (output, hearing.join().unwrap())
}

/// In the child: everything is told from here on.
fn listen(socket: libc::c_int) -> io::Result<()> {
    // offsetof(struct seccomp_data, args[0]); nr is at 0.
    const FIRST_ARGUMENT: u32 = 16;
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let equal = |value, yes, no| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let answer = |value| step(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let mut steps = [
        load(0),
        equal(libc::SYS_sendmsg as u32, 0, 3),
        load(FIRST_ARGUMENT),
        equal(DOOR as u32, 0, 1),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_USER_NOTIF),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the program outlives the call; the numbers are constants.
    let listener = unsafe {
        if libc::dup2(socket, DOOR) < 0 || libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE_RECV,
            &raw const program,
        )
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors are open here, and forgotten by exec or left to the program.
    let (listener, door) = unsafe {
        (
            BorrowedFd::borrow_raw(listener as libc::c_int),
            BorrowedFd::borrow_raw(DOOR),
        )
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [listener];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        door,
        &[IoSlice::new(b"x")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

fn receive(socket: &OwnedFd) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let mut fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    fds.next().expect("the child's listener")
}

fn hear(listener: &OwnedFd) -> Vec<Call> {
    let mut heard = Vec::new();
    loop {
        let mut wait = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        poll(&mut wait, None).unwrap();
        if !wait[0].revents().contains(PollFlags::IN) {
            // Nobody is left whom it could hear.
            return heard;
        }
        // SAFETY: zero is a valid value, as the kernel demands one, and both structures outlive the calls.
        unsafe {
            let mut call: libc::seccomp_notif = zeroed();
            if libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &raw mut call) != 0 {
                // A signal came between: the call is made again.
                continue;
            }
            heard.push(Call {
                tid: call.pid,
                number: call.data.nr,
                args: call.data.args,
            });
            let mut answer: libc::seccomp_notif_resp = zeroed();
            answer.id = call.id;
            answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
            libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw mut answer);
        }
    }
}
