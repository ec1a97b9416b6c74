use std::arch::x86_64::_rdtsc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_xsave};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd};
use vmm_abi::{Errno, Fault, Registers};

use crate::descriptors::{self, FAULT_PORT, SYSCALL_PORT, TOUCHING_END, has_error_code, vector_at};
use crate::error::kvm;
use crate::inside::{INSIDE_CODE, Inside, Stopped};
use crate::machine::set_entry;
use crate::system_area::{STUB_PAGE, SystemArea};
use crate::{Exit, HypervisorError};

/// RFLAGS bits that user code may set by itself: the arithmetic flags, TF, DF, AC, ID, NT, RF.
const USER_FLAGS: u64 = 0x0025_4dd5;
/// RFLAGS bits that are always set in user code: IF and the reserved bit 1.
const FIXED_FLAGS: u64 = 0x202;

/// Why KVM_RUN came back by itself.
enum Left {
    /// A write to a port.
    Out(u16),
    /// A read from a port.
    In,
    /// Nothing that a guest could bring about.
    Other(String),
}

/// End of the canonical lower half: KVM refuses to enter a guest whose rip is neither there nor in the
/// upper half, and the upper half holds nothing.
const USER_END: u64 = 1 << 47;

/// Floating-point and vector state in the XSAVE format (Intel SDM volume 1, 13.4), 4096 bytes.
#[derive(Clone)]
pub struct FpuState(Box<[u32; 1024]>);

impl std::fmt::Debug for FpuState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FpuState")
    }
}

impl FpuState {
    /// The state as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A state with the bytes at its start replaced; what KVM refuses is refused by
    /// [`Vcpu::set_fpu`].
    #[must_use]
    pub fn with_bytes(mut self, bytes: &[u8]) -> Self {
        for (word, chunk) in self.0.iter_mut().zip(bytes.chunks_exact(4)) {
            if let Ok(chunk) = chunk.try_into() {
                *word = u32::from_le_bytes(chunk);
            }
        }
        self
    }
}

/// One virtual CPU. It keeps the registers of the guest thread that ran last.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    area: Arc<SystemArea>,
    inside: Arc<Inside>,
    entry: Entry,
    index: u64,
}

/// Where `syscall` leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// To the stub, and out.
    Stub,
    /// As above, although the stub was left from user code for a call that may be served inside.
    StubForNow,
    /// To the code inside.
    Inside,
    /// To the stub, because `syscall` changes to CPL 0: the code inside must never run there.
    StubForGood,
}

/// How often the host may want its attention while it finds out where `syscall` goes.
const MOST_INTERRUPTED: usize = 64;

impl Vcpu {
    /// `sregs` are those just set: KVM fills the shared registers only when it leaves the guest.
    pub(crate) fn new(
        mut fd: VcpuFd,
        area: Arc<SystemArea>,
        inside: Arc<Inside>,
        index: u64,
        sregs: kvm_sregs,
    ) -> Self {
        fd.sync_regs_mut().sregs = sregs;
        fd.set_sync_valid_reg(SyncReg::Register);
        fd.set_sync_valid_reg(SyncReg::SystemRegister);
        Self {
            fd,
            area,
            inside,
            entry: Entry::Stub,
            index,
        }
    }

    /// Whether calls that can be are to be served inside, from the next run on ([`crate::Machine::lay_inside`]). Nobody is told of those. It may forget a kick,
    /// so it comes before it is looked for what a kick was for.
    ///
    /// # Errors
    /// [`HypervisorError`] when the machine is unusable.
    pub fn serve_inside(&mut self, allowed: bool) -> Result<(), HypervisorError> {
        match (self.entry, allowed) {
            (Entry::StubForNow, true) => {
                self.entry = Entry::StubForGood;
                if self.stays_in_user_code()? {
                    set_entry(&self.fd, INSIDE_CODE)?;
                    self.entry = Entry::Inside;
                }
            }
            (Entry::Inside, false) => {
                set_entry(&self.fd, STUB_PAGE)?;
                self.entry = Entry::StubForNow;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether `syscall` does, by one of the stub page's own: a guest can come to the stub by a jump, too.
    fn stays_in_user_code(&mut self) -> Result<bool, HypervisorError> {
        if let Some(stays) = self.inside.stays_in_user_code.get() {
            return Ok(*stays);
        }
        let mut registers = Registers {
            rip: TOUCHING_END,
            ..Registers::default()
        };
        for _ in 0..MOST_INTERRUPTED {
            match self.run(&mut registers)? {
                Exit::Interrupted => {}
                Exit::Syscall => {
                    let stays = self.user_mode();
                    return Ok(*self.inside.stays_in_user_code.get_or_init(|| stays));
                }
                Exit::Fault(_) | Exit::PageUnavailable => break,
            }
        }
        Ok(false)
    }

    /// Where a kick of the thread that runs it is to be noted; the page lives as long as this vCPU.
    pub(crate) fn immediate_exit(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    /// Forgets a kick.
    pub(crate) fn clear_immediate_exit(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
    }

    /// [`crate::BoundVcpu::run`].
    pub(crate) fn run(&mut self, registers: &mut Registers) -> Result<Exit, HypervisorError> {
        if registers.rip >= USER_END {
            // What sigreturn(2), or a jump into the stub with a wild rcx, may ask for; iret faults so.
            return Ok(Exit::Fault(Fault {
                vector: Fault::GENERAL_PROTECTION,
                code: 0,
                address: 0,
            }));
        }
        self.load(registers);
        let result = self.enter();
        // Whoever kicked has told before what is wanted; it is looked for before the next run.
        self.clear_immediate_exit();
        match result {
            Ok(left) => self.leave(left, registers),
            Err(error) => {
                let exit = match Errno(error.errno()) {
                    Errno::EINTR | Errno::EAGAIN => Exit::Interrupted,
                    Errno::EFAULT => Exit::PageUnavailable,
                    _ => return Err(kvm("KVM_RUN")(error)),
                };
                self.leave_early(exit, registers)
            }
        }
    }

    fn enter(&mut self) -> Result<Left, kvm_ioctls::Error> {
        match self.fd.run()? {
            VcpuExit::IoOut(port, _) => Ok(Left::Out(port)),
            VcpuExit::IoIn(..) => Ok(Left::In),
            VcpuExit::Intr => Err(kvm_ioctls::Error::new(libc::EINTR)),
            other => Ok(Left::Other(format!("{other:?}"))),
        }
    }

    /// Lets KVM finish an access to a port, without entering the guest (Documentation/virt/kvm/api.rst, KVM_RUN).
    fn complete_access(&mut self) -> Result<(), HypervisorError> {
        loop {
            self.fd.set_kvm_immediate_exit(1);
            match self.enter() {
                // The next bytes of an instruction with a prefix for repetition.
                Ok(Left::In | Left::Out(_)) => {}
                Ok(Left::Other(reason)) => return Err(HypervisorError::Stopped(reason)),
                Err(_) => {
                    self.clear_immediate_exit();
                    return Ok(());
                }
            }
        }
    }

    /// State after KVM_RUN was left at a moment of the host's choice: in user code, or on the way out of
    /// it, before the `out` of the stub or of an exception entry point. The latter is what it was to be.
    fn leave_early(
        &mut self,
        exit: Exit,
        registers: &mut Registers,
    ) -> Result<Exit, HypervisorError> {
        self.forget_exception()?;
        self.store(registers);
        if registers.rip == STUB_PAGE {
            return Ok(finish_syscall(registers));
        }
        match self.inside.step_back(&self.area, registers) {
            Some(Stopped::AtCall) => return Ok(finish_syscall(registers)),
            Some(Stopped::BehindCall) => return Ok(exit),
            None => {}
        }
        if self.user_mode() {
            return Ok(exit);
        }
        if vector_at(registers.rip).is_some() {
            return self.fault(registers).map(Exit::Fault);
        }
        Err(HypervisorError::Stopped(format!(
            "interrupted at {:#x} outside user code",
            registers.rip
        )))
    }

    /// Takes back an exception that KVM would deliver at the next entry, to whatever runs then. Its
    /// instruction has not completed (rip is still there), so that it happens again.
    fn forget_exception(&self) -> Result<(), HypervisorError> {
        let mut events = self
            .fd
            .get_vcpu_events()
            .map_err(kvm("KVM_GET_VCPU_EVENTS"))?;
        if events.exception.injected == 0 && events.exception.pending == 0 {
            return Ok(());
        }
        events.exception = Default::default();
        events.exception_has_payload = 0;
        self.fd
            .set_vcpu_events(&events)
            .map_err(kvm("KVM_SET_VCPU_EVENTS"))
    }

    /// For reports: whether memory or the processor is to be suspected.
    fn system_state(&self) -> String {
        match descriptors::first_change(&self.area, self.index) {
            None => "its descriptors as they were written".into(),
            Some(address) => format!("its descriptors changed at {address:#x}"),
        }
    }

    fn user_mode(&self) -> bool {
        self.fd.sync_regs().sregs.cs.selector & 3 == 3
    }

    fn load(&mut self, registers: &Registers) {
        let user = self.user_mode();
        let state = self.fd.sync_regs_mut();
        state.regs = kvm_regs {
            rax: registers.rax,
            rbx: registers.rbx,
            rcx: registers.rcx,
            rdx: registers.rdx,
            rsi: registers.rsi,
            rdi: registers.rdi,
            rsp: registers.rsp,
            rbp: registers.rbp,
            r8: registers.r8,
            r9: registers.r9,
            r10: registers.r10,
            r11: registers.r11,
            r12: registers.r12,
            r13: registers.r13,
            r14: registers.r14,
            r15: registers.r15,
            rip: registers.rip,
            rflags: (registers.rflags & USER_FLAGS) | FIXED_FLAGS,
        };
        let sregs = &mut state.sregs;
        let bases = (sregs.fs.base, sregs.gs.base) == (registers.fs_base, registers.gs_base);
        if !user || !bases {
            sregs.cs = descriptors::user_code();
            sregs.ss = descriptors::user_stack();
            sregs.fs.base = registers.fs_base;
            sregs.gs.base = registers.gs_base;
            self.fd.set_sync_dirty_reg(SyncReg::SystemRegister);
        }
        self.fd.set_sync_dirty_reg(SyncReg::Register);
    }

    fn store(&self, registers: &mut Registers) {
        let state = self.fd.sync_regs();
        let (regs, sregs) = (state.regs, state.sregs);
        *registers = Registers {
            rax: regs.rax,
            rbx: regs.rbx,
            rcx: regs.rcx,
            rdx: regs.rdx,
            rsi: regs.rsi,
            rdi: regs.rdi,
            rbp: regs.rbp,
            rsp: regs.rsp,
            r8: regs.r8,
            r9: regs.r9,
            r10: regs.r10,
            r11: regs.r11,
            r12: regs.r12,
            r13: regs.r13,
            r14: regs.r14,
            r15: regs.r15,
            rip: regs.rip,
            rflags: regs.rflags,
            fs_base: sregs.fs.base,
            gs_base: sregs.gs.base,
        };
    }

    fn leave(&mut self, left: Left, registers: &mut Registers) -> Result<Exit, HypervisorError> {
        self.store(registers);
        match left {
            // KVM may or may not have stepped over the `out` yet.
            Left::Out(SYSCALL_PORT) if (STUB_PAGE..=STUB_PAGE + 2).contains(&registers.rip) => {
                if self.entry == Entry::Stub
                    && self.user_mode()
                    && self.inside.may_serve(registers.rax)
                {
                    self.entry = Entry::StubForNow;
                }
                Ok(finish_syscall(registers))
            }
            Left::Out(FAULT_PORT) => {
                let fault = self.fault(registers)?;
                // An argument of a call that was being served inside cannot be reached there: whoever serves it outside finds out why. Of other
                // exceptions rip may be that of what comes next.
                if !matches!(fault.vector, Fault::PAGE_FAULT | Fault::GENERAL_PROTECTION) {
                    return Ok(Exit::Fault(fault));
                }
                match self.inside.step_back(&self.area, registers) {
                    Some(Stopped::AtCall) => Ok(finish_syscall(registers)),
                    // What comes next happens again.
                    Some(Stopped::BehindCall) => Ok(Exit::Interrupted),
                    None => Ok(Exit::Fault(fault)),
                }
            }
            // A program's own access to the one port that its task state opens: as to any other.
            Left::Out(_) | Left::In if self.user_mode() => {
                self.complete_access()?;
                Ok(Exit::Fault(Fault {
                    vector: Fault::GENERAL_PROTECTION,
                    code: 0,
                    address: 0,
                }))
            }
            Left::Out(port) => Err(HypervisorError::Stopped(format!("write to port {port:#x}"))),
            Left::In => Err(HypervisorError::Stopped("read from a port".into())),
            Left::Other(reason) => Err(HypervisorError::Stopped(format!(
                "{reason} at {:#x}, {}",
                registers.rip,
                self.system_state()
            ))),
        }
    }

    /// Reads the frame that the processor pushed on the exception stack.
    fn fault(&self, registers: &mut Registers) -> Result<Fault, HypervisorError> {
        let bad = || HypervisorError::Stopped("an exception left no frame".into());
        let vector = vector_at(registers.rip).ok_or_else(bad)?;
        let mut at = registers.rsp;
        let top = descriptors::stack_top(self.index);
        let mut pop = || {
            let value = (at < top).then(|| self.area.word(at)).flatten();
            at = at.wrapping_add(8);
            value
                .map(|word| word.load(Ordering::Relaxed))
                .ok_or_else(bad)
        };
        let code = if has_error_code(vector) { pop()? } else { 0 };
        registers.rip = pop()?;
        let selector = pop()?;
        registers.rflags = pop()?;
        registers.rsp = pop()?;
        if selector & 3 != 3 {
            return Err(HypervisorError::Stopped(format!(
                "exception {vector} at {:#x} outside user code",
                registers.rip
            )));
        }
        let address = if vector == Fault::PAGE_FAULT {
            self.fd.sync_regs().sregs.cr2
        } else {
            0
        };
        Ok(Fault {
            vector,
            code,
            address,
        })
    }

    /// Frequency of the guest's time-stamp counter as KVM names it; 0 when it does not.
    pub(crate) fn ticks_khz(&self) -> u32 {
        self.fd.get_tsc_khz().unwrap_or(0)
    }

    /// Whether the guest's time-stamp counter is the host's: KVM's reading of it must lie between two
    /// readings of the host's.
    pub(crate) fn counter_is_hosts(&self) -> bool {
        const IA32_TSC: u32 = 0x10;
        let entry = kvm_msr_entry {
            index: IA32_TSC,
            ..Default::default()
        };
        let Ok(mut list) = Msrs::from_entries(&[entry]) else {
            return false;
        };
        let before = ticks();
        let read = self.fd.get_msrs(&mut list);
        let after = ticks();
        let value = list.as_slice().first().map(|entry| entry.data);
        matches!(read, Ok(1)) && value.is_some_and(|value| (before..=after).contains(&value))
    }

    /// The floating-point state of the guest thread that ran last.
    ///
    /// # Errors
    /// [`HypervisorError::Kvm`] when KVM refuses.
    pub fn fpu(&self) -> Result<FpuState, HypervisorError> {
        let state = self.fd.get_xsave().map_err(kvm("KVM_GET_XSAVE"))?;
        Ok(FpuState(Box::new(state.region)))
    }

    /// Replaces the floating-point state.
    ///
    /// # Errors
    /// [`HypervisorError::Kvm`] for a state the processor does not take (reserved bits set).
    pub fn set_fpu(&mut self, state: &FpuState) -> Result<(), HypervisorError> {
        let xsave = kvm_xsave {
            region: *state.0,
            ..kvm_xsave::default()
        };
        // SAFETY: no dynamically enabled features (AMX) are permitted, so 4096 bytes are all KVM reads.
        unsafe { self.fd.set_xsave(&xsave) }.map_err(kvm("KVM_SET_XSAVE"))
    }
}

/// `syscall` left its successor in rcx and the flags in r11 (Intel SDM volume 2).
fn finish_syscall(registers: &mut Registers) -> Exit {
    registers.rip = registers.rcx;
    registers.rflags = registers.r11;
    Exit::Syscall
}

/// The host's time-stamp counter.
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user space run it.
    unsafe { _rdtsc() }
}
