//! Micro-VMs that are put back to the snapshot they were brought back from. One that cannot be shown to be as it was is ended.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::controlling::unknown;
use crate::daemon::Daemon;
use crate::jobs::{Asker, Job};
use crate::learning::Touches;
use crate::refusal::{Code, Refusal};
use crate::request::Reset;

/// A monitor answers long before; one that does not has been stopped from outside, or nobody reads what its guest has written.
const ANSWER_BOUND: Duration = Duration::from_secs(10);
const MOST_ANSWER: u64 = 128 << 10;
const OUTPUTS: [u8; 2] = [1, 2];

/// What asks a restored micro-VM's monitor for a reset.
#[derive(Debug)]
pub struct Resetter {
    control: UnixStream,
}

/// What the monitor says of one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WasReset {
    ok: bool,
    reason: String,
    stop_ms: f64,
    renew_ms: f64,
    rewritten_pages: u64,
    dropped_pages: u64,
    remapped_bytes: u64,
}

/// What it says of what the guest has touched.
#[derive(Deserialize)]
pub struct Seen {
    pub ok: bool,
    #[serde(default)]
    pub reason: String,
    #[serde(flatten)]
    pub touches: Touches,
}

/// A reset on its way.
#[derive(Debug)]
pub struct ResetJob {
    pub key: u64,
    pub resetter: Resetter,
    pub guest_pid: u32,
    pub asker: Asker,
}

/// One that is over. Without the way to the monitor there are no more.
pub struct ResetDone {
    pub key: u64,
    pub outcome: Result<(Resetter, WasReset), Refusal>,
    pub guest_pid: u32,
    pub asker: Asker,
}

impl Resetter {
    /// By the socket at which the monitor hears first what it is to bring back.
    pub fn by(control: UnixStream) -> Self {
        Self { control }
    }

    /// Asks; the socket takes so little at once, because the last order has been answered.
    fn ask(&mut self, mark: &str, pid: u32) -> io::Result<()> {
        self.control.set_read_timeout(Some(ANSWER_BOUND))?;
        let order = json!({"pid": pid, "mark": mark});
        self.control.write_all(format!("{order}\n").as_bytes())
    }

    fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut line = Vec::new();
        let mut reader = BufReader::new((&self.control).take(MOST_ANSWER));
        reader.read_until(b'\n', &mut line)?;
        Ok(serde_json::from_slice(&line)?)
    }

    /// Asks what the guest has touched; waits for the answer.
    pub fn look(&mut self) -> io::Result<Seen> {
        self.control.set_read_timeout(Some(ANSWER_BOUND))?;
        self.control.write_all(b"{\"look\": true}\n")?;
        self.hear()
    }
}

impl ResetJob {
    /// Waits until it is done.
    pub fn run(mut self) -> ResetDone {
        let outcome = match self.resetter.hear::<WasReset>() {
            Ok(answer) if answer.ok => Ok((self.resetter, answer)),
            Ok(answer) => Err(refused(answer.reason)),
            Err(error) => Err(refused(format!("the micro-VM did not answer ({error})"))),
        };
        ResetDone {
            key: self.key,
            outcome,
            guest_pid: self.guest_pid,
            asker: self.asker,
        }
    }
}

fn refused(reason: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::ResetRefused,
        format!("The sandbox is not as it was: {reason}."),
        "Make another one; this one ends.",
    )
}

impl Daemon {
    /// `reset`: puts a sandbox back to its snapshot.
    pub(crate) fn reset(&mut self, asker: Asker, reset: &Reset) -> Result<(), Refusal> {
        let id = &reset.sandbox;
        let key = self.sandboxes.key(id).ok_or_else(|| unknown(id))?;
        let entry = self.sandboxes.get_mut(key).ok_or_else(|| unknown(id))?;
        if entry.sandbox.is_none() || entry.killed || entry.exited {
            return Err(unknown(id));
        }
        if entry.learning && entry.reset_next.is_none() {
            entry.reset_next = Some((asker, reset.clone()));
            return Ok(());
        }
        let mut resetter = entry.resetter.take().ok_or_else(|| {
            Refusal::new(
                Code::BadRequest,
                "The sandbox was not brought back from a snapshot, or is being reset.",
                "Reset what was made of a snapshot, one reset after the other.",
            )
        })?;
        entry.jobs = entry.jobs.saturating_add(1);
        // One that has gone shows when it is heard.
        let _ = resetter.ask(&reset.mark, reset.guest_pid);
        self.jobs.start_job(Job::Reset(ResetJob {
            key,
            resetter,
            guest_pid: reset.guest_pid,
            asker,
        }));
        Ok(())
    }

    /// What the sandbox wrote until then goes out before the reply.
    pub(crate) fn reset_done(&mut self, done: ResetDone) {
        let ResetDone {
            key,
            outcome,
            guest_pid,
            asker,
        } = done;
        for number in OUTPUTS {
            self.read_output_now(key, number);
        }
        match outcome {
            Ok((resetter, answer)) => {
                if let Some(entry) = self.sandboxes.get_mut(key) {
                    entry.resetter = Some(resetter);
                    entry.guest_pid = Some(guest_pid);
                }
                let reply = json!({
                    "ok": true,
                    "phases": {"stop_ms": answer.stop_ms, "renew_ms": answer.renew_ms},
                    "rewrittenPages": answer.rewritten_pages,
                    "droppedPages": answer.dropped_pages,
                    "remappedBytes": answer.remapped_bytes,
                });
                self.answer(asker, &reply);
            }
            Err(refusal) => {
                self.answer(asker, &refusal);
                self.kill_now(key);
            }
        }
        self.job_done(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(resetter: Resetter) -> ResetJob {
        ResetJob {
            key: 1,
            resetter,
            guest_pid: 301,
            asker: Asker {
                connection: 1,
                stream: 1,
            },
        }
    }

    fn answered(said: &'static str) -> ResetDone {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut resetter = Resetter::by(ours);
        resetter.ask("00ff", 301).unwrap();
        let monitor = std::thread::spawn(move || {
            let mut reader = BufReader::new(theirs);
            let mut order = String::new();
            reader.read_line(&mut order).unwrap();
            reader.get_mut().write_all(said.as_bytes()).unwrap();
            order
        });
        let done = job(resetter).run();
        let order = monitor.join().unwrap();
        assert_eq!(order, "{\"mark\":\"00ff\",\"pid\":301}\n");
        done
    }

    #[test]
    fn only_a_clear_word_counts_as_done() {
        let done = answered("{\"ok\": true, \"stopMs\": 0.5, \"rewrittenPages\": 7}\n");
        let (_, answer) = done.outcome.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!((answer.stop_ms, answer.rewritten_pages), (0.5, 7));
        for said in [
            "",
            "{\"ok\": false, \"reason\": \"files are held\"}\n",
            "{}\n",
            "{\"ok\": 1}\n",
            "{\"ok\": tr",
        ] {
            let refusal = answered(said).outcome.map(|_| ()).unwrap_err();
            assert_eq!(refusal.code, Code::ResetRefused, "{said}");
        }
    }
}
