use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Condvar, Mutex};
use vmm_abi::{Errno, Registers, SI_TIMER, SigInfo};
use vmm_memory::AddressSpace;

use vmm_snapshot::ThreadState;

use crate::file::FdTable;
use crate::freeze::Freezer;
use crate::futex::FutexTable;
use crate::inside::Board;
use crate::limits::ResourceLimits;
use crate::loader::GuestClock;
use crate::locks::Locks;
use crate::signal::{Actions, Pending, bit};
use crate::socket::Network;
use crate::timer::Alarms;
use crate::vfs::Vfs;
use crate::wait::{Parker, WaitQueue, Wake};

/// How a guest process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// exit(2) with this code, 0 to 255.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// What a guest process is told about itself and its machine.
#[derive(Clone, Debug)]
pub struct Identity {
    pub pid: i32,
    pub hostname: String,
    /// Memory the function may use, in bytes; shown as the machine's.
    pub memory_bytes: u64,
    /// Processors shown.
    pub cpus: u32,
}

/// Starts a host thread that runs a new guest thread; implemented by the monitor.
pub trait Spawner: Send + Sync {
    /// Starts `thread` with `registers` and the floating-point state of the calling thread.
    ///
    /// # Errors
    /// EAGAIN when no more threads can be had.
    fn spawn(&self, thread: NewThread) -> Result<(), Errno>;
}

/// A guest thread about to start.
#[derive(Debug)]
pub struct NewThread {
    pub shared: Arc<ThreadShared>,
    pub registers: Registers,
    /// Address to clear and wake when it ends; 0 for none.
    pub clear_child_tid: u64,
    /// Floating-point state to start with, as [`crate::Fpu::save`] gave it.
    pub fpu: Vec<u8>,
}

/// The part of a guest thread that others may touch.
pub struct ThreadShared {
    pub tid: i32,
    pub parker: Arc<Parker>,
    /// Signals sent to this thread.
    pub pending: Mutex<Pending>,
    /// Blocked signals.
    pub mask: AtomicU64,
    pub name: Mutex<Vec<u8>>,
    /// Processor time that the thread used in a former monitor, nanoseconds.
    pub processor_ns: AtomicU64,
    kick: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for ThreadShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Thread({})", self.tid)
    }
}

impl ThreadShared {
    fn new(tid: i32, mask: u64, name: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            tid,
            parker: Arc::new(Parker::default()),
            pending: Mutex::new(Pending::default()),
            mask: AtomicU64::new(mask),
            name: Mutex::new(name),
            processor_ns: AtomicU64::new(0),
            kick: OnceLock::new(),
        })
    }

    /// Says how the thread is made to leave guest code; once, by the host thread that runs it.
    pub fn set_kick(&self, kick: impl Fn() + Send + Sync + 'static) {
        let _ = self.kick.set(Box::new(kick));
    }

    /// Makes the thread look at its signals and at the end of the process, wherever it is.
    pub fn interrupt(&self) {
        self.parker.wake();
        if let Some(kick) = self.kick.get() {
            kick();
        }
    }
}

#[derive(Default)]
struct Threads {
    live: BTreeMap<i32, Arc<ThreadShared>>,
    last_tid: i32,
}

/// One guest process and all it has.
pub struct Kernel {
    pub memory: Arc<AddressSpace>,
    pub vfs: Vfs,
    pub files: Mutex<FdTable>,
    pub cwd: Mutex<Vec<u8>>,
    pub locks: Arc<Locks>,
    pub umask: Mutex<u32>,
    pub identity: Identity,
    pub actions: Mutex<Actions>,
    pub futexes: FutexTable,
    pub limits: Mutex<ResourceLimits>,
    /// Timers that send signals.
    pub alarms: Mutex<Alarms>,
    /// What the guest's sockets share.
    pub network: Arc<Network>,
    /// Told when a signal becomes pending (signalfd).
    pub signal_queue: Arc<WaitQueue>,
    /// Path of the program, and its arguments, for /proc/self.
    pub program: OnceLock<(Vec<u8>, Vec<Vec<u8>>)>,
    pub auxv: OnceLock<Vec<u8>>,
    /// Environment the program was started with.
    pub environment: OnceLock<Vec<Vec<u8>>>,
    /// The pages that tell the guest the time.
    pub clock: OnceLock<Arc<GuestClock>>,
    /// Monotonic time of the start.
    pub started_ns: AtomicU64,
    /// Processor time of a former monitor that ran this process, nanoseconds, less what this one had used before (modulo 2^64).
    pub processor_ns: AtomicU64,
    /// What guest code is told.
    pub(crate) board: Board,
    /// What [`Kernel::trace_mark`] reads; it may be changed from outside at any time.
    pub trace: OnceLock<TraceSlots>,
    /// Makes all threads stand still.
    pub(crate) freezer: Freezer,
    threads: Mutex<Threads>,
    spawner: OnceLock<Arc<dyn Spawner>>,
    exit: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({:?})", self.identity)
    }
}

/// Where others say that system calls are to be traced, and see whether lines are still to come.
#[derive(Clone, Copy, Debug)]
pub struct TraceSlots {
    /// [`Kernel::trace_mark`].
    pub mark: &'static AtomicU64,
    /// Traced calls that run, their lines not yet written; one that sleeps is none.
    pub under_way: &'static AtomicU64,
}

/// Most threads of one guest; each has a vCPU and a host thread.
pub const MAX_THREADS: usize = 256;

impl Kernel {
    /// Whether system calls are written to the standard error, one line each: 0 for no, [`crate::syscalls::PLAIN_TRACE`] as they are, any
    /// other number with it as a mark in front.
    #[must_use]
    pub fn trace_mark(&self) -> u64 {
        self.trace
            .get()
            .map_or(0, |slots| slots.mark.load(Ordering::Relaxed))
    }

    /// A process without program, files or threads. `vfs` gets a reference back, for /proc. Of a former process with the same board nothing runs any more.
    pub fn new(
        memory: Arc<AddressSpace>,
        identity: Identity,
        board: Board,
        vfs: impl FnOnce(Weak<Kernel>) -> Vfs,
    ) -> Arc<Self> {
        board.begin(&identity);
        Arc::new_cyclic(|me| Self {
            memory,
            vfs: vfs(Weak::clone(me)),
            files: Mutex::new(FdTable::new(board.clone())),
            cwd: Mutex::new(b"/".to_vec()),
            locks: Arc::default(),
            umask: Mutex::new(0o022),
            threads: Mutex::new(Threads {
                last_tid: identity.pid.saturating_sub(1),
                ..Threads::default()
            }),
            identity,
            actions: Mutex::new(Actions::new(board.clone())),
            futexes: FutexTable::new(board.clone()),
            limits: Mutex::default(),
            alarms: Mutex::default(),
            network: Arc::default(),
            signal_queue: Arc::new(WaitQueue::default()),
            program: OnceLock::new(),
            auxv: OnceLock::new(),
            environment: OnceLock::new(),
            clock: OnceLock::new(),
            started_ns: crate::clock::monotonic_ns().into(),
            processor_ns: AtomicU64::new(0),
            board,
            trace: OnceLock::new(),
            freezer: Freezer::default(),
            spawner: OnceLock::new(),
            exit: Mutex::new(None),
            ended: Condvar::new(),
        })
    }

    /// Says who starts threads; once.
    pub fn set_spawner(&self, spawner: Arc<dyn Spawner>) {
        let _ = self.spawner.set(spawner);
    }

    /// A new entry in the list of threads; the first has the process's own id.
    ///
    /// # Errors
    /// EAGAIN when there are too many.
    pub fn add_thread(&self, mask: u64, name: Vec<u8>) -> Result<Arc<ThreadShared>, Errno> {
        let mut threads = self.threads.lock();
        if threads.live.len() >= MAX_THREADS {
            return Err(Errno::EAGAIN);
        }
        // Ids go round below PID_MAX of Linux and skip those in use.
        let mut tid = threads.last_tid;
        loop {
            tid = if tid >= 32_767 {
                2
            } else {
                tid.saturating_add(1)
            };
            if !threads.live.contains_key(&tid) {
                break;
            }
        }
        threads.last_tid = tid;
        let shared = ThreadShared::new(tid, mask, name);
        threads.live.insert(tid, Arc::clone(&shared));
        Ok(shared)
    }

    /// Puts a thread back on the list.
    ///
    /// # Errors
    /// EAGAIN when there are too many, EEXIST, EINVAL for an id that is none, EAGAIN for too many signals.
    pub(crate) fn put_thread(&self, state: &ThreadState) -> Result<Arc<ThreadShared>, Errno> {
        let mut threads = self.threads.lock();
        if threads.live.len() >= MAX_THREADS {
            return Err(Errno::EAGAIN);
        }
        if state.tid < 1 {
            return Err(Errno::EINVAL);
        }
        let shared = ThreadShared::new(state.tid, state.mask, state.name.clone());
        let used = state.processor_ns;
        shared.processor_ns.store(used, Ordering::Relaxed);
        for info in &state.pending {
            shared.pending.lock().push(*info)?;
        }
        match threads.live.insert(state.tid, Arc::clone(&shared)) {
            None => Ok(shared),
            Some(_) => Err(Errno::EEXIST),
        }
    }

    /// The id given last.
    pub(crate) fn last_tid(&self) -> i32 {
        self.threads.lock().last_tid
    }

    /// Goes on from an id.
    pub(crate) fn set_last_tid(&self, tid: i32) {
        self.threads.lock().last_tid = tid.max(1);
    }

    /// Hands a new thread to the monitor.
    ///
    /// # Errors
    /// EAGAIN when it cannot start; the thread is then forgotten.
    pub fn start_thread(&self, thread: NewThread) -> Result<(), Errno> {
        let tid = thread.shared.tid;
        let result = self
            .spawner
            .get()
            .ok_or(Errno::EAGAIN)
            .and_then(|s| s.spawn(thread));
        if result.is_err() {
            self.threads.lock().live.remove(&tid);
        }
        result
    }

    /// Takes an ended thread off the list; with the last one the process ends.
    pub fn remove_thread(&self, tid: i32, code: i32) {
        let mut threads = self.threads.lock();
        threads.live.remove(&tid);
        let last = threads.live.is_empty();
        drop(threads);
        self.freezer.look_again();
        if last {
            self.end(ExitStatus::Code(code));
            self.ended.notify_all();
        }
    }

    /// The thread of that id.
    #[must_use]
    pub fn thread(&self, tid: i32) -> Option<Arc<ThreadShared>> {
        self.threads.lock().live.get(&tid).cloned()
    }

    /// All live threads.
    #[must_use]
    pub fn threads(&self) -> Vec<Arc<ThreadShared>> {
        self.threads.lock().live.values().cloned().collect()
    }

    /// Ends the process: every thread leaves at its next boundary. The first status counts.
    pub fn end(&self, status: ExitStatus) {
        self.exit.lock().get_or_insert(status);
        for thread in self.threads() {
            thread.interrupt();
        }
    }

    /// As [`Kernel::end`]; false, without any effect, for a process that has been told to end before.
    pub fn end_first(&self, status: ExitStatus) -> bool {
        let mut exit = self.exit.lock();
        if exit.is_some() {
            return false;
        }
        *exit = Some(status);
        drop(exit);
        for thread in self.threads() {
            thread.interrupt();
        }
        true
    }

    /// The status, once the process has been told to end.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.lock()
    }

    /// Waits until every thread has left, and answers the status.
    #[must_use]
    pub fn wait_for_end(&self) -> ExitStatus {
        let mut exit = self.exit.lock();
        loop {
            if let Some(status) = *exit
                && self.threads.lock().live.is_empty()
            {
                return status;
            }
            self.ended.wait(&mut exit);
        }
    }

    /// Counts expirations of a timer whose last signal still waits; false when it does not.
    pub fn add_overruns(
        &self,
        thread: Option<&Arc<ThreadShared>>,
        signal: i32,
        timer: i32,
        missed: u64,
    ) -> bool {
        match thread {
            Some(thread) => thread.pending.lock().add_overruns(signal, timer, missed),
            None => {
                let mut actions = self.actions.lock();
                actions.pending.add_overruns(signal, timer, missed)
            }
        }
    }

    /// Takes the next of these signals: a thread's own first, then the process's.
    pub fn take_signal(&self, thread: Option<&ThreadShared>, allowed: u64) -> Option<SigInfo> {
        let own = thread.and_then(|thread| thread.pending.lock().take(allowed));
        let mut info = own.or_else(|| self.actions.lock().pending.take(allowed))?;
        self.signal_taken(&mut info);
        Some(info)
    }

    /// To be told of every signal that is taken: timers count from there. No lock of signals may be held.
    pub fn signal_taken(&self, info: &mut SigInfo) {
        if info.code == SI_TIMER {
            self.alarms.lock().note_taken(info);
        }
    }

    /// Sends a signal to one thread, or to the process when `thread` is `None`.
    ///
    /// # Errors
    /// EAGAIN when too many are queued.
    pub fn send_signal(
        &self,
        thread: Option<&Arc<ThreadShared>>,
        info: SigInfo,
    ) -> Result<(), Errno> {
        let signal = bit(info.signo);
        {
            let mut actions = self.actions.lock();
            let blocked = |t: &Arc<ThreadShared>| t.mask.load(Ordering::SeqCst) & signal != 0;
            let held = match thread {
                Some(thread) => blocked(thread),
                None => self.threads().iter().all(blocked),
            };
            // An ignored signal that is blocked stays pending: the action may change meanwhile.
            if !held && actions.is_ignored(info.signo) {
                return Ok(());
            }
            match thread {
                Some(thread) => thread.pending.lock().push(info)?,
                None => actions.pending.push(info)?,
            }
        }
        self.signal_queue.wake_all();
        match thread {
            Some(thread) => thread.interrupt(),
            None => {
                for thread in self.threads() {
                    if thread.mask.load(Ordering::SeqCst) & signal == 0 {
                        thread.interrupt();
                    }
                }
            }
        }
        Ok(())
    }
}
