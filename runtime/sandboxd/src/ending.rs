//! How sandboxes end: killed, drained, left by their client, or by themselves.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use cloister_container::{ExitReason, ExitReport};
use cloister_protocol::{FrameType, encode_json};
use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::json;

use crate::connection::Outgoing;
use crate::controlling::unknown;
use crate::daemon::Daemon;
use crate::jobs::{Asker, Job};
use crate::output::Piece;
use crate::refusal::{Code, Refusal};
use crate::watch::Source;

/// Reads of a pipe after the last process is gone: what a pipe holds, and more if it was made larger. The rest is cut.
const LAST_READS: usize = 16;
/// Reads of a pipe in one turn.
const READS_PER_TURN: usize = 4;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Exit<'a> {
    event: &'a str,
    sandbox: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_peak_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Output<'a> {
    event: &'a str,
    sandbox: &'a str,
    fd: u8,
    text: &'a str,
}

impl Daemon {
    /// `kill`: replies after the last process is gone.
    pub(crate) fn kill(&mut self, asker: Asker, id: &str) {
        let key = self.sandboxes.key(id);
        let known = key.and_then(|key| Some((key, self.sandboxes.get_mut(key)?)));
        let Some((key, entry)) = known else {
            return self.answer(asker, &unknown(id));
        };
        entry.killers.push(asker);
        self.kill_now(key);
    }

    /// Ends a sandbox, or one that is still being made as soon as it is.
    pub(crate) fn kill_now(&mut self, key: u64) {
        self.ready_ends(key);
        let Some(entry) = self.sandboxes.get_mut(key) else {
            return;
        };
        entry.killed = true;
        let Some(sandbox) = entry.sandbox.as_ref().filter(|_| !entry.exited) else {
            return;
        };
        let sandbox = Arc::clone(sandbox);
        entry.jobs = entry.jobs.saturating_add(1);
        self.jobs.start_job(Job::Kill { key, sandbox });
    }

    pub(crate) fn kill_done(&mut self, key: u64, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            tracing::error!(%error, "a sandbox cannot be killed");
            let killers = match self.sandboxes.get_mut(key) {
                Some(entry) => std::mem::take(&mut entry.killers),
                None => Vec::new(),
            };
            let refusal = Refusal::new(
                Code::SetupFailed,
                format!("The sandbox cannot be killed: {error}."),
                "Restart sandboxd, which ends all its sandboxes.",
            );
            for asker in killers {
                self.answer(asker, &refusal);
            }
        }
        self.job_done(key);
    }

    /// No more creates; every sandbox ends.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        for key in self.sandboxes.all_keys() {
            self.kill_now(key);
        }
        self.tell_drainers();
    }

    fn tell_drainers(&mut self) {
        if self.draining && self.sandboxes.is_empty() {
            for asker in std::mem::take(&mut self.drainers) {
                self.answer(asker, &json!({"ok": true}));
            }
        }
    }

    /// The process that asked for sandboxes has ended, so they end too.
    pub(crate) fn client_ended(&mut self, client: u64) {
        let Some((sandboxes, pidfd)) = self.clients.ended(client) else {
            return;
        };
        self.watch.remove(&pidfd);
        for key in sandboxes {
            self.kill_now(key);
        }
    }

    /// Pid 1 has ended, and with it the kernel ends everything else.
    pub(crate) fn exited(&mut self, key: u64) {
        self.ready_ends(key);
        let Some(entry) = self.sandboxes.get_mut(key) else {
            return;
        };
        if let Some(sandbox) = &entry.sandbox {
            self.watch.remove(sandbox.pidfd());
        }
        entry.exited = true;
        self.reap(key);
    }

    /// A job that held the sandbox is done with it.
    pub(crate) fn job_done(&mut self, key: u64) {
        if let Some(entry) = self.sandboxes.get_mut(key) {
            entry.jobs = entry.jobs.saturating_sub(1);
        }
        self.reap(key);
    }

    fn reap(&mut self, key: u64) {
        let Some(entry) = self.sandboxes.get_mut(key) else {
            return;
        };
        if !entry.exited || entry.jobs > 0 {
            return;
        }
        // Jobs drop the sandbox before they tell that they are done, so this is the last one.
        if let Some(sandbox) = entry.sandbox.take().and_then(Arc::into_inner) {
            self.jobs.start_job(Job::Reap { key, sandbox });
        }
    }

    /// The last process is gone.
    pub(crate) fn reaped(&mut self, key: u64, report: &ExitReport) {
        for number in [1, 2] {
            self.read_last_output(key, number);
        }
        let Some(entry) = self.sandboxes.get_mut(key) else {
            return;
        };
        let id = entry.id.clone();
        let (reason, code, signal) = match report.reason {
            ExitReason::Oom => ("oom", None, None),
            ExitReason::Killed => ("killed", None, None),
            ExitReason::Exit(code) => ("exit", Some(code), None),
            ExitReason::Signal(signal) => ("signal", None, Some(signal_name(signal))),
        };
        tracing::debug!(sandbox = %id, reason, code, signal, "ended");
        // Of one that was kept ready nobody knows.
        let known = entry.client != 0;
        let event = Exit {
            event: "exit",
            sandbox: &id,
            reason,
            code,
            signal,
            memory_peak_bytes: report.memory_peak_bytes,
        };
        if known {
            self.event(&event);
        }
        if report.leftover {
            tracing::error!(sandbox = %id, "something of a sandbox cannot be removed; its host id is not used again");
        }
        self.forget(key, !report.leftover);
    }

    /// A sandbox that could not be made.
    pub(crate) fn not_made(&mut self, key: u64, refusal: &Refusal) {
        self.warn(&format!("a sandbox could not be made: {}", refusal.message));
        if let Some(waiting) = self.sandboxes.get_mut(key).and_then(|e| e.waiting.take()) {
            self.not_ready(&waiting);
        }
        self.forget(key, true);
    }

    /// Gives back what a sandbox had, once no process of it lives; its host id if that can be used again.
    fn forget(&mut self, key: u64, clean: bool) {
        let Some(entry) = self.sandboxes.remove(key) else {
            return;
        };
        for pipe in &entry.pipes {
            self.watch.remove(&pipe.fd);
        }
        if let Some(pidfd) = self.clients.leave(entry.client, key) {
            self.watch.remove(&pidfd);
        }
        if clean {
            self.slots.give(entry.host_id);
        }
        self.freed = true;
        for asker in &entry.killers {
            self.answer(*asker, &json!({"ok": true}));
        }
        self.tell_drainers();
    }

    /// Passes on what a sandbox wrote to descriptor 1 or 2.
    pub(crate) fn read_output(&mut self, key: u64, number: u8) {
        for _ in 0..READS_PER_TURN {
            let Some(entry) = self.sandboxes.get_mut(key) else {
                return;
            };
            let Some(at) = entry.pipes.iter().position(|pipe| pipe.number == number) else {
                return;
            };
            let Some(pipe) = entry.pipes.get_mut(at) else {
                return;
            };
            if let Some(until) = pipe.rests_until(Instant::now()) {
                self.watch.remove(&pipe.fd);
                self.resting.push_back((until, key, number));
                return;
            }
            match pipe.read() {
                Piece::Text(text) => self.pass_on(key, number, &text),
                Piece::Nothing => return,
                Piece::End => {
                    self.watch.remove(&pipe.fd);
                    return;
                }
            }
        }
    }

    /// Reads on where a pipe has rested long enough.
    pub(crate) fn resume_output(&mut self, now: Instant) {
        while let Some((until, key, number)) = self.resting.front().copied() {
            if until > now {
                return;
            }
            self.resting.pop_front();
            let pipes = self.sandboxes.get_mut(key).map(|entry| &entry.pipes);
            if let Some(pipe) = pipes.and_then(|pipes| pipes.iter().find(|p| p.number == number)) {
                // Were it to fail, the rest would be read when the sandbox ends.
                let _ = self.watch.add(&pipe.fd, Source::Output(key, number));
            }
        }
    }

    fn read_last_output(&mut self, key: u64, number: u8) {
        self.read_output_now(key, number);
        self.pass_on(key, number, "");
    }

    /// Reads what is in a pipe now, also while it rests, a bounded number of times.
    pub(crate) fn read_output_now(&mut self, key: u64, number: u8) {
        for _ in 0..LAST_READS {
            let entry = self.sandboxes.get_mut(key);
            let pipe = entry.and_then(|entry| entry.pipes.iter_mut().find(|p| p.number == number));
            let Some(Piece::Text(text)) = pipe.map(crate::output::OutputPipe::read) else {
                break;
            };
            self.pass_on(key, number, &text);
        }
    }

    /// Sends a text, if there is room; before it, the note on what found none. An empty text sends the note alone.
    fn pass_on(&mut self, key: u64, number: u8, text: &str) {
        let Some(entry) = self.sandboxes.get_mut(key) else {
            return;
        };
        let (id, account) = (entry.id.clone(), entry.account.clone());
        let Some(pipe) = entry.pipes.iter_mut().find(|pipe| pipe.number == number) else {
            return;
        };
        let cut = pipe.take_cut();
        let whole = match cut {
            0 if text.is_empty() => return,
            0 => text.to_owned(),
            _ => format!("[cloister] {cut} bytes of output were cut\n{text}"),
        };
        let event = Output {
            event: "output",
            sandbox: &id,
            fd: number,
            text: &whole,
        };
        let Ok(bytes) = encode_json(FrameType::Event, 0, &event) else {
            return pipe.cut(cut.saturating_add(text.len()));
        };
        match account.lease(bytes.len()) {
            Some(lease) => self.tell(Outgoing {
                bytes: bytes.into(),
                lease: Some(lease),
            }),
            None => pipe.cut(cut.saturating_add(text.len())),
        }
    }

    fn event(&mut self, event: &impl Serialize) {
        match encode_json(FrameType::Event, 0, event) {
            Ok(bytes) => self.tell(Outgoing {
                bytes: Rc::from(bytes),
                lease: None,
            }),
            Err(error) => tracing::error!(%error, "an event fits no frame"),
        }
    }
}

/// SIGKILL and the like; a number for real-time signals.
fn signal_name(number: i32) -> String {
    Signal::try_from(number)
        .map_or_else(|_| number.to_string(), |signal| signal.as_str().to_owned())
}
