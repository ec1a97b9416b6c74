//! Runners that are frozen and brought back, as often as one likes.

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

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use freezing::{Freezable, frozen, inherited, option};
use runner::{Runner, bundle, monitor};
use serde_json::{Value, json};
use vmm_snapshot::{MachineId, TRAILER_BYTES, Trailer, decode, encode};

fn restored(image: &str, bundle: &Path, snapshot: &File, pid: u32) -> Runner {
    let file = inherited(snapshot);
    let mut command = monitor("restore", image, bundle);
    option(&mut command, "--snapshot-fd", &file);
    command.args(["--snapshot-key", "test", "--pid", &pid.to_string()]);
    let mut runner = Runner::spawn(command, None);
    runner.renew(pid);
    runner
}

const NODE: &str = "
    import { randomBytes, randomInt, randomUUID } from 'node:crypto';
    // Every store of random numbers is filled before the snapshot, and kept by those who know no better.
    const { random } = Math;
    const drawn = () => [random(), Math.random(), randomUUID(), crypto.randomUUID(), randomInt(2 ** 47),
        randomBytes(8).toString('hex'), crypto.getRandomValues(new Uint32Array(2)).join()];
    drawn();
    let calls = 0;
    export async function handler(event) {
        if (event.say === 'random') return drawn();
        return { calls: ++calls, said: event.say, pid: process.pid };
    }
";
const PYTHON: &str = "
import os, random, secrets, ssl, tempfile, uuid
def drawn():
    return [random.random(), random.getrandbits(60), str(uuid.uuid4()), secrets.token_hex(8),
            ssl.RAND_bytes(8).hex(), os.path.basename(tempfile.mktemp()), str(uuid.uuid1())]
drawn()
calls = 0
def handler(event, context):
    global calls
    if event['say'] == 'random':
        return drawn()
    calls += 1
    return {'calls': calls, 'said': event['say'], 'pid': os.getpid()}
";

fn call(runner: &mut Runner, stream: u32, say: &str) -> Value {
    let (status, body) = runner.call(stream, &json!({"say": say}));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn a_runner_without_function_is_brought_back(image: &str, entry: &str, source: &str) {
    let empty = tempfile::tempdir().unwrap();
    let snapshot = frozen(image, empty.path(), |_| {});
    let bundle = bundle(entry, source);
    for pid in [100, 200] {
        let mut runner = restored(image, bundle.path(), &snapshot, pid);
        runner.init(entry);
        for count in 1..=2 {
            let answer = call(&mut runner, count, "hello");
            assert_eq!(answer, json!({"calls": count, "said": "hello", "pid": pid}));
        }
        runner.finish();
    }
}

fn a_function_is_brought_back(image: &str, entry: &str, source: &str) {
    let bundle = bundle(entry, source);
    let mut freezable = Freezable::start(image, bundle.path());
    freezable.runner.init_to_be_frozen(entry);
    call(&mut freezable.runner, 1, "warm");
    let snapshot = freezable.freeze();
    // All at once, and none knows of the others.
    let mut clones: Vec<Runner> = (0..3)
        .map(|number| restored(image, bundle.path(), &snapshot, 300 + number))
        .collect();
    for round in 0..2 {
        for (number, runner) in (0..).zip(&mut clones) {
            let say = format!("{number}.{round}");
            let answer = call(runner, 2 + round, &say);
            assert_eq!(
                answer,
                json!({"calls": 2 + round, "said": say, "pid": 300 + number})
            );
        }
    }
    let mut drawn: Vec<Value> = Vec::new();
    for runner in &mut clones {
        let answer = call(runner, 4, "random");
        drawn.extend(
            answer
                .as_array()
                .unwrap_or_else(|| panic!("{answer}"))
                .clone(),
        );
    }
    let all = drawn.len();
    assert_eq!(all, 21);
    drawn.sort_by_key(Value::to_string);
    drawn.dedup();
    assert_eq!(drawn.len(), all, "clones drew the same: {drawn:?}");
    clones.into_iter().for_each(Runner::finish);
}

/// What a monitor says that does not bring a snapshot back.
fn refusal(snapshot: &File, more: &[&str]) -> String {
    let empty = tempfile::tempdir().unwrap();
    let file = inherited(snapshot);
    let mut command = monitor("restore", "python3", empty.path());
    option(&mut command, "--snapshot-fd", &file);
    let output = command.args(more).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A copy of a file, changed.
fn changed(file: &File, change: impl FnOnce(&mut Vec<u8>)) -> File {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    change(&mut bytes);
    let copy = tempfile::tempfile().unwrap();
    copy.write_all_at(&bytes, 0).unwrap();
    copy
}

/// Where a snapshot may have been made.
type Change = fn(&mut MachineId) -> &mut String;
const OTHERS: [(&str, Change); 3] = [
    ("processor", |machine| &mut machine.processor),
    ("monitor", |machine| &mut machine.monitor),
    ("boot", |machine| &mut machine.boot),
];

/// Makes a whole file be of something else.
fn change_machine(file: &mut Vec<u8>, change: Change) {
    let end: [u8; TRAILER_BYTES] = *file.last_chunk().unwrap();
    let mut trailer = Trailer::from_bytes(&end, file.len() as u64).unwrap();
    let pages = usize::try_from(trailer.pages).unwrap();
    let state = &file[pages..file.len() - TRAILER_BYTES];
    let mut snapshot = decode(&trailer, state).unwrap();
    *change(&mut snapshot.machine) = "something else".into();
    let state = encode(&snapshot).unwrap();
    trailer.state = state.len() as u64;
    trailer.state_crc = crc32fast::hash(&state);
    file.truncate(pages);
    file.extend([state, trailer.to_bytes().to_vec()].concat());
}

#[test]
fn what_is_damaged_or_of_something_else_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    let whole = frozen("python3", empty.path(), |_| {});
    let key = ["--snapshot-key", "test"];
    let said = refusal(&whole, &["--snapshot-key", "another"]);
    assert!(
        said.contains("of another function: test, not another"),
        "{said}"
    );
    for less in [1, 48, 49, 5000] {
        let cut = changed(&whole, |bytes| bytes.truncate(bytes.len() - less));
        let said = refusal(&cut, &key);
        assert!(said.contains("cut short or no snapshot"), "{less}: {said}");
    }
    let nothing = tempfile::tempfile().unwrap();
    assert!(refusal(&nothing, &key).contains("cut short or no snapshot"));
    let state = changed(&whole, |bytes| {
        let at = bytes.len() - 100;
        bytes[at] ^= 4;
    });
    assert!(refusal(&state, &key).contains("its state is damaged"));
    for (what, change) in OTHERS {
        let other = changed(&whole, |bytes| change_machine(bytes, change));
        let said = refusal(&other, &key);
        let reason = format!("of another {what}: something else, not");
        assert!(said.contains(&reason), "{said}");
    }
    let pages = changed(&whole, |bytes| bytes[5000] ^= 4);
    let said = refusal(&pages, &["--snapshot-key", "test", "--verify"]);
    assert!(said.contains("its pages are damaged"), "{said}");
}

#[test]
fn what_a_snapshot_cannot_hold_is_named_and_nothing_is_written() {
    let source = "
import mmap, tempfile
kept = tempfile.TemporaryFile()
kept.truncate(4096)
shared = mmap.mmap(kept.fileno(), 4096)
def handler(event, context):
    return 1
";
    let bundle = bundle("main.py", source);
    let mut freezable = Freezable::start("python3", bundle.path());
    freezable.runner.init("main.py");
    let answer = freezable.answer();
    assert_eq!(answer["ok"], false);
    let reason = answer["reason"].as_str().unwrap();
    assert!(
        reason.ends_with("is mapped shared and writable"),
        "{reason}"
    );
    let said = refusal(&freezable.file, &["--snapshot-key", "test"]);
    assert!(said.contains("cut short or no snapshot"), "{said}");
}

/// A monitor that has made all but what the snapshot decides, and the way to tell it. `likely`: one like those to come.
fn waiting(image: &str, bundle: &Path, likely: Option<&File>, pid: u32) -> (Runner, UnixStream) {
    let (control, theirs) = UnixStream::pair().unwrap();
    let inherited_control = inherited(&theirs);
    let inherited_likely = likely.map(inherited);
    let mut command = monitor("restore", image, bundle);
    command.args([
        "--wait",
        "--snapshot-key",
        "test",
        "--pid",
        &pid.to_string(),
    ]);
    option(&mut command, "--control-fd", &inherited_control);
    if let Some(likely) = &inherited_likely {
        option(&mut command, "--snapshot-fd", likely);
    }
    (Runner::spawn(command, None), control)
}

fn order(control: &UnixStream, text: &str, snapshot: Option<&File>) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::os::fd::AsFd;
    let files: Vec<_> = snapshot.iter().map(AsFd::as_fd).collect();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        rights.push(SendAncillaryMessage::ScmRights(&files));
    }
    let parts = [std::io::IoSlice::new(text.as_bytes())];
    sendmsg(control, &parts, &mut rights, SendFlags::empty()).unwrap();
}

#[test]
fn a_monitor_that_waits_brings_back_what_it_is_told() {
    let empty = tempfile::tempdir().unwrap();
    let bare = frozen("python3", empty.path(), |_| {});
    let bundle = bundle("main.py", PYTHON);
    let mut freezable = Freezable::start("python3", bundle.path());
    freezable.runner.init_to_be_frozen("main.py");
    let function = freezable.freeze();
    // Pages to be copied beforehand may be said wrongly: nothing depends on them.
    let written = r#"[[0,40],[100,3],[1000000,1],[18446744073709551615,18446744073709551615]]"#;
    for (likely, pid) in [(None, 400), (Some(&bare), 401), (Some(&function), 402)] {
        let (mut runner, control) = waiting("python3", bundle.path(), likely, pid);
        let text = format!(r#"{{"key":"test","hints":{{"written":{written}}}}}"#);
        order(&control, &text, Some(&function));
        runner.renew(pid);
        for count in 1..=2 {
            let answer = call(&mut runner, count, "hello");
            assert_eq!(answer, json!({"calls": count, "said": "hello", "pid": pid}));
        }
        runner.finish();
    }
}

#[test]
fn a_monitor_that_waits_refuses_what_is_no_order_and_ends_when_nobody_needs_it() {
    let empty = tempfile::tempdir().unwrap();
    let bare = frozen("python3", empty.path(), |_| {});
    for (text, file) in [
        (r#"{"key":"test"}"#, None),
        (r#"{"key":"another"}"#, Some(&bare)),
        ("{", Some(&bare)),
        (r#"{"key":"test","more":1}"#, Some(&bare)),
        (
            r#"{"key":"test","hints":{"written":[[-1,1]]}}"#,
            Some(&bare),
        ),
    ] {
        let (mut runner, control) = waiting("python3", empty.path(), Some(&bare), 1);
        order(&control, text, file);
        assert_eq!(runner.process.wait().unwrap().code(), Some(125), "{text}");
    }
    let (mut runner, control) = waiting("python3", empty.path(), None, 1);
    drop(control);
    assert!(runner.process.wait().unwrap().success());
}

#[test]
fn node_without_a_function() {
    a_runner_without_function_is_brought_back("node24", "index.mjs", NODE);
}

#[test]
fn python_without_a_function() {
    a_runner_without_function_is_brought_back("python3", "main.py", PYTHON);
}

#[test]
fn a_function_of_node() {
    a_function_is_brought_back("node24", "index.mjs", NODE);
}

#[test]
fn a_function_of_python() {
    a_function_is_brought_back("python3", "main.py", PYTHON);
}
