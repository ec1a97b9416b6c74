//! Frozen micro-VMs. They live in memory and go with sandboxd: whoever needs one after a restart makes it anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use cloister_container::copy_in_large_pages;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::Deserialize;
use serde_json::json;

use crate::controlling::unknown;
use crate::daemon::Daemon;
use crate::images::Image;
use crate::jobs::{Asker, Job};
use crate::learning::{Lessons, Touches};
use crate::refusal::{Code, Refusal};
use crate::request::Create;

/// Most snapshots, and most bytes of all together.
const MOST: usize = 64;
const MOST_BYTES: u64 = 2 << 30;
/// A monitor answers long before; one that does not has been stopped from outside.
const ANSWER_BOUND: Duration = Duration::from_secs(30);
const MOST_ANSWER: u64 = 4096;

/// What must be the same where a snapshot is brought back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    image: String,
    digest: String,
    memory_mb: u32,
    tmp_mb: u32,
    argv_extra: Vec<String>,
}

impl Shape {
    pub fn of(image: &Image, create: &Create) -> Self {
        Self {
            image: create.image.clone(),
            digest: image.digest.clone(),
            memory_mb: create.memory_mb,
            tmp_mb: create.tmp_mb,
            argv_extra: create.argv_extra.clone(),
        }
    }
}

/// A frozen micro-VM. Nobody can write to its file any more.
#[derive(Debug)]
pub struct Snapshot {
    shape: Shape,
    /// The digest of the function it had, whose code and secrets are in its memory.
    bundle: Option<String>,
    file: File,
    bytes: u64,
    lessons: Lessons,
}

impl Snapshot {
    /// What it is of, as its monitor was told.
    pub fn key(&self) -> &str {
        &self.shape.digest
    }

    /// What first answers touch.
    pub fn lessons(&self) -> &Lessons {
        &self.lessons
    }

    /// What a first answer touches, once that is known.
    pub fn learned(&self) -> Option<&Touches> {
        self.lessons.learned()
    }

    /// The function that it had, whose sandboxes alone it may become.
    pub fn bundle(&self) -> Option<&str> {
        self.bundle.as_deref()
    }

    /// Its file, open for reading.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// One that had no function may get any; one that had one, that alone.
    fn fits(&self, shape: &Shape, bundle: Option<&str>) -> bool {
        self.shape == *shape && (self.bundle.is_none() || self.bundle.as_deref() == bundle)
    }
}

/// What asks a running micro-VM's monitor for a snapshot; once.
#[derive(Debug)]
pub struct Freezer {
    shape: Shape,
    bundle: Option<String>,
    control: UnixStream,
    file: File,
}

/// A snapshot that has just been made, and what the monitor said of it.
pub struct Frozen {
    snapshot: Snapshot,
    still_ms: f64,
    write_ms: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    ok: bool,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    still_ms: f64,
    #[serde(default)]
    write_ms: f64,
}

impl Freezer {
    /// It, and the monitor's part: the file to write, and its end of the socket.
    pub fn new(shape: Shape, bundle: Option<String>) -> io::Result<(Self, (File, OwnedFd))> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("snapshot", flags)?);
        let (control, theirs) = UnixStream::pair()?;
        let given = (file.try_clone()?, OwnedFd::from(theirs));
        let freezer = Self {
            shape,
            bundle,
            control,
            file,
        };
        Ok((freezer, given))
    }

    /// It has got its function.
    pub fn assigned(&mut self, bundle: &str) {
        self.bundle = Some(bundle.to_owned());
    }

    /// Has the monitor write the snapshot; it ends with that.
    pub fn freeze(mut self) -> Result<Frozen, Refusal> {
        let answer = self.ask().map_err(|error| {
            refused(format!(
                "the micro-VM ended before it was frozen, or did not answer ({error})"
            ))
        })?;
        if !answer.ok {
            return Err(refused(answer.reason));
        }
        let sealed = self.seal();
        let (file, bytes) = sealed.map_err(|error| refused(format!("its file: {error}")))?;
        Ok(Frozen {
            snapshot: Snapshot {
                shape: self.shape,
                bundle: self.bundle,
                file,
                bytes,
                lessons: Lessons::default(),
            },
            still_ms: answer.still_ms,
            write_ms: answer.write_ms,
        })
    }

    fn ask(&mut self) -> io::Result<Answer> {
        self.control.set_read_timeout(Some(ANSWER_BOUND))?;
        self.control.write_all(b"s")?;
        let mut text = Vec::new();
        (&self.control).take(MOST_ANSWER).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Nobody may write any more, the monitor that wrote it included; opened anew, for reading only. Kept in large pages where they are to be had: a clone
    /// then has a tenth of the page faults of its own that finding those in small pages takes.
    fn seal(&self) -> io::Result<(File, u64)> {
        let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&self.file, all)?;
        let file = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
        let bytes = fs::File::metadata(&file)?.len();
        match copy_in_large_pages(&file) {
            Ok(Some(large)) => return Ok((large, bytes)),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "a snapshot stays in small pages"),
        }
        Ok((file, bytes))
    }
}

fn refused(reason: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::SnapshotRefused,
        format!("There is no snapshot: {reason}."),
        "Make the sandbox without one.",
    )
}

/// All snapshots, by id.
#[derive(Default)]
pub struct Snapshots {
    by_id: BTreeMap<String, Arc<Snapshot>>,
    made: u64,
}

impl Snapshots {
    /// One that fits what is to be made of it.
    pub fn get(
        &self,
        id: &str,
        shape: &Shape,
        bundle: Option<&str>,
    ) -> Result<Arc<Snapshot>, Refusal> {
        let fits = |snapshot: &&Arc<Snapshot>| snapshot.fits(shape, bundle);
        self.by_id
            .get(id)
            .filter(fits)
            .cloned()
            .ok_or_else(|| none(id))
    }

    /// Whatever is kept under an id.
    pub fn by_id(&self, id: &str) -> Option<Arc<Snapshot>> {
        self.by_id.get(id).cloned()
    }

    /// One of that shape in which there is nothing of anybody.
    pub fn bare(&self, shape: &Shape) -> Option<Arc<Snapshot>> {
        let bare =
            |snapshot: &&Arc<Snapshot>| snapshot.bundle.is_none() && snapshot.shape == *shape;
        self.by_id.values().find(bare).cloned()
    }

    pub fn forget(&mut self, id: &str) -> Result<(), Refusal> {
        self.by_id.remove(id).map(drop).ok_or_else(|| none(id))
    }

    fn add(&mut self, snapshot: Snapshot) -> Result<String, Refusal> {
        let held = self.by_id.values().map(|snapshot| snapshot.bytes);
        let held = held.fold(snapshot.bytes, u64::saturating_add);
        if self.by_id.len() >= MOST || held > MOST_BYTES {
            return Err(Refusal::new(
                Code::TooManySnapshots,
                "There are as many snapshots as there may be, or as large.",
                "Forget some.",
            ));
        }
        self.made = self.made.saturating_add(1);
        let id = format!("snap_{:016x}", self.made);
        self.by_id.insert(id.clone(), Arc::new(snapshot));
        Ok(id)
    }
}

fn none(id: &str) -> Refusal {
    let shown: String = id.chars().take(64).collect();
    Refusal::new(
        Code::UnknownSnapshot,
        format!("There is no snapshot {shown:?} of such a sandbox."),
        "Make one, or make the sandbox without.",
    )
}

impl Daemon {
    /// `snapshot`: freezes a sandbox, which ends with that.
    pub(crate) fn freeze(&mut self, asker: Asker, id: &str) -> Result<(), Refusal> {
        let key = self.sandboxes.key(id).ok_or_else(|| unknown(id))?;
        let entry = self.sandboxes.get_mut(key).ok_or_else(|| unknown(id))?;
        if entry.sandbox.is_none() || entry.killed || entry.exited {
            return Err(unknown(id));
        }
        let freezer = entry.freezer.take();
        let freezer = freezer.ok_or_else(|| refused("the sandbox was not made freezable"))?;
        entry.jobs = entry.jobs.saturating_add(1);
        self.jobs.start_job(Job::Freeze {
            key,
            freezer,
            asker,
        });
        Ok(())
    }

    pub(crate) fn frozen(&mut self, key: u64, outcome: Result<Frozen, Refusal>, asker: Asker) {
        let added = outcome.and_then(|frozen| {
            let bytes = frozen.snapshot.bytes;
            let id = self.snapshots.add(frozen.snapshot)?;
            Ok(json!({"ok": true, "snapshot": id, "bytes": bytes, "stillMs": frozen.still_ms, "writeMs": frozen.write_ms}))
        });
        match added {
            Ok(reply) => self.answer(asker, &reply),
            Err(refusal) => self.answer(asker, &refusal),
        }
        self.job_done(key);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn snapshot(bundle: Option<&str>, bytes: u64) -> Snapshot {
        Snapshot {
            shape: shape(256),
            bundle: bundle.map(str::to_owned),
            file: File::open("/dev/null").unwrap(),
            bytes,
            lessons: Lessons::default(),
        }
    }

    /// Of an image that is none.
    pub fn shape(memory_mb: u32) -> Shape {
        Shape {
            image: "node24".into(),
            digest: "00".repeat(32),
            memory_mb,
            tmp_mb: 64,
            argv_extra: Vec::new(),
        }
    }

    #[test]
    fn a_snapshot_with_a_function_serves_no_other_and_none_without() {
        let mut all = Snapshots::default();
        let bare = all.add(snapshot(None, 1)).unwrap();
        let own = all.add(snapshot(Some("aa"), 1)).unwrap();
        for bundle in [None, Some("aa"), Some("bb")] {
            assert!(all.get(&bare, &shape(256), bundle).is_ok());
        }
        assert!(all.get(&own, &shape(256), Some("aa")).is_ok());
        for bundle in [None, Some("bb")] {
            let refused = all.get(&own, &shape(256), bundle).unwrap_err();
            assert_eq!(refused.code, Code::UnknownSnapshot);
        }
        assert!(all.get(&own, &shape(512), Some("aa")).is_err());
    }

    #[test]
    fn number_and_bytes_are_bounded_until_some_are_forgotten() {
        let mut all = Snapshots::default();
        let large = all.add(snapshot(None, MOST_BYTES)).unwrap();
        let refused = all.add(snapshot(None, 1)).unwrap_err();
        assert_eq!(refused.code, Code::TooManySnapshots);
        all.forget(&large).unwrap();
        for _ in 0..MOST {
            all.add(snapshot(None, 1)).unwrap();
        }
        assert!(all.add(snapshot(None, 1)).is_err());
    }
}
