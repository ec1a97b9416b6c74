//! System calls that guest code serves by itself (inside.s), and what it must be told for that: the board, words that it reads. What stands there is right
//! before guest code can rely on it.

use std::arch::global_asm;
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmm_abi::inside::{
    ADDRESS_WORD, CODE_BEHIND_STUB, CODE_TO_OPEN_WORDS, CODE_TO_WORDS, INLET_WORDS, InsideCode,
    InsideSpan, LOCK, Midst, OPEN_WORDS, RESULT, SAVED, WORDS,
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
/// Low half: an epoll descriptor and 1 where nothing is ready but by the inlet, else 0. High half: counts whatever may have made something ready.
const CALM: usize = 5;
/// The descriptor that the inlet is read by, or [`NO_DESCRIPTOR`].
const INLET: usize = 6;
/// Whether the host may have something to read behind the inlet.
const UNREAD: usize = 7;
const NUMBERS: usize = 8;
const RESULTS: usize = 32;
/// Constants that there is room for.
const CONSTANTS: usize = 12;
const CURRENT: usize = 64;
const MAXIMUM: usize = 80;
const FIRST_BUCKET: usize = 512;
/// Waiters at futexes are counted by address; some addresses share a count.
const BUCKETS: usize = FIRST_INLET_WORD - FIRST_BUCKET;
const FIRST_INLET_WORD: usize = WORDS - INLET_WORDS;
/// The open word that tells what is left in the inlet: bytes (16 bits), [`NOT_ALL`], and in the high half how often it was filled.
const CLAIMS: usize = 1;
const LEFT: u64 = 0xffff;
/// More may come at once by a read outside.
const NOT_ALL: u64 = 1 << 16;
const NO_DESCRIPTOR: u64 = 0xffff_ffff;
/// Most events that are asked for in calls that are served inside: beyond lies what Linux refuses.
const MOST_EVENTS: u32 = 1 << 20;
/// Addresses and lengths of so many bits are beyond nothing that Linux refuses.
const PLAIN_BITS: u32 = 46;
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
    CALM = const CODE_TO_WORDS as usize + 8 * CALM,
    INLET = const CODE_TO_WORDS as usize + 8 * INLET,
    UNREAD = const CODE_TO_WORDS as usize + 8 * UNREAD,
    INLET_END = const CODE_TO_WORDS as usize + 8 * WORDS,
    LOCK = const CODE_TO_OPEN_WORDS as usize + 8 * LOCK,
    CLAIMS = const CODE_TO_OPEN_WORDS as usize + 8 * CLAIMS,
    SAVED = const CODE_TO_OPEN_WORDS as usize + 8 * SAVED,
    RESULT = const CODE_TO_OPEN_WORDS as usize + 8 * RESULT,
    NOT_ALL_BIT = const NOT_ALL.trailing_zeros(),
    MOST_EVENTS = const MOST_EVENTS,
    PLAIN_BITS = const PLAIN_BITS,
);

unsafe extern "C" {
    static vmm_inside: u8;
    static vmm_inside_end: u8;
    static vmm_inside_spans: [u32; 4];
    static vmm_inside_spans_end: [u32; 4];
}

/// Calls other than constants that the code serves at times.
const OTHERS: [u32; 10] = [0, 13, 28, 45, 72, 125, 202, 232, 281, 302];
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
    let count = length.checked_div(size_of::<[u32; 4]>()).unwrap_or(0);
    // SAFETY: as above; each span is four words, the first of them aligned.
    let spans = unsafe { &*ptr::slice_from_raw_parts(start, count) };
    let constants: Vec<u32> = syscalls::constants(identity)
        .map(|(number, _)| number.into())
        .collect();
    let spans = spans.iter().filter_map(|[start, end, number, midst]| {
        let number = match number & IS_PLACE {
            0 => *number,
            _ => *constants.get((number & !IS_PLACE) as usize)?,
        };
        Some(InsideSpan {
            start: *start,
            end: *end,
            number,
            midst: Midst::from_number(*midst)?,
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

    /// Those that guest code writes, too; the ones before [`vmm_abi::inside::OPEN_WORDS`] are there.
    fn open_word(&self, place: usize) -> Option<&AtomicU64>;
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
        self.disturb();
        self.put(INLET, NO_DESCRIPTOR);
        // A former guest may have written there, whatever they are for.
        for word in (0..OPEN_WORDS).filter(|place| *place != CLAIMS) {
            if let Some(word) = self.open_word(word) {
                clear(word);
            }
        }
    }

    /// A limit is about to be another than it was when the process began.
    pub(crate) fn limits_change(&self) {
        self.put(LIMITS_KNOWN, 0);
    }

    fn word(&self, place: usize) -> Option<&AtomicU64> {
        self.0.as_ref()?.word(place)
    }

    fn open_word(&self, place: usize) -> Option<&AtomicU64> {
        self.0.as_ref()?.open_word(place)
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    fn put(&self, place: usize, value: u64) {
        if let Some(word) = self.word(place) {
            set(word, value);
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

    /// Something that is waited for by a set may have become ready, or a descriptor may be another. To be said before whoever has brought that about goes on.
    pub(crate) fn disturb(&self) {
        if let Some(word) = self.word(CALM) {
            let next = |now: u64| Some((now >> 32).wrapping_add(1) << 32);
            let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        }
    }

    /// To be asked before [`Board::calm`]'s set is looked for.
    pub(crate) fn disturbances(&self) -> u64 {
        self.word(CALM)
            .map_or(0, |word| word.load(Ordering::SeqCst) >> 32)
    }

    /// Nothing in the set at that descriptor is ready but by the inlet, and only what is told by [`Board::disturb`] can make something so, unless something
    /// has since `disturbances`.
    pub(crate) fn calm(&self, disturbances: u64, fd: i32) {
        let (Some(word), Ok(fd)) = (self.word(CALM), u32::try_from(fd)) else {
            return;
        };
        let (count, fd) = (disturbances << 32, u64::from(fd).saturating_add(1));
        let now = word.load(Ordering::SeqCst);
        if now >> 32 == disturbances && now != count | fd {
            let _ = word.compare_exchange(now, count | fd, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// The inlet is read by that descriptor, if by none yet.
    pub(crate) fn inlet_at(&self, fd: i32) {
        if let (Some(word), Ok(fd)) = (self.word(INLET), u32::try_from(fd))
            && word.load(Ordering::SeqCst) == NO_DESCRIPTOR
        {
            word.store(fd.into(), Ordering::SeqCst);
        }
    }

    /// A descriptor is about to be another, or none.
    pub(crate) fn descriptor_goes(&self, fd: i32) {
        self.disturb();
        if let Some(word) = self.word(INLET)
            && u32::try_from(fd).is_ok_and(|fd| word.load(Ordering::SeqCst) == u64::from(fd))
        {
            word.store(NO_DESCRIPTOR, Ordering::SeqCst);
        }
    }

    /// Whether the host may have something to read behind the inlet.
    pub(crate) fn unread(&self, unread: bool) {
        self.put(UNREAD, unread.into());
    }

    /// What the inlet holds is not all that a read gets.
    pub(crate) fn inlet_is_not_all(&self) {
        if let Some(word) = self.open_word(CLAIMS) {
            word.fetch_or(NOT_ALL, Ordering::SeqCst);
        }
    }

    /// What guest code claims to have left in the inlet, and since when.
    pub(crate) fn claims(&self) -> u64 {
        self.open_word(CLAIMS)
            .map_or(0, |word| word.load(Ordering::SeqCst))
    }

    /// Of [`Board::claims`], the bytes: any number.
    pub(crate) fn left_of(claims: u64) -> usize {
        (claims & LEFT) as usize
    }

    /// Bytes that are left in the inlet, as far as guest code can be believed.
    pub(crate) fn left(&self) -> usize {
        Self::left_of(self.claims())
    }

    /// So many bytes are left now instead of what `claims` says, unless something was taken since.
    pub(crate) fn claim(&self, claims: u64, left: usize) -> bool {
        self.open_word(CLAIMS).is_some_and(|word| {
            let next = (claims & !LEFT) | (left as u64 & LEFT);
            word.compare_exchange(claims, next, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        })
    }

    /// Bytes for the inlet, in which nothing is left, whether they are all that there are so far, and how often it was filled.
    pub(crate) fn put_inlet(&self, bytes: &[u8], all: bool, fillings: u32) {
        let Some(claims) = self.open_word(CLAIMS) else {
            return;
        };
        let mut at = WORDS;
        for chunk in bytes.rchunks(8) {
            let mut word = [0u8; 8];
            for (to, from) in word.iter_mut().rev().zip(chunk.iter().rev()) {
                *to = *from;
            }
            at = at.saturating_sub(1);
            if let Some(cell) = self.word(at).filter(|_| at >= FIRST_INLET_WORD) {
                cell.store(u64::from_le_bytes(word), Ordering::Relaxed);
            }
        }
        let left = ((bytes.len() as u64) & LEFT) | if all { 0 } else { NOT_ALL };
        claims.store(u64::from(fillings) << 32 | left, Ordering::SeqCst);
    }

    /// Nothing of what the inlet held is there any more.
    pub(crate) fn wipe_inlet(&self) {
        self.put_inlet(&[], true, 0);
        for place in FIRST_INLET_WORD..WORDS {
            if let Some(word) = self.word(place) {
                clear(word);
            }
        }
    }

    /// Descriptors below a number may be open.
    pub(crate) fn descriptors(&self, below: usize) {
        if let Some(word) = self.word(DESCRIPTORS) {
            word.fetch_max(below as u64, Ordering::SeqCst);
        }
    }
}

/// Memory that is never written is none that the machine takes for itself.
fn set(word: &AtomicU64, value: u64) {
    if word.load(Ordering::SeqCst) != value {
        word.store(value, Ordering::SeqCst);
    }
}

fn clear(word: &AtomicU64) {
    set(word, 0);
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
