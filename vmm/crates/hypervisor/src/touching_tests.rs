//! On the host's /dev/kvm.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use vmm_abi::Prot;
use vmm_memory::Coming;

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
fn of_what_is_to_come_pieces_that_hold_nothing_wait_and_others_share_a_slot() {
    const PIECE: u64 = 64 << 20;
    let (memory, machine) = guest(None);
    let vcpu = machine.take_vcpu().unwrap();
    machine.return_vcpu(vcpu);
    // From one piece into the next, and in one further up.
    let (low, high) = (PIECE - 4 * PAGE_SIZE, PIECE + 4 * PAGE_SIZE);
    let (empty, end) = (9 * PIECE, 9 * PIECE + PAGE_SIZE);
    let coming = |start, end, holds| Coming { start, end, holds };
    let mut all = [coming(low, high, true), coming(empty, end, false)].into_iter();
    let before = machine.paging.covered();
    machine.mapper().make_room(&mut all).unwrap();
    let covered = machine.paging.covered();
    assert_eq!(covered - before, 4 << 20);
    map(&memory, low, high - low, Prot::RW);
    map(&memory, empty, PAGE_SIZE, Prot::RW);
    let missing = AtomicUsize::new(0);
    let appear = |fault| {
        let appears = memory.resolve(&fault);
        missing.fetch_add(usize::from(!appears), Ordering::Relaxed);
        appears
    };
    let pages: Vec<u64> = (low..high).step_by(PAGE_SIZE as usize).collect();
    machine.touch(&pages, &appear).unwrap();
    assert_eq!(
        machine.paging.covered(),
        covered,
        "nothing else was touched"
    );
    machine.touch(&[empty], &appear).unwrap();
    assert_eq!(machine.paging.covered() - covered, PIECE);
    assert_eq!(missing.load(Ordering::Relaxed), 0);
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
