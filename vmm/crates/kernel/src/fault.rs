//! Which signal an exception becomes (arch/x86/kernel/traps.c, mm/fault.c of Linux say which code).

use vmm_abi::*;
use vmm_memory::AddressSpace;

/// The signal for a fault of the instruction at `rip`.
#[must_use]
pub fn signal_of(fault: &Fault, rip: u64, memory: &AddressSpace) -> SigInfo {
    let (signo, code, address) = match fault.vector {
        0 => (SIGFPE, FPE_INTDIV, rip),
        1 => (SIGTRAP, TRAP_TRACE, rip),
        3 => (SIGTRAP, SI_KERNEL, 0),
        6 => (SIGILL, ILL_ILLOPN, rip),
        14 if memory.is_mapped(fault.address) => (SIGSEGV, SEGV_ACCERR, fault.address),
        14 => (SIGSEGV, SEGV_MAPERR, fault.address),
        16 | 19 => (SIGFPE, FPE_FLTINV, rip),
        17 => (SIGBUS, 1, 0),
        _ => (SIGSEGV, SI_KERNEL, 0),
    };
    let mut info = SigInfo {
        signo,
        code,
        ..SigInfo::default()
    };
    if let Some(word) = info.words.first_mut() {
        *word = address;
    }
    info
}
