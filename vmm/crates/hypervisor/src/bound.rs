use std::ops::{Deref, DerefMut};

use vmm_abi::Registers;

use crate::kick::{Aim, Kicker};
use crate::{Exit, HypervisorError, Vcpu};

/// A virtual CPU that the thread which bound it runs, and no other. A kick of that thread ends the run it
/// is in, or else the next one at once. So a thread that binds first, then lets others have its
/// [`Kicker`], and looks before each run for what they may want of it, misses none of them.
#[derive(Debug)]
pub struct BoundVcpu {
    /// Goes before the page it points to.
    aim: Aim,
    vcpu: Vcpu,
}

impl BoundVcpu {
    /// Binds it to the calling thread, which has no other.
    #[must_use]
    pub fn new(mut vcpu: Vcpu) -> Self {
        // What a former thread was kicked for is nothing to this one.
        vcpu.clear_immediate_exit();
        // SAFETY: the flag lies in a mapping that the vCPU keeps, wherever it is moved; `aim` goes before it.
        let aim = unsafe { Aim::at(vcpu.immediate_exit()) };
        Self { aim, vcpu }
    }

    /// Kicks the thread it is bound to.
    #[must_use]
    pub fn kicker(&self) -> Kicker {
        self.aim.kicker()
    }

    /// Runs user code from `registers` until it leaves; they then hold its state.
    ///
    /// # Errors
    /// [`HypervisorError`] when the machine is unusable; a guest program cannot cause one.
    pub fn run(&mut self, registers: &mut Registers) -> Result<Exit, HypervisorError> {
        self.vcpu.run(registers)
    }

    /// Sets it free for another thread.
    #[must_use]
    pub fn release(self) -> Vcpu {
        let Self { aim, vcpu } = self;
        drop(aim);
        vcpu
    }
}

impl Deref for BoundVcpu {
    type Target = Vcpu;

    fn deref(&self) -> &Vcpu {
        &self.vcpu
    }
}

impl DerefMut for BoundVcpu {
    fn deref_mut(&mut self) -> &mut Vcpu {
        &mut self.vcpu
    }
}
