//! KVM with no guest kernel: user code at CPL 3 whose system calls, faults and ports leave the
//! virtual machine. Nothing here knows what a system call means.
//!
//! Guest physical addresses equal guest virtual ones. Addresses below [`WINDOW_BYTES`] are the
//! guest's memory; above lie the few pages of the system area (stub, descriptor tables, guest page
//! tables), of which the guest may run the stub page alone, and read that, the words of the code in it and the list of pages to touch.

mod alike;
mod bound;
mod descriptors;
mod error;
mod exit;
mod host_facts;
mod inside;
mod kick;
mod machine;
mod paging;
mod system_area;
mod touching;
mod vcpu;

pub use bound::BoundVcpu;
pub use error::HypervisorError;
pub use exit::Exit;
pub use host_facts::{HostFacts, boot_id, processor_id};
pub use inside::Words;
pub use kick::{Kicker, install_kick_handler};
pub use machine::{Machine, VcpuPlace};
pub use touching::Touches;
pub use vcpu::{FpuState, Vcpu};

/// Bytes of guest memory address space; one entry of the top-level page table.
pub const WINDOW_BYTES: u64 = 1 << 39;

#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod test_guest;
