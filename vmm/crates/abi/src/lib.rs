//! Layouts and numbers of the Linux x86-64 system-call interface. No logic lives here.

mod errno;
pub mod inside;
mod layout;
mod numbers;
mod registers;

pub use errno::Errno;
pub use layout::*;
pub use numbers::*;
pub use registers::{Fault, Registers};

/// Bytes in one page.
pub const PAGE_SIZE: u64 = 4096;
