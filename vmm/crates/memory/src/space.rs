mod ahead;
mod heap;
mod host;
mod ranges;
mod ready;
mod remap;
mod reset;
mod restore;
mod save;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use vmm_abi::{Errno, Fault, PAGE_SIZE, Prot};

use self::host::host_protection;
use self::reset::Changes;
pub use self::reset::Undone;
use crate::{Charge, Kind, Mapper, Vma, VmaSet, Window, page_down, page_up};

/// Lowest address that may be mapped (vm.mmap_min_addr of Linux), so that null pointers fault.
const LOWEST: u64 = 0x1_0000;
/// What a hint has to lie beside, and below which it is followed anyway (`Place::Near`).
const PIECE: u64 = 64 << 20;
const LOW_END: u64 = 1 << 32;
/// Most mappings of one guest (vm.max_map_count of Linux is 65,530 for the whole monitor).
const MAX_MAPPINGS: usize = 60_000;

/// What a guest may have at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in use beyond which no more writable memory is given: mappings then fail with ENOMEM.
    pub bytes: u64,
}

/// Bytes that the guest has touched, as the host counts them; `None` when the host does not tell.
pub type Meter = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where there is room; at the hint when that is free (0: no hint).
    Anywhere(u64),
    /// The same, but a hint is only followed where something lies in the same 64 MiB already, or below 4 GiB: a machine has memory slots
    /// and page tables by such pieces, and programs draw hints by lot to be hard to guess, or look for low ones.
    Near(u64),
    /// Where there is room below 2 GiB (MAP_32BIT).
    Low,
    /// There, replacing what is mapped.
    Fixed(u64),
    /// There, or EEXIST.
    FixedNoReplace(u64),
}

/// What the pages of a new mapping are.
#[derive(Debug)]
pub enum Backing<'a> {
    /// Zeroed private memory.
    Anonymous,
    /// Zeroed shared memory.
    SharedAnonymous,
    /// A host file, from a page-aligned offset.
    File {
        fd: BorrowedFd<'a>,
        offset: u64,
        shared: bool,
    },
}

/// A request for one mapping.
#[derive(Debug)]
pub struct MapRequest<'a> {
    pub place: Place,
    /// Bytes; rounded up to pages.
    pub len: u64,
    pub prot: Prot,
    /// What it may be changed to later: not more than its file was opened for.
    pub allowed: Prot,
    pub backing: Backing<'a>,
    pub kind: Kind,
    pub charge: Charge,
}

#[derive(Debug, Default)]
struct Layout {
    vmas: VmaSet,
    heap_start: u64,
    heap_end: u64,
    /// Bytes promised to writable mappings, touched or not.
    committed: u64,
    /// Those of them that are for shared anonymous memory, which the meter does not see.
    shared: u64,
    /// What is left of the newest mapping that was too long to be filled at once.
    uncut: Option<(u64, u64)>,
}

/// The memory of one guest process.
pub struct AddressSpace {
    window: Window,
    mapper: Arc<dyn Mapper>,
    limits: Limits,
    meter: Option<Meter>,
    /// Most bytes in use that were seen.
    peak: AtomicU64,
    /// How often a mapping was refused because of the limit.
    refusals: AtomicU64,
    layout: RwLock<Layout>,
    /// What the host's mappings no longer are, since [`AddressSpace::keep_track`].
    changes: Mutex<Option<Changes>>,
}

impl std::fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressSpace")
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

impl AddressSpace {
    /// An empty address space over `window`.
    #[must_use]
    pub fn new(window: Window, mapper: Arc<dyn Mapper>, limits: Limits) -> Self {
        Self {
            window,
            mapper,
            limits,
            meter: None,
            peak: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            layout: RwLock::new(Layout::default()),
            changes: Mutex::new(None),
        }
    }

    /// The same with a meter. Without one, or while it tells nothing, all that is committed counts as in use.
    #[must_use]
    pub fn with_meter(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
    }

    /// The host range behind it.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Bytes promised to writable mappings, touched or not.
    #[must_use]
    pub fn committed_bytes(&self) -> u64 {
        self.layout.read().committed
    }

    /// Bytes in use now, and the most that were seen.
    #[must_use]
    pub fn used_bytes(&self) -> (u64, u64) {
        let now = self.in_use(&self.layout.read());
        (now, self.peak.load(Ordering::Relaxed))
    }

    /// How often a mapping was refused because of the limit.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    fn in_use(&self, layout: &Layout) -> u64 {
        let touched = self.meter.as_ref().and_then(|meter| meter());
        let now = touched.map_or(layout.committed, |bytes| {
            bytes.saturating_add(layout.shared)
        });
        self.peak.fetch_max(now, Ordering::Relaxed);
        now
    }

    /// A copy of all mappings, by address (for /proc/self/maps).
    #[must_use]
    pub fn mappings(&self) -> Vec<Vma> {
        self.layout.read().vmas.iter().cloned().collect()
    }

    /// Makes a mapping and answers its address.
    ///
    /// # Errors
    /// EINVAL for a zero length or a bad address, EEXIST, ENOMEM for no room or over the limit, and
    /// what the host says of the file (EACCES, ENODEV).
    pub fn map(&self, request: &MapRequest<'_>) -> Result<u64, Errno> {
        self.map_locked(&mut self.layout.write(), request)
    }

    fn map_locked(&self, layout: &mut Layout, request: &MapRequest<'_>) -> Result<u64, Errno> {
        let len = page_up(request.len).filter(|len| *len > 0);
        let len = len.ok_or(if request.len == 0 {
            Errno::EINVAL
        } else {
            Errno::ENOMEM
        })?;
        let start = self.place(layout, request.place, len)?;
        let end = start.checked_add(len).ok_or(Errno::ENOMEM)?;
        let vma = Vma {
            start,
            end,
            prot: request.prot,
            allowed: request.allowed,
            kind: request.kind.clone(),
            charge: request.charge,
        };
        self.admit(layout, vma.committed())?;
        self.clear(layout, start, end)?;
        if layout.vmas.len() >= MAX_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        let (flags, fd, offset) = match &request.backing {
            Backing::Anonymous => (
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            ),
            Backing::SharedAnonymous => (
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            ),
            Backing::File { fd, offset, shared } => {
                let sharing = if *shared {
                    libc::MAP_SHARED
                } else {
                    libc::MAP_PRIVATE
                };
                (sharing | libc::MAP_NORESERVE, fd.as_raw_fd(), *offset)
            }
        };
        let result = self
            .host_map(start, len, host_protection(request.prot), flags, fd, offset)
            .and_then(|()| self.mapper.protect(start, end, request.prot));
        if let Err(errno) = result {
            self.blank(start, len)?;
            return Err(errno);
        }
        layout.add(vma);
        self.fill_new(layout, request, start, end);
        Ok(start)
    }

    /// Removes whatever is mapped in `[address, address + len)`.
    ///
    /// # Errors
    /// EINVAL for an unaligned address, a zero length or a range outside the window.
    pub fn unmap(&self, address: u64, len: u64) -> Result<(), Errno> {
        let end = self.range(address, len).ok_or(Errno::EINVAL)?;
        if end == address {
            return Err(Errno::EINVAL);
        }
        let mut layout = self.layout.write();
        self.clear(&mut layout, address, end)?;
        self.fill_rest(&mut layout);
        Ok(())
    }

    /// Changes the protection of a range.
    ///
    /// # Errors
    /// EINVAL for an unaligned address, ENOMEM where something is not mapped or over the limit,
    /// EACCES when a shared file may not be written.
    pub fn protect(&self, address: u64, len: u64, prot: Prot) -> Result<(), Errno> {
        if address != page_down(address) {
            return Err(Errno::EINVAL);
        }
        let end = self.range(address, len).ok_or(Errno::ENOMEM)?;
        let mut layout = self.layout.write();
        if end == address {
            return Ok(());
        }
        if layout.vmas.len() >= MAX_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        layout.cut(address, end);
        let mut at = address;
        for part in layout.vmas.overlapping(address, end) {
            // What lies before a hole has been changed when it is met, as on Linux.
            if part.start != at {
                return Err(Errno::ENOMEM);
            }
            at = part.end;
            if !part.allowed.contains(prot) {
                return Err(Errno::EACCES);
            }
            if part.prot == prot {
                continue;
            }
            let changed = Vma {
                prot,
                ..part.clone()
            };
            self.admit(&layout, self.gain(&part, &changed))?;
            self.change(&part, prot)?;
            self.fill_part(&part, prot);
            layout.remove(part.start, part.end);
            layout.add(changed);
        }
        if at < end {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Order matters: while other threads run, the guest's page tables never allow what the host's
    /// mapping refuses, for that would end KVM_RUN without naming an address.
    fn change(&self, part: &Vma, prot: Prot) -> Result<(), Errno> {
        let (before, after) = (host_protection(part.prot), host_protection(prot));
        if prot.contains(Prot::WRITE) {
            self.note_writable(part.start, part.end);
        }
        self.mapper
            .protect(part.start, part.end, part.prot & prot)?;
        if before == after && before != libc::PROT_NONE {
            // KVM learns of tightened guest tables only by a change of the host's mapping.
            self.host_protect(part.start, part.len(), libc::PROT_NONE)?;
        }
        self.host_protect(part.start, part.len(), after)?;
        self.mapper.protect(part.start, part.end, prot)
    }

    /// Hands advice on to the host.
    ///
    /// # Errors
    /// EINVAL for an unaligned address, ENOMEM where something is not mapped, else the host's word.
    pub fn advise(&self, address: u64, len: u64, advice: i32) -> Result<(), Errno> {
        let size = page_up(len).ok_or(Errno::EINVAL)?;
        if address != page_down(address) || address.checked_add(size).is_none() {
            return Err(Errno::EINVAL);
        }
        let end = self.range(address, len).ok_or(Errno::ENOMEM)?;
        let layout = self.layout.read();
        let size = end.saturating_sub(address);
        if matches!(advice, libc::MADV_HUGEPAGE | libc::MADV_NOHUGEPAGE) {
            // It stays with the mapping.
            self.note_change(address, size);
        }
        for part in layout.vmas.overlapping(address, end) {
            let host = self
                .window
                .host(part.start, part.len())
                .ok_or(Errno::ENOMEM)?;
            // SAFETY: the range lies in the window; the caller chose an advice that only affects it.
            if unsafe { libc::madvise(host.cast(), part.len() as usize, advice) } != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
        }
        let whole = size == 0 || layout.vmas.covers(address, end);
        if whole { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Whether every byte of a range is mapped; its length is rounded up to pages.
    ///
    /// # Errors
    /// EINVAL for an unaligned address, ENOMEM where something is not mapped.
    pub fn require_mapped(&self, address: u64, len: u64) -> Result<(), Errno> {
        if address != page_down(address) {
            return Err(Errno::EINVAL);
        }
        let end = self.range(address, len).ok_or(Errno::ENOMEM)?;
        if self.layout.read().vmas.covers(address, end) {
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }

    /// Whether the mapping at the fault's address allows the access, so that the instruction is to be
    /// tried again: another thread has just changed the mapping, or page tables were put off for it,
    /// and are made here.
    #[must_use]
    pub fn resolve(&self, fault: &Fault) -> bool {
        let wanted = match fault {
            f if f.is_write() => Prot::WRITE,
            f if f.is_fetch() => Prot::EXEC,
            _ => Prot::READ,
        };
        // A mapper may count on its calls not overlapping.
        let layout = self.layout.write();
        let allowed = layout.vmas.find(fault.address).is_some_and(|vma| {
            vma.prot.contains(wanted) || (wanted == Prot::READ && !vma.prot.is_empty())
        });
        let mappings = |start, end| layout.vmas.overlapping(start, end);
        allowed && self.mapper.catch_up(fault.address, &mappings).is_ok()
    }

    /// Whether anything is mapped at `address`.
    #[must_use]
    pub fn is_mapped(&self, address: u64) -> bool {
        self.layout.read().vmas.find(address).is_some()
    }

    fn place(&self, layout: &Layout, place: Place, len: u64) -> Result<u64, Errno> {
        match place {
            Place::Fixed(address) | Place::FixedNoReplace(address) => {
                if address != page_down(address) {
                    return Err(Errno::EINVAL);
                }
                let end = self.range(address, len).ok_or(Errno::ENOMEM)?;
                if address < LOWEST {
                    return Err(Errno::EPERM);
                }
                let taken = !layout.vmas.overlapping(address, end).is_empty();
                if taken && matches!(place, Place::FixedNoReplace(_)) {
                    return Err(Errno::EEXIST);
                }
                Ok(address)
            }
            Place::Low => {
                let low = layout.vmas.find_free(len, LOWEST, 1 << 31, PAGE_SIZE);
                low.ok_or(Errno::ENOMEM)
            }
            Place::Near(hint) => {
                let known = |start: u64, end: u64| {
                    let (start, end) = (start & !(PIECE - 1), end.next_multiple_of(PIECE));
                    end <= LOW_END || !layout.vmas.overlapping(start, end).is_empty()
                };
                let taken = self
                    .free_at(layout, hint, len)
                    .filter(|&(at, end)| known(at, end));
                let hint = taken.map_or(0, |(at, _)| at);
                self.place(layout, Place::Anywhere(hint), len)
            }
            Place::Anywhere(hint) => {
                if let Some((at, _)) = self.free_at(layout, hint, len) {
                    return Ok(at);
                }
                const HUGE: u64 = 2 << 20;
                let align = if len >= HUGE { HUGE } else { PAGE_SIZE };
                let (low, high) = (LOWEST, self.window.size());
                layout
                    .vmas
                    .find_free(len, low, high, align)
                    .ok_or(Errno::ENOMEM)
            }
        }
    }

    /// Where a mapping is and ends that is placed at a hint; `None` if that is taken or cannot be.
    fn free_at(&self, layout: &Layout, hint: u64, len: u64) -> Option<(u64, u64)> {
        let at = page_down(hint);
        let end = self.range(at, len)?;
        (at >= LOWEST && layout.vmas.overlapping(at, end).is_empty()).then_some((at, end))
    }

    /// The end of a page-aligned range in the window, its length rounded up.
    fn range(&self, address: u64, len: u64) -> Option<u64> {
        let end = address.checked_add(page_up(len)?)?;
        (address == page_down(address) && end <= self.window.size()).then_some(end)
    }

    /// Bytes that have to fit under the limit when a mapping changes its protection.
    fn gain(&self, from: &Vma, to: &Vma) -> u64 {
        /// Larger parts of the limit are reserves: V8 makes all of its code range writable at once.
        const RESERVE_SHARE: u64 = 8;
        let gains = to.prot.contains(Prot::WRITE) && !from.prot.contains(Prot::WRITE);
        let part = to.len() <= self.limits.bytes / RESERVE_SHARE;
        match to.charge {
            Charge::Always if gains => to.len(),
            Charge::InParts if gains && part => to.len(),
            _ => 0,
        }
    }

    /// Whether that many more writable bytes fit under the limit beside what is in use. Bytes that were
    /// given before and never touched stand in nobody's way.
    fn admit(&self, layout: &Layout, bytes: u64) -> Result<(), Errno> {
        if bytes == 0 || self.in_use(layout).saturating_add(bytes) <= self.limits.bytes {
            return Ok(());
        }
        self.refusals.fetch_add(1, Ordering::Relaxed);
        Err(Errno::ENOMEM)
    }

    fn clear(&self, layout: &mut Layout, start: u64, end: u64) -> Result<(), Errno> {
        layout.cut(start, end);
        for part in layout.remove(start, end) {
            self.mapper.protect(part.start, part.end, Prot::empty())?;
            self.blank(part.start, part.len())?;
        }
        Ok(())
    }
}

impl Layout {
    fn add(&mut self, vma: Vma) {
        self.committed = self.committed.saturating_add(vma.committed());
        if vma.kind == Kind::SharedAnonymous {
            self.shared = self.shared.saturating_add(vma.committed());
        }
        self.vmas.insert(vma);
    }

    fn remove(&mut self, start: u64, end: u64) -> Vec<Vma> {
        let parts = self.vmas.remove(start, end);
        for part in &parts {
            self.committed = self.committed.saturating_sub(part.committed());
            if part.kind == Kind::SharedAnonymous {
                self.shared = self.shared.saturating_sub(part.committed());
            }
        }
        parts
    }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
