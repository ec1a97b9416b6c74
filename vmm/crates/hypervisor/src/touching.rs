//! Pages that are touched from within before the guest runs, and a look at which of them a guest has touched.
//!
//! KVM maps a page when it is touched for the first time, which costs several microseconds. Whoever knows beforehand what a guest will touch
//! can have that done while nobody waits.

use std::sync::atomic::Ordering;

use vmm_abi::{Errno, Fault, PAGE_SIZE, Registers};

use crate::descriptors::TOUCHING_CODE;
use crate::system_area::LIST_PAGE;
use crate::{Exit, HypervisorError, Machine};

/// Addresses that the list holds.
const LISTED: usize = (PAGE_SIZE / 8) as usize;
/// Touches that fail before no more are tried: each leaves the machine.
const MOST_FAILED: usize = 16;
/// Times that the host may want its attention during one list.
const MOST_INTERRUPTED: usize = 64;

fn damaged(errno: Errno) -> HypervisorError {
    HypervisorError::Memory(std::io::Error::from_raw_os_error(errno.0))
}

/// What a guest has touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touches {
    /// Pages that were only read, the first and how many.
    pub read: Vec<(u64, u64)>,
    /// Pages that were written.
    pub written: Vec<(u64, u64)>,
}

impl Machine {
    /// To be called before the guest runs: what it touches is noted from then on.
    ///
    /// # Errors
    /// As [`Machine::touches`].
    pub fn watch(&self) -> Result<(), HypervisorError> {
        self.paging.watch(true);
        self.paging.forget_touches().map_err(damaged)
    }

    /// What the guest has touched since [`Machine::watch`], `None` without that; it is noted no more. Pages are counted from address 0.
    ///
    /// # Errors
    /// [`HypervisorError::Memory`]; there is none unless the tables are damaged.
    pub fn touches(&self) -> Result<Option<Touches>, HypervisorError> {
        if !self.paging.watch(false) {
            return Ok(None);
        }
        let mut touches = Touches::default();
        self.paging
            .touched(&mut |address, written| {
                let list = if written {
                    &mut touches.written
                } else {
                    &mut touches.read
                };
                let page = address / PAGE_SIZE;
                match list.last_mut() {
                    Some((start, count)) if start.saturating_add(*count) == page => {
                        *count = count.saturating_add(1);
                    }
                    _ => list.push((page, 1)),
                }
            })
            .map_err(damaged)?;
        Ok(Some(touches))
    }

    /// Reads a byte at each of the addresses, as the guest would. No guest code may run meanwhile. `appear` is asked whether what is missing
    /// at an address can be had after all. Where nothing can be read nothing is, and nothing depends on it.
    ///
    /// # Errors
    /// [`HypervisorError`] when the machine is unusable.
    pub fn touch(
        &self,
        addresses: &[u64],
        appear: &dyn Fn(Fault) -> bool,
    ) -> Result<(), HypervisorError> {
        let mut vcpu = self.take_vcpu()?;
        // What it ends with is no system call.
        vcpu.serve_inside(false)?;
        let mut failed = 0usize;
        for part in addresses.chunks(LISTED) {
            for (place, address) in (0u64..).zip(part) {
                self.list(place, *address)?;
            }
            let mut registers = Registers {
                rip: TOUCHING_CODE,
                rsi: LIST_PAGE,
                rdx: part.len() as u64,
                ..Registers::default()
            };
            let mut interrupted = 0usize;
            loop {
                match vcpu.run(&mut registers)? {
                    Exit::Syscall => break,
                    Exit::Interrupted if interrupted < MOST_INTERRUPTED => {
                        interrupted = interrupted.saturating_add(1);
                    }
                    Exit::Fault(fault) if failed < MOST_FAILED => {
                        failed = failed.saturating_add(1);
                        if appear(fault) {
                            continue;
                        }
                        // On with the next: `lodsq` has gone on already.
                        registers.rdx = registers.rdx.saturating_sub(1);
                        if registers.rdx == 0 {
                            break;
                        }
                        registers.rip = TOUCHING_CODE;
                    }
                    _ => {
                        failed = MOST_FAILED;
                        break;
                    }
                }
            }
            if failed >= MOST_FAILED {
                break;
            }
        }
        self.area.give_back(LIST_PAGE);
        self.return_vcpu(vcpu);
        Ok(())
    }

    fn list(&self, place: u64, address: u64) -> Result<(), HypervisorError> {
        let at = LIST_PAGE.saturating_add(place.saturating_mul(8));
        let word = self.area.word(at);
        let missing = || HypervisorError::Stopped("the list of pages to touch is gone".into());
        word.ok_or_else(missing)?.store(address, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
#[path = "touching_tests.rs"]
mod tests;
