use serde::{Deserialize, Serialize};
use vmm_abi::Fault;

/// Why a virtual CPU came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest executed `syscall`; its registers are those of that moment, with rip behind it.
    Syscall,
    /// The guest caused an exception; rip is that of the instruction (behind it for a trap).
    Fault(Fault),
    /// Another thread kicked this one, or the host wanted its attention.
    Interrupted,
    /// The host could not give a page (a file behind it shrank, memory is out, or the guest's
    /// mappings were being changed).
    PageUnavailable,
}

/// How often a virtual CPU came back, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitCounts {
    pub syscall: u64,
    pub fault: u64,
    pub interrupted: u64,
    pub page_unavailable: u64,
    /// Time-stamp counter ticks spent in KVM_RUN.
    pub guest_ticks: u64,
}

impl ExitCounts {
    /// Counts one exit.
    pub fn add(&mut self, exit: &Exit) {
        let counter = match exit {
            Exit::Syscall => &mut self.syscall,
            Exit::Fault(_) => &mut self.fault,
            Exit::Interrupted => &mut self.interrupted,
            Exit::PageUnavailable => &mut self.page_unavailable,
        };
        *counter = counter.saturating_add(1);
    }

    /// Adds the counts of another vCPU.
    pub fn merge(&mut self, other: &ExitCounts) {
        self.syscall = self.syscall.saturating_add(other.syscall);
        self.fault = self.fault.saturating_add(other.fault);
        self.interrupted = self.interrupted.saturating_add(other.interrupted);
        self.page_unavailable = self.page_unavailable.saturating_add(other.page_unavailable);
        self.guest_ticks = self.guest_ticks.saturating_add(other.guest_ticks);
    }
}
