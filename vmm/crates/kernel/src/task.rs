use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vmm_abi::{Errno, Fault, Prot, Registers, SIGFPE, SigInfo, SigStack};
use vmm_memory::AddressSpace;
use vmm_snapshot::{CallState, ThreadState};

use crate::args::{Args, DONE, Restart, Ret, SysResult};
use crate::delivery::Delivery;
use crate::file::{File, OpenFile};
use crate::freeze::Standing;
use crate::futex::Waiter;
use crate::kernel::{ExitStatus, Kernel, ThreadShared};
use crate::signal::unblockable;
use crate::syscalls;
use crate::wait::{Registration, WaitQueue, Wake};
use crate::{clock, fault};

/// Floating-point and vector state of the guest thread that runs, in the XSAVE format.
pub trait Fpu {
    /// The state as bytes.
    ///
    /// # Errors
    /// EIO when the processor does not give it.
    fn save(&mut self) -> Result<Vec<u8>, Errno>;

    /// Sets the state from bytes at its start (what is missing stays as it is).
    ///
    /// # Errors
    /// EINVAL for a state the processor refuses.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), Errno>;
}

/// futex(2)
const FUTEX: u64 = 202;
const EPOLL_WAIT: u64 = 232;
const EPOLL_PWAIT: u64 = 281;
/// What threads stand in that have nothing to do for long.
const SLEEPING: [u64; 3] = [FUTEX, EPOLL_WAIT, EPOLL_PWAIT];

thread_local! {
    /// The guest thread that this host thread runs.
    static CURRENT: RefCell<Option<Arc<ThreadShared>>> = const { RefCell::new(None) };
}

/// The guest thread that the calling host thread runs.
pub(crate) fn current_thread() -> Option<Arc<ThreadShared>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// What a system call that blocked has to remember until it is asked again.
#[derive(Default)]
struct Wait {
    /// Monotonic time at which it is over.
    deadline_ns: Option<u64>,
    expired: bool,
    registrations: Vec<Registration>,
    futex: Option<Arc<Waiter>>,
    /// Bytes (or messages) that the call has moved before it blocked.
    progress: u64,
    /// An end of a FIFO that waits for the other.
    fifo: Option<Arc<dyn File>>,
}

impl std::fmt::Debug for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wait({:?})", self.deadline_ns)
    }
}

/// One guest thread, owned by the host thread that runs it.
#[derive(Debug)]
pub struct Task {
    pub kernel: Arc<Kernel>,
    pub shared: Arc<ThreadShared>,
    pub registers: Registers,
    /// Alternate signal stack (sigaltstack(2)).
    pub alt_stack: SigStack,
    /// Where to write 0 and wake a futex at the end (set_tid_address(2)).
    pub clear_child_tid: u64,
    /// Head and length of the robust futex list (get_robust_list(2)).
    pub robust_list: (u64, u64),
    /// Mask to put back once a handler that interrupted sigsuspend or ppoll has its frame.
    pub saved_mask: Option<u64>,
    /// Set by exit(2): the thread is over, with this code.
    pub ending: Option<i32>,
    /// See [`Task::take_interrupted`].
    interrupted: bool,
    /// Whether the call that runs is traced.
    traced: bool,
    /// Time asleep in system calls; whoever measures takes it.
    pub slept: Duration,
    wait: Wait,
}

impl Task {
    /// A thread that will start at `registers`.
    #[must_use]
    pub fn new(kernel: Arc<Kernel>, shared: Arc<ThreadShared>, registers: Registers) -> Self {
        Self {
            kernel,
            shared,
            registers,
            alt_stack: SigStack {
                flags: vmm_abi::SS_DISABLE,
                ..SigStack::default()
            },
            clear_child_tid: 0,
            robust_list: (0, 0),
            saved_mask: None,
            ending: None,
            interrupted: false,
            traced: false,
            slept: Duration::ZERO,
            wait: Wait::default(),
        }
    }

    /// The process's memory.
    #[must_use]
    pub fn memory(&self) -> &AddressSpace {
        &self.kernel.memory
    }

    /// The open file behind a descriptor.
    ///
    /// # Errors
    /// EBADF, also for one that only names a file (O_PATH).
    pub fn file(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        let open = self.named_file(fd)?;
        if open.is_path() {
            Err(Errno::EBADF)
        } else {
            Ok(open)
        }
    }

    /// The open file behind a descriptor, for what needs no more than its name.
    ///
    /// # Errors
    /// EBADF.
    pub fn named_file(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        self.kernel.files.lock().get(fd)
    }

    /// Gives a description the lowest free descriptor, which is the call's answer.
    ///
    /// # Errors
    /// EMFILE.
    pub fn add_file(&self, open: Arc<OpenFile>, cloexec: bool) -> SysResult {
        let fd = self.kernel.files.lock().add(open, cloexec, 0)?;
        Ok(u64::from(fd.unsigned_abs()).into())
    }

    /// Gives two descriptions descriptors and writes those to guest memory; both or none.
    ///
    /// # Errors
    /// EMFILE, EFAULT.
    pub fn add_two_files(
        &self,
        (one, other): (Arc<OpenFile>, Arc<OpenFile>),
        cloexec: bool,
        address: u64,
    ) -> SysResult {
        let mut files = self.kernel.files.lock();
        let first = files.add(one, cloexec, 0)?;
        let second = files.add(other, cloexec, 0);
        drop(files);
        let told = second.and_then(|second| {
            let told = self.memory().write_value(address, &[first, second]);
            told.inspect_err(|_| drop(self.kernel.files.lock().close(second)))
        });
        if let Err(errno) = told {
            drop(self.kernel.files.lock().close(first));
            return Err(errno);
        }
        DONE
    }

    /// Blocked signals.
    #[must_use]
    pub fn mask(&self) -> u64 {
        self.shared.mask.load(Ordering::SeqCst)
    }

    /// Sets the blocked signals; SIGKILL and SIGSTOP cannot be.
    pub fn set_mask(&self, mask: u64) {
        self.shared
            .mask
            .store(mask & !unblockable(), Ordering::SeqCst);
    }

    /// Whether the thread has nothing more to run.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ending.is_some() || self.kernel.exit_status().is_some()
    }

    /// Registers for being woken by a queue; before the condition is looked at again.
    pub fn watch(&mut self, queue: &Arc<WaitQueue>) {
        let parker = Arc::clone(&self.shared.parker) as Arc<dyn Wake>;
        self.wait.registrations.push(queue.register(parker));
    }

    /// Whether the call that runs has blocked before, so that it need not register again.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        !self.wait.registrations.is_empty()
    }

    /// Sets when a blocking call is over. Only the first setting counts, so that a call that is asked
    /// again does not start its time anew.
    pub fn set_deadline(&mut self, deadline_ns: u64) {
        self.wait.deadline_ns.get_or_insert(deadline_ns);
    }

    /// Whether the deadline of the call that runs has passed.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.wait.expired
    }

    /// Time left until the deadline, in nanoseconds.
    #[must_use]
    pub fn left_ns(&self) -> u64 {
        self.wait
            .deadline_ns
            .map_or(0, |at| at.saturating_sub(clock::monotonic_ns()))
    }

    /// Whether the call that runs may still wait: no deadline is set, or it lies ahead.
    #[must_use]
    pub fn left_or_forever(&self) -> bool {
        self.wait
            .deadline_ns
            .is_none_or(|at| at > clock::monotonic_ns())
    }

    /// The futex queue entry of the call that runs.
    pub fn futex_waiter(&mut self) -> &mut Option<Arc<Waiter>> {
        &mut self.wait.futex
    }

    /// The end of a FIFO that open(2) holds while it waits.
    pub fn waiting_fifo(&mut self) -> &mut Option<Arc<dyn File>> {
        &mut self.wait.fifo
    }

    /// What the call that runs has moved in earlier attempts. A signal ends it with this number, unless it is 0.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.wait.progress
    }

    /// Notes what has been moved so far.
    pub fn set_progress(&mut self, moved: u64) {
        self.wait.progress = moved;
    }

    /// Serves the system call in the registers, waiting as long as it takes.
    pub fn system_call(&mut self, fpu: &mut dyn Fpu) {
        CURRENT.with(|current| {
            current
                .borrow_mut()
                .get_or_insert_with(|| Arc::clone(&self.shared));
        });
        let number = self.registers.rax;
        let r = &self.registers;
        let args = Args([r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]);
        let mark = self.kernel.trace_mark();
        self.traced = mark != 0;
        self.trace_goes_on();
        let result = self.call_until_done(number, args, fpu);
        // A call that waited until the trace was over is not part of it.
        if self.traced && mark == self.kernel.trace_mark() {
            syscalls::trace(self, number, args, &result);
        }
        self.trace_rests();
        self.drop_wait();
        match result {
            Ok(Ret::Value(value)) => self.registers.rax = value,
            Ok(Ret::Block(_) | Ret::Registers | Ret::Exit) => {}
            Err(errno) => self.registers.rax = errno.to_rax(),
        }
    }

    /// A thread that goes on where it stood: in guest code, or by asking its system call again
    /// ([`Task::take_interrupted`]).
    #[must_use]
    pub fn restored(kernel: Arc<Kernel>, shared: Arc<ThreadShared>, state: &ThreadState) -> Self {
        let mut task = Self::new(kernel, shared, state.registers);
        task.alt_stack = state.alt_stack;
        task.clear_child_tid = state.clear_child_tid;
        task.robust_list = state.robust_list;
        task.saved_mask = state.saved_mask;
        if let Some(call) = &state.call {
            task.wait.deadline_ns = call.deadline_ns;
            task.wait.progress = call.progress;
            task.interrupted = true;
        }
        task
    }

    /// Whether the thread stood in a system call, which is to be asked again by [`Task::system_call`]; once.
    pub fn take_interrupted(&mut self) -> bool {
        std::mem::take(&mut self.interrupted)
    }

    /// Whether a thread that stands so is likely to need no host thread for long: it waits for a futex, or by epoll, without a deadline.
    #[must_use]
    pub fn sleeps(state: &ThreadState) -> bool {
        let call = state.call.as_ref();
        call.is_some_and(|call| SLEEPING.contains(&call.number) && call.deadline_ns.is_none())
    }

    /// Has a restored thread that [sleeps](Task::sleeps) go on with that, by the calling host thread, which runs something else: true when it waits again, for
    /// nothing that the reactor tells of, which may start no thread. Whoever wakes its parker is to have it go on by [`Task::system_call`]. When false, nothing has
    /// happened.
    pub fn sleeps_on(&mut self) -> bool {
        let r = &self.registers;
        let sleeps = self.interrupted && self.wait.deadline_ns.is_none();
        if !sleeps || self.kernel.trace_mark() != 0 {
            return false;
        }
        let args = Args([r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]);
        self.shared.parker.clear();
        let asked = match r.rax {
            FUTEX => matches!(syscalls::futex(self, args), Ok(Ret::Block(_))),
            EPOLL_PWAIT => syscalls::waits_on(self, args),
            EPOLL_WAIT => syscalls::waits_on(self, Args([r.rdi, r.rsi, r.rdx, r.r10, 0, 0])),
            _ => false,
        };
        let pending = self.shared.pending.lock().mask() | self.kernel.actions.lock().pending.mask();
        let waits = asked && self.wait.deadline_ns.is_none();
        if waits && pending & !self.mask() == 0 && !self.is_over() {
            return true;
        }
        self.drop_wait();
        false
    }

    /// Where the thread is; `call` is the number of the system call it waits in.
    fn state(&self, call: Option<u64>, fpu: &mut dyn Fpu) -> Result<Standing, Errno> {
        let mut fpu = fpu.save()?;
        let used = fpu
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at.saturating_add(1));
        fpu.truncate(used);
        let state = ThreadState {
            tid: self.shared.tid,
            name: self.shared.name.lock().clone(),
            registers: self.registers,
            fpu,
            mask: self.mask(),
            saved_mask: self.saved_mask,
            pending: Vec::new(),
            alt_stack: self.alt_stack,
            clear_child_tid: self.clear_child_tid,
            robust_list: self.robust_list,
            call: call.map(|number| CallState {
                number,
                deadline_ns: self.wait.deadline_ns,
                progress: self.wait.progress,
            }),
            processor_ns: self.clock(libc::CLOCK_THREAD_CPUTIME_ID)?,
        };
        let waiter = self.wait.futex.clone();
        Ok(Standing { state, waiter })
    }

    /// What a clock shows this thread (clock_gettime(2)); processor time goes on from that before a snapshot.
    ///
    /// # Errors
    /// EINVAL for a clock that is not served.
    pub fn clock(&self, id: i32) -> Result<u64, Errno> {
        let before = match id {
            libc::CLOCK_PROCESS_CPUTIME_ID => &self.kernel.processor_ns,
            libc::CLOCK_THREAD_CPUTIME_ID => &self.shared.processor_ns,
            _ => return clock::read(id),
        };
        Ok(clock::read(id)?.wrapping_add(before.load(Ordering::Relaxed)))
    }

    /// Says that the calling host thread runs it from now on, whatever else that has done before; answers what that took of processors, in nanoseconds.
    pub fn begin_here(&self) -> u64 {
        self.shared.parker.adopt_this_thread();
        let used = clock::thread_processor_ns();
        self.shared.processor_ns.fetch_sub(used, Ordering::Relaxed);
        used
    }

    /// Comes back only when nobody wants the threads to stand still.
    fn stand_still(&self, call: Option<u64>, fpu: &mut dyn Fpu) {
        if self.kernel.freezer.is_wanted() {
            self.kernel
                .freezer
                .stand(self.shared.tid, self.state(call, fpu));
        }
    }

    /// A traced call runs: its line is to come.
    fn trace_goes_on(&self) {
        if let Some(slots) = self.kernel.trace.get().filter(|_| self.traced) {
            slots.under_way.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A traced call sleeps, or its line has been written.
    fn trace_rests(&self) {
        if let Some(slots) = self.kernel.trace.get().filter(|_| self.traced) {
            slots.under_way.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn drop_wait(&mut self) {
        if let Some(waiter) = self.wait.futex.take() {
            self.kernel.futexes.dequeue(&waiter);
        }
        self.wait = Wait::default();
    }

    fn call_until_done(
        &mut self,
        number: u64,
        args: Args,
        fpu: &mut dyn Fpu,
    ) -> Result<Ret, Errno> {
        loop {
            self.shared.parker.clear();
            let result = syscalls::dispatch(self, number, args, fpu);
            let Ok(Ret::Block(restart)) = result else {
                return result;
            };
            if self.is_over() {
                return Ok(Ret::Exit);
            }
            if self.wait.expired {
                // A handler must not block after its time; this keeps one that does from hanging.
                return Err(Errno::ETIMEDOUT);
            }
            if let Some(delivery) = self.next_delivery() {
                return self.interrupted_by(delivery, restart, number, fpu);
            }
            self.stand_still(Some(number), fpu);
            self.trace_rests();
            let began = Instant::now();
            if !self.shared.parker.park(self.wait.deadline_ns) {
                self.wait.expired = true;
            }
            self.slept = self.slept.saturating_add(began.elapsed());
            self.trace_goes_on();
        }
    }

    fn interrupted_by(
        &mut self,
        delivery: Delivery,
        restart: Restart,
        number: u64,
        fpu: &mut dyn Fpu,
    ) -> Result<Ret, Errno> {
        let moved = self.wait.progress;
        self.drop_wait();
        if moved > 0 {
            self.registers.rax = moved;
        } else if restart == Restart::IfAsked && delivery.restarts() {
            // `syscall` is two bytes long: the call is made again when the handler returns.
            self.registers.rip = self.registers.rip.wrapping_sub(2);
            self.registers.rax = number;
        } else {
            self.registers.rax = Errno::EINTR.to_rax();
        }
        self.deliver(delivery, fpu);
        Ok(Ret::Registers)
    }

    /// Delivers what is pending; to be called before guest code runs on.
    pub fn before_guest(&mut self, fpu: &mut dyn Fpu) {
        self.stand_still(None, fpu);
        while !self.is_over()
            && let Some(delivery) = self.next_delivery()
        {
            self.deliver(delivery, fpu);
        }
        if let Some(mask) = self.saved_mask.take() {
            self.set_mask(mask);
        }
        if let Some(clock) = self.kernel.clock.get() {
            clock.follow_host();
        }
    }

    /// Does what Linux does about an exception of user code: a signal, or trying again.
    pub fn exception(&mut self, fault: Fault, fpu: &mut dyn Fpu) {
        if fault.vector == Fault::PAGE_FAULT && self.memory().resolve(&fault) {
            return;
        }
        if self.kernel.trace_mark() != 0 {
            let rip = self.registers.rip;
            syscalls::write_trace(self, &format!("exception at {rip:#x}: {fault:x?}"));
        }
        let mut info = fault::signal_of(&fault, self.registers.rip, self.memory());
        if info.signo == SIGFPE
            && let Ok(state) = fpu.save()
        {
            info.code = fault::float_code(&fault, &state).unwrap_or(info.code);
        }
        self.force_signal(info, Some(fault), fpu);
    }

    /// The host could not give a page though the mapping allows it: a file shrank, or memory is out.
    pub fn page_unavailable(&mut self, fpu: &mut dyn Fpu) {
        let info = SigInfo {
            signo: vmm_abi::SIGBUS,
            code: vmm_abi::BUS_ADRERR,
            ..SigInfo::default()
        };
        self.force_signal(info, None, fpu);
    }

    /// What every thread does last: clears its word, wakes who joins it, leaves robust futexes.
    pub fn finish(&mut self) {
        self.drop_wait();
        syscalls::leave_robust_futexes(self);
        if self.clear_child_tid != 0 {
            let address = self.clear_child_tid;
            if self.memory().write_value(address, &0u32).is_ok() {
                self.kernel.futexes.wake(address, 1, crate::futex::ANY);
            }
        }
        // The host thread may run another one afterwards.
        CURRENT.with(|current| current.take());
        let code = self.ending.unwrap_or(0);
        self.kernel.remove_thread(self.shared.tid, code);
    }

    /// The end of a thread that [sleeps on](Task::sleeps_on), once its process is over: nobody waits for it any more. The caller may hold locks of what
    /// it waits for.
    pub fn finish_asleep(self) {
        self.kernel.remove_thread(self.shared.tid, 0);
    }

    /// Ends the whole process.
    pub fn end_process(&mut self, status: ExitStatus) {
        self.kernel.end(status);
    }

    /// Whether an address may be jumped to or used as a segment base: canonical and user.
    #[must_use]
    pub fn is_user_address(address: u64) -> bool {
        address < 1 << 47
    }

    /// Protection from the bits of mmap(2) and mprotect(2).
    ///
    /// # Errors
    /// EINVAL for bits that are none.
    pub fn protection(bits: u32) -> Result<Prot, Errno> {
        Prot::from_bits(bits).ok_or(Errno::EINVAL)
    }
}
