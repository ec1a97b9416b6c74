//! What a format looks like stays as it is: `goldens/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

mod every_state;

use std::collections::BTreeSet;
use std::path::PathBuf;

use every_state::every_state;
use vmm_memory::{Charge, Kind};
use vmm_snapshot::{
    AddressState, ClaimState, FORMAT, FileState, LockState, Snapshot, TmpBody, Trailer, decode,
    encode,
};

fn golden() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    folder.join(format!("format-{FORMAT}.bin"))
}

/// A trailer of this state alone.
fn trailer(state: &[u8]) -> Trailer {
    Trailer {
        pages: 0,
        state: state.len() as u64,
        pages_crc: 0,
        state_crc: crc32fast::hash(state),
    }
}

#[test]
fn the_golden_snapshot_is_read_and_written_byte_for_byte() {
    let written = encode(&every_state()).unwrap();
    if std::env::var_os("CLOISTER_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(golden(), &written).unwrap();
    }
    let kept = std::fs::read(golden()).expect("goldens/README.md says how to make it");
    assert_eq!(decode(&trailer(&kept), &kept), Ok(every_state()));
    assert!(
        written == kept,
        "the format is another now: goldens/README.md"
    );
}

#[test]
fn only_goldens_of_this_format_are_kept() {
    let folder = golden().parent().unwrap().to_owned();
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let bins: Vec<_> = names.filter(|name| name.ends_with(".bin")).collect();
    assert_eq!(bins, [format!("format-{FORMAT}.bin")]);
}

/// Each variant by a number; the compiler asks for new ones here, and the counts below ask for them in `every_state`.
fn variants(snapshot: &Snapshot) -> [BTreeSet<u8>; 7] {
    let process = &snapshot.process;
    let kind = |kind: &Kind| match kind {
        Kind::Anonymous => 0,
        Kind::SharedAnonymous => 1,
        Kind::Heap => 2,
        Kind::Stack => 3,
        Kind::Special(_) => 4,
        Kind::File { .. } => 5,
    };
    let charge = |charge: Charge| match charge {
        Charge::Always => 0,
        Charge::InParts => 1,
        Charge::Never => 2,
    };
    let file = |file: &FileState| match file {
        FileState::Stream(_) => 0,
        FileState::Named => 1,
        FileState::Tmp(_) => 2,
        FileState::Event { .. } => 3,
        FileState::Pipe { .. } => 4,
        FileState::Socket(_) => 5,
        FileState::Epoll(_) => 6,
        FileState::Timer { .. } => 7,
        FileState::Signals(_) => 8,
    };
    let lock = |lock: &LockState| match lock {
        LockState::Whole { .. } => 0,
        LockState::Range { .. } => 1,
    };
    let address = |address: &AddressState| match address {
        AddressState::Unnamed => 0,
        AddressState::Path(_) => 1,
        AddressState::Abstract(_) => 2,
        AddressState::Inet(_) => 3,
    };
    let claim = |claim: &ClaimState| match claim {
        ClaimState::Port { .. } => 0,
        ClaimState::Abstract(_) => 1,
        ClaimState::Node(..) => 2,
    };
    let body = |body: &TmpBody| match body {
        TmpBody::Root(_) => 0,
        TmpBody::Folder => 1,
        TmpBody::File { .. } => 2,
        TmpBody::Link(_) => 3,
        TmpBody::Socket => 4,
        TmpBody::Fifo => 5,
    };
    let descriptions = &process.descriptions;
    [
        snapshot
            .memory
            .mappings
            .iter()
            .map(|m| kind(&m.vma.kind))
            .collect(),
        snapshot
            .memory
            .mappings
            .iter()
            .map(|m| charge(m.vma.charge))
            .collect(),
        descriptions.iter().map(|d| file(&d.file)).collect(),
        descriptions
            .iter()
            .flat_map(|d| &d.locks)
            .map(lock)
            .collect(),
        process
            .sockets
            .iter()
            .flat_map(|s| &s.name)
            .map(address)
            .collect(),
        process
            .sockets
            .iter()
            .flat_map(|s| &s.claim)
            .map(claim)
            .collect(),
        process.tmp.iter().map(|node| body(&node.body)).collect(),
    ]
}

#[test]
fn every_variant_occurs() {
    let counts = variants(&every_state()).map(|set| set.len());
    assert_eq!(counts, [6, 3, 9, 2, 4, 3, 6]);
}
