//! On the host's /dev/kvm.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, FromRawFd};
use std::ptr::null;

use vmm_abi::Prot;
use vmm_memory::AddressSpace;

use super::*;
use crate::test_guest::{guest, map};

const DATA: u64 = 0x40_0000;
const MORE: u64 = 0x8_4000_1000;
const PAGES: u64 = 900;

/// The pages of a machine that has mapped both ranges, in a file, and where.
fn likely(machine: &Machine) -> (File, Vec<Extent>) {
    let fill = |mapper: &dyn Mapper| {
        [DATA, MORE]
            .into_iter()
            .try_for_each(|at| mapper.protect(at, at + PAGES * PAGE_SIZE, Prot::RW))
    };
    // SAFETY: the name is a string, and the descriptor is new.
    let mut file = unsafe {
        File::from_raw_fd(libc::memfd_create(
            c"pages".as_ptr(),
            libc::MFD_ALLOW_SEALING,
        ))
    };
    let mut extents = Vec::new();
    let mut offset = 0;
    for (at, bytes) in machine.likely_pages(&fill).unwrap() {
        file.write_all(&bytes).unwrap();
        let len = bytes.len() as u64;
        extents.push(Extent { at, len, offset });
        offset += len;
    }
    (file, extents)
}

fn seal(file: &File) {
    // SAFETY: takes numbers only.
    let answer = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_ADD_SEALS, NEEDED_SEALS) };
    assert_eq!(answer, 0);
}

fn pages(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.len / PAGE_SIZE).sum()
}

/// All of the area that may be shared.
fn content(machine: &Machine) -> Vec<u8> {
    let end = machine.area.handed_out();
    let parts = [ZONES[0], ZONES[1], (TABLES, end)];
    parts
        .into_iter()
        .flat_map(|(start, end)| bytes(&machine.area, start, end))
        .collect()
}

/// Two virtual CPUs, as a machine has that is made ready.
fn make_vcpus(machine: &Machine) {
    let vcpus = [machine.take_vcpu().unwrap(), machine.take_vcpu().unwrap()];
    for vcpu in vcpus {
        machine.return_vcpu(vcpu);
    }
}

/// How many of the bytes of a range the guest reads, page by page.
fn reads(machine: &Machine, memory: &AddressSpace, at: u64) -> usize {
    let addresses: Vec<u64> = (0..PAGES).map(|page| at + page * PAGE_SIZE).collect();
    let failed = std::cell::Cell::new(0);
    let appear = |fault| {
        let resolved = memory.resolve(&fault);
        failed.set(failed.get() + usize::from(!resolved));
        resolved
    };
    machine.touch(&addresses, &appear).unwrap();
    addresses.len() - failed.get()
}

#[test]
fn pages_are_shared_and_what_is_changed_afterwards_is_the_machines_own() {
    let (_others, other) = guest(None);
    let (file, extents) = likely(&other);
    seal(&file);
    let machines: Vec<_> = (0..2).map(|_| guest(None)).collect();
    for (memory, machine) in &machines {
        make_vcpus(machine);
        map(memory, DATA, PAGES * PAGE_SIZE, Prot::RW);
        map(memory, MORE, PAGES * PAGE_SIZE, Prot::RW);
        let before = content(machine);
        let shared = machine.share_pages(file.as_fd(), &extents).unwrap();
        assert_eq!(shared, pages(&extents));
        assert!(before == content(machine));
        assert_eq!(reads(machine, memory, DATA), PAGES as usize);
    }
    let (memory, machine) = &machines[0];
    let (_, untouched) = &machines[1];
    let before = content(untouched);
    memory.unmap(DATA, PAGES * PAGE_SIZE).unwrap();
    assert!(reads(machine, memory, DATA) < PAGES as usize);
    assert_eq!(reads(machine, memory, MORE), PAGES as usize);
    assert!(content(machine) != before);
    assert!(
        content(untouched) == before,
        "it shares nothing that changes"
    );
}

#[test]
fn what_differs_or_could_still_be_changed_stays_the_machines_own() {
    let (memory, machine) = guest(None);
    let (mut file, extents) = likely(&machine);
    make_vcpus(&machine);
    map(&memory, DATA, PAGES * PAGE_SIZE, Prot::RW);
    map(&memory, MORE, PAGES * PAGE_SIZE, Prot::RW);
    assert_eq!(
        machine.share_pages(file.as_fd(), &extents),
        Ok(0),
        "not sealed"
    );
    // In each extent's first page a word that would let the guest do more.
    for extent in &extents {
        use std::os::unix::fs::FileExt;
        let everything = (SYSTEM_BASE | 0x67).to_le_bytes();
        file.write_all_at(&everything, extent.offset + 64).unwrap();
    }
    file.flush().unwrap();
    seal(&file);
    let before = content(&machine);
    let shared = machine.share_pages(file.as_fd(), &extents).unwrap();
    assert_eq!(shared, pages(&extents) - extents.len() as u64);
    assert!(content(&machine) == before, "nothing is believed of a file");
    assert_eq!(reads(&machine, &memory, MORE), PAGES as usize);
}

/// mount(2)
fn mount(kind: &CStr, at: &CStr, flags: libc::c_ulong) {
    // SAFETY: all are strings, and no data is given.
    let result = unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, null()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_file_is_fixed_where_its_mount_is_read_only() {
    let folder = std::env::temp_dir().join(format!("fixed-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (place, path) = (
        CString::new(folder.as_os_str().as_encoded_bytes()).unwrap(),
        folder.join("file"),
    );
    // In a mount namespace of its own, which goes with the thread.
    let seen = std::thread::spawn(move || {
        // SAFETY: takes numbers only; this thread alone is meant.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "as root");
        mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE);
        mount(c"tmpfs", &place, 0);
        std::fs::write(&path, b"text").unwrap();
        let fixed = || is_fixed(File::open(&path).unwrap().as_fd());
        let before = fixed();
        mount(c"tmpfs", &place, libc::MS_REMOUNT | libc::MS_RDONLY);
        (before, fixed())
    });
    let seen = seen.join();
    std::fs::remove_dir(&folder).unwrap();
    assert_eq!(seen.unwrap(), (false, true));
}

#[test]
fn extents_that_cannot_be_are_refused() {
    let (_memory, machine) = guest(None);
    let (file, extents) = likely(&machine);
    seal(&file);
    let size = file.metadata().unwrap().len();
    let words = WORDS - SYSTEM_BASE;
    let extent = |at, len, offset| Extent { at, len, offset };
    for wrong in [
        // Of no whole pages.
        vec![extent(0, 0, 0)],
        vec![extent(0, 8, 0)],
        vec![extent(8, PAGE_SIZE, 0)],
        vec![extent(0, PAGE_SIZE, 8)],
        // Where the guest or the monitor writes, or nothing is.
        vec![extent(words, PAGE_SIZE, 0)],
        vec![extent(words - PAGE_SIZE, 2 * PAGE_SIZE, 0)],
        vec![extent(LIST_PAGE - SYSTEM_BASE, PAGE_SIZE, 0)],
        vec![extent(SYSTEM_BYTES, PAGE_SIZE, 0)],
        vec![extent(SYSTEM_BYTES - PAGE_SIZE, 2 * PAGE_SIZE, 0)],
        vec![extent(u64::MAX - PAGE_SIZE + 1, PAGE_SIZE, 0)],
        vec![extent(0, u64::MAX - PAGE_SIZE + 1, 0)],
        // Beyond the file.
        vec![extent(0, PAGE_SIZE, size)],
        vec![extent(0, PAGE_SIZE, u64::MAX - PAGE_SIZE + 1)],
        // Twice.
        vec![extents[0], extents[0]],
        vec![extents[1], extents[0]],
    ] {
        let answer = machine.share_pages(file.as_fd(), &wrong);
        assert_eq!(answer, Err(Errno::EINVAL), "{wrong:?}");
    }
    assert_eq!(machine.share_pages(file.as_fd(), &[]), Ok(0));
}
