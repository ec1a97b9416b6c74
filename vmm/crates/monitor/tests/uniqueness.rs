//! Many clones of one snapshot: none draws what another drew. CLOISTER_CLONES sets how many there are of each runtime.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    dead_code,
    reason = "a failed step of a test is to end it; not everything of the shared module is used"
)]

mod freezing;
mod runner;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use freezing::{frozen, inherited, option};
use runner::{Runner, bundle, monitor};
use serde_json::{Value, json};

const CLONES: u32 = 150;
/// Ids are given again and again, so that what differs does not differ by them alone.
const PIDS: u32 = 50;

/// Every store of random numbers is filled before the snapshot: a clone that went on with it would draw what all draw.
const NODE: &str = r"
import { createECDH, generateKeyPairSync, randomBytes, randomInt, randomUUID } from 'node:crypto';
import { Duplex } from 'node:stream';
import tls from 'node:tls';
const context = tls.createSecureContext();
const { random } = Math;
// The client's random number of the first message (RFC 8446, 4.1.2): behind 5 bytes of the record, 4 of the message, 2 of the version.
const hello = () => new Promise((resolve) => {
    const socket = new Duplex({ read() {}, write(bytes, encoding, done) { resolve(bytes.subarray(11, 43).toString('hex')); done(); } });
    tls.connect({ socket, secureContext: context }).on('error', () => {});
});
const drawn = async () => ({
    sequence: [random(), Math.random(), Math.random()].join(), uuid: randomUUID(), webUuid: crypto.randomUUID(),
    bytes: randomBytes(16).toString('hex'), values: crypto.getRandomValues(new Uint32Array(4)).join(), int: `${randomInt(2 ** 47)}.${randomInt(2 ** 47)}`,
    ecdh: createECDH('prime256v1').generateKeys('hex'), pair: generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' }).x,
    subtle: (await crypto.subtle.exportKey('jwk', await crypto.subtle.generateKey({ name: 'AES-GCM', length: 128 }, true, ['encrypt']))).k,
    hello: await hello(),
});
await drawn();
let before = performance.now();
export async function handler() {
    const goesOn = performance.now() >= before;
    before = performance.now();
    return { now: Date.now(), goesOn, drawn: await drawn() };
}
";
const PYTHON: &str = r"
import os, random, secrets, ssl, tempfile, time, uuid
context = ssl.create_default_context()
own = random.SystemRandom()
def hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname='localhost')
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()[11:43].hex()
def drawn():
    return {'sequence': str([random.random(), random.getrandbits(32), random.random()]), 'uuid': str(uuid.uuid4()), 'uuid1': str(uuid.uuid1()),
            'secret': secrets.token_hex(16), 'urandom': os.urandom(16).hex(), 'rand': ssl.RAND_bytes(16).hex(), 'system': own.getrandbits(100),
            'tempfile': os.path.basename(tempfile.mktemp()), 'fresh': random.Random().random(), 'hello': hello()}
drawn()
before = time.monotonic()
def handler(event, context):
    global before
    goes_on = time.monotonic() >= before
    before = time.monotonic()
    return {'now': time.time() * 1000, 'goesOn': goes_on, 'drawn': drawn()}
";

fn wall_ms() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs_f64() * 1000.0
}

/// What a clone drew first, its clocks having been looked at.
fn drawn(image: &str, bundle: &Path, snapshot: &File, number: u32) -> Value {
    let pid = 2 + number % PIDS;
    let file = inherited(snapshot);
    let mut command = monitor("restore", image, bundle);
    option(&mut command, "--snapshot-fd", &file);
    command.args(["--snapshot-key", "test", "--pid", &pid.to_string()]);
    let mut runner = Runner::spawn(command, None);
    runner.renew(pid);
    let asked = wall_ms();
    let (status, body) = runner.call(2, &json!({}));
    let answered = wall_ms();
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let now = answer["now"].as_f64().unwrap();
    // Node tells whole milliseconds.
    assert!(
        (asked - 2.0..=answered + 2.0).contains(&now),
        "the clock is wrong: {asked} {now} {answered}"
    );
    assert_eq!(answer["goesOn"], true);
    runner.finish();
    answer["drawn"].clone()
}

fn none_draws_what_another_drew(image: &str, entry: &str, source: &str) {
    let clones = std::env::var("CLOISTER_CLONES").map_or(CLONES, |n| n.parse().unwrap());
    let bundle = bundle(entry, source);
    let snapshot = frozen(image, bundle.path(), |runner| {
        runner.init_to_be_frozen(entry);
        runner.call(1, &json!({}));
    });
    let next = AtomicU32::new(0);
    let work = || {
        let mut all = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= clones {
                return all;
            }
            all.push(drawn(image, bundle.path(), &snapshot, number));
        }
    };
    let all: Vec<Value> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        let done = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap());
        done.collect()
    });
    let mut known: HashMap<String, String> = HashMap::new();
    for one in &all {
        let values = one.as_object().unwrap();
        assert_eq!(values.len(), 10);
        for (what, value) in values {
            let before = known.insert(value.to_string(), what.clone());
            assert_eq!(before, None, "{what} was drawn twice: {value}");
        }
    }
    assert_eq!(all.len() as u32, clones);
    println!(
        "{image}: {clones} clones drew {} different values",
        known.len()
    );
}

#[test]
fn clones_of_node_draw_their_own() {
    none_draws_what_another_drew("node24", "index.mjs", NODE);
}

#[test]
fn clones_of_python_draw_their_own() {
    none_draws_what_another_drew("python3", "main.py", PYTHON);
}
