//! Writing down what is in memory while nothing of the guest runs.

use vmm_abi::{Errno, PAGE_SIZE, Prot};

use super::AddressSpace;
use super::host::host_protection;
use crate::{Extent, Kind, MappingState, MemoryState, PageMap, PageStore, SaveError, Vma};

/// Mappings up to this size are saved as one piece, holes and all: one mapping brings them back.
const ONE_PIECE: u64 = 1 << 20;
/// Holes up to this size are saved with what is around them.
const SMALL_HOLE: u64 = 16 * PAGE_SIZE;
/// Bytes of a page one level up.
const LARGE_PAGE: u64 = 2 << 20;
const PAGE: usize = PAGE_SIZE as usize;

/// What a mapped file holds at an offset, into the buffer: fewer bytes at its end. `None` for a file that cannot be
/// had again by its name.
pub type ReadFile<'a> = &'a mut dyn FnMut(&str, u64, &mut [u8]) -> Option<usize>;

impl AddressSpace {
    /// All mappings, their pages written to `store`. Memory may not be used afterwards: what was inaccessible
    /// may now be readable.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save(
        &self,
        pages: &PageMap,
        store: &mut dyn PageStore,
        file: ReadFile<'_>,
    ) -> Result<MemoryState, SaveError> {
        let layout = self.layout.write();
        let mut mappings = Vec::new();
        for vma in layout.vmas.iter() {
            mappings.push(self.save_mapping(vma, pages, store, file)?);
        }
        Ok(MemoryState {
            mappings,
            heap: (layout.heap_start, layout.heap_end),
        })
    }

    fn save_mapping(
        &self,
        vma: &Vma,
        pages: &PageMap,
        store: &mut dyn PageStore,
        file: ReadFile<'_>,
    ) -> Result<MappingState, SaveError> {
        let mut saved = MappingState {
            vma: vma.clone(),
            beneath: None,
            extents: Vec::new(),
        };
        let held = match &vma.kind {
            // Made anew, with the clock of whoever brings it back.
            Kind::Special(_) => return Ok(saved),
            Kind::File { name, shared, .. } => {
                if *shared && vma.allowed.contains(Prot::WRITE) {
                    return Err(SaveError::Shared(name.clone()));
                }
                let (known, differing) = self.differing(vma, name, pages, file)?;
                saved.beneath = known.then(|| name.clone());
                differing
            }
            // One process alone: memory it shares with nobody is its own.
            Kind::SharedAnonymous => self.all_pages(vma),
            Kind::Anonymous | Kind::Heap | Kind::Stack => self.own_pages(vma, pages)?,
        };
        if held.is_empty() {
            return Ok(saved);
        }
        if host_protection(vma.prot) == libc::PROT_NONE {
            self.host_protect(vma.start, vma.len(), libc::PROT_READ)
                .map_err(|errno| SaveError::Host("mprotect", errno))?;
        }
        let zero_beneath = saved.beneath.is_none();
        let held = self.read_pages(held, zero_beneath)?;
        saved.extents = store_pages(vma, &held, zero_beneath, store)?;
        Ok(saved)
    }

    /// Guest addresses of pages that were touched.
    fn own_pages(&self, vma: &Vma, pages: &PageMap) -> Result<Vec<u64>, SaveError> {
        let base = self.window.base() as u64;
        let (start, end) = (base.saturating_add(vma.start), base.saturating_add(vma.end));
        let own = pages
            .own_pages(start, end)
            .map_err(|error| SaveError::Host("pagemap", error.into()))?;
        Ok(own.iter().map(|at| at.saturating_sub(base)).collect())
    }

    fn all_pages(&self, vma: &Vma) -> Vec<u64> {
        (vma.start..vma.end).step_by(PAGE).collect()
    }

    /// Pages of a mapped file that are not what the file of that name holds, and whether there is such a file. The name
    /// is not relied upon: whatever differs is saved.
    fn differing(
        &self,
        vma: &Vma,
        name: &str,
        pages: &PageMap,
        file: ReadFile<'_>,
    ) -> Result<(bool, Vec<u64>), SaveError> {
        let Kind::File { offset, .. } = vma.kind else {
            return Ok((false, Vec::new()));
        };
        let mut own = self.own_pages(vma, pages)?.into_iter().peekable();
        let readable = host_protection(vma.prot) != libc::PROT_NONE;
        let mut differing = Vec::new();
        let (mut memory, mut found) = (vec![0; PAGE], vec![0; PAGE]);
        for at in self.all_pages(vma) {
            let place = offset.saturating_add(at.saturating_sub(vma.start));
            let Some(count) = file(name, place, &mut found) else {
                return Ok((false, self.readable_pages(vma)));
            };
            if own.next_if_eq(&at).is_some() {
                differing.push(at);
                continue;
            }
            // Nothing lies behind the file's last page: touching it is SIGBUS, now and later.
            if count == 0 || !readable {
                continue;
            }
            found.get_mut(count..).unwrap_or_default().fill(0);
            if self.read(at, &mut memory).is_err() || memory != found {
                differing.push(at);
            }
        }
        Ok((true, differing))
    }

    /// All pages that can be read.
    fn readable_pages(&self, vma: &Vma) -> Vec<u64> {
        let mut byte = [0];
        let mut pages = self.all_pages(vma);
        pages.retain(|at| self.read(*at, &mut byte).is_ok());
        pages
    }

    /// What pages hold; those without anything are left out when `skip_zero` says so.
    fn read_pages(&self, at: Vec<u64>, skip_zero: bool) -> Result<Vec<(u64, Vec<u8>)>, SaveError> {
        let mut held = Vec::new();
        for address in at {
            let mut bytes = vec![0; PAGE];
            self.read(address, &mut bytes)
                .map_err(|errno| SaveError::Host("reading a page", errno))?;
            if !skip_zero || bytes.iter().any(|byte| *byte != 0) {
                held.push((address, bytes));
            }
        }
        Ok(held)
    }
}

/// Code that was compiled is run here and there and seldom written: a large page that is half full is saved whole, so that a clone may have it by one page
/// fault. Pieces of a mapping, in ascending order; those of the answer have holes in them.
fn fill_large_pages(vma: &Vma, pieces: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut filled: Vec<(u64, u64)> = Vec::new();
    let mut add = |start: u64, end: u64| match filled.last_mut() {
        Some(last) if start <= last.1 => last.1 = last.1.max(end),
        _ => filled.push((start, end)),
    };
    for (start, end) in pieces {
        let mut at = *start;
        while at < *end {
            let low = at & !LARGE_PAGE.wrapping_sub(1);
            let high = low.saturating_add(LARGE_PAGE);
            let within =
                |(start, end): &(u64, u64)| (*end).min(high).saturating_sub((*start).max(low));
            let held = pieces.iter().map(within).fold(0, u64::saturating_add);
            if low >= vma.start && high <= vma.end && held >= LARGE_PAGE / 2 {
                add(low, high);
            } else {
                add(at, high.min(*end));
            }
            at = high;
        }
    }
    filled
}

/// Writes pages in as few pieces as is sensible. With zeroes beneath a piece may have holes.
fn store_pages(
    vma: &Vma,
    held: &[(u64, Vec<u8>)],
    zero_beneath: bool,
    store: &mut dyn PageStore,
) -> Result<Vec<Extent>, SaveError> {
    let failed = |errno: Errno| SaveError::Host("writing pages", errno);
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    if !held.is_empty() && zero_beneath && vma.len() <= ONE_PIECE {
        pieces.push((vma.start, vma.end));
    } else {
        let bridged = if zero_beneath { SMALL_HOLE } else { 0 };
        for (at, _) in held {
            let end = at.saturating_add(PAGE_SIZE);
            match pieces.last_mut() {
                Some(piece) if *at <= piece.1.saturating_add(bridged) => piece.1 = end,
                _ => pieces.push((*at, end)),
            }
        }
    }
    if zero_beneath && vma.prot.contains(Prot::EXEC) {
        pieces = fill_large_pages(vma, &pieces);
    }
    let mut extents = Vec::new();
    let mut left = held.iter().peekable();
    for (start, end) in pieces {
        let len = end.saturating_sub(start);
        let (align, rest) = if len >= LARGE_PAGE {
            (LARGE_PAGE, start % LARGE_PAGE)
        } else {
            (PAGE_SIZE, 0)
        };
        let offset = store.reserve(len, align, rest).map_err(failed)?;
        while let Some((at, bytes)) = left.next_if(|(at, _)| *at < end) {
            let place = offset.saturating_add(at.saturating_sub(start));
            store.write(place, bytes).map_err(failed)?;
        }
        extents.push(Extent {
            at: start,
            len,
            offset,
        });
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pages_that_are_half_full_are_saved_whole() {
        const M: u64 = 1 << 20;
        let vma = |start, end| Vma {
            start,
            end,
            prot: Prot::EXEC,
            allowed: Prot::EXEC,
            kind: Kind::Anonymous,
            charge: crate::Charge::Always,
        };
        let all = vma(2 * M, 100 * M);
        let fill = |pieces: &[(u64, u64)]| fill_large_pages(&all, pieces);
        assert_eq!(fill(&[(2 * M, 3 * M)]), [(2 * M, 4 * M)]);
        assert_eq!(
            fill(&[(2 * M, 3 * M - PAGE_SIZE)]),
            [(2 * M, 3 * M - PAGE_SIZE)]
        );
        // In two pieces; from one into the next.
        let halves = [(2 * M, 5 * M / 2), (3 * M, 7 * M / 2), (6 * M, 9 * M)];
        assert_eq!(fill(&halves), [(2 * M, 4 * M), (6 * M, 10 * M)]);
        assert_eq!(fill(&[(7 * M, 9 * M)]), [(6 * M, 10 * M)]);
        assert_eq!(
            fill(&[(7 * M, 8 * M + PAGE_SIZE)]),
            [(6 * M, 8 * M + PAGE_SIZE)]
        );
        // One that is not all of this mapping.
        let part = [(3 * M, 4 * M)];
        assert_eq!(fill_large_pages(&vma(3 * M, 100 * M), &part), part);
    }
}
