//! A guest that was brought back from a snapshot and can be put back to it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::asleep::wait_until_asleep;
use crate::freezing::{frozen, inherited, option};
use crate::runner::{Runner, monitor};
use crate::written::{all_stand, state_of};

/// Bytes of guest memory that the monitor reserves.
const WINDOW_BYTES: u64 = 512 << 30;
const PAGE: usize = 4096;

pub struct Resettable {
    pub runner: Runner,
    control: BufReader<UnixStream>,
}

impl Resettable {
    /// Of a runner that was frozen with a function, which has been called once; at rest, so that all its lives begin alike.
    #[allow(dead_code, reason = "not every test has a function")]
    pub fn of_function(image: &str, bundle: &Path, entry: &str) -> Self {
        for _ in 0..20 {
            let snapshot = frozen(image, bundle, |runner| {
                runner.init_to_be_frozen(entry);
                runner.call(1, &json!({"say": "warm"}));
                // It has answered, and is on its way to its rest for a moment.
                wait_until_asleep(runner.process.id(), 1);
            });
            if all_stand(&state_of(&snapshot)) {
                return Self::of(&snapshot, image, bundle);
            }
        }
        panic!("there was always a thread that stood in no call");
    }

    pub fn of(snapshot: &File, image: &str, bundle: &Path) -> Self {
        let (control, theirs) = UnixStream::pair().unwrap();
        let (to_control, to_file) = (inherited(&theirs), inherited(snapshot));
        let mut command = monitor("restore", image, bundle);
        option(&mut command, "--control-fd", &to_control);
        option(&mut command, "--snapshot-fd", &to_file);
        command.args(["--snapshot-key", "test", "--pid", "99"]);
        let mut runner = Runner::spawn(command, None);
        drop((theirs, to_control, to_file));
        runner.renew(99);
        Self {
            runner,
            control: BufReader::new(control),
        }
    }

    /// Asks without waiting.
    pub fn ask(&mut self, pid: i32, mark: &str) {
        let order = json!({"pid": pid, "mark": mark}).to_string();
        writeln!(self.control.get_mut(), "{order}").unwrap();
    }

    /// What the monitor says; `Null` when it has ended.
    pub fn heard(&mut self) -> Value {
        let mut line = String::new();
        // One that was killed resets the connection if it has not read all.
        let _ = self.control.read_line(&mut line);
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    /// Puts the guest back; its runner is to be told of that.
    pub fn reset(&mut self, pid: i32) -> Value {
        let mark = format!(
            "{:032x}",
            0xfeed_0000_0000_u128 + u128::from(pid.unsigned_abs())
        );
        self.ask(pid, &mark);
        let bytes: Vec<u8> = (0..mark.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&mark[at..at + 2], 16).unwrap())
            .collect();
        self.runner.await_mark(&bytes);
        self.heard()
    }

    /// Where bytes lie in guest memory, or in a file of memory that the monitor has open.
    pub fn find(&self, wanted: &[u8]) -> Vec<String> {
        let pid = self.runner.process.id();
        let mut found = Vec::new();
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut searched = 0u64;
        for (start, end) in present(pid) {
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            if memory.read_exact_at(&mut bytes, start).is_err() {
                continue;
            }
            searched += end - start;
            if let Some(at) = position(&bytes, wanted) {
                found.push(format!("{:#x}", start + at as u64));
            }
        }
        assert!(searched > 1 << 20, "{searched} bytes of guest memory");
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let path = entry.unwrap().path();
            let target = std::fs::read_link(&path).unwrap_or_default();
            if !target.to_string_lossy().contains("memfd:") {
                continue;
            }
            let mut bytes = Vec::new();
            File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            if position(&bytes, wanted).is_some() {
                found.push(target.display().to_string());
            }
        }
        found
    }

    /// Bytes of guest memory that are the monitor's own.
    #[allow(dead_code, reason = "not every test looks")]
    pub fn private_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.runner.process.id()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() << 10
    }

    pub fn finish(self) {
        self.runner.finish();
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window[0] == wanted[0] && window == wanted)
}

/// Ranges of the window that have pages, whatever they are: what else is mapped was never touched.
fn present(pid: u32) -> Vec<(u64, u64)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for line in maps.lines() {
        let (start, rest) = line.split_once('-').unwrap();
        let end = rest.split(' ').next().unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        ranges.push((number(start), number(end)));
    }
    // The window is the one stretch of mappings without a hole that is as long; it may have neighbours.
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for (start, end) in &ranges {
        match stretches.last_mut() {
            Some(last) if last.1 == *start => last.1 = *end,
            _ => stretches.push((*start, *end)),
        }
    }
    let (low, high) = *stretches
        .iter()
        .find(|(start, end)| end - start >= WINDOW_BYTES)
        .expect("the window is mapped");
    let pages = File::open(format!("/proc/{pid}/pagemap")).unwrap();
    let mut found: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges {
        // Reserves of gigabytes are read in pieces.
        let mut at = start.max(low);
        while at < end.min(high) {
            let count = ((end - at) / PAGE as u64).min(1 << 16);
            let mut entries = vec![0; count as usize * 8];
            pages
                .read_exact_at(&mut entries, at / PAGE as u64 * 8)
                .unwrap();
            for (number, entry) in (0u64..).zip(entries.chunks_exact(8)) {
                // Present or swapped (proc_pid_pagemap(5)).
                if u64::from_ne_bytes(entry.try_into().unwrap()) >> 62 == 0 {
                    continue;
                }
                let page = at + number * PAGE as u64;
                match found.last_mut() {
                    Some(last) if last.1 == page && last.1 - last.0 < 1 << 20 => {
                        last.1 += PAGE as u64;
                    }
                    _ => found.push((page, page + PAGE as u64)),
                }
            }
            at += count * PAGE as u64;
        }
    }
    found
}
