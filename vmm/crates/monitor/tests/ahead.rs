//! What is done before anybody asks for a guest: its memory is mapped, and touched as its first answer will touch it.

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
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use freezing::{frozen, inherited, option};
use runner::{Runner, bundle, monitor};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

const NODE: &str = "
    let calls = 0;
    const heap = Array.from({ length: 20_000 }, (_, at) => ({ at, text: `number ${at}` }));
    export async function handler({ say }) {
        const sum = heap.reduce((sum, { at }) => sum + at, 0);
        return { calls: ++calls, said: say, sum, pid: process.pid };
    }
";
const PID: u32 = 77;

/// A monitor that waits for what to bring back.
struct Waiting {
    runner: Runner,
    control: BufReader<UnixStream>,
    stream: OwnedFd,
}

impl Waiting {
    fn start(folder: &Path) -> Self {
        let (control, theirs) = UnixStream::pair().unwrap();
        let to_control = inherited(&theirs);
        let mut command = monitor("restore", "node24", folder);
        option(&mut command, "--control-fd", &to_control);
        command.args(["--wait", "--pid", &PID.to_string()]);
        let (runner, stream) = Runner::waiting(command);
        Self {
            runner,
            control: BufReader::new(control),
            stream,
        }
    }

    fn tell(&self, text: &str, files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(files));
        let parts = [IoSlice::new(text.as_bytes())];
        let sent = sendmsg(
            self.control.get_ref(),
            &parts,
            &mut rights,
            SendFlags::empty(),
        );
        assert_eq!(sent.unwrap(), text.len());
    }

    /// Has it bring the snapshot back before there is a stream, and gives it one.
    fn bring_back_ahead(&self, snapshot: &File, hints: &Value) {
        let order = json!({"key": "test", "hints": hints, "later": true}).to_string();
        self.tell(&order, &[snapshot.as_fd()]);
        self.tell("\n", &[self.stream.as_fd()]);
    }

    fn ask(&mut self, order: &Value) -> Value {
        writeln!(self.control.get_mut(), "{order}").unwrap();
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn answer(&mut self, say: &str) -> Value {
        let (status, body) = self.runner.call(2, &json!({"say": say}));
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn snapshot_of(folder: &Path) -> File {
    frozen("node24", folder, |runner| {
        runner.init_to_be_frozen("index.mjs");
        runner.call(1, &json!({"say": "warm"}));
    })
}

fn right(say: &str) -> Value {
    json!({"calls": 2, "said": say, "sum": 199_990_000, "pid": PID})
}

/// Of `[[first, count], ...]`.
fn pages(ranges: &Value) -> u64 {
    let ranges = ranges.as_array().unwrap().iter();
    ranges.map(|range| range[1].as_u64().unwrap()).sum()
}

#[test]
fn what_a_first_answer_touches_is_told_once_and_can_be_done_beforehand() {
    let folder = bundle("index.mjs", NODE);
    let snapshot = snapshot_of(folder.path());
    let mut first = Waiting::start(folder.path());
    let order = json!({"key": "test", "hints": {"watch": true}}).to_string();
    first.tell(&order, &[snapshot.as_fd(), first.stream.as_fd()]);
    first.runner.renew(PID);
    assert_eq!(first.answer("first"), right("first"));
    let seen = first.ask(&json!({"look": true}));
    let (read, written) = (pages(&seen["read"]), pages(&seen["written"]));
    // The array of the function alone is a megabyte, most of it only read.
    assert!(
        read > 250 && written > 20 && written < 2000,
        "{read} {written}"
    );
    assert_eq!(first.ask(&json!({"look": true}))["ok"], false);
    let reset = first.ask(&json!({"pid": 78, "mark": ""}));
    assert_eq!(reset["ok"], true, "{reset}");

    let hints = json!({"read": seen["read"], "written": seen["written"]});
    let mut second = Waiting::start(folder.path());
    second.bring_back_ahead(&snapshot, &hints);
    second.runner.renew(PID);
    assert_eq!(second.answer("second"), right("second"));
    let reset = second.ask(&json!({"pid": i64::from(PID), "mark": ""}));
    assert_eq!(reset["ok"], true, "{reset}");
    second.runner.renew(PID);
    assert_eq!(second.answer("again"), right("again"));
}

#[test]
fn hints_that_are_wrong_change_nothing() {
    let folder = bundle("index.mjs", NODE);
    let snapshot = snapshot_of(folder.path());
    let most = u64::MAX;
    // Nothing, the last page of the window, the tables behind it, what no address reaches.
    let (none, last, tables) = (0, (1u64 << 27) - 1, 1u64 << 27);
    for pages in [
        json!([[none, 1], [last, 1], [tables, 600], [most, most]]),
        json!([[none, most]]),
        json!([[last, most], [0x400, 5000]]),
    ] {
        for list in ["read", "written"] {
            let mut guest = Waiting::start(folder.path());
            guest.bring_back_ahead(&snapshot, &json!({list: pages}));
            guest.runner.renew(PID);
            assert_eq!(guest.answer("wrong"), right("wrong"), "{list} {pages}");
        }
    }
}

#[test]
fn one_whose_owner_goes_away_while_it_waits_ends() {
    let folder = bundle("index.mjs", NODE);
    let snapshot = snapshot_of(folder.path());
    let guest = Waiting::start(folder.path());
    let order = json!({"key": "test", "later": true}).to_string();
    guest.tell(&order, &[snapshot.as_fd()]);
    let Waiting {
        mut runner,
        control,
        stream,
    } = guest;
    drop((control, stream));
    assert!(runner.process.wait().unwrap().success());
}
