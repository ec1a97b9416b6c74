use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use vmm_abi::{Errno, Registers};
use vmm_hypervisor::{Exit, HypervisorError, Machine};
use vmm_kernel::{ExitStatus, Kernel, NewThread, Spawner, Task, ThreadShared};
use vmm_snapshot::ThreadState;

use crate::cpu::{Beginning, Cpu};
use crate::report::Totals;

/// Stack of a host thread that serves one guest thread; handlers do not recurse.
const HOST_STACK_BYTES: usize = 256 << 10;

/// The host threads that run guest threads.
#[derive(Clone)]
pub struct Threads {
    kernel: Weak<Kernel>,
    machine: Arc<Machine>,
    totals: Arc<Totals>,
    failure: Arc<Mutex<Option<HypervisorError>>>,
    running: Arc<Running>,
    spares: Arc<Spares>,
}

/// Host threads that hold something of their guest's process, beside the one that waits for them.
#[derive(Default)]
struct Running {
    count: Mutex<u32>,
    changed: Condvar,
}

impl Running {
    fn begin(&self) {
        let mut count = self.count.lock();
        *count = count.saturating_add(1);
    }

    fn end(&self) {
        let mut count = self.count.lock();
        *count = count.saturating_sub(1);
        self.changed.notify_all();
    }
}

/// Host threads that were made before there is work for them, or whose work is over.
#[derive(Default)]
struct Spares {
    state: Mutex<SpareState>,
    wake: Condvar,
}

#[derive(Default)]
struct SpareState {
    /// Those that have no work and will look for it.
    idle: usize,
    work: Vec<(Task, Beginning)>,
    /// Whether there will be another process when this one is over.
    kept: bool,
}

impl Spares {
    /// Most threads that stay when their work is over.
    const MOST_KEPT: usize = 16;

    /// Gives work to one that has none; gives it back when all have.
    fn take_over(&self, task: Task, beginning: Beginning) -> Option<(Task, Beginning)> {
        let mut state = self.state.lock();
        if state.idle <= state.work.len() {
            return Some((task, beginning));
        }
        state.work.push((task, beginning));
        self.wake.notify_one();
        None
    }

    /// Whether the calling thread, whose work is over, is to look for more.
    fn stay(&self) -> bool {
        let mut state = self.state.lock();
        if !state.kept || state.idle >= Self::MOST_KEPT {
            return false;
        }
        state.idle = state.idle.saturating_add(1);
        true
    }

    fn next(&self) -> (Task, Beginning) {
        let mut state = self.state.lock();
        loop {
            if let Some(work) = state.work.pop() {
                state.idle = state.idle.saturating_sub(1);
                return work;
            }
            self.wake.wait(&mut state);
        }
    }
}

/// The first thread of a program.
pub struct First {
    pub shared: Arc<ThreadShared>,
    pub registers: Registers,
}

impl Threads {
    pub fn new(kernel: &Arc<Kernel>, machine: &Arc<Machine>, totals: &Arc<Totals>) -> Self {
        Self {
            kernel: Arc::downgrade(kernel),
            machine: Arc::clone(machine),
            totals: Arc::clone(totals),
            failure: Arc::default(),
            running: Arc::default(),
            spares: Arc::default(),
        }
    }

    /// Why a virtual CPU stopped, if one did; takes it.
    pub fn failure(&self) -> Option<HypervisorError> {
        self.failure.lock().take()
    }

    /// Makes the virtual CPUs that most programs use at once, and host threads for a program of `threads`, before anybody waits for them.
    ///
    /// # Errors
    /// [`HypervisorError`] when one cannot be had.
    pub fn make_ready(&self, threads: usize) -> Result<(), HypervisorError> {
        // The first runs on the thread that is there.
        for _ in 1..threads {
            self.start_spare()
                .map_err(|error| HypervisorError::Stopped(format!("no thread: {error}")))?;
        }
        // The thread that answers, and one that works for it.
        let vcpus = [self.machine.take_vcpu()?, self.machine.take_vcpu()?];
        for vcpu in vcpus {
            self.machine.return_vcpu(vcpu);
        }
        Ok(())
    }

    /// Runs the first thread on the calling one, until it ends.
    ///
    /// # Errors
    /// [`HypervisorError`] when no vCPU can be had.
    pub fn run_first(&self, first: First) -> Result<(), HypervisorError> {
        let Some(kernel) = self.kernel.upgrade() else {
            return Ok(());
        };
        let mut vcpu = self.machine.take_vcpu()?;
        let fpu = self.machine.initial_fpu(&vcpu)?;
        vcpu.set_fpu(&fpu)?;
        let task = Task::new(kernel, first.shared, first.registers);
        self.run(task, Beginning::With(vcpu));
        Ok(())
    }

    /// Lets threads go on from where they stood, the first of them on the calling one until it ends.
    ///
    /// # Errors
    /// [`HypervisorError::Stopped`] when the host gives no more threads.
    pub fn go_on(
        &self,
        threads: impl Iterator<Item = (Arc<ThreadShared>, ThreadState)>,
    ) -> Result<(), HypervisorError> {
        let Some(kernel) = self.kernel.upgrade() else {
            return Ok(());
        };
        let mut first = None;
        for (shared, state) in threads {
            let task = Task::restored(Arc::clone(&kernel), shared, &state);
            let beginning = Beginning::Saved(state.fpu, None);
            if first.is_none() {
                first = Some((task, beginning));
            } else {
                self.start(task, beginning)
                    .map_err(|error| HypervisorError::Stopped(format!("no thread: {error}")))?;
            }
        }
        if let Some((task, beginning)) = first {
            self.run(task, beginning);
        }
        Ok(())
    }

    fn start_spare(&self) -> io::Result<()> {
        let threads = self.clone();
        std::thread::Builder::new()
            .name("guest-spare".to_owned())
            .stack_size(HOST_STACK_BYTES)
            .spawn(move || threads.work(None))?;
        let mut state = self.spares.state.lock();
        state.idle = state.idle.saturating_add(1);
        Ok(())
    }

    /// Runs a thread on one of the host that has nothing to do, or a new one.
    fn start(&self, task: Task, beginning: Beginning) -> io::Result<()> {
        self.running.begin();
        let Some(work) = self.spares.take_over(task, beginning) else {
            return Ok(());
        };
        let threads = self.clone();
        std::thread::Builder::new()
            .name(format!("guest-{}", work.0.shared.tid))
            .stack_size(HOST_STACK_BYTES)
            .spawn(move || threads.work(Some(work)))
            .map(|_| ())
            .inspect_err(|_| self.running.end())
    }

    /// What a host thread does: one guest thread after the other, as long as there will be more.
    fn work(&self, mut first: Option<(Task, Beginning)>) {
        loop {
            let (task, beginning) = first.take().unwrap_or_else(|| self.spares.next());
            self.run(task, beginning);
            let stays = self.spares.stay();
            self.running.end();
            if !stays {
                return;
            }
        }
    }

    /// Those of a process that takes the place of this one, which is over or about to be.
    pub fn of(&self, kernel: &Arc<Kernel>) -> Self {
        Self {
            kernel: Arc::downgrade(kernel),
            ..self.clone()
        }
    }

    /// From now on threads stay when their work is over.
    pub fn keep(&self) {
        self.spares.state.lock().kept = true;
    }

    /// Waits until no host thread but the calling one holds anything of the process, whose threads have been told to end.
    pub fn wait_until_gone(&self) {
        let mut count = self.running.count.lock();
        while *count > 0 {
            self.running.changed.wait(&mut count);
        }
    }

    fn run(&self, mut task: Task, beginning: Beginning) {
        let mut cpu = Cpu::Waiting(beginning);
        task.begin_here();
        if let Err(error) = self.serve(&mut task, &mut cpu) {
            self.failure.lock().get_or_insert(error);
            task.end_process(ExitStatus::Signal(vmm_abi::SIGKILL));
        }
        self.totals.add_thread();
        if let Some(vcpu) = cpu.release() {
            self.machine.return_vcpu(vcpu);
        }
        task.finish();
    }

    /// Runs guest code and serves what it leaves for, until the thread is over.
    fn serve(&self, task: &mut Task, cpu: &mut Cpu) -> Result<(), HypervisorError> {
        // A guest whose pages the host cannot give, however often it is asked, gets a signal.
        const PATIENCE: u32 = 16;
        let counters = self.totals.counters;
        let mut unavailable = 0u32;
        if task.take_interrupted() {
            // What a restored thread waits for needs no virtual CPU: most of them never need one.
            task.system_call(cpu);
            if task.is_over() {
                return Ok(());
            }
        }
        // Before anybody is told whom to kick, and before it is looked for what they may want.
        cpu.bind(&self.machine, &task.shared)?;
        task.slept = Duration::ZERO;
        let mut left = Instant::now();
        loop {
            task.before_guest(cpu);
            if task.is_over() {
                return Ok(());
            }
            let Cpu::Bound(vcpu) = cpu else {
                return Err(HypervisorError::Stopped("no virtual CPU is bound".into()));
            };
            let entered = Instant::now();
            let slept = std::mem::take(&mut task.slept);
            counters.served(entered.duration_since(left).saturating_sub(slept));
            let exit = vcpu.run(&mut task.registers)?;
            left = Instant::now();
            // Before the call is served: what it sends may be what makes somebody look.
            counters.exit(&exit, left.duration_since(entered));
            if exit != Exit::PageUnavailable {
                unavailable = 0;
            }
            match exit {
                Exit::Syscall => {
                    counters.call(task.registers.rax);
                    task.system_call(cpu);
                    // Before the guest can act on it.
                    counters.refusals(task.kernel.memory.refusals());
                }
                Exit::Fault(fault) => task.exception(fault, cpu),
                Exit::Interrupted => {}
                Exit::PageUnavailable => {
                    unavailable = unavailable.saturating_add(1);
                    if unavailable > PATIENCE {
                        task.page_unavailable(cpu);
                        unavailable = 0;
                    }
                }
            }
        }
    }
}

impl Spawner for Threads {
    fn spawn(&self, thread: NewThread) -> Result<(), Errno> {
        let kernel = self.kernel.upgrade().ok_or(Errno::EAGAIN)?;
        // The new thread makes its vCPU by itself, so that the one that starts it need not wait.
        let place = self.machine.reserve_vcpu().map_err(|_| Errno::EAGAIN)?;
        let mut task = Task::new(kernel, thread.shared, thread.registers);
        task.clear_child_tid = thread.clear_child_tid;
        self.start(task, Beginning::Saved(thread.fpu, Some(place)))
            .map_err(|_| Errno::EAGAIN)
    }
}
