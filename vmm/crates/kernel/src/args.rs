use vmm_abi::{Errno, Timespec};

/// The six arguments of a system call, read by type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Args(pub [u64; 6]);

impl Args {
    fn get(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// The whole register: an address, a length, an offset.
    #[must_use]
    pub fn word(&self, index: usize) -> u64 {
        self.get(index)
    }

    /// An `int`: the low half, as the calling convention has it.
    #[must_use]
    pub fn int(&self, index: usize) -> i32 {
        self.get(index) as i32
    }

    /// An `unsigned int`: flags, modes.
    #[must_use]
    pub fn flags(&self, index: usize) -> u32 {
        self.get(index) as u32
    }

    /// A `loff_t` or `long`.
    #[must_use]
    pub fn signed(&self, index: usize) -> i64 {
        self.get(index) as i64
    }
}

/// How a call that is interrupted by a signal goes on (signal(7), "Interruption of system calls").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Again when the handler was installed with SA_RESTART, else EINTR.
    IfAsked,
    /// EINTR whatever the handler says, but again when no handler ran.
    Never,
}

/// What a handler left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The call is done with this value.
    Value(u64),
    /// Nothing to do yet: the task has registered where it will be woken and is asked again with the
    /// same arguments when that happens, or when its deadline passes (see `Task::expired`).
    Block(Restart),
    /// All registers have been set (rt_sigreturn).
    Registers,
    /// The thread, or with it the process, ends.
    Exit,
}

/// What every handler answers.
pub type SysResult = Result<Ret, Errno>;

impl From<u64> for Ret {
    fn from(value: u64) -> Self {
        Ret::Value(value)
    }
}

/// Success with nothing to say.
pub const DONE: SysResult = Ok(Ret::Value(0));

/// A time structure in guest memory, or `None` for a null pointer.
///
/// # Errors
/// EFAULT for an unreadable one.
pub fn optional_time(
    memory: &vmm_memory::AddressSpace,
    address: u64,
) -> Result<Option<Timespec>, Errno> {
    if address == 0 {
        Ok(None)
    } else {
        memory.read_value(address).map(Some)
    }
}
