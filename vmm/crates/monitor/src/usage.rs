//! How much memory the guest has touched, by the host's own count.

use std::fs::File;
use std::os::fd::AsFd;

use vmm_abi::PAGE_SIZE;
use vmm_memory::Meter;

/// The kernel's count of this process's pages (proc_pid_statm(5)).
const STATM: &str = "/proc/self/statm";

/// Private pages of this process that are in memory, less those it has now: guest memory, and what the monitor keeps for
/// the guest (page tables, what lies in pipes and sockets). The file stays open, for nothing can be opened later.
/// `None` where there is no /proc.
pub fn meter() -> Option<Meter> {
    let statm = File::open(STATM).ok()?;
    let at_start = private_bytes(&statm)?;
    Some(Box::new(move || {
        private_bytes(&statm).map(|now| now.saturating_sub(at_start))
    }))
}

fn private_bytes(statm: &File) -> Option<u64> {
    let mut text = [0u8; 128];
    let count = rustix::io::pread(statm.as_fd(), &mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..count)?).ok()?;
    // Sizes in pages: all that is mapped, what of it is in memory, and what of that belongs to files or shared memory.
    let mut sizes = text.split(' ').map(str::parse::<u64>);
    let (_, resident, shared) = (sizes.next()?, sizes.next()?.ok()?, sizes.next()?.ok()?);
    Some(resident.saturating_sub(shared).saturating_mul(PAGE_SIZE))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step of a test is to end it")]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn what_is_touched_counts_and_what_is_only_mapped_does_not() {
        const BYTES: usize = 64 << 20;
        let meter = meter().unwrap();
        let untouched: Vec<u8> = black_box(Vec::with_capacity(BYTES));
        let before = meter().unwrap();
        let touched = black_box(vec![1u8; BYTES]);
        let after = meter().unwrap();
        drop((untouched, touched));
        // The kernel's count may lag by some pages per processor.
        let gained = after.saturating_sub(before);
        assert!(before < 32 << 20 && gained >= 56 << 20, "{before} {after}");
    }
}
