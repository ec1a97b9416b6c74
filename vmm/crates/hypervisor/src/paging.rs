//! Guest page tables (Intel SDM volume 3, 4.5: 4-level paging), mirrored from the mappings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use vmm_abi::{Errno, PAGE_SIZE, Prot};
use vmm_memory::{Coming, Mapper, Vma};

use crate::WINDOW_BYTES;
use crate::system_area::{
    IDT_PAGE, LIST_PAGE, MAPPED_BYTES, OPEN_WORDS, STUB_PAGE, SYSTEM_BASE, SYSTEM_BYTES,
    SystemArea, TOP_TABLE, VCPU_PAGES, WORDS,
};

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Accessed and dirty are set beforehand, so that the processor never writes to the tables, unless it is to tell what is touched.
const TOUCHED: u64 = ACCESSED | DIRTY;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const LARGE_PAGE: u64 = 2 << 20;
/// Bytes of one memory slot. Slots cost kernel memory by their size, so they are made only under
/// what is mapped, piece by piece.
const SLOT_BYTES: u64 = 64 << 20;
/// Numbers of slots: the system area's first, then up to three for each piece of the window, then the rest of the system area.
const FIRST_SLOT: u64 = 1;
const SLOTS_OF_PIECE: u64 = 3;
const REST_OF_SYSTEM: u64 = FIRST_SLOT + (WINDOW_BYTES / SLOT_BYTES) * SLOTS_OF_PIECE;
/// Of the system area, in the first slot: room for some five hundred tables. More are seldom needed.
const SYSTEM_SLOT_BYTES: u64 = 4 << 20;

/// A piece of the window that memory slots lie or may come to lie in. A slot is never changed or removed.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    /// What the slot that was made first covers; without it no entry of a page table leads here.
    core: Option<(u64, u64)>,
    /// What lies before and behind it has a slot too.
    before: bool,
    behind: bool,
    /// Something is mapped here that entries are still to be made for.
    owed: bool,
    /// Nothing that is here is likely to be touched: the slot, too, is put off.
    seldom: bool,
}

impl Piece {
    /// Has a slot cover a part of it, the first to do so; answers from where to where.
    fn begin(&mut self, index: u64, start: u64, end: u64) -> (u64, u64) {
        let piece_start = index.saturating_mul(SLOT_BYTES);
        let piece_end = piece_start.saturating_add(SLOT_BYTES);
        // Whole large pages, so that KVM may map them as such.
        let low = start & !LARGE_PAGE.wrapping_sub(1);
        let high = end.next_multiple_of(LARGE_PAGE).min(piece_end);
        self.core = Some((low, high));
        (self.before, self.behind) = (low == piece_start, high == piece_end);
        (low, high)
    }
}

type EachPage<'a> = &'a mut dyn FnMut(u64, u64, u64, u64) -> Result<(), Errno>;

/// Page tables and memory slots of one machine.
pub(crate) struct Paging {
    area: Arc<SystemArea>,
    /// None for tables that no processor uses.
    vm: Option<Arc<VmFd>>,
    window_base: u64,
    /// By number; of few is anything to be said.
    pieces: Mutex<BTreeMap<u64, Piece>>,
    /// Entries are made so that the processor notes in them what it touches.
    watching: AtomicBool,
}

impl Paging {
    /// Sets up the slot and the tables of the system area itself.
    pub(crate) fn new(
        area: Arc<SystemArea>,
        vm: Option<Arc<VmFd>>,
        window_base: u64,
    ) -> Result<Self, Errno> {
        let paging = Self {
            area,
            vm,
            window_base,
            pieces: Mutex::default(),
            watching: AtomicBool::new(false),
        };
        let host = paging.area.host_address();
        paging.add_slot(0, SYSTEM_BASE, SYSTEM_SLOT_BYTES, host)?;
        let mut page = SYSTEM_BASE;
        while page < SYSTEM_BASE.saturating_add(MAPPED_BYTES) {
            // Only the stub page, the words and the list are the guest's to see. The descriptor tables and stacks are written
            // by the processor; the entry points are run by it.
            let flags = match page {
                STUB_PAGE => USER,
                LIST_PAGE => USER | NO_EXECUTE,
                page if (WORDS..OPEN_WORDS).contains(&page) => USER | NO_EXECUTE,
                page if (OPEN_WORDS..VCPU_PAGES).contains(&page) => USER | WRITE | NO_EXECUTE,
                IDT_PAGE => NO_EXECUTE,
                page if page >= VCPU_PAGES => WRITE | NO_EXECUTE,
                _ => 0,
            };
            let table = paging.table_of(page)?;
            paging.set(table, page / PAGE_SIZE, page | flags | PRESENT | TOUCHED)?;
            page = page.saturating_add(PAGE_SIZE);
        }
        Ok(paging)
    }

    fn add_slot(&self, slot: u64, start: u64, bytes: u64, host: u64) -> Result<(), Errno> {
        let Some(vm) = &self.vm else {
            return Ok(());
        };
        let region = kvm_userspace_memory_region {
            slot: u32::try_from(slot).map_err(|_| Errno::ENOMEM)?,
            flags: 0,
            guest_phys_addr: start,
            memory_size: bytes,
            userspace_addr: host,
        };
        // SAFETY: the host range is a mapping that is kept until the machine is gone: the window or
        // the system area. No Rust reference points into either.
        unsafe { vm.set_user_memory_region(region) }.map_err(|_| Errno::ENOMEM)
    }

    /// Bytes of guest memory that slots cover.
    pub(crate) fn covered(&self) -> u64 {
        let pieces = self.pieces.lock();
        let of = |(index, piece): (&u64, &Piece)| {
            let Some((low, high)) = piece.core else {
                return 0;
            };
            let start = index.saturating_mul(SLOT_BYTES);
            let low = if piece.before { start } else { low };
            let end = start.saturating_add(SLOT_BYTES);
            (if piece.behind { end } else { high }).saturating_sub(low)
        };
        pieces.iter().map(of).fold(0, u64::saturating_add)
    }

    /// One of the slots of a piece.
    fn piece_slot(&self, index: u64, number: u64, low: u64, high: u64) -> Result<(), Errno> {
        let first = FIRST_SLOT.saturating_add(index.saturating_mul(SLOTS_OF_PIECE));
        let host = self.window_base.saturating_add(low);
        let number = first.saturating_add(number);
        self.add_slot(number, low, high.saturating_sub(low), host)
    }

    /// Makes slots for a part of a piece, as far as there are none.
    fn cover(&self, index: u64, piece: &mut Piece, start: u64, end: u64) -> Result<(), Errno> {
        let Some((low, high)) = piece.core else {
            let (low, high) = piece.begin(index, start, end);
            let made = self.piece_slot(index, 0, low, high);
            return made.inspect_err(|_| piece.core = None);
        };
        let piece_start = index.saturating_mul(SLOT_BYTES);
        if start < low && !piece.before {
            self.piece_slot(index, 1, piece_start, low)?;
            piece.before = true;
        }
        if end > high && !piece.behind {
            let piece_end = piece_start.saturating_add(SLOT_BYTES);
            self.piece_slot(index, 2, high, piece_end)?;
            piece.behind = true;
        }
        Ok(())
    }

    /// Whether entries in a part of a piece are to be written now; all of them when it is a whole piece. What takes whole
    /// pieces is mostly a reserve of which little is ever touched, and each slot costs time and memory
    /// of the host: that is put off to the first touch.
    fn admit(&self, index: u64, start: u64, end: u64, flags: u64) -> Result<bool, Errno> {
        let whole = end.saturating_sub(start) == SLOT_BYTES;
        let mut pieces = self.pieces.lock();
        let piece = pieces.entry(index).or_default();
        if piece.core.is_none() && (whole || flags == 0 || piece.seldom) {
            piece.owed = flags != 0 || (piece.owed && !whole);
            return Ok(false);
        }
        if piece.core.is_none() {
            // More is likely to follow in the same piece.
            let start = index.saturating_mul(SLOT_BYTES);
            self.cover(index, piece, start, start.saturating_add(SLOT_BYTES))?;
        } else if flags != 0 {
            self.cover(index, piece, start, end)?;
        }
        Ok(true)
    }

    /// A page for a table, which has a slot.
    fn new_table(&self) -> Result<u64, Errno> {
        let table = self.area.new_table()?;
        let rest = SYSTEM_BASE.saturating_add(SYSTEM_SLOT_BYTES);
        if table == rest {
            let host = self.area.host_address();
            let bytes = SYSTEM_BYTES.saturating_sub(SYSTEM_SLOT_BYTES);
            let host = host.saturating_add(SYSTEM_SLOT_BYTES);
            self.add_slot(REST_OF_SYSTEM, rest, bytes, host)?;
        }
        Ok(table)
    }

    fn set(&self, table: u64, index: u64, entry: u64) -> Result<(), Errno> {
        let at = table.saturating_add((index % 512).saturating_mul(8));
        let there = self.area.store(at, entry, Ordering::Release);
        there.then_some(()).ok_or(Errno::ENOMEM)
    }

    fn get(&self, table: u64, index: u64) -> Result<u64, Errno> {
        let at = table.saturating_add((index % 512).saturating_mul(8));
        Ok(self
            .area
            .word(at)
            .ok_or(Errno::ENOMEM)?
            .load(Ordering::Acquire))
    }

    /// The table one level below, made when there is none.
    fn descend(&self, table: u64, index: u64) -> Result<u64, Errno> {
        let entry = self.get(table, index)?;
        if entry & PRESENT != 0 {
            return Ok(entry & ADDRESS);
        }
        let next = self.new_table()?;
        self.set(table, index, next | PRESENT | WRITE | USER | TOUCHED)?;
        Ok(next)
    }

    /// The page directory whose entries are 2 MiB each.
    fn directory_of(&self, address: u64) -> Result<u64, Errno> {
        let pointers = self.descend(TOP_TABLE, address >> 39)?;
        self.descend(pointers, address >> 30)
    }

    /// The table of 4 KiB entries; an entry for a large page is split into as many small ones.
    fn table_of(&self, address: u64) -> Result<u64, Errno> {
        let directory = self.directory_of(address)?;
        let entry = self.get(directory, address >> 21)?;
        if entry & PRESENT == 0 || entry & LARGE == 0 {
            return self.descend(directory, address >> 21);
        }
        let table = self.new_table()?;
        for index in 0..512u64 {
            let small = (entry & !LARGE).saturating_add(index.saturating_mul(PAGE_SIZE));
            self.set(table, index, small)?;
        }
        self.set(
            directory,
            address >> 21,
            table | PRESENT | WRITE | USER | TOUCHED,
        )?;
        Ok(table)
    }

    fn protect_large(&self, address: u64, flags: u64) -> Result<bool, Errno> {
        let directory = self.directory_of(address)?;
        let entry = self.get(directory, address >> 21)?;
        // A table that is there is kept: a table page must never be used for something else, since
        // KVM may still hold what it learned from it.
        if entry & PRESENT != 0 && entry & LARGE == 0 {
            return Ok(false);
        }
        let entry = if flags == 0 {
            0
        } else {
            address | flags | LARGE
        };
        self.set(directory, address >> 21, entry)?;
        Ok(true)
    }
}

impl Mapper for Paging {
    fn protect(&self, start: u64, end: u64, prot: Prot) -> Result<(), Errno> {
        if end > WINDOW_BYTES {
            return Err(Errno::ENOMEM);
        }
        let flags = self.flags_of(prot);
        let mut at = start;
        while at < end {
            let index = at / SLOT_BYTES;
            let piece_end = index.saturating_add(1).saturating_mul(SLOT_BYTES);
            let next = piece_end.min(end);
            if self.admit(index, at, next, flags)? {
                self.write(at, next, flags)?;
            }
            at = next;
        }
        Ok(())
    }

    fn make_room(&self, coming: &mut dyn Iterator<Item = Coming>) -> Result<(), Errno> {
        // What of each piece is to be covered, and whether anything is in it.
        let mut parts: BTreeMap<u64, Coming> = BTreeMap::new();
        for Coming { start, end, holds } in coming {
            if end > WINDOW_BYTES {
                return Err(Errno::ENOMEM);
            }
            let mut at = start;
            while at < end {
                let index = at / SLOT_BYTES;
                let next = index.saturating_add(1).saturating_mul(SLOT_BYTES).min(end);
                if next.saturating_sub(at) < SLOT_BYTES {
                    let (start, end) = (at, next);
                    let part = parts.entry(index).or_insert(Coming { start, end, holds });
                    part.start = part.start.min(start);
                    part.end = part.end.max(end);
                    part.holds |= holds;
                }
                at = next;
            }
        }
        // One slot for pieces that follow each other without a gap, as each costs time of its own: the number of its first, and where it lies.
        let mut run: Option<(u64, u64, u64)> = None;
        let make = |run: Option<(u64, u64, u64)>| {
            run.map_or(Ok(()), |(index, low, high)| {
                self.piece_slot(index, 0, low, high)
            })
        };
        let mut pieces = self.pieces.lock();
        for (index, part) in parts {
            let piece = pieces.entry(index).or_default();
            if piece.core.is_some() {
                self.cover(index, piece, part.start, part.end)?;
            } else if part.holds {
                let (low, high) = piece.begin(index, part.start, part.end);
                run = match run {
                    Some((first, start, end)) if end == low => Some((first, start, high)),
                    former => {
                        make(former)?;
                        Some((index, low, high))
                    }
                };
            } else {
                piece.seldom = true;
            }
        }
        make(run)
    }

    fn catch_up(&self, address: u64, mappings: &dyn Fn(u64, u64) -> Vec<Vma>) -> Result<(), Errno> {
        let index = address / SLOT_BYTES;
        let start = index.saturating_mul(SLOT_BYTES);
        let mut pieces = self.pieces.lock();
        let Some(piece) = pieces.get_mut(&index) else {
            return Ok(());
        };
        if piece.owed {
            self.cover(index, piece, start, start.saturating_add(SLOT_BYTES))?;
            for part in mappings(start, start.saturating_add(SLOT_BYTES)) {
                self.write(part.start, part.end, self.flags_of(part.prot))?;
            }
            piece.owed = false;
        }
        Ok(())
    }
}

impl Paging {
    /// What entries for pages of that protection hold beside the address.
    fn flags_of(&self, prot: Prot) -> u64 {
        let flags = entry_flags(prot);
        if self.watching.load(Ordering::Relaxed) {
            flags & !TOUCHED
        } else {
            flags
        }
    }

    /// From now on entries are made so that the processor notes in them what it touches, at the cost of a table for each 2 MiB that
    /// may be written; or no more. Answers which it was.
    pub(crate) fn watch(&self, on: bool) -> bool {
        self.watching.swap(on, Ordering::Relaxed)
    }

    /// Marks what is mapped as not touched, which no processor has touched yet.
    pub(crate) fn forget_touches(&self) -> Result<(), Errno> {
        self.each_page(&mut |table, index, entry, _| self.set(table, index, entry & !TOUCHED))
    }

    /// Calls `found` with each page that was touched since it was mapped, and whether it was written; a large one counts as its first.
    pub(crate) fn touched(&self, found: &mut dyn FnMut(u64, bool)) -> Result<(), Errno> {
        self.each_page(&mut |_, _, entry, address| {
            if entry & ACCESSED != 0 {
                found(address, entry & DIRTY != 0);
            }
            Ok(())
        })
    }

    /// Calls the argument with table, index, entry and address of each page of the window that is mapped.
    fn each_page(&self, with: EachPage<'_>) -> Result<(), Errno> {
        let present = |table: u64, index: u64| {
            let entry = self.get(table, index)?;
            Ok::<_, Errno>((entry & PRESENT != 0).then_some(entry))
        };
        let Some(pointers) = present(TOP_TABLE, 0)? else {
            return Ok(());
        };
        for high in 0..512u64 {
            let Some(directory) = present(pointers & ADDRESS, high)? else {
                continue;
            };
            for middle in 0..512u64 {
                let Some(entry) = present(directory & ADDRESS, middle)? else {
                    continue;
                };
                let base = (high << 30) | (middle << 21);
                if entry & LARGE != 0 {
                    with(directory & ADDRESS, middle, entry, base)?;
                    continue;
                }
                for low in 0..512u64 {
                    if let Some(small) = present(entry & ADDRESS, low)? {
                        with(entry & ADDRESS, low, small, base | (low << 12))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets the entries of a range.
    fn write(&self, start: u64, end: u64, flags: u64) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let next = (at & !LARGE_PAGE.wrapping_sub(1)).saturating_add(LARGE_PAGE);
            // What may be written is told apart page by page while it is watched.
            let apart = flags & WRITE != 0 && self.watching.load(Ordering::Relaxed);
            let whole = at % LARGE_PAGE == 0 && next <= end && !apart;
            if !whole || !self.protect_large(at, flags)? {
                self.protect_small(at, next.min(end), flags)?;
            }
            at = next;
        }
        Ok(())
    }

    /// Sets the entries of pages that share one table.
    fn protect_small(&self, start: u64, end: u64, flags: u64) -> Result<(), Errno> {
        if flags == 0 {
            // Nothing to take away where no table ever was.
            let entry = self.get(self.directory_of(start)?, start >> 21)?;
            if entry & PRESENT == 0 {
                return Ok(());
            }
        }
        let table = self.table_of(start)?;
        let mut page = start;
        while page < end {
            let entry = if flags == 0 { 0 } else { page | flags };
            self.set(table, page / PAGE_SIZE, entry)?;
            page = page.saturating_add(PAGE_SIZE);
        }
        Ok(())
    }
}

fn entry_flags(prot: Prot) -> u64 {
    if prot.is_empty() {
        return 0;
    }
    let mut flags = PRESENT | USER | TOUCHED;
    if prot.contains(Prot::WRITE) {
        flags |= WRITE;
    }
    if !prot.contains(Prot::EXEC) {
        flags |= NO_EXECUTE;
    }
    flags
}
