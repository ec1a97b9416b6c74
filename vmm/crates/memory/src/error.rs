use std::{fmt, io};

/// Why guest memory could not be set up. Errors a guest can cause are [`vmm_abi::Errno`]s instead.
#[derive(Debug)]
pub enum MemoryError {
    /// The host refused to reserve address space for the guest.
    Reserve(io::Error),
    /// It refused to tell of faults, which end copies.
    Faults(io::Error),
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserve(error) => write!(
                f,
                "cannot reserve address space for a guest: {error}. Raise the limit on virtual \
                 memory (ulimit -v) of this process"
            ),
            Self::Faults(error) => write!(
                f,
                "cannot be told of faults: {error}. Allow sigaction(2) to this process"
            ),
        }
    }
}

impl std::error::Error for MemoryError {}
