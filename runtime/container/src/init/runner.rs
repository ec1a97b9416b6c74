use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use cloister_container::order::{MAX_SNAPSHOT_FDS, Order, Report, send};
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::failure::{Failure, Step, checked};
use crate::{Descriptors, socket};

/// Descriptors are first copied above this, so that none stands in the way of another.
const SCRATCH: libc::c_int = 64;
/// The monitor's /dev/kvm.
const KVM: libc::c_int = 4;
/// The file that the monitor counts in.
const COUNTERS: libc::c_int = 5;
/// The file of a snapshot, and the socket by which one is asked for.
const SNAPSHOT: [libc::c_int; MAX_SNAPSHOT_FDS] = [6, 7];
/// Where a failed exec is told of; closed by a successful one.
const STATUS: libc::c_int = 8;
/// The monitor's program, closed by its exec.
const PROGRAM: libc::c_int = 9;
const FIRST_CLOSED: libc::c_uint = 10;
/// exec failed, as in a shell.
const EXIT_EXEC: i32 = 127;

/// Forks the runner, which inherits every wall; returns when its program has been executed.
pub fn start(order: &Order, fds: &Descriptors) -> Result<Pid, Failure> {
    let argv = words(&order.argv)?;
    let env = environment(order)?;
    let (told, tell) = pipe_with(PipeFlags::CLOEXEC).step("runner")?;
    // SAFETY: this process has one thread, so the child may do whatever this one may.
    let forked = checked(unsafe { libc::fork() }.into()).step("runner")?;
    let Some(pid) = i32::try_from(forked).ok().and_then(Pid::from_raw) else {
        let failure = match lay_descriptors(fds, &tell) {
            Ok(()) => exec(&argv, &env, false),
            Err(failure) => failure,
        };
        let text = format!(
            "{}\n{}\n{}",
            u8::from(failure.isolation),
            failure.step,
            failure.message
        );
        // At its old place, or at its new one when the old is closed: before that, something else may stand there.
        // SAFETY: the descriptor is used for this one write, and a closed one is only an error.
        let moved = unsafe { BorrowedFd::borrow_raw(STATUS) };
        let _ = rustix::io::write(&tell, text.as_bytes())
            .or_else(|_| rustix::io::write(moved, text.as_bytes()));
        std::process::exit(EXIT_EXEC);
    };
    drop(tell);
    let mut text = [0_u8; 1024];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut text)).step("runner")?;
    if length == 0 {
        return Ok(pid);
    }
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned();
    let mut lines = text.splitn(3, '\n');
    let isolation = lines.next() == Some("1");
    let what = lines.collect::<Vec<_>>().join(": ");
    Err(if isolation {
        Failure::isolation("runner", what)
    } else {
        Failure::setup("runner", &what)
    })
}

/// Executes the monitor in this process's place, so that it is pid 1 and sandboxd's own child. Returns what failed before anything was moved; what
/// fails afterwards is told here, and ends the process.
pub fn become_monitor(
    order: &Order,
    fds: &Descriptors,
    phases: Vec<(String, f64)>,
) -> Result<Infallible, Failure> {
    let mut argv = order.argv.clone();
    // What ps shows, as nobody else of the sandbox is there to bear it.
    if let Some(name) = argv.first_mut().filter(|_| !order.label.is_empty()) {
        *name = format!("{name} {}", order.label);
    }
    let argv = words(&argv)?;
    let env = environment(order)?;
    let tell = rustix::io::fcntl_dupfd_cloexec(socket(), SCRATCH).step("descriptors")?;
    send(tell.as_fd(), &Report::Executing { phases }, &[]).step("report")?;
    let failure = match lay_descriptors(fds, &tell) {
        Ok(()) => exec(&argv, &env, true),
        Err(failure) => failure,
    };
    // As in `start`. Nobody to tell means that sandboxd is gone.
    // SAFETY: the descriptor is used for this one message, and a closed one is only an error.
    let moved = unsafe { BorrowedFd::borrow_raw(STATUS) };
    let report = failure.report();
    let _ = send(tell.as_fd(), &report, &[]).or_else(|_| send(moved, &report, &[]));
    std::process::exit(EXIT_EXEC);
}

fn environment(order: &Order) -> Result<Vec<CString>, Failure> {
    let settings = order.env.iter();
    let settings: Vec<String> = settings
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    words(&settings)
}

fn words(words: &[String]) -> Result<Vec<CString>, Failure> {
    words
        .iter()
        .map(|word| {
            CString::new(word.as_bytes())
                .map_err(|_| Failure::setup("order", "a word holds a zero byte"))
        })
        .collect()
}

/// What the program is to find open, and nothing else: in the process that is about to execute it.
fn lay_descriptors(fds: &Descriptors, tell: &OwnedFd) -> Result<(), Failure> {
    rustix::process::setsid().step("session")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step("standard input")?;
    let copy =
        |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, SCRATCH).step("descriptors");
    let [stdout, stderr, fd3] = fds.kept();
    let sources = [
        copy(null.as_fd())?,
        copy(stdout)?,
        copy(stderr)?,
        copy(fd3)?,
    ];
    let tell = copy(tell.as_fd())?;
    let monitor = match &fds.monitor {
        Some(monitor) => {
            let snapshot = monitor.snapshot.iter().map(|fd| copy(fd.as_fd()));
            Some((
                copy(monitor.kvm.as_fd())?,
                copy(monitor.counters.as_fd())?,
                snapshot.collect::<Result<Vec<_>, _>>()?,
                copy(monitor.program.as_fd())?,
            ))
        }
        None => None,
    };
    for (number, source) in (0..).zip(&sources) {
        place(source.as_fd(), number, 0)?;
    }
    for number in [KVM, COUNTERS, PROGRAM].into_iter().chain(SNAPSHOT) {
        // SAFETY: what stood there has been copied; exec or exit follows.
        unsafe { libc::close(number) };
    }
    if let Some((kvm, counters, snapshot, program)) = &monitor {
        for (number, fd) in SNAPSHOT.into_iter().zip(snapshot) {
            place(fd.as_fd(), number, 0)?;
        }
        place(kvm.as_fd(), KVM, 0)?;
        place(counters.as_fd(), COUNTERS, 0)?;
        place(program.as_fd(), PROGRAM, libc::O_CLOEXEC)?;
    }
    place(tell.as_fd(), STATUS, libc::O_CLOEXEC)?;
    // SAFETY: whatever is closed here is used by nobody any more; exec or exit follows.
    checked(unsafe { libc::c_long::from(libc::close_range(FIRST_CLOSED, u32::MAX, 0)) })
        .wall("descriptors")?;
    std::mem::forget((null, sources, tell, monitor));
    Ok(())
}

/// dup3(2) onto a number.
fn place(source: BorrowedFd<'_>, number: libc::c_int, flags: libc::c_int) -> Result<(), Failure> {
    // SAFETY: `number` is one of the runner's own descriptors, which nothing here owns.
    checked(unsafe { libc::c_long::from(libc::dup3(source.as_raw_fd(), number, flags)) })
        .wall("descriptors")?;
    Ok(())
}

/// Returns only when it fails.
fn exec(argv: &[CString], env: &[CString], by_descriptor: bool) -> Failure {
    let Some(program) = argv.first() else {
        return Failure::setup("program", "the image names none");
    };
    let pointers = |words: &[CString]| -> Vec<*const libc::c_char> {
        words
            .iter()
            .map(|word| word.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (arguments, environment) = (pointers(argv), pointers(env));
    let (words, settings) = (arguments.as_ptr(), environment.as_ptr());
    // SAFETY: both arrays end with null and point to strings that outlive the call.
    unsafe {
        if by_descriptor {
            libc::syscall(
                libc::SYS_execveat,
                PROGRAM,
                c"".as_ptr(),
                words,
                settings,
                libc::AT_EMPTY_PATH,
            );
        } else {
            libc::execve(program.as_ptr(), words, settings);
        }
    }
    Failure::setup(
        "program",
        &format!(
            "{}: {}",
            program.to_string_lossy(),
            io::Error::last_os_error()
        ),
    )
}
