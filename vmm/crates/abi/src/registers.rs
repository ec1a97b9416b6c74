use serde::{Deserialize, Serialize};

/// The user-visible integer state of one guest thread, in no particular hardware order.
///
/// `fs_base` and `gs_base` are part of it because a guest may change them by itself
/// (FSGSBASE is native at CPL 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// A processor exception that user code caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Exception vector: 0 divide error, 6 invalid opcode, 13 general protection, 14 page fault...
    pub vector: u8,
    /// Error code; 0 where the vector has none.
    pub code: u64,
    /// CR2 for a page fault, else 0.
    pub address: u64,
}

impl Fault {
    /// Vector of a general protection fault.
    pub const GENERAL_PROTECTION: u8 = 13;
    /// Vector of a page fault.
    pub const PAGE_FAULT: u8 = 14;

    /// Whether this is a page fault caused by a write.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.vector == Self::PAGE_FAULT && self.code & 2 != 0
    }

    /// Whether this is a page fault caused by fetching an instruction.
    #[must_use]
    pub fn is_fetch(&self) -> bool {
        self.vector == Self::PAGE_FAULT && self.code & 16 != 0
    }
}
