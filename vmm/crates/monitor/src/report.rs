use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use vmm_hypervisor::ExitCounts;
use vmm_kernel::Kernel;
use vmm_kernel::syscalls::ROWS;

/// Exits of all vCPUs that have ended their thread.
#[derive(Debug)]
pub struct Totals {
    exits: Mutex<ExitCounts>,
    thread_cpu_ns: AtomicU64,
    /// Clock and time-stamp counter when counting began: what came since tells the counter's rate.
    began: (Instant, u64),
}

impl Totals {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self {
            exits: Mutex::default(),
            thread_cpu_ns: AtomicU64::new(0),
            began: (Instant::now(), vmm_hypervisor::ticks()),
        }
    }

    fn milliseconds(&self, ticks: u64) -> u64 {
        let (start, first) = self.began;
        let passed = u128::from(vmm_hypervisor::ticks().saturating_sub(first));
        let ms = start.elapsed().as_millis().saturating_mul(ticks.into());
        ms.checked_div(passed)
            .and_then(|ms| ms.try_into().ok())
            .unwrap_or(0)
    }

    /// Adds the exits of one vCPU's thread, and the processor time of the calling host thread.
    pub fn add(&self, counts: &ExitCounts) {
        self.exits.lock().merge(counts);
        let cpu = vmm_kernel::clock::read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0);
        self.thread_cpu_ns.fetch_add(cpu, Ordering::Relaxed);
    }

    /// `{"exits": {reason: n}, "guest_ms", "threads_cpu_ms", "syscalls": {name: n}, "committed_bytes",
    /// "peak_committed_bytes"}`. `guest_ms` is time in KVM_RUN by the clock, with what the host does
    /// there (page faults, preemption); `threads_cpu_ms` is the processor time of all guest threads.
    pub fn to_json(&self, kernel: &Kernel) -> Value {
        let exits = *self.exits.lock();
        let guest_ms = self.milliseconds(exits.guest_ticks);
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
