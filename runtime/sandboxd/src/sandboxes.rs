//! What sandboxd knows of its sandboxes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use cloister_container::Sandbox;

use crate::counters::CounterFile;
use crate::jobs::Asker;
use crate::output::{Account, OutputPipe};
use crate::ready::Waiting;
use crate::request::{Kind, Reset};
use crate::reset::Resetter;
use crate::snapshots::{Freezer, Snapshot};

/// One sandbox, from its request until its processes are gone.
pub struct Entry {
    /// `sb_<16 hex>`.
    pub id: String,
    pub kind: Kind,
    pub image: String,
    pub label: String,
    pub host_id: u32,
    pub began: Instant,
    /// The key of the process that asked for it.
    pub client: u64,
    /// None while it is made and once it is being reaped.
    pub sandbox: Option<Arc<Sandbox>>,
    pub pid: i32,
    /// Jobs that hold the sandbox.
    pub jobs: u32,
    pub assigned: bool,
    /// Somebody wants it ended.
    pub killed: bool,
    /// Its pid 1 has ended.
    pub exited: bool,
    /// Who waits for it to be gone.
    pub killers: Vec<Asker>,
    pub pipes: Vec<OutputPipe>,
    pub account: Account,
    /// What a restored runner is to see as its own process id.
    pub guest_pid: Option<u32>,
    /// Of a micro-VM.
    pub counters: Option<Arc<CounterFile>>,
    /// Of a micro-VM that may be frozen, until it is.
    pub freezer: Option<Freezer>,
    /// What it was brought back from.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Of a micro-VM that waits for a snapshot.
    pub waiting: Option<Waiting>,
    /// Of a micro-VM that is brought back, while it is not being reset.
    pub resetter: Option<Resetter>,
    /// It is looked at what the guest has touched, which the reset that is asked for meanwhile waits for.
    pub learning: bool,
    pub reset_next: Option<(Asker, Reset)>,
}

impl Entry {
    pub fn state(&self) -> &'static str {
        if self.killed || self.exited {
            "ending"
        } else if self.sandbox.is_none() {
            "creating"
        } else if self.waiting.is_some() {
            "ready"
        } else if self.assigned {
            "assigned"
        } else {
            "prepared"
        }
    }
}

/// Sandboxes by a key of sandboxd's own, which is never used twice, and by the id clients know.
#[derive(Default)]
pub struct Sandboxes {
    entries: HashMap<u64, Entry>,
    keys: BTreeMap<String, u64>,
}

impl Sandboxes {
    pub fn insert(&mut self, key: u64, entry: Entry) {
        self.keys.insert(entry.id.clone(), key);
        self.entries.insert(key, entry);
    }

    pub fn remove(&mut self, key: u64) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.keys.remove(&entry.id);
        Some(entry)
    }

    pub fn get_mut(&mut self, key: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    pub fn key(&self, id: &str) -> Option<u64> {
        self.keys.get(id).copied()
    }

    pub fn all_keys(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// By id, those after `after`.
    pub fn after<'a>(&'a self, after: Option<&'a str>) -> impl Iterator<Item = &'a Entry> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = self
            .keys
            .range::<str, _>((from, std::ops::Bound::Unbounded));
        range.filter_map(|(_, key)| self.entries.get(key))
    }
}
