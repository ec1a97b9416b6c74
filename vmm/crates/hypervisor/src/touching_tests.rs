//! On the host's /dev/kvm.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use vmm_abi::Prot;

use super::*;
use crate::HostFacts;
use crate::test_guest::{guest, map};

const DATA: u64 = 0x40_0000;
const PAGES: u64 = 1500;
/// In a piece of the window that has no slot until something in it is touched.
const RESERVE: u64 = 0x1000_0000;
const RESERVE_BYTES: u64 = 64 << 20;

#[test]
fn what_is_touched_is_seen_and_nothing_else() {
    let (memory, machine) = guest(None);
    assert_eq!(machine.touches().unwrap(), None, "nobody watched");
    machine.watch().unwrap();
    map(&memory, DATA, PAGES * PAGE_SIZE, Prot::RW);
    map(&memory, RESERVE, RESERVE_BYTES, Prot::RW);
    let appeared = AtomicUsize::new(0);
    let appear = |fault| {
        appeared.fetch_add(1, Ordering::Relaxed);
        memory.resolve(&fault)
    };
    // More than the list holds at once; then one that has no slot yet, and some that are not there.
    let every_second = (0..PAGES).step_by(2).map(|page| DATA + page * PAGE_SIZE);
    let mut addresses: Vec<u64> = every_second.collect();
    addresses.extend([RESERVE + 5 * PAGE_SIZE, 0, 1 << 46, DATA + PAGE_SIZE + 17]);
    machine.touch(&addresses, &appear).unwrap();
    assert_eq!(appeared.load(Ordering::Relaxed), 3);
    let seen = machine.touches().unwrap().unwrap();
    assert_eq!(seen.written, []);
    let pages: Vec<u64> = seen
        .read
        .iter()
        .flat_map(|(first, count)| *first..first + count)
        .collect();
    let mut wanted: Vec<u64> = addresses.iter().map(|at| at / PAGE_SIZE).collect();
    wanted.retain(|page| *page != 0 && *page < 1 << 27);
    wanted.sort_unstable();
    assert_eq!(pages, wanted);
    assert_eq!(machine.touches().unwrap(), None, "it is told once");
}

#[test]
fn so_many_that_are_not_there_end_it() {
    let (memory, machine) = guest(None);
    map(&memory, DATA, PAGE_SIZE, Prot::RW);
    machine.watch().unwrap();
    let mut addresses = vec![0; 2 * MOST_FAILED];
    addresses.push(DATA);
    machine.touch(&addresses, &|_| false).unwrap();
    assert_eq!(machine.touches().unwrap().unwrap(), Touches::default());
}

#[test]
fn facts_of_the_host_serve_other_machines() {
    let facts = HostFacts::ask().unwrap();
    assert!(facts.are_of_here());
    let (memory, machine) = guest(Some(&facts));
    map(&memory, DATA, PAGE_SIZE, Prot::READ);
    machine.watch().unwrap();
    machine.touch(&[DATA], &|_| false).unwrap();
    let seen = machine.touches().unwrap().unwrap();
    assert_eq!(seen.read, [(DATA / PAGE_SIZE, 1)]);
}
