//! System calls that guest code serves by itself (inside.s), and what it must be told for that: the board, words that it reads. What stands there is right
//! before guest code can rely on it.

use std::arch::global_asm;
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmm_abi::inside::{
    ADDRESS_WORD, CODE_BEHIND_STUB, CODE_TO_WORDS, InsideCode, InsideSpan, WORDS,
};
use vmm_abi::{Errno, PAGE_SIZE};

use crate::kernel::Identity;
use crate::limits::{self, ResourceLimits};
use crate::syscalls;

/// Places on the board.
const MAPPED: usize = 1;
const DEFAULTS: usize = 2;
const DESCRIPTORS: usize = 3;
const LIMITS_KNOWN: usize = 4;
const NUMBERS: usize = 8;
const RESULTS: usize = 32;
/// Constants that there is room for.
const CONSTANTS: usize = 12;
const CURRENT: usize = 64;
const MAXIMUM: usize = 80;
const FIRST_BUCKET: usize = 512;
/// Waiters at futexes are counted by address; some addresses share a count.
const BUCKETS: usize = WORDS - FIRST_BUCKET;
/// [`Board::mapped`] is told of mappings of fewer bytes, so that place and length fit one word.
const LONGEST: u64 = (1 << 20) - 1;
/// A number that no call has.
const NO_CALL: u64 = 0xffff_ffff;
/// RFLAGS bits that the code cannot give back: TF, DF, OF, NT, AC, ID. `syscall` clears them.
const OTHER_FLAGS: u32 = 0x0024_4d00;

global_asm!(
    include_str!("inside.s"),
    STUB = const CODE_BEHIND_STUB,
    OTHER_FLAGS = const OTHER_FLAGS,
    CONSTANTS = const CONSTANTS,
    NUMBERS = const CODE_TO_WORDS as usize + 8 * NUMBERS,
    RESULTS = const CODE_TO_WORDS as usize + 8 * RESULTS,
    ADDRESS = const CODE_TO_WORDS as usize + 8 * ADDRESS_WORD,
    MAPPED = const CODE_TO_WORDS as usize + 8 * MAPPED,
    DEFAULTS = const CODE_TO_WORDS as usize + 8 * DEFAULTS,
    DESCRIPTORS = const CODE_TO_WORDS as usize + 8 * DESCRIPTORS,
    LIMITS_KNOWN = const CODE_TO_WORDS as usize + 8 * LIMITS_KNOWN,
    CURRENT = const 8 * CURRENT,
    MAXIMUM = const 8 * MAXIMUM,
    LIMITS = const limits::COUNT,
    FIRST_BUCKET = const 8 * FIRST_BUCKET,
    BUCKETS = const BUCKETS,
    LONGEST = const LONGEST,
    EBADF = const -Errno::EBADF.0,
);

unsafe extern "C" {
    static vmm_inside: u8;
    static vmm_inside_end: u8;
    static vmm_inside_spans: [u32; 3];
    static vmm_inside_spans_end: [u32; 3];
}

/// Calls other than constants that the code serves at times.
const OTHERS: [u32; 6] = [13, 28, 72, 125, 202, 302];
/// In the number of a span: it is a constant's place.
const IS_PLACE: u32 = 1 << 31;

/// The code, for the calls of a process such as `identity` says.
#[must_use]
pub fn code(identity: &Identity) -> InsideCode {
    let (start, end) = (&raw const vmm_inside, &raw const vmm_inside_end);
    let length = (end as usize).saturating_sub(start as usize);
    // SAFETY: inside.s lays bytes from the one symbol to the other, which nothing changes.
    let bytes = unsafe { &*ptr::slice_from_raw_parts(start, length) };
    let (start, end) = (&raw const vmm_inside_spans, &raw const vmm_inside_spans_end);
    let length = (end as usize).saturating_sub(start as usize);
    let count = length.checked_div(size_of::<[u32; 3]>()).unwrap_or(0);
    // SAFETY: as above; each span is three words, the first of them aligned.
    let spans = unsafe { &*ptr::slice_from_raw_parts(start, count) };
    let constants: Vec<u32> = syscalls::constants(identity)
        .map(|(number, _)| number.into())
        .collect();
    let spans = spans.iter().filter_map(|[start, end, number]| {
        let number = match number & IS_PLACE {
            0 => *number,
            _ => *constants.get((number & !IS_PLACE) as usize)?,
        };
        Some(InsideSpan {
            start: *start,
            end: *end,
            number,
        })
    });
    InsideCode {
        bytes,
        spans: spans.collect(),
        numbers: constants.iter().copied().chain(OTHERS).collect(),
    }
}

/// Words that guest code reads, by place; those before [`WORDS`] are there.
pub trait BoardWords: fmt::Debug + Send + Sync {
    fn word(&self, place: usize) -> Option<&AtomicU64>;
}

/// What guest code is told; nothing if nobody gave it words.
#[derive(Clone, Debug, Default)]
pub struct Board(Option<Arc<dyn BoardWords>>);

impl Board {
    #[must_use]
    pub fn new(words: Arc<dyn BoardWords>) -> Self {
        Self(Some(words))
    }

    /// For a process that begins. Of any former one nothing runs.
    pub(crate) fn begin(&self, identity: &Identity) {
        for place in 0..CONSTANTS {
            self.put(NUMBERS.saturating_add(place), NO_CALL);
            self.put(RESULTS.saturating_add(place), Errno::ENOSYS.to_rax());
        }
        for (place, (number, result)) in syscalls::constants(identity).enumerate().take(CONSTANTS) {
            self.put(RESULTS.saturating_add(place), result);
            self.put(NUMBERS.saturating_add(place), number.into());
        }
        for bucket in 0..BUCKETS {
            self.put(FIRST_BUCKET.saturating_add(bucket), 0);
        }
        self.put(DEFAULTS, u64::MAX);
        self.unmapped();
        self.put(DESCRIPTORS, 0);
        for (place, limit) in ResourceLimits::default().all().iter().enumerate() {
            self.put(CURRENT.saturating_add(place), limit.current);
            self.put(MAXIMUM.saturating_add(place), limit.maximum);
        }
        self.put(LIMITS_KNOWN, 1);
    }

    /// A limit is about to be another than it was when the process began.
    pub(crate) fn limits_change(&self) {
        self.put(LIMITS_KNOWN, 0);
    }

    fn word(&self, place: usize) -> Option<&AtomicU64> {
        self.0.as_ref()?.word(place)
    }

    fn put(&self, place: usize, value: u64) {
        // Memory that is never written is none that the machine takes for itself.
        if let Some(word) = self.word(place)
            && word.load(Ordering::SeqCst) != value
        {
            word.store(value, Ordering::SeqCst);
        }
    }

    fn bucket(&self, address: u64) -> Option<&AtomicU64> {
        let bucket = (address / 4) as usize % BUCKETS;
        self.word(FIRST_BUCKET.saturating_add(bucket))
    }

    /// A thread is going to look whether it must wait at a futex.
    pub(crate) fn waits(&self, address: u64) {
        if let Some(count) = self.bucket(address) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// So many threads wait there no more.
    pub(crate) fn waited(&self, address: u64, threads: u64) {
        if let Some(count) = self.bucket(address) {
            count.fetch_sub(threads, Ordering::SeqCst);
        }
    }

    /// Whether a signal's action is the default, with no flag and no mask.
    pub(crate) fn default_action(&self, signal: i32, is_default: bool) {
        let bit = crate::signal::bit(signal);
        if let Some(word) = self.word(DEFAULTS) {
            if is_default {
                word.fetch_or(bit, Ordering::SeqCst);
            } else {
                word.fetch_and(!bit, Ordering::SeqCst);
            }
        }
    }

    /// Something was mapped, and stays so until [`Board::unmapped`].
    pub(crate) fn mapped(&self, start: u64, len: u64) {
        if len > 0 && len <= LONGEST && start % PAGE_SIZE == 0 {
            self.put(MAPPED, (start << 20) | len);
        }
    }

    /// Something is about to be unmapped.
    pub(crate) fn unmapped(&self) {
        self.put(MAPPED, 0);
    }

    /// Descriptors below a number may be open.
    pub(crate) fn descriptors(&self, below: usize) {
        if let Some(word) = self.word(DESCRIPTORS) {
            word.fetch_max(below as u64, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            pid: 7,
            hostname: String::new(),
            memory_bytes: 0,
            cpus: 1,
        }
    }

    #[test]
    fn every_constant_has_a_place_and_a_span() {
        let identity = identity();
        let count = syscalls::constants(&identity).count();
        assert!(count <= CONSTANTS, "{count}");
        let code = code(&identity);
        for number in &code.numbers {
            assert!(
                code.spans.iter().any(|span| span.number == *number),
                "{number}"
            );
        }
        for span in &code.spans {
            assert!(span.start < span.end && span.end as usize <= code.bytes.len());
        }
        assert_eq!(code.bytes.len() % 8, 0);
    }
}
