//! Guest page tables (Intel SDM volume 3, 4.5: 4-level paging), mirrored from the mappings.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use vmm_abi::{Errno, PAGE_SIZE, Prot};
use vmm_memory::{Mapper, Vma};

use crate::WINDOW_BYTES;
use crate::system_area::{
    IDT_PAGE, MAPPED_BYTES, STUB_PAGE, SYSTEM_BASE, SYSTEM_BYTES, SystemArea, TOP_TABLE,
};

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Accessed and dirty are set beforehand, so that the processor never writes to the tables.
const TOUCHED: u64 = (1 << 5) | (1 << 6);
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const LARGE_PAGE: u64 = 2 << 20;
/// Bytes of one memory slot. Slots cost kernel memory by their size, so they are made only under
/// what is mapped, piece by piece.
const SLOT_BYTES: u64 = 64 << 20;
/// The slot of the system area comes first.
const FIRST_SLOT: u64 = 1;

/// A piece of the window that is or may become a memory slot.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    /// KVM has the slot. Without it no entry of a page table leads here.
    made: bool,
    /// Something is mapped here that entries are still to be made for.
    owed: bool,
}

/// Page tables and memory slots of one machine.
pub(crate) struct Paging {
    area: Arc<SystemArea>,
    vm: Arc<VmFd>,
    window_base: u64,
    pieces: Mutex<Vec<Piece>>,
}

impl Paging {
    /// Sets up the slot and the tables of the system area itself.
    pub(crate) fn new(
        area: Arc<SystemArea>,
        vm: Arc<VmFd>,
        window_base: u64,
    ) -> Result<Self, Errno> {
        let count = (WINDOW_BYTES / SLOT_BYTES) as usize;
        let paging = Self {
            area,
            vm,
            window_base,
            pieces: Mutex::new(vec![Piece::default(); count]),
        };
        paging.add_slot(0, SYSTEM_BASE, SYSTEM_BYTES, paging.area.host_address())?;
        let mut page = SYSTEM_BASE;
        while page < SYSTEM_BASE.saturating_add(MAPPED_BYTES) {
            // Only the stub page is the guest's to see. The descriptor tables and stacks are written
            // by the processor; the entry points are run by it.
            let flags = match page {
                STUB_PAGE => USER,
                IDT_PAGE => NO_EXECUTE,
                page if page >= crate::system_area::VCPU_PAGES => WRITE | NO_EXECUTE,
                _ => 0,
            };
            let table = paging.table_of(page)?;
            paging.set(table, page / PAGE_SIZE, page | flags | PRESENT | TOUCHED)?;
            page = page.saturating_add(PAGE_SIZE);
        }
        Ok(paging)
    }

    fn add_slot(&self, slot: u64, start: u64, bytes: u64, host: u64) -> Result<(), Errno> {
        let region = kvm_userspace_memory_region {
            slot: u32::try_from(slot).map_err(|_| Errno::ENOMEM)?,
            flags: 0,
            guest_phys_addr: start,
            memory_size: bytes,
            userspace_addr: host,
        };
        // SAFETY: the host range is a mapping that is kept until the machine is gone: the window or
        // the system area. No Rust reference points into either.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(|_| Errno::ENOMEM)
    }

    /// How many slots of guest memory there are.
    pub(crate) fn slots(&self) -> u64 {
        self.pieces.lock().iter().filter(|piece| piece.made).count() as u64
    }

    /// Makes the slot of a piece, if it is not there.
    fn make(&self, index: u64, piece: &mut Piece) -> Result<(), Errno> {
        if !piece.made {
            let at = index.saturating_mul(SLOT_BYTES);
            let host = self.window_base.saturating_add(at);
            self.add_slot(index.saturating_add(FIRST_SLOT), at, SLOT_BYTES, host)?;
            piece.made = true;
        }
        Ok(())
    }

    /// Whether entries in a piece are to be written now; `whole` when all of them. What takes whole
    /// pieces is mostly a reserve of which little is ever touched, and each slot costs time and memory
    /// of the host: that is put off to the first touch.
    fn admit(&self, index: u64, whole: bool, flags: u64) -> Result<bool, Errno> {
        let mut pieces = self.pieces.lock();
        let piece = pieces.get_mut(index as usize).ok_or(Errno::ENOMEM)?;
        if !piece.made && (whole || flags == 0) {
            if whole {
                piece.owed = flags != 0;
            }
            return Ok(false);
        }
        self.make(index, piece)?;
        Ok(true)
    }

    fn set(&self, table: u64, index: u64, entry: u64) -> Result<(), Errno> {
        let at = table.saturating_add((index % 512).saturating_mul(8));
        self.area
            .word(at)
            .ok_or(Errno::ENOMEM)?
            .store(entry, Ordering::Release);
        Ok(())
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
        let next = self.area.new_table()?;
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
        let table = self.area.new_table()?;
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
        let flags = entry_flags(prot);
        let mut at = start;
        while at < end {
            let index = at / SLOT_BYTES;
            let piece_end = index.saturating_add(1).saturating_mul(SLOT_BYTES);
            let next = piece_end.min(end);
            let whole = next.saturating_sub(at) == SLOT_BYTES;
            if self.admit(index, whole, flags)? {
                self.write(at, next, flags)?;
            }
            at = next;
        }
        Ok(())
    }

    fn make_room(&self, start: u64, end: u64) -> Result<(), Errno> {
        let mut pieces = self.pieces.lock();
        let mut at = start;
        while at < end {
            let index = at / SLOT_BYTES;
            let next = index.saturating_add(1).saturating_mul(SLOT_BYTES).min(end);
            let piece = pieces.get_mut(index as usize).ok_or(Errno::ENOMEM)?;
            if next.saturating_sub(at) < SLOT_BYTES {
                self.make(index, piece)?;
            }
            at = next;
        }
        Ok(())
    }

    fn catch_up(&self, address: u64, mappings: &dyn Fn(u64, u64) -> Vec<Vma>) -> Result<(), Errno> {
        let index = address / SLOT_BYTES;
        let start = index.saturating_mul(SLOT_BYTES);
        let mut pieces = self.pieces.lock();
        let piece = pieces.get_mut(index as usize).ok_or(Errno::ENOMEM)?;
        if piece.owed {
            self.make(index, piece)?;
            for part in mappings(start, start.saturating_add(SLOT_BYTES)) {
                self.write(part.start, part.end, entry_flags(part.prot))?;
            }
            piece.owed = false;
        }
        Ok(())
    }
}

impl Paging {
    /// Sets the entries of a range.
    fn write(&self, start: u64, end: u64, flags: u64) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let next = (at & !LARGE_PAGE.wrapping_sub(1)).saturating_add(LARGE_PAGE);
            let whole = at % LARGE_PAGE == 0 && next <= end;
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
