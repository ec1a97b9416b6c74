use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use vmm_hypervisor::ExitCounts;
use vmm_kernel::Kernel;
use vmm_kernel::syscalls::ROWS;

/// Exits of all vCPUs that have ended their thread.
#[derive(Debug, Default)]
pub struct Totals {
    exits: Mutex<ExitCounts>,
}

impl Totals {
    /// Adds the exits of one vCPU's thread.
    pub fn add(&self, counts: &ExitCounts) {
        self.exits.lock().merge(counts);
    }

    /// `{"exits": {reason: n}, "syscalls": {name: n}, "committed_bytes", "peak_committed_bytes"}`.
    pub fn to_json(&self, kernel: &Kernel) -> Value {
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
            "exits": *self.exits.lock(),
            "syscalls": calls,
            "committed_bytes": now,
            "peak_committed_bytes": peak,
        })
    }
}
