//! What code that serves system calls within a guest, and who lays it there, must agree on.

/// Bytes from the code to the words that it reads: both lie where the machine has them.
pub const CODE_TO_WORDS: u64 = 4 * crate::PAGE_SIZE - CODE_BEHIND_STUB;
/// Bytes from the stub, which leaves the guest for a system call, to the code.
pub const CODE_BEHIND_STUB: u64 = 64;
/// The code is at most so long.
pub const MOST_CODE_BYTES: usize = 2048;
/// Words, of 64 bits, that the guest may read.
pub const WORDS: usize = 1536;
/// Of those the last are bytes to be read from a socket, at their end if they are fewer.
pub const INLET_WORDS: usize = 512;
/// As bytes.
pub const INLET_BYTES: usize = INLET_WORDS * 8;
/// Words behind those, in a page of their own, that the guest may write: nothing that stands there can be relied on.
pub const OPEN_WORDS: usize = 512;
/// Bytes from the code to them.
pub const CODE_TO_OPEN_WORDS: u64 = CODE_TO_WORDS + WORDS as u64 * 8;
/// The open word that is 1 while a thread runs code that needs registers to be saved.
pub const LOCK: usize = 0;
/// rcx, rdx, rsi and rdi of that thread.
pub const SAVED: usize = 2;
/// What its call gives.
pub const RESULT: usize = 6;
/// The word that holds the guest address of the first one.
pub const ADDRESS_WORD: usize = 0;

/// Code for system calls that need not leave the guest. It is entered as Linux is by `syscall`, at CPL 3. What it cannot do it leaves to the stub, with all
/// registers as they were.
#[derive(Clone, Debug)]
pub struct InsideCode {
    pub bytes: &'static [u8],
    /// Numbers of the calls that it may serve.
    pub numbers: Vec<u32>,
    /// Where rax does not hold the number of the call any more.
    pub spans: Vec<InsideSpan>,
}

/// A part of the code, by offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsideSpan {
    pub start: u32,
    pub end: u32,
    /// The number of the call that is being served there.
    pub number: u32,
    pub midst: Midst,
}

/// How a thread stands in the midst of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Midst {
    /// All registers but rax are as at the call.
    Plain,
    /// As above, and it has the lock if rax is 0.
    Asked,
    /// As above, and it has the lock.
    Locked,
    /// It has the lock, and registers lie in the words [`SAVED`].
    Saved,
    /// As above, and the call is over if ZF is set.
    Claimed,
    /// As above, and the call is over: it gives what lies in the word [`RESULT`].
    Over,
    /// The call is over, and all registers are as after it.
    Leaving,
}

impl Midst {
    /// By the numbers that the code names them with, from 0.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        use Midst::{Asked, Claimed, Leaving, Locked, Over, Plain, Saved};
        let all = [Plain, Asked, Locked, Saved, Claimed, Over, Leaving];
        all.get(number as usize).copied()
    }
}
