use std::sync::Arc;

use vmm_abi::Errno;
use vmm_hypervisor::{BoundVcpu, HypervisorError, Machine, Vcpu};
use vmm_kernel::{Fpu, ThreadShared};

/// Bytes of a floating-point state in the XSAVE format.
const FPU_BYTES: usize = 4096;

/// What a thread begins with, wherever it will run.
pub enum Beginning {
    /// A virtual CPU that holds its floating-point state.
    With(Vcpu),
    /// The state alone, without the zeroes at its end.
    Saved(Vec<u8>),
}

/// The virtual CPU of a guest thread, as the kernel may see it.
pub enum Cpu {
    Waiting(Beginning),
    Bound(BoundVcpu),
}

impl Cpu {
    /// Makes it the calling thread's.
    pub fn bind(
        &mut self,
        machine: &Machine,
        thread: &Arc<ThreadShared>,
    ) -> Result<(), HypervisorError> {
        let nothing = Self::Waiting(Beginning::Saved(Vec::new()));
        let vcpu = match std::mem::replace(self, nothing) {
            Self::Waiting(Beginning::Saved(state)) => {
                let mut vcpu = machine.take_vcpu()?;
                let state = machine.initial_fpu(&vcpu)?.with_bytes(&padded(state));
                vcpu.set_fpu(&state)?;
                vcpu
            }
            Self::Waiting(Beginning::With(vcpu)) => vcpu,
            Self::Bound(vcpu) => vcpu.release(),
        };
        let vcpu = BoundVcpu::new(vcpu);
        let kicker = vcpu.kicker();
        thread.set_kick(move || kicker.kick());
        *self = Self::Bound(vcpu);
        Ok(())
    }

    /// The virtual CPU, for another thread.
    pub fn release(self) -> Option<Vcpu> {
        match self {
            Self::Waiting(Beginning::Saved(_)) => None,
            Self::Waiting(Beginning::With(vcpu)) => Some(vcpu),
            Self::Bound(vcpu) => Some(vcpu.release()),
        }
    }
}

/// The whole state; its end is left out where it is kept.
fn padded(mut state: Vec<u8>) -> Vec<u8> {
    state.resize(FPU_BYTES, 0);
    state
}

impl Fpu for Cpu {
    fn save(&mut self) -> Result<Vec<u8>, Errno> {
        let vcpu = match self {
            Self::Waiting(Beginning::Saved(state)) => return Ok(padded(state.clone())),
            Self::Waiting(Beginning::With(vcpu)) => vcpu,
            Self::Bound(vcpu) => vcpu,
        };
        let state = vcpu.fpu().map_err(|_| Errno::EIO)?;
        Ok(state.to_bytes())
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let vcpu = match self {
            Self::Waiting(Beginning::Saved(state)) => {
                let mut whole = padded(std::mem::take(state));
                for (to, from) in whole.iter_mut().zip(bytes) {
                    *to = *from;
                }
                *state = whole;
                return Ok(());
            }
            Self::Waiting(Beginning::With(vcpu)) => vcpu,
            Self::Bound(vcpu) => vcpu,
        };
        let state = vcpu.fpu().map_err(|_| Errno::EIO)?.with_bytes(bytes);
        vcpu.set_fpu(&state).map_err(|_| Errno::EINVAL)
    }
}
