use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use vmm_kernel::Kernel;
use vmm_kernel::clock::thread_processor_ns;
use vmm_kernel::syscalls::ROWS;

use crate::counters::Counters;

/// Names of the calls that are served, by number.
pub fn syscall_names() -> Value {
    let names = ROWS
        .iter()
        .map(|row| (row.number.to_string(), row.name.into()));
    Value::Object(names.collect())
}

/// What `--stats` tells at the end.
#[derive(Debug)]
pub struct Totals {
    pub counters: Counters,
    thread_cpu_ns: AtomicU64,
}

impl Totals {
    pub fn new(counters: Counters) -> Self {
        Self {
            counters,
            thread_cpu_ns: AtomicU64::new(0),
        }
    }

    /// Adds the processor time of a guest thread that ends: what the calling host thread, which has run others before, has used since it had used `before_ns`.
    pub fn add_thread(&self, before_ns: u64) {
        let used = thread_processor_ns().saturating_sub(before_ns);
        self.thread_cpu_ns.fetch_add(used, Ordering::Relaxed);
    }

    /// `{"exits": {reason: n}, "guest_ms", "monitor_ms", "threads_cpu_ms", "syscalls": {name: n},
    /// "committed_bytes", "used_bytes", "peak_used_bytes"}`. `guest_ms` is time in KVM_RUN by the clock, with what
    /// the host does there (page faults, preemption), `monitor_ms` time between that without sleep;
    /// `threads_cpu_ms` is the processor time of all guest threads that have ended.
    pub fn to_json(&self, kernel: &Kernel) -> Value {
        let exits = self.counters.exits();
        let exits: Map<String, Value> = exits
            .iter()
            .map(|(reason, count)| ((*reason).to_owned(), (*count).into()))
            .collect();
        let calls: Map<String, Value> = ROWS
            .iter()
            .map(|row| (row.name.to_owned(), self.counters.calls(row.number)))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name, count.into()))
            .collect();
        let (guest_ms, monitor_ms) = self.counters.times_ms();
        let (now, peak) = kernel.memory.used_bytes();
        json!({
            "exits": exits,
            "guest_ms": guest_ms,
            "monitor_ms": monitor_ms,
            "threads_cpu_ms": self.thread_cpu_ns.load(Ordering::Relaxed) / 1_000_000,
            "syscalls": calls,
            "committed_bytes": kernel.memory.committed_bytes(),
            "used_bytes": now,
            "peak_used_bytes": peak,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_thread_that_runs_many_guest_threads_counts_once() {
        let totals = Totals::new(Counters::private());
        let first = thread_processor_ns();
        for _ in 0..10 {
            let before = thread_processor_ns();
            while thread_processor_ns() == before {}
            totals.add_thread(before);
        }
        let used = totals.thread_cpu_ns.load(Ordering::Relaxed);
        let all = thread_processor_ns().saturating_sub(first);
        assert!((10..=all).contains(&used), "{used} ns of {all}");
    }
}
