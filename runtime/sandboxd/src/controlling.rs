//! Requests on control connections, but for what ends sandboxes (ending.rs).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use cloister_container::LimitChange;
use serde::Serialize;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::jobs::{Asker, AssignJob, Job, Listed, Phases};
use crate::ready::{MIB_EACH, MOST};
use crate::refusal::{Code, Refusal};
use crate::request::{Assign, Request, Trace};

/// So many lines of `list` fit one frame for certain: each is below 300 bytes.
const LIST_LINES: usize = 800;
const MIB: u64 = 1 << 20;

#[derive(Serialize)]
struct Hello<'a> {
    ok: bool,
    version: &'a str,
    instance: &'a str,
    cgroup: &'a str,
    images: BTreeMap<String, String>,
    kinds: &'a [&'a str],
    /// Of micro-VMs: what the slots of their counters stand for.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<&'a BTreeMap<u16, String>>,
    /// Of micro-VMs that are kept ready: how many at the most, and what each takes of the host's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<Value>,
    #[serde(rename = "landlockAbi")]
    landlock_abi: Option<i32>,
    pid: u32,
}

impl Daemon {
    pub(crate) fn control(&mut self, asker: Asker, request: Request) {
        match request {
            Request::Hello => self.hello(asker),
            Request::Assign(assign) => {
                if let Err(refusal) = self.assign(asker, &assign) {
                    self.answer(asker, &refusal);
                }
            }
            Request::Snapshot(id) => {
                if let Err(refusal) = self.freeze(asker, &id) {
                    self.answer(asker, &refusal);
                }
            }
            Request::Reset(reset) => {
                if let Err(refusal) = self.reset(asker, &reset) {
                    self.answer(asker, &refusal);
                }
            }
            Request::Learn(id) => {
                if let Err(refusal) = self.learn(asker, &id) {
                    self.answer(asker, &refusal);
                }
            }
            Request::Forget(id) => match self.snapshots.forget(&id) {
                Ok(()) => {
                    self.forget_ready(&id);
                    self.answer(asker, &json!({"ok": true}));
                }
                Err(refusal) => self.answer(asker, &refusal),
            },
            Request::Keep(ready) => {
                self.keep_ready(ready);
                self.answer(asker, &json!({"ok": true}));
            }
            Request::Kill(id) => self.kill(asker, &id),
            Request::Trace(trace) => match self.trace(&trace) {
                Ok(()) => self.answer(asker, &json!({"ok": true})),
                Err(refusal) => self.answer(asker, &refusal),
            },
            Request::List(after) => self.list(asker, after.as_deref()),
            Request::Drain => {
                self.drainers.push(asker);
                self.drain();
            }
            Request::Create(_) => self.answer(
                asker,
                &Refusal::bad("create must be the first frame of a connection of its own."),
            ),
        }
    }

    fn hello(&mut self, asker: Asker) {
        let (images, faulty) = self.images.all();
        for (name, error) in faulty {
            self.warn(&format!("the image {name} cannot be used: {error}"));
        }
        let instance = self.options.instance.clone();
        let hypervisor = self.hypervisor.clone();
        let reply = Hello {
            ok: true,
            version: env!("CARGO_PKG_VERSION"),
            instance: &instance,
            cgroup: self.cgroup,
            images,
            kinds: if self.hypervisor.is_some() {
                &["container", "microvm"]
            } else {
                &["container"]
            },
            calls: hypervisor.as_ref().map(|hypervisor| hypervisor.calls()),
            ready: hypervisor
                .as_ref()
                .map(|_| json!({"most": MOST, "memoryMb": MIB_EACH})),
            landlock_abi: cloister_container::landlock_abi(),
            pid: std::process::id(),
        };
        self.answer(asker, &reply);
    }

    fn assign(&mut self, asker: Asker, assign: &Assign) -> Result<(), Refusal> {
        let key = self.sandboxes.key(&assign.sandbox);
        let (key, entry) = key
            .and_then(|key| Some((key, self.sandboxes.get_mut(key)?)))
            .ok_or_else(|| unknown(&assign.sandbox))?;
        if entry.assigned {
            return Err(Refusal::new(
                Code::AlreadyAssigned,
                "The sandbox has its function already.",
                "Assign to a prepared cell, once.",
            ));
        }
        let sandbox = match &entry.sandbox {
            Some(sandbox) if !entry.killed && !entry.exited => Arc::clone(sandbox),
            _ => return Err(unknown(&assign.sandbox)),
        };
        let bundle = self.bundles.get(&assign.bundle)?;
        let changes = assign.memory_mb.or(assign.cpu_milli).or(assign.pids);
        let limits = changes.map(|_| LimitChange {
            memory_bytes: assign.memory_mb.map(|mb| u64::from(mb).saturating_mul(MIB)),
            cpu_milli: assign.cpu_milli,
            pids: assign.pids,
            cpu_weight: None,
        });
        // Also when it fails: who knows how far it came.
        entry.assigned = true;
        entry.label.clone_from(&assign.label);
        if let Some(freezer) = &mut entry.freezer {
            freezer.assigned(&assign.bundle);
        }
        entry.jobs = entry.jobs.saturating_add(1);
        self.jobs.start_job(Job::Assign(AssignJob {
            key,
            sandbox,
            bundle,
            limits,
            asker,
        }));
        Ok(())
    }

    /// What the monitor has written so far goes out before the reply.
    fn trace(&mut self, trace: &Trace) -> Result<(), Refusal> {
        const STDERR: u8 = 2;
        let key = self.sandboxes.key(&trace.sandbox);
        let (key, entry) = key
            .and_then(|key| Some((key, self.sandboxes.get_mut(key)?)))
            .ok_or_else(|| unknown(&trace.sandbox))?;
        let counters = entry.counters.as_ref().ok_or_else(|| {
            Refusal::new(
                Code::IsolationUnavailable,
                "The sandbox is a container, whose system calls are not seen.",
                "Trace a micro-VM.",
            )
        })?;
        counters
            .set_trace(trace.mark.unwrap_or(0))
            .map_err(|error| {
                Refusal::new(
                    Code::SetupFailed,
                    format!("The counters cannot be written: {error}."),
                    "See sandboxd's log.",
                )
            })?;
        self.read_output_now(key, STDERR);
        Ok(())
    }

    pub(crate) fn assign_done(&mut self, key: u64, outcome: Result<Phases, Refusal>, asker: Asker) {
        match outcome {
            Ok(phases) => self.answer(asker, &json!({"ok": true, "phases": phases})),
            Err(refusal) => self.answer(asker, &refusal),
        }
        self.job_done(key);
    }

    fn list(&mut self, asker: Asker, after: Option<&str>) {
        let now = Instant::now();
        let mut entries = self.sandboxes.after(after);
        let lines: Vec<Listed> = entries
            .by_ref()
            .take(LIST_LINES)
            .map(|entry| Listed {
                sandbox: entry.id.clone(),
                kind: entry.kind.name(),
                image: entry.image.clone(),
                label: entry.label.clone(),
                pid: entry.pid,
                state: entry.state(),
                age_ms: u64::try_from(now.duration_since(entry.began).as_millis())
                    .unwrap_or(u64::MAX),
                memory_bytes: None,
                memory_file: entry
                    .sandbox
                    .as_ref()
                    .map(|sandbox| sandbox.stat_files().memory.path.clone()),
            })
            .collect();
        let more = entries.next().is_some();
        drop(entries);
        self.jobs.start_job(Job::List { lines, more, asker });
    }

    pub(crate) fn list_done(&mut self, lines: &[Listed], more: bool, asker: Asker) {
        #[derive(Serialize)]
        struct List<'a> {
            ok: bool,
            sandboxes: &'a [Listed],
            more: bool,
        }
        let reply = List {
            ok: true,
            sandboxes: lines,
            more,
        };
        self.answer(asker, &reply);
    }
}

pub fn unknown(id: &str) -> Refusal {
    let shown: String = id.chars().take(64).collect();
    Refusal::new(
        Code::UnknownSandbox,
        format!("There is no sandbox {shown:?}, or it is ending."),
        "Use the id that create replied with.",
    )
}
