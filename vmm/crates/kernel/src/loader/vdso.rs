//! The vDSO: clocks that guests read without leaving the virtual machine.
//!
//! Guest time is a line over the time-stamp counter: base plus ticks times rate. The monitor moves
//! the line now and then so that it follows the host's clock, which NTP steers, and so that
//! guest time never goes back. Where the counter stops or changes its pace the vDSO is there too, as on Linux,
//! and asks the monitor.

use std::arch::x86_64::{__cpuid, _rdtsc};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::pwrite;
use vmm_abi::{Errno, PAGE_SIZE, Prot};
use vmm_memory::{AddressSpace, Backing, Charge, Kind, MapRequest, Place};

use crate::clock;

std::arch::global_asm!(include_str!("vdso.s"), options(att_syntax));

unsafe extern "C" {
    static cloister_vdso_start: u8;
    static cloister_vdso_end: u8;
}

/// The data page, as vdso.s reads it.
#[repr(C)]
struct ClockPage {
    /// Odd while the rest changes.
    sequence: AtomicU32,
    pad: u32,
    base_ticks: AtomicU64,
    /// Nanoseconds per tick, times 2^32; 0 where the counter does not serve.
    rate: AtomicU64,
    base_monotonic_ns: AtomicU64,
    base_realtime_ns: AtomicU64,
}

/// The line over the counter that guests follow now.
#[derive(Clone, Copy, Debug)]
struct Line {
    ticks: u64,
    rate: u64,
    monotonic_ns: u64,
}

impl Line {
    fn at(&self, ticks: u64) -> u64 {
        let product =
            u128::from(ticks.saturating_sub(self.ticks)).wrapping_mul(u128::from(self.rate));
        self.monotonic_ns.saturating_add((product >> 32) as u64)
    }
}

/// The clocks of one guest.
pub struct GuestClock {
    page: *mut ClockPage,
    file: OwnedFd,
    /// Counter and host clock when the guest started: the longer ago, the better the rate.
    start: (u64, u64),
    line: Mutex<Line>,
    /// Counter from which on the line is to be moved.
    due_ticks: AtomicU64,
}

// SAFETY: the page is only accessed through atomics and lives as long as the value.
unsafe impl Send for GuestClock {}
// SAFETY: as above.
unsafe impl Sync for GuestClock {}

impl std::fmt::Debug for GuestClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuestClock")
    }
}

/// Most that the rate is bent to catch up with the host, as a divisor: 1/2000 is 500 ppm (adjtimex(2)).
const SLEW: i64 = 2000;

fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user space run it.
    unsafe { _rdtsc() }
}

/// A clock between two readings of another, at (nearly) one moment: the other clock's middle, and what the one between said. Whoever reads may lose the processor
/// meanwhile, for as long as others want it or its limit holds it back, so of several times the one counts in which least passed.
fn at_one_moment(mut read: impl FnMut() -> [u64; 3]) -> (u64, u64) {
    const READINGS: u32 = 4;
    let passed = |[before, _, after]: [u64; 3]| after.saturating_sub(before);
    let mut best = read();
    for _ in 1..READINGS {
        let next = read();
        if passed(next) < passed(best) {
            best = next;
        }
    }
    let [before, between, _] = best;
    (before.saturating_add(passed(best) / 2), between)
}

/// Counter and host clock at one moment.
fn now() -> (u64, u64) {
    at_one_moment(|| [ticks(), clock::monotonic_ns(), ticks()])
}

impl GuestClock {
    /// A clock over a counter of `ticks_khz`. Where that is 0, or the counter stops or changes its pace, its functions make system calls.
    ///
    /// # Errors
    /// What the host says when it gives no memory.
    pub fn new(ticks_khz: u32) -> Result<Self, Errno> {
        const INVARIANT: u32 = 1 << 8;
        let serves = ticks_khz > 0 && __cpuid(0x8000_0007).edx & INVARIANT != 0;
        let errno = |error: rustix::io::Errno| Errno(error.raw_os_error());
        let image = image();
        let file = memfd_create("vdso", MemfdFlags::CLOEXEC).map_err(errno)?;
        ftruncate(&file, image.len() as u64).map_err(errno)?;
        if pwrite(&file, image, 0).map_err(errno)? != image.len() {
            return Err(Errno::ENOMEM);
        }
        // SAFETY: a new shared mapping of a file that is at least a page long.
        let page = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                PAGE_SIZE as usize,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                &file,
                0,
            )
        }
        .map_err(errno)?;
        let start = now();
        let rate = (1_000_000u64 << 32)
            .checked_div(u64::from(ticks_khz))
            .unwrap_or(0);
        let line = Line {
            ticks: start.0,
            rate,
            monotonic_ns: start.1,
        };
        let clock = Self {
            page: page.cast(),
            file,
            start,
            line: Mutex::new(line),
            due_ticks: AtomicU64::new(u64::MAX),
        };
        // Else the page stays zero, and the line is never due.
        if serves {
            clock.publish(&line);
        }
        Ok(clock)
    }

    /// The bytes that guests see, but for the times.
    #[must_use]
    pub fn image() -> &'static [u8] {
        image()
    }

    /// Names of the mappings, as /proc/self/maps shows them.
    pub const DATA: &str = "[vvar]";
    const CODE: &str = "[vdso]";

    /// Maps the pages into a guest; answers where the ELF file lies (AT_SYSINFO_EHDR).
    ///
    /// # Errors
    /// As [`AddressSpace::map`].
    pub fn map(&self, memory: &AddressSpace) -> Result<u64, Errno> {
        let reserve = MapRequest {
            allowed: Prot::all(),
            place: Place::Anywhere(0),
            len: image().len() as u64,
            prot: Prot::empty(),
            backing: Backing::Anonymous,
            kind: Kind::Anonymous,
            charge: Charge::Never,
        };
        let data = memory.map(&reserve)?;
        self.map_at(memory, data)?;
        Ok(data.saturating_add(PAGE_SIZE))
    }

    /// Maps them at an address: the data page, then the ELF file.
    ///
    /// # Errors
    /// As [`AddressSpace::map`].
    pub fn map_at(&self, memory: &AddressSpace, data: u64) -> Result<(), Errno> {
        memory.map(&MapRequest {
            allowed: Prot::READ,
            place: Place::Fixed(data),
            len: PAGE_SIZE,
            prot: Prot::READ,
            backing: Backing::File {
                fd: self.file.as_fd(),
                offset: 0,
                shared: true,
            },
            kind: Kind::Special(Self::DATA.into()),
            charge: Charge::Never,
        })?;
        memory.map(&MapRequest {
            allowed: Prot::all(),
            place: Place::Fixed(data.saturating_add(PAGE_SIZE)),
            len: (image().len() as u64).saturating_sub(PAGE_SIZE),
            prot: Prot::READ | Prot::EXEC,
            backing: Backing::File {
                fd: self.file.as_fd(),
                offset: PAGE_SIZE,
                shared: false,
            },
            kind: Kind::Special(Self::CODE.into()),
            charge: Charge::Never,
        })?;
        Ok(())
    }

    /// Moves the line when a second has passed since it last was; to be called now and then.
    pub fn follow_host(&self) {
        if ticks() < self.due_ticks.load(Ordering::Relaxed) {
            return;
        }
        let Some(mut line) = self.line.try_lock() else {
            return;
        };
        let (ticks, host_ns) = now();
        let guest_ns = line.at(ticks);
        let passed_ticks = ticks.saturating_sub(self.start.0);
        let passed_ns = host_ns.saturating_sub(self.start.1);
        // The measured rate counts once it is more exact than the one that KVM names.
        let measured = (u128::from(passed_ns) << 32).checked_div(u128::from(passed_ticks));
        let rate = match measured {
            Some(measured) if passed_ns > 900_000_000 => measured as u64,
            _ => line.rate,
        };
        // What is missing is made up for within the next second.
        const SECOND: i64 = 1_000_000_000;
        const LIMIT: i64 = SECOND / SLEW;
        let missing = (host_ns as i64)
            .wrapping_sub(guest_ns as i64)
            .clamp(-LIMIT, LIMIT);
        let product = i128::from(rate).wrapping_mul(i128::from(missing));
        let bend = product.checked_div(i128::from(SECOND)).unwrap_or(0);
        let rate = i128::from(rate).wrapping_add(bend);
        *line = Line {
            ticks,
            rate: u64::try_from(rate).unwrap_or(line.rate),
            monotonic_ns: guest_ns,
        };
        self.publish(&line);
    }

    fn publish(&self, line: &Line) {
        let (monotonic_ns, realtime_ns) = at_one_moment(|| {
            [
                clock::monotonic_ns(),
                clock::realtime_ns(),
                clock::monotonic_ns(),
            ]
        });
        let offset = realtime_ns.wrapping_sub(monotonic_ns);
        // SAFETY: the mapping is a page long, aligned, and lives as long as `self`; a guest that
        // maps it writable only disturbs its own clock, and all fields are atomics.
        let page = unsafe { &*self.page };
        page.sequence.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        page.base_ticks.store(line.ticks, Ordering::Relaxed);
        page.rate.store(line.rate, Ordering::Relaxed);
        page.base_monotonic_ns
            .store(line.monotonic_ns, Ordering::Relaxed);
        page.base_realtime_ns
            .store(line.monotonic_ns.wrapping_add(offset), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        page.sequence.fetch_add(1, Ordering::Release);
        let second = (1_000_000_000u64 << 32)
            .checked_div(line.rate >> 16)
            .map_or(0, |t| t >> 16);
        self.due_ticks
            .store(line.ticks.saturating_add(second), Ordering::Relaxed);
    }
}

impl Drop for GuestClock {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.page.cast(), PAGE_SIZE as usize) };
    }
}

/// The bytes that vdso.s assembles to.
fn image() -> &'static [u8] {
    // SAFETY: both symbols bound one section that is part of this program and never written.
    unsafe {
        let start = &raw const cloister_vdso_start;
        let end = &raw const cloister_vdso_end;
        std::slice::from_raw_parts(start, (end as usize).saturating_sub(start as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_an_elf_file_of_one_page() {
        let image = image();
        assert_eq!(image.len(), 8192);
        assert_eq!(&image[4096..4103], b"\x7fELF\x02\x01\x01");
    }

    #[test]
    fn without_a_counter_the_page_stays_zero() {
        let clock = GuestClock::new(0).unwrap();
        clock.follow_host();
        // SAFETY: the page lives as long as the clock.
        let page = unsafe { &*clock.page };
        assert_eq!(page.rate.load(Ordering::Relaxed), 0);
        assert_eq!(page.sequence.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn clocks_are_not_taken_from_a_reading_that_was_interrupted() {
        // The second one's processor was taken before it read the clock between, the first and last one's behind that.
        let mut readings = [
            [1_000, 1_010, 9_000],
            [10_000, 17_000, 17_010],
            [20_000, 20_015, 20_030],
            [30_000, 30_010, 90_000],
        ]
        .into_iter();
        let taken = at_one_moment(|| readings.next().unwrap());
        assert_eq!(taken, (20_015, 20_015));
    }

    #[test]
    fn guest_time_is_continuous_when_the_line_moves() {
        // A rate that is 300 ppm off, as a nominal frequency may be.
        let clock = GuestClock::new(2_000_000).unwrap();
        let before = clock.line.lock().to_owned();
        clock.due_ticks.store(0, Ordering::Relaxed);
        clock.follow_host();
        let after = clock.line.lock().to_owned();
        assert_eq!(before.at(after.ticks), after.monotonic_ns);
        assert!(after.ticks > before.ticks);
    }
}
