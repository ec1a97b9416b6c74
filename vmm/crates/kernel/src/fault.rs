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

/// Why a floating-point exception came, by the status in the XSAVE area (`fpu__exception_code` of Linux);
/// `None` for other exceptions.
#[must_use]
pub fn float_code(fault: &Fault, state: &[u8]) -> Option<i32> {
    const MXCSR_AT: usize = 24;
    let word = |at: usize| {
        let bytes = state.get(at..)?.first_chunk::<2>()?;
        Some(u32::from(u16::from_le_bytes(*bytes)))
    };
    // Status bits that are set and whose mask bits are not.
    let raised = match fault.vector {
        16 => word(2)? & !word(0)?,
        19 => word(MXCSR_AT)? & !(word(MXCSR_AT)? >> 7),
        _ => return None,
    };
    Some(match raised {
        r if r & 0x01 != 0 => FPE_FLTINV,
        r if r & 0x04 != 0 => FPE_FLTDIV,
        r if r & 0x08 != 0 => FPE_FLTOVF,
        r if r & 0x12 != 0 => FPE_FLTUND,
        r if r & 0x20 != 0 => FPE_FLTRES,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unmasked_status_says_why() {
        let fault = |vector| Fault {
            vector,
            code: 0,
            address: 0,
        };
        let mut state = vec![0u8; 512];
        // Division by zero and inexact, of which the latter is masked.
        let mxcsr: u32 = 0x1f80 & !(4 << 7) | 0x24;
        state[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        assert_eq!(float_code(&fault(19), &state), Some(FPE_FLTDIV));
        assert_eq!(float_code(&fault(16), &state), None);
        assert_eq!(float_code(&fault(0), &state), None);
        assert_eq!(float_code(&fault(19), &state[..20]), None);
    }
}
