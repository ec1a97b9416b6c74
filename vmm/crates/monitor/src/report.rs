use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use vmm_hypervisor::ExitCounts;
use vmm_kernel::Kernel;
use vmm_kernel::syscalls::ROWS;

/// Exits of all vCPUs that have ended their thread.
#[derive(Debug, Default)]
pub struct Totals {
    exits: Mutex<ExitCounts>,
    thread_cpu_ns: AtomicU64,
}

impl Totals {
    /// Adds the exits of one vCPU's thread, and the processor time of the calling host thread.
    pub fn add(&self, counts: &ExitCounts) {
        self.exits.lock().merge(counts);
        let cpu = vmm_kernel::clock::read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0);
        self.thread_cpu_ns.fetch_add(cpu, Ordering::Relaxed);
    }

    /// `{"exits": {reason: n}, "guest_ms", "threads_cpu_ms", "syscalls": {name: n}, "committed_bytes",
    /// "peak_committed_bytes"}`. `guest_ms` is time in KVM_RUN by the clock, with what the host does
    /// there (page faults, preemption); `threads_cpu_ms` is the processor time of all guest threads.
    pub fn to_json(&self, kernel: &Kernel, ticks_khz: u32) -> Value {
        let exits = *self.exits.lock();
        let guest_ms = exits
            .guest_ticks
            .checked_div(u64::from(ticks_khz))
            .unwrap_or(0);
        let mut calls = Map::new();
        let names = ROWS.iter().map(|row| row.name).chain(["unknown"]);
        for (name, count) in names.zip(&kernel.call_counts) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                calls.insert(name.to_owned(), count.into());
            }
        }
        let (now, peak) = kernel.memory.committed_bytes();
        json!({
            "exits": {
                "syscall": exits.syscall,
                "fault": exits.fault,
                "interrupted": exits.interrupted,
                "page_unavailable": exits.page_unavailable,
            },
            "guest_ms": guest_ms,
            "threads_cpu_ms": self.thread_cpu_ns.load(Ordering::Relaxed) / 1_000_000,
            "syscalls": calls,
            "committed_bytes": now,
            "peak_committed_bytes": peak,
        })
    }
}
