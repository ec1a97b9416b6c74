//! What tests of a machine begin with: a guest on the host's /dev/kvm.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is to end it")]

use vmm_abi::Prot;
use vmm_memory::{AddressSpace, Backing, Charge, Kind, Limits, MapRequest, Place, Window};

use crate::{HostFacts, Machine, WINDOW_BYTES, install_kick_handler};

/// In this order, so that the machine goes before the window.
pub(crate) fn guest(facts: Option<&HostFacts>) -> (AddressSpace, Machine) {
    install_kick_handler().unwrap();
    let window = Window::reserve(WINDOW_BYTES).unwrap();
    // SAFETY: the address space keeps the window, and the machine is dropped before it.
    let machine = unsafe { Machine::new(window.base(), None, facts) }.unwrap();
    let limits = Limits { bytes: 256 << 20 };
    let memory = AddressSpace::new(window, machine.mapper(), limits);
    (memory, machine)
}

pub(crate) fn map(memory: &AddressSpace, at: u64, len: u64, prot: Prot) {
    let request = MapRequest {
        allowed: Prot::all(),
        place: Place::Fixed(at),
        len,
        prot,
        backing: Backing::Anonymous,
        kind: Kind::Anonymous,
        charge: Charge::Never,
    };
    memory.map(&request).unwrap();
}
