//! What is left when sandboxd ends, politely and not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that meets what it does not expect fails"
)]

mod rig;

use rig::{DIGEST, Rig, Watched};
use serde_json::json;

#[test]
fn told_to_end_it_ends_its_sandboxes_and_leaves_nothing() {
    let mut rig = Rig::start(&[]);
    let mut sandboxes: Vec<_> = (0..3)
        .map(|_| rig.sandbox(json!({"bundle": DIGEST})))
        .collect();
    sandboxes[0].run("trap '' TERM; while :; do :; done");
    let watched: Vec<_> = sandboxes.iter().map(rig::Sandbox::watch).collect();
    assert_eq!(rig.terminate().code(), Some(0), "{}", rig.logged());
    assert!(watched.iter().all(Watched::has_ended));
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    let lock = format!("/run/cloister-sandboxd-{}.lock", rig.instance);
    assert!(!std::path::Path::new(&lock).exists());
}

#[test]
fn killed_it_takes_its_sandboxes_along_and_the_next_start_removes_the_rest() {
    let mut rig = Rig::start(&[]);
    let mut busy = rig.sandbox(json!({"bundle": DIGEST}));
    busy.run("trap '' TERM HUP; (while :; do :; done) & echo busy >&3; while :; do :; done");
    assert_eq!(busy.line(), "busy");
    let idle = rig.sandbox(json!({}));
    let watched = [busy.watch(), idle.watch()];
    rig.crash();
    for process in &watched {
        process.await_end();
    }
    rig.start_again();
    let mut control = rig.control();
    assert_eq!(control.ask(json!({"op": "list"}))["sandboxes"], json!([]));
    let mut sandbox = rig.sandbox(json!({}));
    assert_eq!(sandbox.ask("echo anew"), "anew");
    assert_eq!(rig.terminate().code(), Some(0), "{}", rig.logged());
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    // Only a process that has ended has written all its lines.
    let said = rig.logged();
    assert!(said.contains("removed what a former sandboxd"), "{said}");
}

#[test]
fn instances_do_not_touch_each_other() {
    let mut rig = Rig::start(&[]);
    let other = Rig::start(&[]);
    let mut sandbox = other.sandbox(json!({}));
    rig.crash();
    rig.start_again();
    assert_eq!(rig.terminate().code(), Some(0));
    assert_eq!(sandbox.ask("echo alive"), "alive");
}

#[test]
fn a_wrong_folder_or_file_is_told_and_leaves_nothing() {
    let mut rig = Rig::start(&[]);
    assert_eq!(rig.terminate().code(), Some(0));
    std::fs::write(rig.socket(), "precious").unwrap();
    let output = rig.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is no socket"), "{said}");
    assert_eq!(std::fs::read(rig.socket()).unwrap(), b"precious");
    std::fs::remove_file(rig.socket()).unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}
