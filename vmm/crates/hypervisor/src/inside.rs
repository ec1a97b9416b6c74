//! Code that serves system calls without leaving the guest.
//!
//! An exit costs 20 to 40 us on a KVM where `syscall` stays in user code. There the entry point of a virtual CPU is moved from the stub to code in the same
//! page, which goes on behind the `syscall` by itself when it can, and to the stub when it cannot. Where `syscall` changes to CPL 0 the stub stays the entry
//! point: an exit costs little there. What the calls are is known to whoever lays the code alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use vmm_abi::inside::{
    ADDRESS_WORD, CODE_BEHIND_STUB, CODE_TO_OPEN_WORDS, CODE_TO_WORDS, InsideCode, InsideSpan,
    LOCK, MOST_CODE_BYTES, Midst, OPEN_WORDS, RESULT, SAVED, WORDS,
};
use vmm_abi::{PAGE_SIZE, Registers};

use crate::HypervisorError;
use crate::system_area::{self, STUB_PAGE, SystemArea};

pub(crate) const INSIDE_CODE: u64 = STUB_PAGE + CODE_BEHIND_STUB;
const _: () = assert!(INSIDE_CODE + CODE_TO_WORDS == system_area::WORDS);
const _: () = assert!(INSIDE_CODE + CODE_TO_OPEN_WORDS == system_area::OPEN_WORDS);
const _: () = assert!(CODE_BEHIND_STUB + MOST_CODE_BYTES as u64 <= PAGE_SIZE);

/// The code of one machine, if it has any.
#[derive(Debug, Default)]
pub(crate) struct Inside {
    code: OnceLock<InsideCode>,
    /// Whether `syscall` does, once somebody has found out.
    pub(crate) stays_in_user_code: OnceLock<bool>,
}

/// What a thread that stopped in the midst of the code is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Its call is to be served outside: all registers are as it left them.
    AtCall,
    /// Its call is over: so are its registers.
    BehindCall,
}

impl Inside {
    pub(crate) fn lay(&self, area: &SystemArea, code: InsideCode) -> Result<(), HypervisorError> {
        let bytes = code.bytes;
        if bytes.len() > MOST_CODE_BYTES || self.code.set(code).is_err() {
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
        self.code
            .get()
            .is_some_and(|code| code.numbers.contains(&number))
    }

    /// Where a thread that stopped in the midst of the code is, if it is there, and its registers as they are to be then. What the code has put aside lies
    /// where the guest may write: it is good for nothing but registers of that guest.
    pub(crate) fn step_back(
        &self,
        area: &SystemArea,
        registers: &mut Registers,
    ) -> Option<Stopped> {
        const ZERO: u64 = 1 << 6;
        let code = self.code.get()?;
        let offset = registers
            .rip
            .checked_sub(INSIDE_CODE)
            .filter(|offset| *offset < code.bytes.len() as u64)?;
        let within =
            |span: &&InsideSpan| (u64::from(span.start)..u64::from(span.end)).contains(&offset);
        let Some(span) = code.spans.iter().find(within) else {
            return Some(Stopped::AtCall);
        };
        let midst = match span.midst {
            Midst::Asked if registers.rax == 0 => Midst::Locked,
            Midst::Asked => Midst::Plain,
            Midst::Claimed if registers.rflags & ZERO != 0 => Midst::Over,
            Midst::Claimed => Midst::Saved,
            other => other,
        };
        if midst == Midst::Leaving {
            registers.rip = registers.rcx;
            return Some(Stopped::BehindCall);
        }
        registers.rax = span.number.into();
        if midst == Midst::Plain {
            return Some(Stopped::AtCall);
        }
        if midst != Midst::Locked {
            let saved = |place: usize| open_word(area, SAVED.saturating_add(place));
            registers.rcx = saved(0);
            registers.rdx = saved(1);
            registers.rsi = saved(2);
            registers.rdi = saved(3);
        }
        let result = open_word(area, RESULT);
        if let Some(lock) = open_cell(area, LOCK) {
            lock.store(0, Ordering::Release);
        }
        if midst != Midst::Over {
            return Some(Stopped::AtCall);
        }
        registers.rax = result;
        registers.rip = registers.rcx;
        registers.rflags = registers.r11;
        Some(Stopped::BehindCall)
    }
}

fn open_cell(area: &SystemArea, place: usize) -> Option<&AtomicU64> {
    let offset = u64::try_from(place).ok().filter(|_| place < OPEN_WORDS)?;
    area.word(system_area::OPEN_WORDS.saturating_add(offset.saturating_mul(8)))
}

fn open_word(area: &SystemArea, place: usize) -> u64 {
    open_cell(area, place).map_or(0, |word| word.load(Ordering::Acquire))
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

    /// One of those that the guest may write, too; `None` from [`OPEN_WORDS`] on.
    #[must_use]
    pub fn get_open(&self, index: usize) -> Option<&AtomicU64> {
        open_cell(&self.0, index)
    }
}

#[cfg(test)]
#[path = "inside_tests.rs"]
mod tests;
