//! Running signal handlers: the frame on the user stack and the way back (rt_sigreturn).

use std::arch::x86_64::__cpuid_count;
use std::mem::offset_of;

use vmm_abi::*;
use zerocopy::IntoBytes;

use crate::kernel::ExitStatus;
use crate::signal::{DefaultAction, SIG_DFL, SIG_IGN, bit, default_action};
use crate::task::{Fpu, Task};

/// A signal whose turn it is and that does something.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    info: SigInfo,
    action: SigAction,
    fault: Option<Fault>,
}

impl Delivery {
    /// Whether an interrupted call is made again after the handler.
    #[must_use]
    pub fn restarts(&self) -> bool {
        self.action.flags & SA_RESTART != 0
    }
}

/// Bytes below rsp that a leaf function may use (System V ABI).
const RED_ZONE: u64 = 128;
/// Offset of the software bytes in the XSAVE area, and the marks Linux writes (asm/sigcontext.h).
const SOFTWARE_BYTES: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// Offset of XSTATE_BV in the XSAVE area.
const STATE_BITS: usize = 512;
const UC_FLAGS: u64 = 7; // UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS

/// Bytes of the XSAVE area with the features the system has enabled.
#[must_use]
pub fn fpu_bytes() -> usize {
    // CPUID leaf 0xd is there on every processor with XSAVE; KVM at CPL 3 cannot do without.
    let size = __cpuid_count(0xd, 0).ebx;
    (size as usize).clamp(576, 4096)
}

/// The floating-point state that handlers start with (`fpu__clear_user_states` of Linux): all of it in its
/// initial configuration. XSTATE_BV names x87 and SSE: where it names neither SSE nor AVX, KVM keeps the MXCSR it has.
fn initial_fpu() -> Vec<u8> {
    const CONTROL_WORD: [u8; 2] = [0x7f, 0x03];
    const MXCSR: [u8; 4] = [0x80, 0x1f, 0, 0];
    const MXCSR_AT: usize = 24;
    const X87_AND_SSE: u8 = 3;
    let mut state = vec![0u8; fpu_bytes()];
    let words = CONTROL_WORD.iter().enumerate();
    let status = MXCSR
        .iter()
        .enumerate()
        .map(|(at, byte)| (at.saturating_add(MXCSR_AT), byte));
    let named = std::iter::once((STATE_BITS, &X87_AND_SSE));
    for (at, byte) in words.chain(status).chain(named) {
        if let Some(place) = state.get_mut(at) {
            *place = *byte;
        }
    }
    state
}

/// Bytes of stack a signal frame takes at most (AT_MINSIGSTKSZ).
#[must_use]
pub fn frame_bytes() -> u64 {
    (fpu_bytes() as u64)
        .saturating_add(size_of::<SignalFrame>() as u64)
        .saturating_add(4 + 64 + 16 + 128)
}

impl Task {
    /// Takes the next signal that is not blocked and not ignored.
    pub fn next_delivery(&mut self) -> Option<Delivery> {
        loop {
            let allowed = !self.mask();
            let mut actions = self.kernel.actions.lock();
            let own = self.shared.pending.lock().take(allowed);
            let mut info = own.or_else(|| actions.pending.take(allowed))?;
            let action = actions.get(info.signo).ok()?;
            if actions.is_ignored(info.signo) {
                continue;
            }
            if action.flags & SA_RESETHAND != 0 && action.handler != SIG_DFL {
                let _ = actions.set(
                    info.signo,
                    SigAction {
                        handler: SIG_DFL,
                        ..action
                    },
                );
            }
            drop(actions);
            self.kernel.signal_taken(&mut info);
            return Some(Delivery {
                info,
                action,
                fault: None,
            });
        }
    }

    /// Sends a signal the thread cannot escape, since the instruction would fault again: a blocked or
    /// ignored one kills.
    pub fn force_signal(&mut self, info: SigInfo, fault: Option<Fault>, fpu: &mut dyn Fpu) {
        let action = self
            .kernel
            .actions
            .lock()
            .get(info.signo)
            .unwrap_or_default();
        if self.mask() & bit(info.signo) != 0 || action.handler == SIG_IGN {
            self.end_process(ExitStatus::Signal(info.signo));
            return;
        }
        self.deliver(
            Delivery {
                info,
                action,
                fault,
            },
            fpu,
        );
    }

    /// Enters the handler, or does the default.
    pub fn deliver(&mut self, delivery: Delivery, fpu: &mut dyn Fpu) {
        let signal = delivery.info.signo;
        if delivery.action.handler == SIG_DFL {
            if default_action(signal) == DefaultAction::Terminate {
                self.end_process(ExitStatus::Signal(signal));
            }
            return;
        }
        if self.push_frame(&delivery, fpu).is_ok() {
            return;
        }
        let segv = self.kernel.actions.lock().get(SIGSEGV).unwrap_or_default();
        let caught = !matches!(segv.handler, SIG_DFL | SIG_IGN) && self.mask() & bit(SIGSEGV) == 0;
        let info = SigInfo {
            signo: SIGSEGV,
            code: SI_KERNEL,
            ..SigInfo::default()
        };
        let instead = Delivery {
            info,
            action: segv,
            fault: None,
        };
        if signal == SIGSEGV || !caught || self.push_frame(&instead, fpu).is_err() {
            // No room for the frame: Linux sends SIGSEGV, which kills when it is the one at hand or
            // has no handler that can run, on its own stack perhaps.
            self.end_process(ExitStatus::Signal(SIGSEGV));
        }
    }

    fn on_alt_stack(&self, sp: u64) -> bool {
        let stack = &self.alt_stack;
        stack.flags & SS_DISABLE == 0 && sp.wrapping_sub(stack.sp).wrapping_sub(1) < stack.size
    }

    fn push_frame(&mut self, delivery: &Delivery, fpu: &mut dyn Fpu) -> Result<(), Errno> {
        let (info, action) = (delivery.info, delivery.action);
        let r = self.registers;
        let use_alt = action.flags & SA_ONSTACK != 0
            && self.alt_stack.flags & SS_DISABLE == 0
            && !self.on_alt_stack(r.rsp);
        let top = if use_alt {
            self.alt_stack
                .sp
                .checked_add(self.alt_stack.size)
                .ok_or(Errno::EFAULT)?
        } else {
            r.rsp.checked_sub(RED_ZONE).ok_or(Errno::EFAULT)?
        };
        let state = self.fpu_frame(fpu)?;
        let state_at = top.checked_sub(state.len() as u64).ok_or(Errno::EFAULT)? & !63;
        let frame_len = size_of::<SignalFrame>() as u64;
        let frame_at = (state_at.checked_sub(frame_len).ok_or(Errno::EFAULT)? & !15)
            .checked_sub(8)
            .ok_or(Errno::EFAULT)?;
        if use_alt && frame_at < self.alt_stack.sp {
            return Err(Errno::EFAULT);
        }
        let mask = self.saved_mask.take().unwrap_or_else(|| self.mask());
        let frame = self.frame(delivery, mask, state_at);
        self.memory().write(state_at, &state)?;
        self.memory().write(frame_at, frame.as_bytes())?;
        fpu.restore(&initial_fpu())?;
        let extra = if action.flags & SA_NODEFER == 0 {
            bit(info.signo)
        } else {
            0
        };
        self.set_mask(self.mask() | action.mask | extra);
        if !Self::is_user_address(action.handler) {
            return Err(Errno::EFAULT);
        }
        self.registers = Registers {
            rip: action.handler,
            rsp: frame_at,
            rdi: info.signo as u64,
            rsi: frame_at.wrapping_add(offset_of!(SignalFrame, info) as u64),
            rdx: frame_at.wrapping_add(offset_of!(SignalFrame, context) as u64),
            rax: 0,
            // Handlers start with DF, TF and RF clear.
            rflags: r.rflags & !0x1_0500,
            ..r
        };
        Ok(())
    }

    fn fpu_frame(&self, fpu: &mut dyn Fpu) -> Result<Vec<u8>, Errno> {
        let size = fpu_bytes();
        let mut state = fpu.save()?;
        state.resize(size, 0);
        let features = state
            .get(STATE_BITS..STATE_BITS.saturating_add(8))
            .unwrap_or_default()
            .to_vec();
        let total = u32::try_from(size.saturating_add(4)).map_err(|_| Errno::EIO)?;
        let size = u32::try_from(size).map_err(|_| Errno::EIO)?;
        let mut software = Vec::new();
        software.extend_from_slice(&MAGIC1.to_le_bytes());
        software.extend_from_slice(&total.to_le_bytes());
        software.extend_from_slice(&features);
        software.extend_from_slice(&size.to_le_bytes());
        for (to, from) in state.iter_mut().skip(SOFTWARE_BYTES).zip(software) {
            *to = from;
        }
        state.extend_from_slice(&MAGIC2.to_le_bytes());
        Ok(state)
    }

    fn frame(&self, delivery: &Delivery, mask: u64, state_at: u64) -> SignalFrame {
        let r = self.registers;
        let fault = delivery.fault.unwrap_or(Fault {
            vector: 0,
            code: 0,
            address: 0,
        });
        let mut stack = self.alt_stack;
        if self.on_alt_stack(r.rsp) {
            stack.flags |= SS_ONSTACK;
        }
        let context = SigContext {
            r8: r.r8,
            r9: r.r9,
            r10: r.r10,
            r11: r.r11,
            r12: r.r12,
            r13: r.r13,
            r14: r.r14,
            r15: r.r15,
            rdi: r.rdi,
            rsi: r.rsi,
            rbp: r.rbp,
            rbx: r.rbx,
            rdx: r.rdx,
            rax: r.rax,
            rcx: r.rcx,
            rsp: r.rsp,
            rip: r.rip,
            eflags: r.rflags,
            cs: 0x33,
            ss: 0x2b,
            err: fault.code,
            trapno: u64::from(fault.vector),
            oldmask: mask,
            cr2: fault.address,
            fpstate: state_at,
            ..SigContext::default()
        };
        SignalFrame {
            restorer: delivery.action.restorer,
            context: UContext {
                flags: UC_FLAGS,
                link: 0,
                stack,
                context,
                sigmask: mask,
            },
            info: delivery.info,
        }
    }

    /// rt_sigreturn(2): takes all registers from the frame the handler's return left rsp behind.
    ///
    /// # Errors
    /// EFAULT for a frame that cannot be read or holds what no thread may have, when part of the registers may have been taken. Where a wild rip
    /// leads is seen when it is used.
    pub fn pop_frame(&mut self, fpu: &mut dyn Fpu) -> Result<(), Errno> {
        let frame: UContext = self.memory().read_value(self.registers.rsp)?;
        let c = frame.context;
        self.set_mask(frame.sigmask);
        self.alt_stack.flags &= !SS_ONSTACK;
        self.registers = Registers {
            rax: c.rax,
            rbx: c.rbx,
            rcx: c.rcx,
            rdx: c.rdx,
            rsi: c.rsi,
            rdi: c.rdi,
            rbp: c.rbp,
            rsp: c.rsp,
            r8: c.r8,
            r9: c.r9,
            r10: c.r10,
            r11: c.r11,
            r12: c.r12,
            r13: c.r13,
            r14: c.r14,
            r15: c.r15,
            rip: c.rip,
            rflags: c.eflags,
            ..self.registers
        };
        if c.fpstate != 0 {
            let mut state = vec![0u8; fpu_bytes()];
            self.memory().read(c.fpstate, &mut state)?;
            fpu.restore(&state).map_err(|_| Errno::EFAULT)?;
        }
        Ok(())
    }
}
