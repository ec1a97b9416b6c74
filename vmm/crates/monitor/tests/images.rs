//! The runners of the images, unmodified, in the micro-VM: each answers requests over the socket at 3.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed step of a test is to end it"
)]

mod runner;

use cloister_protocol::FrameType;
use runner::{Runner, bundle, monitor};
use serde_json::{Value, json};

const NODE: &str = "
    import { createHash } from 'node:crypto';
    import { gunzipSync, gzip } from 'node:zlib';
    import { promisify } from 'node:util';
    export async function handler(event) {
        const packed = await promisify(gzip)(event.text.repeat(1000));
        const text = gunzipSync(packed).toString();
        return { length: text.length, sha: createHash('sha256').update(text).digest('hex').slice(0, 8) };
    }
";
const PYTHON: &str = "
import hashlib, zlib
def handler(event, context):
    text = zlib.decompress(zlib.compress(event['text'].encode() * 1000))
    return {'length': len(text), 'sha': hashlib.sha256(text).hexdigest()[:8]}
";

fn answers_requests(image: &str, entry: &str, source: &str) {
    let bundle = bundle(entry, source);
    let mut runner = Runner::spawn(monitor("run", image, bundle.path()), Some(image));
    runner.await_frame(FrameType::Ready);
    runner.init(entry);
    for stream in 1..=3 {
        let (status, body) = runner.call(stream, &json!({"text": "abc"}));
        let body: Value = serde_json::from_str(&body).unwrap();
        // Of `abc` a thousand times, as sha256sum(1) has it.
        let expected = json!({"length": 3000, "sha": "328de8f1"});
        assert_eq!((status, body), (200, expected));
    }
    runner.finish();
}

#[test]
fn the_node_runner_answers_requests() {
    answers_requests("node24", "index.mjs", NODE);
}

#[test]
fn the_python_runner_answers_requests() {
    answers_requests("python3", "main.py", PYTHON);
}
