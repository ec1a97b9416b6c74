use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use vmm_abi::{Errno, Registers};
use vmm_hypervisor::{Exit, HypervisorError, Machine};
use vmm_kernel::{ExitStatus, Kernel, NewThread, Spawner, Task, ThreadShared};
use vmm_snapshot::ThreadState;

use crate::cpu::{Beginning, Cpu};
use crate::crew::Crew;
use crate::report::Totals;

/// The host threads that run guest threads.
#[derive(Clone)]
pub struct Threads {
    kernel: Weak<Kernel>,
    machine: Arc<Machine>,
    totals: Arc<Totals>,
    failure: Arc<Mutex<Option<HypervisorError>>>,
    crew: Arc<Crew>,
    running: Arc<Running>,
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
            crew: Arc::default(),
            running: Arc::default(),
        }
    }

    /// The same host threads and machine for another process.
    pub fn of_process(&self, kernel: &Arc<Kernel>) -> Self {
        Self {
            crew: Arc::clone(&self.crew),
            ..Self::new(kernel, &self.machine, &self.totals)
        }
    }

    /// Why a virtual CPU stopped, if one did; takes it.
    pub fn failure(&self) -> Option<HypervisorError> {
        self.failure.lock().take()
    }

    /// Makes the virtual CPU that every program uses at once, and host threads for those of a program, before anybody waits for them.
    ///
    /// # Errors
    /// [`HypervisorError`] when one cannot be had.
    pub fn make_ready(&self, threads: &[ThreadState]) -> Result<(), HypervisorError> {
        // The first runs on the thread that is there.
        let awake = threads.iter().skip(1).filter(|state| !Task::sleeps(state));
        self.crew
            .grow(awake.count())
            .map_err(|error| HypervisorError::Stopped(format!("no thread: {error}")))?;
        // Of the thread that answers. What works beside it mostly sleeps, and makes its own when it is woken.
        let vcpu = self.machine.take_vcpu()?;
        self.machine.return_vcpu(vcpu);
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
            let mut task = Task::restored(Arc::clone(&kernel), shared, &state);
            let beginning = Beginning::Saved(state.fpu, None);
            if first.is_none() {
                first = Some((task, beginning));
            } else if task.sleeps_on() {
                self.start_when_woken(task, beginning);
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

    /// Runs a thread on one of the host that has nothing to do, or a new one.
    fn start(&self, task: Task, beginning: Beginning) -> io::Result<()> {
        self.running.begin();
        self.run_elsewhere(task, beginning)
            .inspect_err(|_| self.running.end())
    }

    fn run_elsewhere(&self, task: Task, beginning: Beginning) -> io::Result<()> {
        let threads = self.clone();
        self.crew.run(Box::new(move || {
            threads.run(task, beginning);
            threads.running.end();
        }))
    }

    /// Has one that sleeps run when it is woken, which for most threads of most programs is never.
    fn start_when_woken(&self, task: Task, beginning: Beginning) {
        let threads = self.clone();
        self.running.begin();
        let parker = Arc::clone(&task.shared.parker);
        parker.start_when_woken(move || {
            if task.kernel.exit_status().is_some() {
                task.finish_asleep();
                return threads.running.end();
            }
            // The guest has this thread: it cannot be told that there is none.
            if let Err(error) = threads.run_elsewhere(task, beginning) {
                eprintln!(
                    "cloister-vm: no thread for a thread of the guest that was woken: {error}"
                );
                std::process::exit(i32::from(crate::EXIT_FAILED));
            }
        });
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
        let before_ns = task.begin_here();
        if let Err(error) = self.serve(&mut task, &mut cpu) {
            self.failure.lock().get_or_insert(error);
            task.end_process(ExitStatus::Signal(vmm_abi::SIGKILL));
        }
        self.totals.add_thread(before_ns);
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
        let trace = counters.trace();
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
            if let Cpu::Bound(vcpu) = cpu {
                // Whoever traces is to see all calls.
                vcpu.serve_inside(trace.mark.load(Ordering::Relaxed) == 0)?;
            }
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
