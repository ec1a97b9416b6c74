//! What code that serves system calls within a guest, and who lays it there, must agree on.

/// Bytes from the code to the words that it reads: both lie where the machine has them.
pub const CODE_TO_WORDS: u64 = 4 * crate::PAGE_SIZE - CODE_BEHIND_STUB;
/// Bytes from the stub, which leaves the guest for a system call, to the code.
pub const CODE_BEHIND_STUB: u64 = 64;
/// The code is at most so long.
pub const MOST_CODE_BYTES: usize = 2048;
/// Words, of 64 bits.
pub const WORDS: usize = 1024;
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
}
