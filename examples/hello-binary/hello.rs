//! A native function: it is started once per invocation, reads the event from stdin and writes its answer to stdout.
//! Linked statically, it needs nothing of the image. Build it in this folder:
//!
//!     rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols -o bootstrap hello.rs

use std::env;
use std::io::{Read, Write, stderr, stdin, stdout};

fn main() -> std::io::Result<()> {
    let mut event = String::new();
    stdin().read_to_string(&mut event)?;
    let event = match event.trim() {
        "" => "null",
        text => text,
    };
    let invocation = env::var("CLOISTER_INVOCATION_ID").unwrap_or_default();
    // What goes to stderr is the invocation's log.
    writeln!(stderr(), "an event of {} bytes", event.len())?;
    // The event is JSON, so it can stand inside other JSON as it is.
    write!(
        stdout(),
        r#"{{"message":"Hello from a native program!","runtime":"binary","invocation":"{invocation}","event":{event}}}"#
    )
}
