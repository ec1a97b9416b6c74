//! Clones share what their machines have alike, and believe nothing of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

mod freezing;
mod runner;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use freezing::{frozen, inherited, option};
use runner::{Runner, bundle, monitor};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde_json::json;
use vmm_memory::Extent;
use vmm_snapshot::{Snapshot, TRAILER_BYTES, Trailer, decode, encode};

const PAGE: u64 = 4096;
const SOURCE: &str = "
import random
drawn = [random.random() for _ in range(1000)]
def handler(event, context):
    return event['say'] + str(len(drawn))
";

/// A snapshot's bytes, and what it says.
fn snapshot(bundle: &Path) -> (Vec<u8>, Snapshot) {
    let file = frozen("python3", bundle, |runner| {
        runner.init_to_be_frozen("main.py");
    });
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let (trailer, state) = parts(&bytes);
    let snapshot = decode(&trailer, state).unwrap();
    (bytes, snapshot)
}

fn parts(bytes: &[u8]) -> (Trailer, &[u8]) {
    let end: [u8; TRAILER_BYTES] = *bytes.last_chunk().unwrap();
    let trailer = Trailer::from_bytes(&end, bytes.len() as u64).unwrap();
    let pages = usize::try_from(trailer.pages).unwrap();
    (trailer, &bytes[pages..bytes.len() - TRAILER_BYTES])
}

/// The same with other places for the machine's pages.
fn with_system(bytes: &[u8], snapshot: &Snapshot, system: Vec<Extent>) -> Vec<u8> {
    let (mut trailer, _) = parts(bytes);
    let changed = Snapshot {
        system,
        ..snapshot.clone()
    };
    let state = encode(&changed).unwrap();
    trailer.state = state.len() as u64;
    trailer.state_crc = crc32fast::hash(&state);
    let pages = usize::try_from(trailer.pages).unwrap();
    [&bytes[..pages], &state, &trailer.to_bytes()].concat()
}

/// A file as sandboxd keeps it: nobody can change it any more.
fn sealed(bytes: &[u8]) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("alike", flags).unwrap());
    file.write_all(bytes).unwrap();
    let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, all).unwrap();
    file
}

fn restored(bundle: &Path, file: &File, pid: u32) -> Runner {
    let file = inherited(file);
    let mut command = monitor("restore", "python3", bundle);
    option(&mut command, "--snapshot-fd", &file);
    command.args(["--snapshot-key", "test", "--pid", &pid.to_string()]);
    let mut runner = Runner::spawn(command, None);
    runner.renew(pid);
    runner
}

fn answers(runner: &mut Runner, stream: u32) {
    let (status, body) = runner.call(stream, &json!({"say": "so many: "}));
    assert_eq!((status, body.as_str()), (200, "\"so many: 1000\""));
}

/// Which pages of an extent the process has mapped, by their number.
fn mapped(runner: &Runner, extent: &Extent) -> Vec<u64> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", runner.process.id())).unwrap();
    let mut pages = Vec::new();
    for line in maps.lines().filter(|line| line.contains("/memfd:alike")) {
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let mut fields = line.split(' ');
        let (start, end) = fields.next().unwrap().split_once('-').unwrap();
        let offset = hex(fields.nth(1).unwrap());
        let in_file = (0..hex(end) - hex(start))
            .step_by(PAGE as usize)
            .map(|at| offset + at);
        pages.extend(
            in_file
                .filter(|at| (extent.offset..extent.offset + extent.len).contains(at))
                .map(|at| (at - extent.offset) / PAGE),
        );
    }
    pages.sort_unstable();
    pages
}

fn all(extent: &Extent) -> Vec<u64> {
    (0..extent.len / PAGE).collect()
}

#[test]
fn clones_share_all_page_tables() {
    let bundle = bundle("main.py", SOURCE);
    let (bytes, snapshot) = snapshot(bundle.path());
    let [first, _, tables] = snapshot.system[..] else {
        panic!("{:?}", snapshot.system);
    };
    let file = sealed(&bytes);
    let mut clones: Vec<_> = [500, 501]
        .map(|pid| restored(bundle.path(), &file, pid))
        .into();
    for runner in &mut clones {
        answers(runner, 1);
        assert_eq!(mapped(runner, &first), all(&first));
        assert_eq!(mapped(runner, &tables), all(&tables));
    }
    clones.into_iter().for_each(Runner::finish);
}

#[test]
fn damaged_tables_are_not_used() {
    let bundle = bundle("main.py", SOURCE);
    let (mut bytes, snapshot) = snapshot(bundle.path());
    // In every table, what the guest may read alone it may write, and the machine's own pages lie where nothing is.
    for extent in &snapshot.system {
        let start = usize::try_from(extent.offset).unwrap();
        let len = usize::try_from(extent.len).unwrap();
        for word in bytes[start..start + len].chunks_exact_mut(8) {
            let entry = u64::from_le_bytes(word.try_into().unwrap());
            let entry = if entry == 0 {
                (1 << 39) | 0x67
            } else {
                entry ^ 2
            };
            word.copy_from_slice(&entry.to_le_bytes());
        }
    }
    let file = sealed(&bytes);
    let mut runner = restored(bundle.path(), &file, 600);
    answers(&mut runner, 1);
    for extent in &snapshot.system {
        assert_eq!(mapped(&runner, extent), Vec::<u64>::new());
    }
    runner.finish();
}

#[test]
fn places_that_cannot_be_are_refused() {
    let bundle = bundle("main.py", SOURCE);
    let (bytes, snapshot) = snapshot(bundle.path());
    let tables = *snapshot.system.last().unwrap();
    for wrong in [
        Extent {
            at: tables.at + 8,
            ..tables
        },
        Extent {
            at: u64::MAX - PAGE + 1,
            ..tables
        },
        Extent {
            at: 4 * PAGE,
            len: PAGE,
            ..tables
        },
        Extent {
            offset: bytes.len() as u64 / PAGE * PAGE,
            ..tables
        },
        Extent {
            offset: u64::MAX - PAGE + 1,
            ..tables
        },
        Extent { len: 0, ..tables },
    ] {
        let file = sealed(&with_system(&bytes, &snapshot, vec![wrong]));
        let given = inherited(&file);
        let mut command = monitor("restore", "python3", bundle.path());
        option(&mut command, "--snapshot-fd", &given);
        let output = command.args(["--snapshot-key", "test"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(
            said.contains("pages of the machine that cannot be"),
            "{said}"
        );
    }
    let file = sealed(&with_system(&bytes, &snapshot, Vec::new()));
    let mut runner = restored(bundle.path(), &file, 700);
    answers(&mut runner, 1);
    runner.finish();
}
