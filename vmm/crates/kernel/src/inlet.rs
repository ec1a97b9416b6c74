//! What can be read from a socket of the host: how much is known without asking it, and bytes that were taken out of it for whoever reads next, which guest
//! code may do by itself (inside.s).

use std::ops::Range;

use vmm_abi::inside::INLET_BYTES;

use crate::inside::Board;

/// The input side of one socket. Whoever has it is the only one of the monitor who reads the socket.
#[derive(Debug)]
pub(crate) struct Inlet {
    board: Board,
    /// Every change is told ([`crate::reactor::ask`]).
    told: bool,
    /// The peer sends no more, or something failed.
    ended: bool,
    /// The host may have something to read that is not here.
    unread: bool,
    /// Bytes that were taken out, at the end of it; of how many nobody has read, the board tells: guest code reads without a word.
    /// INLET_BYTES long where guest code may read, else empty.
    taken: Vec<u8>,
    /// The most that the board may rightly tell.
    filled: usize,
    /// How often, so that a claim of what was there before fails.
    fillings: u32,
}

/// Guest code that reads all the time is waited for so often.
const PATIENCE: usize = 16;

impl Inlet {
    pub fn new() -> Self {
        Self {
            board: Board::default(),
            told: false,
            ended: false,
            unread: true,
            taken: Vec::new(),
            filled: 0,
            fillings: 0,
        }
    }

    /// Guest code may read from it by that board. One stream of a guest is, and stays with the board.
    pub fn join(&mut self, board: &Board) {
        self.board = board.clone();
        self.taken.resize(INLET_BYTES, 0);
        self.say();
    }

    /// Every change will be told from now on. What was before, nobody has told.
    pub fn is_told(&mut self) {
        self.told = true;
    }

    /// The host may have more, or no more to come.
    pub fn changed(&mut self, ends: bool) {
        self.ended |= ends;
        self.unread = true;
        self.say();
    }

    /// The host was asked: it has nothing more to read now. After the end there always is something to be told.
    pub fn drained(&mut self) {
        self.unread = !self.told || self.ended;
        self.say();
    }

    /// Whether the host need not be asked whether it has something.
    pub fn is_known(&self) -> bool {
        !self.unread
    }

    /// Whether guest code may read from it.
    pub fn is_the_boards(&self) -> bool {
        self.board.is_there()
    }

    fn say(&self) {
        self.board.unread(self.unread);
        if self.unread {
            self.board.inlet_is_not_all();
        }
    }

    fn range(&self, left: usize) -> Range<usize> {
        INLET_BYTES.saturating_sub(left.min(self.filled))..INLET_BYTES
    }

    /// Bytes that are here.
    pub fn bytes(&self) -> &[u8] {
        self.bytes_of(self.board.left())
    }

    /// Whether bytes may be put here.
    pub fn has_room(&self) -> bool {
        self.is_the_boards() && self.bytes().is_empty()
    }

    /// Bytes that were read from the host, for whoever reads next; there is room. `all`: the host has no more.
    pub fn put(&mut self, bytes: &[u8], all: bool) {
        self.filled = bytes.len().min(INLET_BYTES);
        let range = self.range(self.filled);
        if let Some(place) = self.taken.get_mut(range)
            && let Some(bytes) = bytes.get(..place.len())
        {
            place.copy_from_slice(bytes);
        }
        self.fillings = self.fillings.wrapping_add(1);
        self.board
            .put_inlet(self.bytes_of(self.filled), all, self.fillings);
        if all {
            self.drained();
        } else {
            self.changed(false);
        }
    }

    fn bytes_of(&self, count: usize) -> &[u8] {
        self.taken.get(self.range(count)).unwrap_or_default()
    }

    /// Has `read` take bytes from the beginning of what is here; it answers how many it has taken. None when nothing is here.
    pub fn read_from<E>(
        &mut self,
        mut read: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> Option<Result<usize, E>> {
        for _ in 0..PATIENCE {
            let seen = self.board.claims();
            let bytes = self.bytes_of(Board::left_of(seen));
            if bytes.is_empty() {
                return None;
            }
            let count = match read(bytes) {
                Ok(count) => count.min(bytes.len()),
                Err(error) => return Some(Err(error)),
            };
            // Unless guest code has read meanwhile: then that was first.
            let left = bytes.len().saturating_sub(count);
            if self.board.claim(seen, left) {
                return Some(Ok(count));
            }
        }
        self.put(&[], !self.unread);
        None
    }

    /// Wipes what is here, for another guest; nobody reads any more.
    pub fn wipe(&mut self) {
        self.taken.fill(0);
        (self.filled, self.fillings) = (0, 0);
        self.board.wipe_inlet();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use vmm_abi::inside::{OPEN_WORDS, WORDS};

    use super::*;
    use crate::inside::BoardWords;

    #[derive(Debug)]
    struct Plain(Vec<AtomicU64>, Vec<AtomicU64>);

    impl BoardWords for Plain {
        fn word(&self, place: usize) -> Option<&AtomicU64> {
            self.0.get(place)
        }

        fn open_word(&self, place: usize) -> Option<&AtomicU64> {
            self.1.get(place)
        }
    }

    fn words() -> Arc<Plain> {
        let zeroes = |count| {
            std::iter::repeat_with(AtomicU64::default)
                .take(count)
                .collect()
        };
        Arc::new(Plain(zeroes(WORDS), zeroes(OPEN_WORDS)))
    }

    fn joined(words: &Arc<Plain>) -> Inlet {
        let mut inlet = Inlet::new();
        inlet.join(&Board::new(Arc::clone(words) as Arc<dyn BoardWords>));
        inlet.is_told();
        inlet
    }

    fn take(inlet: &mut Inlet, most: usize) -> Vec<u8> {
        let mut got = Vec::new();
        let read = inlet.read_from(|bytes| {
            got = bytes.iter().take(most).copied().collect();
            Ok::<_, ()>(got.len())
        });
        assert!(read.is_none() || read == Some(Ok(got.len())));
        got
    }

    #[test]
    fn bytes_lie_at_the_end_of_the_words_and_are_read_once() {
        let words = words();
        let mut inlet = joined(&words);
        for text in [&b"a longer text"[..], b"abc", b"12345678"] {
            assert!(inlet.has_room());
            inlet.put(text, true);
            assert!(!inlet.has_room() && inlet.is_known());
            let all: Vec<u8> = words
                .0
                .iter()
                .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
                .collect();
            assert!(all.ends_with(text));
            assert_eq!(take(&mut inlet, 2), text[..2]);
            assert_eq!(take(&mut inlet, 99), text[2..]);
            assert!(take(&mut inlet, 99).is_empty());
        }
    }

    #[test]
    fn who_claims_first_has_the_bytes() {
        const CLAIMS: usize = 1;
        let words = words();
        let mut inlet = joined(&words);
        inlet.put(b"abcdef", true);
        let mut asked = 0;
        let read = inlet.read_from(|bytes| {
            asked += 1;
            if asked == 1 {
                // A guest thread reads two.
                words.1[CLAIMS].fetch_sub(2, Ordering::SeqCst);
            }
            Ok::<_, ()>(bytes.len())
        });
        assert_eq!((read, asked), (Some(Ok(4)), 2));
    }

    #[test]
    fn what_a_guest_claims_is_bounded() {
        const CLAIMS: usize = 1;
        let words = words();
        let mut inlet = joined(&words);
        inlet.put(b"abc", false);
        words.1[CLAIMS].store(u64::MAX, Ordering::SeqCst);
        assert_eq!(inlet.bytes(), b"abc");
        assert_eq!(take(&mut inlet, 99), b"abc");
        // One that never leaves it alone.
        inlet.wipe();
        inlet.put(b"abc", true);
        let read = inlet.read_from(|bytes| {
            words.1[CLAIMS].fetch_add(1 << 40, Ordering::SeqCst);
            Ok::<_, ()>(bytes.len())
        });
        assert_eq!(read, None);
        assert!(inlet.bytes().is_empty());
    }

    #[test]
    fn what_is_not_told_and_what_has_ended_is_not_known() {
        let words = words();
        let mut inlet = Inlet::new();
        inlet.drained();
        assert!(!inlet.is_known(), "nobody would tell");
        inlet.is_told();
        inlet.drained();
        assert!(inlet.is_known());
        inlet.changed(false);
        assert!(!inlet.is_known());
        inlet.drained();
        inlet.join(&Board::new(words));
        inlet.changed(true);
        inlet.drained();
        assert!(!inlet.is_known(), "the end can always be read");
    }
}
