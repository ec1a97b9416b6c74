//! What a micro-VM has done so far, in a page that others may read while it runs (vmm/README.md, "Counters").

use std::io;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::mm::{MapFlags, ProtFlags, mmap};
use vmm_hypervisor::Exit;
use vmm_kernel::TraceSlots;

const PAGE_BYTES: usize = 4096;
const SLOTS: usize = 512;
/// Slot 0: which layout this is.
const FORMAT: u64 = 1;
const SYSCALL: usize = 1;
const FAULT: usize = 2;
const INTERRUPTED: usize = 3;
const PAGE_UNAVAILABLE: usize = 4;
const GUEST_NS: usize = 5;
const MONITOR_NS: usize = 6;
/// Calls of numbers that have no slot of their own.
const OTHER_CALLS: usize = 7;
/// Mappings refused because of the memory limit.
const REFUSED: usize = 8;
/// Written from outside: other than 0 traces system calls, and marks the lines with the number.
const TRACE: usize = 16;
/// Traced calls whose lines are to come.
const TRACED: usize = 17;
/// The slot of system call 0; the others follow by number.
const CALLS: usize = 32;

type Slots = [AtomicU64; SLOTS];

/// The page. It lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Counters(&'static Slots);

impl Counters {
    /// In a page of the monitor's own.
    pub fn private() -> Self {
        Self::begin(Box::leak(Box::new([const { AtomicU64::new(0) }; SLOTS])))
    }

    /// In the first page of a file.
    ///
    /// # Errors
    /// What the host says, and `InvalidInput` for a shorter file.
    pub fn in_file(file: &OwnedFd) -> io::Result<Self> {
        let size = rustix::fs::fstat(file)?.st_size;
        if usize::try_from(size).unwrap_or(0) < PAGE_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice, of a file that is a page long.
        let page = unsafe {
            mmap(
                ptr::null_mut(),
                PAGE_BYTES,
                protection,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        // SAFETY: the page is never unmapped, its size and alignment are those of the slots, every value is valid for an atomic
        // integer, and this process and others touch it by atomic accesses or the kernel only.
        Ok(Self::begin(unsafe { &*page.cast::<Slots>() }))
    }

    fn begin(slots: &'static Slots) -> Self {
        let counters = Self(slots);
        if let Some(slot) = slots.first() {
            slot.store(FORMAT, Ordering::Relaxed);
        }
        counters
    }

    fn add(self, slot: usize, value: u64) {
        if let Some(slot) = self.0.get(slot) {
            slot.fetch_add(value, Ordering::Relaxed);
        }
    }

    fn get(self, slot: usize) -> u64 {
        self.0
            .get(slot)
            .map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    /// Guest code ran for a time, by the clock, and came back.
    pub fn exit(self, exit: &Exit, ran: Duration) {
        let slot = match exit {
            Exit::Syscall => SYSCALL,
            Exit::Fault(_) => FAULT,
            Exit::Interrupted => INTERRUPTED,
            Exit::PageUnavailable => PAGE_UNAVAILABLE,
        };
        self.add(slot, 1);
        self.add(GUEST_NS, nanoseconds(ran));
    }

    /// A system call by rax, whatever becomes of it. The number is an `int`: the upper half does not count.
    pub fn call(self, rax: u64) {
        let slot = usize::try_from(rax & 0xffff_ffff)
            .ok()
            .and_then(|number| number.checked_add(CALLS));
        self.add(slot.filter(|at| *at < SLOTS).unwrap_or(OTHER_CALLS), 1);
    }

    /// The monitor worked for the guest for a time.
    pub fn served(self, time: Duration) {
        self.add(MONITOR_NS, nanoseconds(time));
    }

    /// How often memory was refused because of the limit, so far.
    pub fn refusals(self, count: u64) {
        if let Some(slot) = self.0.get(REFUSED) {
            slot.store(count, Ordering::Relaxed);
        }
    }

    /// Where others say whether system calls are to be traced, and see whether they are.
    pub fn trace(self) -> TraceSlots {
        TraceSlots {
            mark: &self.0[TRACE],
            under_way: &self.0[TRACED],
        }
    }

    /// Exits by reason.
    pub fn exits(self) -> [(&'static str, u64); 4] {
        [
            ("syscall", self.get(SYSCALL)),
            ("fault", self.get(FAULT)),
            ("interrupted", self.get(INTERRUPTED)),
            ("page_unavailable", self.get(PAGE_UNAVAILABLE)),
        ]
    }

    /// How often a system call was made.
    pub fn calls(self, number: u16) -> u64 {
        self.get(usize::from(number).saturating_add(CALLS))
    }

    /// Milliseconds in guest code and in the monitor.
    pub fn times_ms(self) -> (u64, u64) {
        let ms = |slot| self.get(slot) / 1_000_000;
        (ms(GUEST_NS), ms(MONITOR_NS))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed step of a test is to end it"
)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn whoever_reads_the_file_sees_what_is_counted() {
        let file = tempfile::tempfile().unwrap();
        let fd = OwnedFd::from(file.try_clone().unwrap());
        assert!(Counters::in_file(&fd).is_err(), "too short");
        file.set_len(PAGE_BYTES as u64).unwrap();
        let counters = Counters::in_file(&fd).unwrap();
        counters.exit(&Exit::Syscall, Duration::from_nanos(7));
        counters.call(0);
        counters.call(231);
        counters.call(7 << 32 | 231);
        counters.call(u64::MAX);
        let slot = |at: usize| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at as u64 * 8).unwrap();
            u64::from_le_bytes(bytes)
        };
        assert_eq!([0, 1, 5, 7].map(slot), [1, 1, 7, 1]);
        assert_eq!([CALLS, CALLS + 231].map(slot), [1, 2]);
        assert_eq!(counters.trace().mark.load(Ordering::Relaxed), 0);
        file.write_all_at(&1u64.to_le_bytes(), TRACE as u64 * 8)
            .unwrap();
        assert_eq!(counters.trace().mark.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn every_call_that_is_served_has_a_slot() {
        for row in vmm_kernel::syscalls::ROWS {
            assert!(usize::from(row.number) + CALLS < SLOTS, "{}", row.name);
        }
    }
}
