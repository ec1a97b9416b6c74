//! The life of sandboxes as clients see it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that meets what it does not expect fails"
)]

mod rig;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use rig::{DIGEST, Rig, Watched, assert_closed, create, request_frame};
use serde_json::json;

#[test]
fn a_sandbox_is_made_listed_and_ends_by_itself() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let mut sandbox = rig.sandbox(json!({"label": "hello@3"}));
    assert!(sandbox.id.starts_with("sb_") && sandbox.id.len() == 19);
    for name in ["cpu", "memoryPeak", "memory"] {
        let path = sandbox.reply["stat"][name]["path"].as_str().unwrap();
        assert!(
            fs::read_to_string(path)
                .unwrap()
                .contains(|c: char| c.is_ascii_digit())
        );
    }
    let phases = sandbox.reply["phases"].as_object().unwrap();
    assert!(!phases.is_empty() && phases.values().all(|ms| ms.as_f64().unwrap() >= 0.0));
    assert_eq!(sandbox.ask("echo $((6*7))"), "42");
    let list = control.ask(json!({"op": "list"}));
    let line = &list["sandboxes"][0];
    assert_eq!(
        (
            &line["sandbox"],
            &line["kind"],
            &line["image"],
            &line["label"],
            &line["pid"],
            &line["state"]
        ),
        (
            &json!(sandbox.id),
            &json!("container"),
            &json!("shell"),
            &json!("hello@3"),
            &json!(sandbox.pid),
            &json!("prepared")
        )
    );
    assert!(line["memoryBytes"].as_u64().unwrap() > 0 && line["ageMs"].is_u64());
    assert_eq!(list["more"], false);
    sandbox.run("exit 7");
    let (_, exit) = control.exit(&sandbox.id);
    assert_eq!(
        (&exit["reason"], &exit["code"]),
        (&json!("exit"), &json!(7))
    );
    assert!(exit["memoryPeakBytes"].as_u64().unwrap() > 0);
    assert_closed(sandbox.socket.into_inner());
    assert_eq!(control.ask(json!({"op": "list"}))["sandboxes"], json!([]));
}

#[test]
fn the_end_of_the_connection_ends_the_sandbox() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let sandbox = rig.sandbox(json!({}));
    let (id, watched) = (sandbox.id.clone(), sandbox.watch());
    drop(sandbox);
    assert_eq!(control.exit(&id).1["reason"], "exit");
    watched.await_end();
}

#[test]
fn what_is_written_to_stdout_and_stderr_is_told() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let mut sandbox = rig.sandbox(json!({}));
    sandbox.run("echo out");
    let event = control.event(&sandbox.id);
    assert_eq!(
        event,
        json!({"event": "output", "sandbox": sandbox.id, "fd": 1, "text": "out\n"})
    );
    sandbox.run("printf 'h\\303\\251' >&2");
    let event = control.event(&sandbox.id);
    assert_eq!((&event["fd"], &event["text"]), (&json!(2), &json!("hé")));
    sandbox.run("echo last words; kill -9 $$");
    let (output, _) = control.exit(&sandbox.id);
    assert_eq!(output, "last words\n");
}

#[test]
fn a_flood_of_output_that_is_read_arrives_whole() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let mut sandbox = rig.sandbox(json!({}));
    sandbox.run("i=0; while [ $i -lt 200 ]; do printf '%4096s' x; i=$((i+1)); done; exit 0");
    let (output, exit) = control.exit(&sandbox.id);
    assert_eq!(exit["reason"], "exit");
    let cut = output.contains("bytes of output were cut");
    assert!(cut || output.len() == 200 * 4096, "{}", output.len());
}

#[test]
fn kill_replies_when_the_last_process_is_gone_and_may_be_said_twice() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let mut sandbox = rig.sandbox(json!({}));
    sandbox.run("trap '' TERM INT HUP; (while :; do :; done) & (while :; do :; done) & echo busy >&3; while :; do :; done");
    assert_eq!(sandbox.line(), "busy");
    let watched = sandbox.watch();
    let first = control.send(&json!({"op": "kill", "sandbox": sandbox.id}));
    let second = control.send(&json!({"op": "kill", "sandbox": sandbox.id}));
    assert_eq!(control.reply(first), json!({"ok": true}));
    assert!(watched.has_ended());
    let second = control.reply(second);
    assert!(
        second["ok"] == true || second["code"] == "unknown_sandbox",
        "{second}"
    );
    let (_, exit) = control.exit(&sandbox.id);
    assert_eq!(exit["reason"], "killed");
    let third = control.ask(json!({"op": "kill", "sandbox": sandbox.id}));
    assert_eq!(third["code"], "unknown_sandbox");
    // One exit, once.
    control.ask(json!({"op": "hello"}));
    assert!(control.events_so_far(&sandbox.id).is_empty());
}

#[test]
fn a_prepared_cell_gets_its_bundle_once() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let mut cell = rig.sandbox(json!({}));
    assert_eq!(cell.ask("ls /fn | wc -l"), "0");
    let assign = |bundle: &str| json!({"op": "assign", "sandbox": cell.id, "bundle": bundle, "label": "hello@1"});
    let unknown = control.ask(assign(&"00".repeat(32)));
    assert_eq!(unknown["code"], "unknown_bundle");
    let request = assign(DIGEST);
    let done = control.ask(request.clone());
    assert_eq!(done["ok"], true, "{done}");
    assert!(done["phases"].is_object());
    assert_eq!(cell.ask("cat /fn/hello"), "from the bundle");
    assert_ne!(cell.ask("touch /fn/x 2>/dev/null; echo $?"), "0");
    assert_eq!(control.ask(request)["code"], "already_assigned");
    let list = control.ask(json!({"op": "list"}));
    let line = &list["sandboxes"][0];
    assert_eq!(
        (&line["state"], &line["label"]),
        (&json!("assigned"), &json!("hello@1"))
    );
}

#[test]
fn a_sandbox_made_with_its_bundle_has_it_at_once() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let mut sandbox = rig.sandbox(json!({"bundle": DIGEST}));
    assert_eq!(sandbox.ask("cat /fn/hello"), "from the bundle");
    let again = json!({"op": "assign", "sandbox": sandbox.id, "bundle": DIGEST, "label": ""});
    assert_eq!(control.ask(again)["code"], "already_assigned");
}

#[test]
fn a_bundle_that_leads_elsewhere_is_none() {
    let rig = Rig::start(&[]);
    let link = rig.folder.path().join("bundles").join("11".repeat(32));
    std::os::unix::fs::symlink("/etc", link).unwrap();
    let (_, reply) = rig.create(&create(json!({"bundle": "11".repeat(32)})));
    assert_eq!(reply["code"], "unknown_bundle");
}

#[test]
fn sandboxes_have_ids_of_their_own_while_they_live() {
    let rig = Rig::start(&["--uid-base", "800000"]);
    let sandboxes: Vec<_> = (0..5).map(|_| rig.sandbox(json!({}))).collect();
    let uids = sandboxes.iter().map(|sandbox| {
        let status = fs::read_to_string(format!("/proc/{}/status", sandbox.pid)).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .unwrap();
        let uid: u32 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!((800_000..865_536).contains(&uid), "{line}");
        uid
    });
    assert_eq!(uids.collect::<HashSet<_>>().len(), 5);
}

#[test]
fn many_at_once_are_each_made_and_more_than_allowed_are_refused() {
    let rig = Rig::start(&["--max-sandboxes", "6"]);
    let made: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..9)
            .map(|_| scope.spawn(|| rig.create(&create(json!({})))))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let ok = made.iter().filter(|(_, reply)| reply["ok"] == true).count();
    assert_eq!(ok, 6);
    for (_, reply) in made.iter().filter(|(_, reply)| reply["ok"] == false) {
        assert_eq!(reply["code"], "too_many_sandboxes");
    }
    let mut control = rig.control();
    let list = control.ask(json!({"op": "list"}));
    let first = list["sandboxes"][0]["sandbox"].as_str().unwrap().to_owned();
    assert_eq!(list["sandboxes"].as_array().unwrap().len(), 6);
    let rest = control.ask(json!({"op": "list", "after": first}));
    assert_eq!(rest["sandboxes"].as_array().unwrap().len(), 5);
    assert_eq!(
        control.ask(json!({"op": "kill", "sandbox": first}))["ok"],
        true
    );
    assert_eq!(rig.create(&create(json!({}))).1["ok"], true);
}

#[test]
fn drain_ends_all_and_makes_no_more() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let sandboxes: Vec<_> = (0..3).map(|_| rig.sandbox(json!({}))).collect();
    let watched: Vec<_> = sandboxes.iter().map(rig::Sandbox::watch).collect();
    assert_eq!(control.ask(json!({"op": "drain"})), json!({"ok": true}));
    assert!(watched.iter().all(Watched::has_ended));
    for sandbox in &sandboxes {
        assert_eq!(control.exit(&sandbox.id).1["reason"], "killed");
    }
    assert_eq!(rig.create(&create(json!({}))).1["code"], "draining");
    assert_eq!(control.ask(json!({"op": "drain"})), json!({"ok": true}));
}

/// Connects, sends what it is told, says `sent`, and lives until its stdin ends.
const CLIENT: &str = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(bytes.fromhex(sys.argv[2]))
if len(sys.argv) > 3:
    heard = b''
    s.sendall(sys.argv[3].encode() + b'\\n')
    while b'busy\\n' not in heard or b'\"ok\":true' not in heard: heard += s.recv(4096)
print('sent', flush=True)
sys.stdin.read()";

fn client(rig: &Rig, then: &[&str]) -> std::process::Child {
    let frame = request_frame(1, &create(json!({"label": "orphan"})));
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", CLIENT])
        .arg(rig.socket())
        .arg(hex)
        .args(then)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "sent\n");
    child
}

#[test]
fn a_sandbox_that_never_looks_at_its_connection_ends_with_its_client() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let mut child = client(
        &rig,
        &["trap '' HUP TERM; echo busy >&3; while :; do :; done"],
    );
    let list = control.ask(json!({"op": "list"}));
    let line = list["sandboxes"][0].clone();
    let watched = Watched::of(i32::try_from(line["pid"].as_i64().unwrap()).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    let (_, exit) = control.exit(line["sandbox"].as_str().unwrap());
    assert_eq!(exit["reason"], "killed");
    watched.await_end();
}

#[test]
fn a_client_that_dies_while_its_sandbox_is_made_leaves_nothing() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    for _ in 0..10 {
        let mut child = client(&rig, &[]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Draining replies when the last one is gone.
    assert_eq!(control.ask(json!({"op": "drain"}))["ok"], true);
    assert_eq!(control.ask(json!({"op": "list"}))["sandboxes"], json!([]));
}

#[test]
fn too_much_memory_is_told_as_oom() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let mut sandbox = rig.sandbox(json!({}));
    sandbox.run("x=x; while :; do x=$x$x; done");
    let (_, exit) = control.exit(&sandbox.id);
    assert_eq!(exit["reason"], "oom", "{exit}");
}

#[test]
fn sandboxd_keeps_no_descriptor_of_a_sandbox_that_is_gone() {
    /// More than what comes and goes beside sandboxes: prepared cgroups, a connection just ended.
    const ROUNDS: usize = 24;
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", rig.process.id()))
            .unwrap()
            .count()
    };
    let before = open();
    for _ in 0..ROUNDS {
        drop(rig.sandbox(json!({})));
    }
    control.ask(json!({"op": "drain"}));
    for _ in 0..ROUNDS {
        drop(rig.connect());
        let (mut refused, _) = rig.create(&create(json!({})));
        let mut rest = Vec::new();
        refused.read_to_end(&mut rest).unwrap();
        let _ = refused.write_all(b"x");
    }
    control.ask(json!({"op": "hello"}));
    let after = open();
    assert!(after < before + ROUNDS, "{before} before, {after} after");
}
