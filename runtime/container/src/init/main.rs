//! `cloister-init`: waits for an order, then becomes a sandbox's first process.
//!
//! Three stages, each a process: the *cradle* (root, in the sandbox's cgroup already) clones *init* (pid 1 of the new namespaces), maps its ids and
//! ends; init builds the walls and forks the *runner*, then only reaps. All are single-threaded, so a fork copies a whole process. A micro-VM's monitor
//! starts no process, so it needs nobody to reap: init executes it in its own place.
#![no_main]

mod clone;
mod failure;
mod lockdown;
mod network;
mod root;
mod runner;
mod title;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use cloister_container::order::{Ended, MAX_FDS, MAX_SNAPSHOT_FDS, Order, Report, receive, send};
use failure::{Failure, Step};
use lockdown::Filter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal};

#[cfg(not(any(panic = "abort", test, clippy)))]
compile_error!(
    "a panic ends this program at once: build it with the settings of .cargo/config.toml"
);

/// Its own exit code when something beside the runner fails; sandboxd hears the reason in a report.
const EXIT_SETUP: i32 = 125;

/// The order socket stands where standard input would.
fn socket() -> BorrowedFd<'static> {
    // SAFETY: descriptor 0 is given by whoever started this program and is closed by nobody.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// # Safety
/// Called by the C runtime with the process's own arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: libc::c_int, argv: *mut *mut libc::c_char) -> libc::c_int {
    // SAFETY: argc and argv are the process's own arguments, and nothing else reads or keeps them.
    let mut title = unsafe { title::Title::over(argc, argv) };
    match cradle(&mut title) {
        Ok(()) => 0,
        Err(failure) => {
            tell_failure(&failure);
            EXIT_SETUP
        }
    }
}

fn tell_failure(failure: &Failure) {
    // Nobody to tell means that sandboxd is gone.
    let _ = send(socket(), &failure.report(), &[]);
}

/// What whoever started sandboxd ignored or blocked must not reach a function, which inherits it.
fn reset_signals() -> Result<(), Failure> {
    /// As the kernel lays it out (rt_sigaction(2)); all-zero is SIG_DFL without flags.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    for signal in 1..=64_usize {
        // Libc refuses those it uses itself, so the kernel is asked. SIGKILL and SIGSTOP cannot be changed and need not be.
        // SAFETY: DEFAULT is a whole kernel sigaction, and no old one is asked for.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<u64>(),
                MASK_BYTES,
            )
        };
    }
    // SAFETY: one empty mask of the size that is told.
    failure::checked(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            DEFAULT.as_ptr(),
            std::ptr::null_mut::<u64>(),
            MASK_BYTES,
        )
    })
    .step("signals")?;
    Ok(())
}

/// sandboxd may have died before the kernel was told to end us with it.
fn die_with_parent() -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).step("parent-death signal")?;
    let orders = socket();
    let mut look = [PollFd::new(&orders, PollFlags::empty())];
    poll(
        &mut look,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .step("parent-death signal")?;
    if look
        .iter()
        .any(|one| one.revents().contains(PollFlags::HUP))
    {
        return Err(Failure::setup("parent-death signal", "sandboxd has gone"));
    }
    Ok(())
}

fn cradle(title: &mut title::Title) -> Result<(), Failure> {
    title.set("cloister-init (ready)");
    reset_signals()?;
    die_with_parent()?;
    let Some((order, fds)) = receive::<Order>(socket(), true).step("order")? else {
        return Ok(());
    };
    let fds = Descriptors::take(fds, &order)?;
    let began = Instant::now();
    // Inherited by all: whatever is short of memory, a sandbox goes before the services.
    std::fs::write("/proc/self/oom_score_adj", "500").step("oom_score_adj")?;
    rustix::thread::set_thread_groups(&[]).step("groups")?;
    let gate = clone::Gate::new()?;
    let given = fds.monitor.as_ref().map(|monitor| clone::Given {
        network: monitor.network.as_fd(),
        ipc: monitor.ipc.as_fd(),
    });
    let Some(pid) = clone::into_namespaces(given)? else {
        gate.pass()?;
        match init(&order, fds, title) {
            Ok(ended) => {
                let _ = send(socket(), &Report::Ended(ended), &[]);
                // The kernel ends what else runs in here.
                std::process::exit(match ended {
                    Ended::Exit(code) => code,
                    Ended::Signal(signal) => signal.saturating_add(128),
                });
            }
            Err(failure) => {
                tell_failure(&failure);
                std::process::exit(EXIT_SETUP);
            }
        }
    };
    let clone_ms = ms_since(began);
    clone::map_ids(pid, order.host_id)?;
    let phases = vec![
        ("clone_ms".to_owned(), clone_ms),
        ("ids_ms".to_owned(), ms_since(began) - clone_ms),
    ];
    let report = Report::Cloned {
        pid: pid.as_raw_nonzero().get(),
        phases,
    };
    // Before the gate opens, so that sandboxd can end what it is told of, whatever comes.
    send(socket(), &report, &[]).step("report")?;
    gate.open()
}

fn init(order: &Order, fds: Descriptors, title: &mut title::Title) -> Result<Ended, Failure> {
    let mut last = Instant::now();
    let mut phases: Vec<(String, f64)> = Vec::new();
    let mut mark = |name: &str| {
        phases.push((name.to_owned(), ms_since(last)));
        last = Instant::now();
    };
    title.set(&format!("cloister-init {}", order.label));
    clone::become_function()?;
    die_with_parent()?;
    root::build(order, &fds.root, fds.bundle.as_ref())?;
    mark("mount_ms");
    network::bring_up(&order.id, fds.monitor.is_none())?;
    mark("network_ms");
    lockdown::limit_resources()?;
    lockdown::give_up_for_good()?;
    lockdown::confine(match &fds.monitor {
        Some(monitor) => Filter::Monitor(monitor.program.as_fd()),
        None => Filter::Runner,
    })?;
    mark("lockdown_ms");
    if fds.monitor.is_some() {
        return runner::become_monitor(order, &fds, phases).map(|never| match never {});
    }
    let runner = runner::start(order, &fds)?;
    drop(fds);
    mark("exec_ms");
    send(socket(), &Report::Started { phases }, &[]).step("report")?;
    Ok(reap_until(runner))
}

/// Pid 1 inherits every orphan; the runner's end is the sandbox's.
fn reap_until(runner: Pid) -> Ended {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == runner => {
                if let Some(code) = status.exit_status() {
                    return Ended::Exit(code);
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ended::Signal(signal);
                }
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // The runner is our child until it has been waited for.
            Err(_) => return Ended::Exit(EXIT_SETUP),
        }
    }
}

/// What came with the order.
struct Descriptors {
    fd3: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    root: OwnedFd,
    bundle: Option<OwnedFd>,
    monitor: Option<Monitor>,
}

/// What a micro-VM's monitor needs beside the image.
struct Monitor {
    program: OwnedFd,
    kvm: OwnedFd,
    counters: OwnedFd,
    /// The namespaces it is to be in.
    network: OwnedFd,
    ipc: OwnedFd,
    /// Its file, then the socket by which it is asked for.
    snapshot: Vec<OwnedFd>,
}

impl Descriptors {
    fn take(fds: Vec<OwnedFd>, order: &Order) -> Result<Descriptors, Failure> {
        let wrong = || Failure::setup("order", "it came with the wrong descriptors");
        if fds.len() > MAX_FDS {
            return Err(wrong());
        }
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(wrong);
        let (fd3, stdout, stderr, root) = (next()?, next()?, next()?, next()?);
        let bundle = if order.has_bundle {
            Some(next()?)
        } else {
            None
        };
        let monitor = if order.has_monitor {
            Some(Monitor {
                program: next()?,
                kvm: next()?,
                counters: next()?,
                network: next()?,
                ipc: next()?,
                snapshot: (0..order.snapshot_fds.min(MAX_SNAPSHOT_FDS))
                    .map(|_| next())
                    .collect::<Result<_, _>>()?,
            })
        } else {
            None
        };
        Ok(Descriptors {
            monitor,
            fd3,
            stdout,
            stderr,
            root,
            bundle,
        })
    }

    /// What becomes the runner's descriptors 1, 2 and 3.
    fn kept(&self) -> [BorrowedFd<'_>; 3] {
        [self.stdout.as_fd(), self.stderr.as_fd(), self.fd3.as_fd()]
    }
}

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}
