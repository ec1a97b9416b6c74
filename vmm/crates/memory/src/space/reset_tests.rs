use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

use super::super::ranges::MOST_CHANGES;
use super::*;
use crate::{Backing, Charge, Limits, MapRequest, NoMapper, PageStore, Place, Window};

const PAGE: u64 = PAGE_SIZE;
/// Where mappings are made: no more than a page per number below it.
const ROOM: u64 = 512;
const BASE: u64 = 0x10_0000;

struct Store {
    file: File,
    end: u64,
}

impl Store {
    fn new() -> Self {
        let file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        Self { file, end: 0 }
    }
}

impl PageStore for Store {
    fn reserve(&mut self, len: u64, _align: u64, _rest: u64) -> Result<u64, Errno> {
        let at = self.end;
        self.end += len;
        self.file.set_len(self.end).unwrap();
        Ok(at)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.file.write_all_at(bytes, offset).unwrap();
        Ok(())
    }
}

fn space() -> AddressSpace {
    let limits = Limits { bytes: 1 << 30 };
    let window = Window::reserve(1 << 30).unwrap();
    AddressSpace::new(window, Arc::new(NoMapper), limits)
}

/// Numbers that look random (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// A range of pages.
    fn range(&mut self) -> (u64, u64) {
        let first = self.below(ROOM);
        let len = 1 + self.below(24).min(ROOM - first);
        (BASE + first * PAGE, len * PAGE)
    }
}

/// Something that a program may do to its memory. What is refused has no effect.
fn meddle(space: &AddressSpace, dice: &mut Dice, image: &File, mark: u8) {
    let (at, len) = dice.range();
    let prot = [Prot::RW, Prot::READ, Prot::empty(), Prot::RW | Prot::EXEC];
    let prot = prot[dice.below(4) as usize];
    match dice.below(9) {
        0 | 1 => {
            let backing = match dice.below(3) {
                0 => Backing::Anonymous,
                1 => Backing::SharedAnonymous,
                _ => Backing::File {
                    fd: image.as_fd(),
                    offset: dice.below(4) * PAGE,
                    shared: false,
                },
            };
            let kind = match &backing {
                Backing::Anonymous => Kind::Anonymous,
                Backing::SharedAnonymous => Kind::SharedAnonymous,
                Backing::File { offset, .. } => Kind::File {
                    name: "image".into(),
                    offset: *offset,
                    shared: false,
                },
            };
            let _ = space.map(&MapRequest {
                place: Place::Fixed(at),
                len,
                prot,
                allowed: Prot::all(),
                backing,
                kind,
                charge: Charge::Always,
            });
        }
        2 => {
            let _ = space.unmap(at, len);
        }
        3 => {
            let _ = space.protect(at, len, prot);
        }
        4 => {
            let (to, _) = dice.range();
            let grown = dice.below(30) * PAGE;
            let target = [None, Some(to)][dice.below(2) as usize];
            let _ = space.remap(at, len, grown, target, true);
        }
        5 => {
            let advice = [
                libc::MADV_DONTNEED,
                libc::MADV_HUGEPAGE,
                libc::MADV_POPULATE_WRITE,
                libc::MADV_FREE,
            ];
            let _ = space.advise(at, len, advice[dice.below(4) as usize]);
        }
        6 => {
            let end = BASE + ROOM * PAGE + dice.below(40) * PAGE;
            let _ = space.set_break(end);
        }
        _ => {
            let _ = space.write(at + dice.below(PAGE), &vec![mark; len as usize - 4095]);
        }
    }
}

/// All mappings, and what can be read of them.
fn seen(space: &AddressSpace) -> Vec<(Vma, Vec<Option<Vec<u8>>>)> {
    let mappings = space.mappings().into_iter();
    mappings
        .map(|vma| {
            let pages = (vma.start..vma.end).step_by(PAGE as usize);
            let read = pages.map(|at| {
                let mut bytes = vec![0; PAGE as usize];
                space.read(at, &mut bytes).ok().map(|()| bytes)
            });
            let read = read.collect();
            (vma, read)
        })
        .collect()
}

/// A file with six pages of its own bytes.
fn image() -> File {
    let file = File::from(memfd_create("image", MemfdFlags::CLOEXEC).unwrap());
    for page in 0..40u8 {
        let bytes = [0xa0 + page % 16; PAGE as usize];
        file.write_all_at(&bytes, u64::from(page) * PAGE).unwrap();
    }
    file
}

fn saved(space: &AddressSpace, image: &File, pages: &PageMap) -> (MemoryState, Store) {
    let mut store = Store::new();
    let mut read = |_: &str, offset: u64, buffer: &mut [u8]| image.read_at(buffer, offset).ok();
    let state = space.save(pages, &mut store, &mut read).unwrap();
    (state, store)
}

fn bring_back(space: &AddressSpace, state: &MemoryState, store: &Store, image: &File) {
    let mut open =
        |_: &str, with: &mut dyn FnMut(BorrowedFd<'_>) -> Result<(), Errno>| with(image.as_fd());
    space.restore(state, store.file.as_fd(), &mut open).unwrap();
}

fn reset(
    space: &AddressSpace,
    state: &MemoryState,
    store: &Store,
    image: &File,
    pages: &PageMap,
) -> Result<Undone, SaveError> {
    let mut open =
        |_: &str, with: &mut dyn FnMut(BorrowedFd<'_>) -> Result<(), Errno>| with(image.as_fd());
    let file = SavedFile::new(store.file.try_clone().unwrap().into());
    space.reset(state, &file, pages, &mut open)
}

#[test]
fn whatever_was_done_to_memory_is_undone() {
    let (image, pages) = (image(), PageMap::open().unwrap());
    for seed in 1..=40u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let first = space();
        first.set_heap(BASE + ROOM * PAGE);
        for _ in 0..60 {
            meddle(&first, &mut dice, &image, 0x11);
        }
        let (state, store) = saved(&first, &image, &pages);
        drop(first);
        let second = space();
        bring_back(&second, &state, &store, &image);
        let committed = second.committed_bytes();
        let break_at = second.set_break(0);
        let before = seen(&second);
        assert!(before.len() > 3, "seed {seed} leaves nothing to look at");
        second.keep_track();
        for round in 0..6 {
            for _ in 0..dice.below(80) {
                meddle(&second, &mut dice, &image, 0x66);
            }
            reset(&second, &state, &store, &image, &pages).unwrap();
            assert!(before == seen(&second), "seed {seed}, round {round}");
            assert_eq!(second.committed_bytes(), committed, "seed {seed}");
            assert_eq!(second.set_break(0), break_at, "seed {seed}");
        }
        // Nothing else is left anywhere in the window: what this process has of its own is the snapshot's, or nothing.
        let base = second.window.base() as u64;
        let own = pages.own_pages(base, base + second.window.size()).unwrap();
        let held = own.len() as u64 * PAGE;
        assert!(held <= REWRITTEN_BYTES, "{held} bytes are kept");
    }
}

#[test]
fn what_is_more_than_is_kept_goes_back_to_the_host() {
    const BYTES: u64 = 64 << 20;
    let (image, pages) = (image(), PageMap::open().unwrap());
    let first = space();
    let request = MapRequest {
        place: Place::Fixed(BASE),
        len: BYTES,
        prot: Prot::RW,
        allowed: Prot::all(),
        backing: Backing::Anonymous,
        kind: Kind::Anonymous,
        charge: Charge::Always,
    };
    first.map(&request).unwrap();
    first.write(BASE, &vec![1; 16 << 20]).unwrap();
    let (state, store) = saved(&first, &image, &pages);
    let second = space();
    bring_back(&second, &state, &store, &image);
    second.keep_track();
    second.write(BASE, &vec![2; BYTES as usize]).unwrap();
    // Before Linux 6.7 the host does not tell which pages those are: all go back.
    let base = second.window.base() as u64;
    let tells = pages.own_ranges(base, base + PAGE).is_some();
    let undone = reset(&second, &state, &store, &image, &pages).unwrap();
    if tells {
        assert_eq!(undone.rewritten_pages * PAGE, REWRITTEN_BYTES);
        assert_eq!(
            (undone.rewritten_pages + undone.dropped_pages) * PAGE,
            BYTES
        );
    } else {
        assert_eq!(undone.rewritten_pages, 0);
    }
    assert_eq!(undone.remapped_bytes, 0);
    let mut found = vec![9; BYTES as usize];
    second.read(BASE, &mut found).unwrap();
    assert!(found.iter().take(16 << 20).all(|byte| *byte == 1));
    assert!(found.iter().skip(16 << 20).all(|byte| *byte == 0));
    // What is kept is what was touched first, and never more of it.
    second.write(BASE + (8 << 20), &vec![3; 1 << 20]).unwrap();
    let undone = reset(&second, &state, &store, &image, &pages).unwrap();
    if tells {
        assert_eq!(undone.rewritten_pages * PAGE, REWRITTEN_BYTES);
        assert_eq!(undone.dropped_pages * PAGE, 1 << 20);
    }
    let mut found = vec![9; 1 << 20];
    second.read(BASE + (8 << 20), &mut found).unwrap();
    assert!(found.iter().all(|byte| *byte == 1));
}

#[test]
fn without_track_or_with_too_many_changes_there_is_no_reset() {
    let (image, pages) = (image(), PageMap::open().unwrap());
    let space = space();
    let (state, store) = saved(&space, &image, &pages);
    let refused = reset(&space, &state, &store, &image, &pages);
    assert_eq!(refused, Err(SaveError::Limit));
    space.keep_track();
    let most = MOST_CHANGES as u64;
    for number in 0..=most {
        space.note_change(BASE + 2 * number * PAGE, PAGE);
    }
    let refused = reset(&space, &state, &store, &image, &pages);
    assert_eq!(refused, Err(SaveError::Limit));
}

#[test]
fn changes_that_meet_are_one() {
    let of = |list: &[(u64, u64)]| {
        let mut changes = Ranges::default();
        for (start, end) in list {
            changes.add(*start, *end);
        }
        changes.ends.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(of(&[(10, 20), (30, 40)]), [(10, 20), (30, 40)]);
    assert_eq!(of(&[(10, 20), (20, 30)]), [(10, 30)]);
    assert_eq!(of(&[(20, 30), (10, 20)]), [(10, 30)]);
    assert_eq!(of(&[(10, 20), (30, 40), (15, 35)]), [(10, 40)]);
    assert_eq!(of(&[(10, 50), (20, 30)]), [(10, 50)]);
    assert_eq!(of(&[(20, 30), (10, 50)]), [(10, 50)]);
    assert_eq!(of(&[(5, 5)]), []);
    let mut ranges = Ranges::default();
    ranges.add(10, 20);
    ranges.add(30, 40);
    let within = |start, end| ranges.within(start, end).collect::<Vec<_>>();
    assert_eq!(within(0, 100), [(10, 20), (30, 40)]);
    assert_eq!(within(15, 35), [(15, 20), (30, 35)]);
    assert_eq!(within(20, 30), []);
    assert_eq!(within(12, 13), [(12, 13)]);
    let mut room = 8;
    ranges.add_within(5, 33, &mut room);
    assert_eq!((room, ranges.bytes()), (0, 28));
    let all: Vec<_> = ranges.ends.into_iter().collect();
    assert_eq!(all, [(5, 23), (30, 40)]);
}
