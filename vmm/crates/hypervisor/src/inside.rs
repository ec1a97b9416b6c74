//! Code that serves system calls without leaving the guest.
//!
//! An exit costs 20 to 40 us on a KVM where `syscall` stays in user code. There the entry point of a virtual CPU is moved from the stub to code in the same
//! page, which goes on behind the `syscall` by itself when it can, and to the stub when it cannot. Where `syscall` changes to CPL 0 the stub stays the entry
//! point: an exit costs little there. What the calls are is known to whoever lays the code alone.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use vmm_abi::inside::{
    ADDRESS_WORD, CODE_BEHIND_STUB, CODE_TO_WORDS, InsideCode, InsideSpan, MOST_CODE_BYTES, WORDS,
};
use vmm_abi::{PAGE_SIZE, Registers};

use crate::HypervisorError;
use crate::system_area::{self, STUB_PAGE, SystemArea};

pub(crate) const INSIDE_CODE: u64 = STUB_PAGE + CODE_BEHIND_STUB;
const _: () = assert!(INSIDE_CODE + CODE_TO_WORDS == system_area::WORDS);
const _: () = assert!(CODE_BEHIND_STUB + MOST_CODE_BYTES as u64 <= PAGE_SIZE);

/// The code of one machine, if it has any.
#[derive(Debug, Default)]
pub(crate) struct Inside(OnceLock<InsideCode>);

impl Inside {
    pub(crate) fn lay(&self, area: &SystemArea, code: InsideCode) -> Result<(), HypervisorError> {
        let bytes = code.bytes;
        if bytes.len() > MOST_CODE_BYTES || self.0.set(code).is_err() {
            return Err(HypervisorError::Stopped(
                "code for system calls does not fit, or is there already".into(),
            ));
        }
        area.write(INSIDE_CODE, bytes);
        let at = system_area::WORDS.saturating_add((ADDRESS_WORD as u64).saturating_mul(8));
        area.write(at, &system_area::WORDS.to_le_bytes());
        Ok(())
    }

    /// Whether calls of a number may be served by the code.
    pub(crate) fn may_serve(&self, rax: u64) -> bool {
        // The number is an `int`: the upper half of the register does not count.
        let number = rax as u32;
        self.0
            .get()
            .is_some_and(|code| code.numbers.contains(&number))
    }

    /// Whether a thread that stopped there is in the midst of the code. If so rax becomes what it was at the `syscall`; all else still is.
    pub(crate) fn step_back(&self, registers: &mut Registers) -> bool {
        let Some(code) = self.0.get() else {
            return false;
        };
        let Some(offset) = registers
            .rip
            .checked_sub(INSIDE_CODE)
            .filter(|offset| *offset < code.bytes.len() as u64)
        else {
            return false;
        };
        let within =
            |span: &&InsideSpan| (u64::from(span.start)..u64::from(span.end)).contains(&offset);
        if let Some(span) = code.spans.iter().find(within) {
            registers.rax = u64::from(span.number);
        }
        true
    }
}

/// What the code reads. They are zero at first but for [`ADDRESS_WORD`], and the guest may read them.
#[derive(Clone, Debug)]
pub struct Words(Arc<SystemArea>);

impl Words {
    pub(crate) fn of(area: &Arc<SystemArea>) -> Self {
        Self(Arc::clone(area))
    }

    /// One of them, by its place; `None` from [`WORDS`] on.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&AtomicU64> {
        let offset = u64::try_from(index).ok().filter(|_| index < WORDS)?;
        self.0
            .word(system_area::WORDS.saturating_add(offset.saturating_mul(8)))
    }
}

#[cfg(test)]
#[path = "inside_tests.rs"]
mod tests;
