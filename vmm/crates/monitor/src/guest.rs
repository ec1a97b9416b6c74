use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmm_abi::Errno;
use vmm_hypervisor::{HypervisorError, Machine, WINDOW_BYTES, install_kick_handler};
use vmm_kernel::loader::{self, GuestClock, LoadError};
use vmm_kernel::syscalls::PLAIN_TRACE;
use vmm_kernel::vfs::{HostNode, Node, TmpLimits};
use vmm_kernel::{
    ExitStatus, File, Files, HostStream, Identity, Kernel, OpenFile, ThreadShared, start_reactor,
};
use vmm_memory::{AddressSpace, Limits, MemoryError, PageMap, Window};
use vmm_snapshot::Snapshot;

use crate::abort;
use crate::command::Options;
use crate::confine;
use crate::counters::Counters;
use crate::order::{self, Hints, Ordered, Stream};
use crate::process::{self, Ground};
use crate::report::Totals;
use crate::reset::{Origin, ResetError, Resets};
use crate::runner::{self, Threads};
use crate::snapshot::{self, SnapshotError, Writer};
use crate::usage;

/// Why a micro-VM did not run.
#[derive(Debug)]
pub enum GuestError {
    /// The virtual machine.
    Hypervisor(HypervisorError),
    /// Address space for the guest.
    Memory(MemoryError),
    /// The program.
    Load(LoadError),
    /// A folder or descriptor that the command line names.
    Given(String, Errno),
    /// The monitor's own walls.
    Confine(io::Error),
    /// A snapshot that is wanted or given.
    Snapshot(SnapshotError),
    /// A guest that is not as it was.
    Reset(ResetError),
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hypervisor(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
            Self::Snapshot(error) => error.fmt(f),
            Self::Reset(error) => write!(f, "the program cannot be reset: {error}"),
            Self::Confine(error) => write!(
                f,
                "the monitor cannot be confined: {error}. Use a kernel with seccomp filters"
            ),
            Self::Given(what, errno) => write!(
                f,
                "cannot use {what}: {errno}. Check that it exists and is open to this user"
            ),
        }
    }
}

impl std::error::Error for GuestError {}

impl From<HypervisorError> for GuestError {
    fn from(error: HypervisorError) -> Self {
        Self::Hypervisor(error)
    }
}

impl From<MemoryError> for GuestError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl From<SnapshotError> for GuestError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

impl From<LoadError> for GuestError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

/// Files, folders and links a /tmp may hold.
const TMP_NODES: u64 = 65_536;

/// A micro-VM without a program, its monitor confined.
struct Empty {
    kernel: Arc<Kernel>,
    threads: Threads,
    totals: Arc<Totals>,
    streams: Files,
    ground: Ground,
    machine: Arc<Machine>,
}

/// Runs a program in a micro-VM of its own; answers the exit status to end with.
///
/// # Errors
/// [`GuestError`] when it could not start.
pub fn run(options: &Options) -> Result<u8, GuestError> {
    let writer = snapshot_writer(options)?;
    let empty = prepare(options)?;
    let kernel = &empty.kernel;
    for (number, stream) in &empty.streams {
        let failed = |errno| GuestError::Given(format!("descriptor {number}"), errno);
        let flags = stream.access();
        let name = format!("pipe:[{number}]");
        let open = OpenFile::new(Arc::clone(stream) as Arc<dyn File>, name, flags);
        let put = kernel.files.lock().put(*number, open, false);
        put.map_err(failed)?;
    }
    let program = options
        .argv
        .first()
        .map(|p| String::from_utf8_lossy(p).into_owned());
    let program = program.unwrap_or_default();
    let registers = loader::start(kernel, &program, &options.argv, &options.env)?;
    let name = program
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .as_bytes()
        .to_vec();
    let shared = kernel
        .add_thread(0, name.into_iter().take(15).collect())
        .map_err(|errno| GuestError::Given("the first thread".into(), errno))?;
    if let Some(writer) = writer {
        writer
            .start(Arc::clone(kernel), Arc::clone(&empty.machine))
            .map_err(|error| SnapshotError::Host("a thread", error))?;
    }
    let first = runner::First { shared, registers };
    empty.threads.run_first(first)?;
    end(&empty, options)
}

/// Brings a program back from a snapshot, in a micro-VM of its own; answers as [`run`].
///
/// # Errors
/// [`GuestError`] when it could not go on.
pub fn restore(options: &Options) -> Result<u8, GuestError> {
    let given = options.snapshot_fd.map(take_descriptor).transpose()?;
    let control = options.control_fd.map(take_descriptor).transpose()?;
    let resets = control.map(Resets::new).transpose();
    let resets = resets.map_err(|error| SnapshotError::Host("/proc/self/pagemap", error))?;
    let machine = snapshot::machine_id(options.host_facts.as_ref())?;
    let mut empty = prepare(options)?;
    let ordered = match resets.as_ref().filter(|_| options.wait) {
        None => {
            let missing = || GuestError::Given("--snapshot-fd".into(), Errno::EBADF);
            Ordered {
                file: given.ok_or_else(missing)?,
                key: options.snapshot_key.clone(),
                hints: Hints::default(),
                stream: Stream::None,
            }
        }
        Some(resets) => {
            if let Some(likely) = given {
                make_ready(
                    &empty,
                    &snapshot::read(&likely, &options.snapshot_key, &machine)?,
                )?;
            }
            let rest = || {
                confine::give_back_free_memory();
                confine::give_back_free_stack();
            };
            match order::wait(resets.control(), rest)? {
                Some(ordered) => ordered,
                // Nobody needs it any more.
                None => return Ok(0),
            }
        }
    };
    let Ordered {
        file,
        key,
        hints,
        stream,
    } = ordered;
    if options.verify {
        snapshot::verify_pages(&file)?;
    }
    let snapshot = snapshot::read(&file, &key, &machine)?;
    if hints.watch() {
        empty.machine.watch()?;
    }
    empty
        .kernel
        .bring_back_memory(&snapshot.memory, file.as_fd())
        .map_err(SnapshotError::Restore)?;
    if !hints.watch() {
        snapshot::share_pages(&empty.machine, &file, &snapshot)?;
    }
    empty.kernel.memory.copy_ahead(&hints.written());
    let stream = match stream {
        Stream::None => None,
        Stream::Here(stream) => Some(stream),
        Stream::Later => {
            empty.threads.make_ready(&snapshot.process.threads)?;
            let memory = &empty.kernel.memory;
            let appear = |fault| memory.resolve(&fault);
            empty.machine.touch(&hints.touched(), &appear)?;
            drop(hints);
            let rest = confine::give_back_free_memory;
            let waiting = resets.as_ref();
            let waiting = waiting.map(|r| order::wait_for_stream(r.control(), rest));
            match waiting.transpose()?.flatten() {
                Some(stream) => Some(stream),
                None => return Ok(0),
            }
        }
    };
    if let Some(stream) = stream {
        let failed = |errno| GuestError::Given("descriptor 3".into(), errno);
        let stream = HostStream::new(stream, 3).map_err(failed)?;
        empty.streams.insert(3, stream);
    }
    let threads = empty
        .kernel
        .bring_back_process(&snapshot.process, file.as_fd(), &empty.streams)
        .map_err(SnapshotError::Restore)?;
    confine::give_back_free_stack();
    match resets {
        None => {
            let states = snapshot.process.threads;
            empty.threads.go_on(threads.into_iter().zip(states))?;
            end(&empty, options)
        }
        Some(resets) => lives(empty, threads, snapshot, file, &resets, options),
    }
}

/// Makes what a guest like that one will need.
fn make_ready(empty: &Empty, likely: &Snapshot) -> Result<(), GuestError> {
    empty.threads.make_ready(&likely.process.threads)?;
    empty
        .kernel
        .make_ready(&likely.memory)
        .map_err(SnapshotError::Restore)?;
    Ok(())
}

/// Runs a guest that was brought back, and again each time that it has been reset; answers as [`run`].
fn lives(
    empty: Empty,
    threads: Vec<Arc<ThreadShared>>,
    snapshot: Snapshot,
    file: OwnedFd,
    resets: &Resets,
    options: &Options,
) -> Result<u8, GuestError> {
    let Empty {
        ground,
        machine,
        streams,
        mut kernel,
        threads: mut runners,
        totals,
    } = empty;
    let origin = Origin::new(ground, machine, snapshot, file, streams);
    let mut threads = threads;
    loop {
        resets
            .watch(&kernel, &origin.machine)
            .map_err(|error| SnapshotError::Host("a thread", error))?;
        let states = origin.snapshot.process.threads.clone();
        runners.go_on(threads.into_iter().zip(states))?;
        let status = kernel.wait_for_end();
        let failure = runners.failure();
        let wanted = resets.take();
        let (Some(wanted), None) = (wanted, &failure) else {
            return answer(status, failure, &totals, &kernel, options);
        };
        let renewed = resets
            .make_anew(&wanted, &origin, kernel, &runners)
            .inspect_err(|error| resets.failed(error))
            .map_err(GuestError::Reset)?;
        runners = runners.of_process(&renewed.kernel);
        renewed.kernel.set_spawner(Arc::new(runners.clone()));
        resets.done(&renewed);
        (kernel, threads) = (renewed.kernel, renewed.threads);
    }
}

/// Waits until the program has ended.
fn end(empty: &Empty, options: &Options) -> Result<u8, GuestError> {
    let status = empty.kernel.wait_for_end();
    let failure = empty.threads.failure();
    answer(status, failure, &empty.totals, &empty.kernel, options)
}

/// What the program ended with.
fn answer(
    status: ExitStatus,
    failure: Option<HypervisorError>,
    totals: &Totals,
    kernel: &Kernel,
    options: &Options,
) -> Result<u8, GuestError> {
    if options.stats {
        eprintln!("{}", totals.to_json(kernel));
    }
    if let Some(error) = failure {
        return Err(error.into());
    }
    Ok(match status {
        ExitStatus::Code(code) => u8::try_from(code & 0xff).unwrap_or(255),
        ExitStatus::Signal(signal) => u8::try_from(signal.saturating_add(128)).unwrap_or(255),
    })
}

fn snapshot_writer(options: &Options) -> Result<Option<Writer>, GuestError> {
    let (Some(file), Some(control)) = (options.snapshot_fd, options.control_fd) else {
        return Ok(None);
    };
    let pages = PageMap::open();
    let pages = pages.map_err(|error| SnapshotError::Host("/proc/self/pagemap", error))?;
    Ok(Some(Writer {
        control: take_descriptor(control)?,
        file: take_descriptor(file)?,
        key: options.snapshot_key.clone(),
        machine: snapshot::machine_id(options.host_facts.as_ref())?,
        pages,
    }))
}

fn prepare(options: &Options) -> Result<Empty, GuestError> {
    abort::settle().map_err(GuestError::Confine)?;
    confine::settle_allocator();
    install_kick_handler()?;
    let kvm = options.kvm_fd.map(take_descriptor).transpose()?;
    let counters = open_counters(options)?;
    let window = Window::reserve(WINDOW_BYTES)?;
    // SAFETY: the kernel holds the window by its address space. Both it and the machine live until
    // every thread has ended, or until this process does.
    let machine =
        Arc::new(unsafe { Machine::new(window.base(), kvm, options.host_facts.as_ref()) }?);
    let memory_bytes = options.memory_mb.saturating_mul(1 << 20);
    let limits = Limits {
        bytes: memory_bytes,
    };
    let mut memory = AddressSpace::new(window, machine.mapper(), limits);
    if let Some(meter) = usage::meter() {
        memory = memory.with_meter(meter);
    }
    let memory = Arc::new(memory);
    // The quota of a control group cannot be seen in a sandbox, and looking for it takes a sixth of a millisecond.
    let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count().max(1));
    let identity = Identity {
        pid: options.pid,
        hostname: "cloister".into(),
        memory_bytes,
        cpus,
    };
    let root = HostNode::open_folders(&options.roots)
        .map_err(|errno| GuestError::Given("a folder of --root".into(), errno))?;
    let tmp_limits = TmpLimits {
        bytes: options.tmp_mb.saturating_mul(1 << 20),
        nodes: TMP_NODES,
    };
    let binds = open_binds(options)?;
    if options.strace {
        counters.trace().mark.store(PLAIN_TRACE, Ordering::Relaxed);
    }
    let streams = open_streams(options)?;
    let ticks_khz = machine.guest_ticks_khz()?;
    let failed = |errno| GuestError::Given("the guest's clock".into(), errno);
    let board = process::board(&machine, &identity)?;
    let ground = Ground {
        memory,
        board,
        identity,
        root,
        binds,
        tmp_limits,
        cwd: options.cwd.as_bytes().to_vec(),
        trace: counters.trace(),
        clock: Arc::new(GuestClock::new(ticks_khz).map_err(failed)?),
    };
    let kernel = ground
        .process(options.pid)
        .map_err(|errno| GuestError::Given("--tmp-mb".into(), errno))?;
    start_reactor(confine::reactor).map_err(GuestError::Confine)?;
    confine::guest().map_err(GuestError::Confine)?;
    let totals = Arc::new(Totals::new(counters));
    let threads = Threads::new(&kernel, &machine, &totals);
    kernel.set_spawner(Arc::new(threads.clone()));
    Ok(Empty {
        kernel,
        threads,
        totals,
        streams,
        ground,
        machine,
    })
}

/// A copy of a descriptor this process was started with.
fn take_descriptor(number: i32) -> Result<OwnedFd, GuestError> {
    // SAFETY: the number is only used to duplicate it, which fails when nothing is open there.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 10).map_err(|error| {
        GuestError::Given(format!("descriptor {number}"), Errno(error.raw_os_error()))
    })
}

fn open_counters(options: &Options) -> Result<Counters, GuestError> {
    let Some(number) = options.counters_fd else {
        return Ok(Counters::private());
    };
    let file = take_descriptor(number)?;
    // From the guest's first instruction on nothing but the mapping is left, by which no file grows or shrinks.
    // SAFETY: the number was given to be used here, and the copy is what is used.
    unsafe { libc::close(number) };
    Counters::in_file(&file).map_err(|error| {
        let errno = Errno(error.raw_os_error().unwrap_or(libc::EINVAL));
        GuestError::Given("--counters-fd".into(), errno)
    })
}

/// Where something is shown, and what.
type Bind = (String, Arc<dyn Node>);

fn open_binds(options: &Options) -> Result<Vec<Bind>, GuestError> {
    let mut binds = Vec::new();
    for (source, target) in &options.binds {
        let failed = |errno| GuestError::Given(source.display().to_string(), errno);
        let node = if source.is_dir() {
            HostNode::open_folders(&[source.as_path()])
        } else {
            HostNode::open_file(Path::new(source))
        };
        binds.push((target.clone(), node.map_err(failed)?));
    }
    Ok(binds)
}

fn open_streams(options: &Options) -> Result<Files, GuestError> {
    let mut wanted = vec![(0, 0), (1, 1), (2, 2)];
    wanted.extend(options.fd3.map(|fd| (fd, 3)));
    let mut streams = Files::new();
    for (host, guest) in wanted {
        let failed = |errno| GuestError::Given(format!("descriptor {host}"), errno);
        let fd = take_descriptor(host)?;
        streams.insert(guest, HostStream::new(fd, guest).map_err(failed)?);
    }
    Ok(streams)
}
