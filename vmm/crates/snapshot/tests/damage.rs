//! Damaged and made-up files are refused, quickly and without much memory.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

mod every_state;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use every_state::every_state;
use vmm_snapshot::{FORMAT, FileError, Snapshot, TRAILER_BYTES, Trailer, decode, encode};

/// Counts the bytes of the thread that asks for them.
struct Counting;

thread_local! {
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn count(change: impl FnOnce(usize) -> usize) {
    // A thread that ends may free after its counter has gone.
    let _ = HELD.try_with(|held| {
        let now = change(held.get().0);
        held.set((now, held.get().1.max(now)));
    });
}

// SAFETY: all is left to the system's allocator; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|held| held.saturating_add(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(|held| held.saturating_sub(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) };
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Most bytes held at once while `work` ran, beyond those before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get().0;
    HELD.set((before, before));
    let result = work();
    (result, HELD.get().1 - before)
}

const PAGES: &[u8; 8192] = &[7; 8192];

fn trailer(state: &[u8]) -> Trailer {
    Trailer {
        pages: PAGES.len() as u64,
        state: state.len() as u64,
        pages_crc: crc32fast::hash(PAGES),
        state_crc: crc32fast::hash(state),
    }
}

fn file() -> Vec<u8> {
    let state = encode(&every_state()).unwrap();
    [PAGES.as_slice(), &state, &trailer(&state).to_bytes()].concat()
}

/// Reads a whole file as the monitor does.
fn read(file: &[u8]) -> Result<Snapshot, FileError> {
    let end = file.last_chunk::<TRAILER_BYTES>();
    let trailer = Trailer::from_bytes(end.ok_or(FileError::NoTrailer)?, file.len() as u64)?;
    let (pages, rest) = file.split_at(usize::try_from(trailer.pages).unwrap());
    if crc32fast::hash(pages) != trailer.pages_crc {
        return Err(FileError::Pages);
    }
    decode(&trailer, &rest[..usize::try_from(trailer.state).unwrap()])
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[test]
fn what_is_whole_is_read() {
    assert_eq!(read(&file()), Ok(every_state()));
}

#[test]
fn a_file_cut_short_is_refused_at_every_length() {
    let file = file();
    for len in 0..file.len() {
        assert_eq!(read(&file[..len]), Err(FileError::NoTrailer), "{len}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let mut file = file();
    let (state, end) = (PAGES.len(), file.len() - TRAILER_BYTES);
    for bit in 0..file.len() * 8 {
        let at = bit / 8;
        file[at] ^= 1 << (bit % 8);
        let said = read(&file).unwrap_err();
        let sound = match said {
            FileError::Pages => at < state,
            FileError::State => (state..end).contains(&at),
            FileError::Format(other) => (end + 8..end + 12).contains(&at) && other != FORMAT,
            FileError::NoTrailer => at >= end,
            FileError::Malformed(_) | FileError::TooLarge => false,
        };
        assert!(sound, "bit {bit}: {said}");
        file[at] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_file_of_another_format_says_which() {
    let mut file = file();
    let at = file.len() - TRAILER_BYTES + 8;
    file[at..at + 4].copy_from_slice(&1u32.to_le_bytes());
    let said = read(&file).unwrap_err();
    assert_eq!(said, FileError::Format(1));
    assert_eq!(said.to_string(), format!("it has format 1, not {FORMAT}"));
}

#[test]
fn random_bytes_are_no_file() {
    let mut random = Random(0x5eed);
    for _ in 0..2000 {
        let len = random.below(400);
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        assert_eq!(read(&bytes), Err(FileError::NoTrailer));
    }
}

/// Whoever makes a file up makes its checksums, too: what is left is that nothing happens but a refusal, or a state of other values.
#[test]
fn made_up_states_cost_no_more_than_their_size() {
    let whole = encode(&every_state()).unwrap();
    let mut random = Random(0xdec0de);
    let (mut refused, mut read) = (0, 0);
    for round in 0..20_000 {
        let mut state = whole.clone();
        match round % 3 {
            0 => {
                state = (0..random.below(600))
                    .map(|_| random.next() as u8)
                    .collect()
            }
            1 => {
                for _ in 0..=random.below(4) {
                    let at = random.below(state.len());
                    state[at] = random.next() as u8;
                }
            }
            // A length that promises more than there is.
            _ => {
                let at = random.below(state.len());
                state.truncate(at);
                state.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
                state.extend_from_slice(&whole[at..]);
            }
        }
        let (result, bytes) = peak(|| decode(&trailer(&state), &state));
        // Lists are given room for 1 MiB before their elements are looked at, at most one in another six deep.
        assert!(bytes < 8 << 20, "round {round}: {bytes} bytes");
        match result {
            Ok(_) => read += 1,
            Err(FileError::Malformed(_)) => refused += 1,
            Err(other) => unreachable!("round {round}: {other}"),
        }
    }
    assert!(
        read > 100 && refused > 10_000,
        "{read} read, {refused} refused"
    );
}

#[test]
fn a_state_too_large_is_not_written() {
    let mut snapshot = every_state();
    snapshot.process.pipes[0].bytes = vec![1; 64 << 20];
    assert_eq!(encode(&snapshot), Err(FileError::TooLarge));
}
