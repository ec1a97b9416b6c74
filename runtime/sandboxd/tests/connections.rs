//! What clients may send, and what happens when they send something else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that meets what it does not expect fails"
)]

mod rig;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use cloister_protocol::{FrameType, encode};
use rig::{DIGEST, Rig, assert_closed, create, reply_of, request_frame};
use serde_json::json;

#[test]
fn hello_tells_what_there_is() {
    let rig = Rig::start(&[]);
    let hello = rig.control().ask(json!({"op": "hello"}));
    assert_eq!(hello["instance"], rig.instance);
    assert_eq!(hello["images"], json!({"shell": "ef".repeat(32)}));
    let has_kvm = std::path::Path::new("/dev/kvm").exists();
    let kinds = if has_kvm {
        json!(["container", "microvm"])
    } else {
        json!(["container"])
    };
    assert_eq!(hello["kinds"], kinds);
    assert_eq!(hello["pid"], rig.process.id());
    assert!(["v1", "v2", "hybrid"].contains(&hello["cgroup"].as_str().unwrap()));
    assert!(hello["version"].is_string());
    assert!(hello.get("landlockAbi").is_some());
}

#[test]
fn bytes_that_are_no_request_end_their_connection_and_nothing_else() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    let mut long = request_frame(1, &json!({"op": "hello"}));
    long[..4].copy_from_slice(&262_145u32.to_le_bytes());
    let mut over = request_frame(1, &json!({"op": "hello"}));
    over[..4].copy_from_slice(&65_537u32.to_le_bytes());
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0xff; 4096],
        long,
        over,
        encode(FrameType::Data, 1, b"x").unwrap(),
        encode(FrameType::Reply, 1, b"{}").unwrap(),
        encode(FrameType::Request, 1, b"").unwrap(),
        encode(FrameType::Request, 1, b"[]").unwrap(),
        encode(FrameType::Request, 1, b"{\"op\":\"hello\"").unwrap(),
        encode(FrameType::Request, 1, &[b'['; 65_536]).unwrap(),
        encode(FrameType::Request, 0, b"{\"op\":\"hello\"}").unwrap(),
    ] {
        let mut socket = rig.connect();
        // Fails when sandboxd closes before it has all.
        let _ = socket.write_all(&bytes);
        assert_closed(socket);
    }
    assert_eq!(control.ask(json!({"op": "hello"}))["ok"], true);
}

#[test]
fn half_a_frame_and_then_silence_ends_in_bounded_time() {
    let rig = Rig::start(&[]);
    let frame = request_frame(1, &json!({"op": "hello"}));
    let silent = rig.connect();
    let mut header = rig.connect();
    header.write_all(&frame[..7]).unwrap();
    let mut payload = rig.connect();
    payload.write_all(&frame[..frame.len() - 1]).unwrap();
    let mut later = rig.connect();
    later.write_all(&frame).unwrap();
    assert_eq!(reply_of(&mut later)["ok"], true);
    later.write_all(&frame[..7]).unwrap();
    let mut control = rig.control();
    for socket in [silent, header, payload, later] {
        assert_closed(socket);
    }
    // Between frames a control connection may be silent for ever.
    assert_eq!(control.ask(json!({"op": "hello"}))["ok"], true);
}

#[test]
fn requests_in_one_write_are_each_answered() {
    let rig = Rig::start(&[]);
    let mut socket = rig.connect();
    let mut bytes = Vec::new();
    for stream in 1..=300 {
        bytes.extend(request_frame(stream, &json!({"op": "hello"})));
    }
    socket.write_all(&bytes).unwrap();
    for _ in 1..=300 {
        assert_eq!(reply_of(&mut socket)["ok"], true);
    }
}

#[test]
fn a_request_in_pieces_is_one_request() {
    let rig = Rig::start(&[]);
    let mut socket = rig.connect();
    for byte in request_frame(1, &json!({"op": "hello"})) {
        socket.write_all(&[byte]).unwrap();
    }
    assert_eq!(reply_of(&mut socket)["ok"], true);
}

#[test]
fn wrong_creates_are_refused_and_their_connection_closed() {
    let rig = Rig::start(&[]);
    for (change, code) in [
        (json!({"image": "none"}), "unknown_image"),
        (json!({"image": "../shell"}), "bad_request"),
        (json!({"bundle": "00".repeat(32)}), "unknown_bundle"),
        (json!({"bundle": "../bundles"}), "bad_request"),
        (json!({"kind": "process"}), "isolation_unavailable"),
        (json!({"kind": "magic"}), "bad_request"),
        (json!({"memoryMb": 1}), "bad_request"),
        (json!({"label": null}), "bad_request"),
        (json!({"root": true}), "bad_request"),
    ] {
        let (socket, reply) = rig.create(&create(change.clone()));
        assert_eq!(
            (&reply["ok"], &reply["code"]),
            (&json!(false), &json!(code)),
            "{change}"
        );
        assert!(reply["message"].as_str().unwrap().ends_with('.'), "{reply}");
        assert!(reply["remedy"].as_str().unwrap().ends_with('.'), "{reply}");
        assert_closed(socket);
    }
    let list = rig.control().ask(json!({"op": "list"}));
    assert_eq!(list["sandboxes"], json!([]));
}

#[test]
fn control_requests_are_refused_by_name() {
    let rig = Rig::start(&[]);
    let mut control = rig.control();
    for (request, code) in [
        (json!({"op": "shell"}), "unknown_op"),
        (json!({}), "bad_request"),
        (json!({"op": "kill"}), "bad_request"),
        (
            json!({"op": "kill", "sandbox": "sb_0000000000000000"}),
            "unknown_sandbox",
        ),
        (
            json!({"op": "kill", "sandbox": "\u{1b}[2J\u{0}".repeat(1000)}),
            "unknown_sandbox",
        ),
        (
            json!({"op": "assign", "sandbox": "x", "bundle": DIGEST, "label": ""}),
            "unknown_sandbox",
        ),
        (create(json!({})), "bad_request"),
    ] {
        let reply = control.ask(request);
        assert_eq!(
            (&reply["ok"], &reply["code"]),
            (&json!(false), &json!(code))
        );
    }
}

#[test]
fn who_is_not_in_the_group_is_not_served() {
    let rig = Rig::start(&["--socket-group", "4321"]);
    // So that the file's mode is not what refuses.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(rig.socket(), open).unwrap();
    let script = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
try:
    s.sendall(bytes.fromhex(sys.argv[2]))
    print('served' if s.recv(12) else 'refused')
except (BrokenPipeError, ConnectionResetError):
    print('refused')";
    let hello = request_frame(1, &json!({"op": "hello"}));
    let hex: String = hello.iter().map(|byte| format!("{byte:02x}")).collect();
    for (groups, expected) in [
        (&["--regid=65534", "--clear-groups"][..], "refused"),
        (&["--regid=4321", "--clear-groups"], "served"),
        (&["--regid=65534", "--groups=7,4321"], "served"),
    ] {
        let output = Command::new("setpriv")
            .arg("--reuid=65534")
            .args(groups)
            .args(["/usr/bin/python3", "-c", script])
            .arg(rig.socket())
            .arg(&hex)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), expected, "{groups:?} {output:?}");
    }
}

#[test]
fn a_second_sandboxd_of_the_instance_refuses_to_start() {
    let rig = Rig::start(&[]);
    let mut sandbox = rig.sandbox(json!({}));
    let output = rig.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another sandboxd serves instance"), "{said}");
    assert_eq!(sandbox.ask("echo alive"), "alive");
    assert_eq!(
        rig.control().ask(json!({"op": "hello"}))["pid"],
        rig.process.id()
    );
}

#[test]
fn wrong_use_is_told() {
    let sandboxd = || Command::new(env!("CARGO_BIN_EXE_sandboxd"));
    let help = sandboxd().arg("--help").output().unwrap();
    assert!(help.status.success() && help.stdout.starts_with(b"Makes, holds and ends"));
    let version = sandboxd().arg("--version").output().unwrap();
    assert!(version.stdout.starts_with(b"sandboxd "));
    let mut wrong = sandboxd();
    let wrong = wrong.arg("--frob").stdin(Stdio::null()).output().unwrap();
    assert_eq!(wrong.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("--help"));
}

#[test]
fn a_client_that_never_reads_holds_nobody_back() {
    let rig = Rig::start(&[]);
    let deaf = rig.control();
    let mut control = rig.control();
    let mut sandbox = rig.sandbox(json!({}));
    // More than any buffer holds, and then a line that shows the shell got through all of it.
    sandbox
        .run("i=0; while [ $i -lt 400 ]; do printf '%4096s' x; i=$((i+1)); done; echo through >&3");
    assert_eq!(sandbox.line(), "through");
    sandbox.run("exit 0");
    let (output, exit) = control.exit(&sandbox.id);
    assert_eq!(exit["reason"], "exit");
    // It all goes to who reads, but for what the deaf one's share was in the way of.
    assert!(
        output.contains("bytes of output were cut"),
        "{} bytes",
        output.len()
    );
    assert_eq!(control.ask(json!({"op": "hello"}))["ok"], true);
    drop(deaf);
}

#[test]
fn what_follows_a_create_belongs_to_the_runner() {
    let rig = Rig::start(&[]);
    let mut socket = rig.connect();
    let mut bytes = request_frame(1, &create(json!({})));
    bytes.extend_from_slice(b"echo mine >&3\n");
    socket.write_all(&bytes).unwrap();
    let mut heard = String::new();
    // In whichever order: the reply does not wait for the runner, nor the runner for it.
    while !(heard.contains("\"ok\":true") && heard.contains("mine\n")) {
        let mut piece = [0; 4096];
        let got = socket.read(&mut piece).unwrap();
        assert_ne!(got, 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&piece[..got]));
    }
}
