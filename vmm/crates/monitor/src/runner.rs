use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use vmm_abi::{Errno, Registers};
use vmm_hypervisor::{BoundVcpu, Exit, HypervisorError, Machine, Vcpu, VcpuPlace};
use vmm_kernel::{ExitStatus, Fpu, Kernel, NewThread, Spawner, Task, ThreadShared};

use crate::report::Totals;

/// Stack of a host thread that serves one guest thread; handlers do not recurse.
const HOST_STACK_BYTES: usize = 256 << 10;

/// The host threads that run guest threads.
#[derive(Clone)]
pub struct Threads {
    kernel: Weak<Kernel>,
    machine: Arc<Machine>,
    totals: Arc<Totals>,
    /// Traces are asked for from the start, whatever the counters' page says.
    strace: bool,
    failure: Arc<Mutex<Option<HypervisorError>>>,
}

/// The first thread of a program.
pub struct First {
    pub shared: Arc<ThreadShared>,
    pub registers: Registers,
}

impl Threads {
    pub fn new(
        kernel: &Arc<Kernel>,
        machine: &Arc<Machine>,
        totals: &Arc<Totals>,
        strace: bool,
    ) -> Self {
        Self {
            kernel: Arc::downgrade(kernel),
            machine: Arc::clone(machine),
            totals: Arc::clone(totals),
            strace,
            failure: Arc::default(),
        }
    }

    /// Why a virtual CPU stopped, if one did; takes it.
    pub fn failure(&self) -> Option<HypervisorError> {
        self.failure.lock().take()
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
        self.run(task, vcpu);
        Ok(())
    }

    /// Runs a thread that starts with the floating-point state of the one that made it.
    fn start(&self, mut task: Task, place: VcpuPlace, fpu: &[u8]) {
        let vcpu = self.machine.take(place).and_then(|mut vcpu| {
            let state = vcpu.fpu()?.with_bytes(fpu);
            vcpu.set_fpu(&state)?;
            Ok(vcpu)
        });
        match vcpu {
            Ok(vcpu) => self.run(task, vcpu),
            Err(error) => {
                self.fail(&task, error);
                task.finish();
            }
        }
    }

    /// A thread cannot go on for want of a vCPU that works: nor can the program.
    fn fail(&self, task: &Task, error: HypervisorError) {
        self.failure.lock().get_or_insert(error);
        task.kernel.end(ExitStatus::Signal(vmm_abi::SIGKILL));
    }

    fn run(&self, mut task: Task, vcpu: Vcpu) {
        task.shared.parker.adopt_this_thread();
        let mut cpu = Cpu(BoundVcpu::new(vcpu));
        let kicker = cpu.0.kicker();
        task.shared.set_kick(move || kicker.kick());
        if let Err(error) = self.serve(&mut task, &mut cpu) {
            self.fail(&task, error);
        }
        self.totals.add_thread();
        self.machine.return_vcpu(cpu.0.release());
        task.finish();
    }

    /// Runs guest code and serves what it leaves for, until the thread is over.
    fn serve(&self, task: &mut Task, cpu: &mut Cpu) -> Result<(), HypervisorError> {
        // A guest whose pages the host cannot give, however often it is asked, gets a signal.
        const PATIENCE: u32 = 16;
        let counters = self.totals.counters;
        let mut unavailable = 0u32;
        let mut left = Instant::now();
        loop {
            task.before_guest(cpu);
            if task.is_over() {
                return Ok(());
            }
            let entered = Instant::now();
            let slept = std::mem::take(&mut task.slept);
            counters.served(entered.duration_since(left).saturating_sub(slept));
            let exit = cpu.0.run(&mut task.registers)?;
            left = Instant::now();
            // Before the call is served: what it sends may be what makes somebody look.
            counters.exit(&exit, left.duration_since(entered));
            if exit != Exit::PageUnavailable {
                unavailable = 0;
            }
            match exit {
                Exit::Syscall => {
                    counters.call(task.registers.rax);
                    self.follow_trace(&task.kernel);
                    task.system_call(cpu);
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

    /// Traces system calls while somebody outside wants it.
    fn follow_trace(&self, kernel: &Kernel) {
        let wanted = self.strace || self.totals.counters.traces();
        if kernel.strace.load(Ordering::Relaxed) != wanted {
            kernel.strace.store(wanted, Ordering::Relaxed);
        }
    }
}

/// The vCPU a guest thread runs on, as the kernel may see it.
struct Cpu(BoundVcpu);

impl Fpu for Cpu {
    fn save(&mut self) -> Result<Vec<u8>, Errno> {
        self.0
            .fpu()
            .map(|state| state.to_bytes())
            .map_err(|_| Errno::EIO)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let state = self.0.fpu().map_err(|_| Errno::EIO)?.with_bytes(bytes);
        self.0.set_fpu(&state).map_err(|_| Errno::EINVAL)
    }
}

impl Spawner for Threads {
    fn spawn(&self, thread: NewThread) -> Result<(), Errno> {
        let kernel = self.kernel.upgrade().ok_or(Errno::EAGAIN)?;
        let place = self.machine.reserve_vcpu().map_err(|_| Errno::EAGAIN)?;
        let mut task = Task::new(kernel, thread.shared, thread.registers);
        task.clear_child_tid = thread.clear_child_tid;
        let threads = self.clone();
        std::thread::Builder::new()
            .name(format!("guest-{}", task.shared.tid))
            .stack_size(HOST_STACK_BYTES)
            // The new thread makes its vCPU by itself, so that the one that starts it need not wait.
            .spawn(move || threads.start(task, place, &thread.fpu))
            .map(|_| ())
            .map_err(|_| Errno::EAGAIN)
    }
}
