//! Guests that are put back, again and again, to the snapshot they were brought back from.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

mod asleep;
mod freezing;
mod resettable;
mod runner;
mod written;

use std::collections::BTreeSet;

use freezing::frozen;
use resettable::Resettable;
use runner::bundle;
use serde_json::{Value, json};

const NODE: &str = "
    import { randomUUID } from 'node:crypto';
    import { writeFileSync, readdirSync, openSync } from 'node:fs';
    import { Worker } from 'node:worker_threads';
    let calls = 0;
    const kept = [];
    export async function handler({ say, size }) {
        if (say === 'spoil') {
            globalThis.secret = 'x'.repeat(3) + event_secret();
            process.env.SECRET = event_secret();
            writeFileSync('/tmp/secret', event_secret().repeat(1000));
            writeFileSync('/dev/shm/secret', event_secret());
            kept.push(Buffer.alloc(size, event_secret()), openSync('/tmp/secret'), openSync('/proc/self/maps'));
            for (let i = 0; i < 1000; i++) kept.push(event_secret() + i);
            setInterval(() => kept.push(event_secret()), 1);
            kept.push(new Worker('for (;;) globalThis.x = \"' + event_secret() + '\" + Math.random()', { eval: true }));
            process.on('SIGUSR1', () => {});
            await new Promise((resolve) => setTimeout(resolve, 30));
        }
        return { calls: ++calls, pid: process.pid, uuid: randomUUID(), random: Math.random(), now: Date.now(),
            secret: String(globalThis.secret), env: String(process.env.SECRET),
            files: [...readdirSync('/tmp'), ...readdirSync('/dev/shm')],
            descriptors: readdirSync('/proc/self/fd').length, threads: readdirSync('/proc/self/task').length };
    }
    const event_secret = () => ['c1oi', 'ster', '-s3', 'cret'].join('');
";
const SECRET: &[u8] = b"c1oister-s3cret";

fn call(guest: &mut Resettable, stream: u32, event: Value) -> Value {
    let (status, body) = guest.runner.call(stream, &event);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn nothing_of_the_last_call_is_left() {
    let bundle = bundle("index.mjs", NODE);
    let mut guest = Resettable::of_function("node24", bundle.path(), "index.mjs");
    let clean = call(&mut guest, 2, json!({"say": "hello"}));
    assert!(guest.find(SECRET).is_empty());
    for round in 0..3 {
        let spoilt = call(&mut guest, 3, json!({"say": "spoil", "size": 40 << 20}));
        assert_eq!(spoilt["env"], "c1oister-s3cret", "round {round}");
        assert!(
            !guest.find(SECRET).is_empty(),
            "the search finds nothing at all"
        );
        let answer = guest.reset(1000 + round);
        assert_eq!(answer["ok"], true, "{answer}");
        let left = guest.find(SECRET);
        assert!(left.is_empty(), "round {round}: {left:?}, {answer}");
        guest.runner.renew(u32::try_from(1000 + round).unwrap());
        let again = call(&mut guest, 2, json!({"say": "hello"}));
        assert_eq!(again["pid"], 1000 + round);
        for same in ["calls", "secret", "env", "files", "descriptors", "threads"] {
            assert_eq!(again[same], clean[same], "{same}");
        }
        for other in ["uuid", "random"] {
            assert_ne!(again[other], clean[other], "{other}");
        }
        assert!(again["now"].as_u64() >= clean["now"].as_u64());
    }
    guest.finish();
}

#[test]
fn two_hundred_in_a_row_are_each_as_the_first_and_unlike_all_others() {
    let bundle = bundle("index.mjs", NODE);
    let mut guest = Resettable::of_function("node24", bundle.path(), "index.mjs");
    let mut drawn = BTreeSet::new();
    let mut used = Vec::new();
    for round in 0..200 {
        let first = call(&mut guest, 2, json!({"say": "hello"}));
        assert_eq!(first["calls"], 2, "round {round}");
        assert_eq!(call(&mut guest, 3, json!({"say": "hello"}))["calls"], 3);
        for what in ["uuid", "random"] {
            assert!(
                drawn.insert(first[what].to_string()),
                "drawn twice: {first}"
            );
        }
        let answer = guest.reset(100 + round);
        assert_eq!(answer["ok"], true, "{answer}");
        guest.runner.renew(u32::try_from(100 + round).unwrap());
        used.push(guest.private_bytes());
    }
    // Not more and more: what is held after the last is about what was held after the first few.
    assert!(used[199] < used[9] + (4 << 20), "{used:?}");
    guest.finish();
}

#[test]
fn a_runner_without_a_function_gets_one_after_each() {
    let python = "
calls = 0
def handler(event, context):
    global calls
    calls += 1
    return {'calls': calls}
";
    for (image, entry, source) in [
        ("node24", "index.mjs", NODE),
        ("python3", "main.py", python),
    ] {
        let bundle = bundle(entry, source);
        let snapshot = frozen(image, bundle.path(), |_| {});
        let mut guest = Resettable::of(&snapshot, image, bundle.path());
        for round in 0..5 {
            guest.runner.init(entry);
            for calls in 1..=2 {
                let answer = call(&mut guest, calls, json!({"say": "hello"}));
                assert_eq!(answer["calls"], calls, "{image}, round {round}");
            }
            let answer = guest.reset(200 + round);
            assert_eq!(answer["ok"], true, "{answer}");
            guest.runner.renew(u32::try_from(200 + round).unwrap());
        }
        guest.finish();
    }
}
