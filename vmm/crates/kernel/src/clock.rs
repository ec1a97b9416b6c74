//! The host's clocks, in nanoseconds.

use rustix::time::{ClockId, clock_gettime};
use vmm_abi::{Errno, Timespec};

fn to_ns(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let fraction = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(fraction)
}

/// Time since an arbitrary start that never goes back.
#[must_use]
pub fn monotonic_ns() -> u64 {
    to_ns(ClockId::Monotonic)
}

/// What the calling host thread has used of processors (`CLOCK_THREAD_CPUTIME_ID`, clock_gettime(2)).
#[must_use]
pub fn thread_processor_ns() -> u64 {
    to_ns(ClockId::ThreadCPUTime)
}

/// Time since 1970.
#[must_use]
pub fn realtime_ns() -> u64 {
    to_ns(ClockId::Realtime)
}

/// The clock a guest names by number (clock_gettime(2)).
///
/// # Errors
/// EINVAL for a clock that is not served.
pub fn read(id: i32) -> Result<u64, Errno> {
    match id {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI => Ok(realtime_ns()),
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME => Ok(monotonic_ns()),
        libc::CLOCK_PROCESS_CPUTIME_ID => Ok(to_ns(ClockId::ProcessCPUTime)),
        libc::CLOCK_THREAD_CPUTIME_ID => Ok(thread_processor_ns()),
        _ => Err(Errno::EINVAL),
    }
}

/// The monotonic time at which a clock will show `at`; the past becomes now.
///
/// # Errors
/// EINVAL for a clock that cannot be waited on or a malformed time.
pub fn deadline(id: i32, at: Timespec, absolute: bool) -> Result<u64, Errno> {
    let at = at.to_ns().ok_or(Errno::EINVAL)?;
    let now = monotonic_ns();
    if !absolute {
        return Ok(now.saturating_add(at));
    }
    Ok(now.saturating_add(at.saturating_sub(read(id)?)))
}
