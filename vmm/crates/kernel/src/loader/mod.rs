//! Starting a program: ELF files, the first stack, the auxiliary vector.

mod elf;
mod stack;
mod vdso;

use std::fmt;

use vmm_abi::{Errno, Prot, Registers};
use vmm_memory::{Backing, Charge, Kind, MapRequest, Place};

use crate::Kernel;

pub use elf::{ElfError, Headers, parse};
pub use vdso::GuestClock;

/// Bytes of the first thread's stack (RLIMIT_STACK of most systems); untouched pages cost nothing.
pub const STACK_BYTES: u64 = 8 << 20;
/// Where position-independent programs go; low addresses are left to those that ask for them.
const PIE_BASE: u64 = 0x10_0000_0000;

/// Why a program cannot be started.
#[derive(Debug)]
pub enum LoadError {
    /// The program or its interpreter cannot be opened.
    Open(String, Errno),
    /// It is no ELF file that runs here.
    Elf(String, ElfError),
    /// No room for it in memory.
    Memory(Errno),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, errno) => {
                write!(
                    f,
                    "cannot open {path}: {errno}. Give an absolute path inside the root"
                )
            }
            Self::Elf(path, error) => {
                write!(
                    f,
                    "{path} cannot run: {error}. Use a 64-bit x86 Linux program"
                )
            }
            Self::Memory(errno) => {
                write!(
                    f,
                    "no memory to start the program: {errno}. Raise the memory limit"
                )
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl From<Errno> for LoadError {
    fn from(errno: Errno) -> Self {
        Self::Memory(errno)
    }
}

/// Loads `path` with its interpreter and answers the registers the first thread starts with.
///
/// # Errors
/// [`LoadError`].
pub fn start(
    kernel: &Kernel,
    path: &str,
    argv: &[Vec<u8>],
    envp: &[Vec<u8>],
) -> Result<Registers, LoadError> {
    let (program, full_path) = elf::open(kernel, path)?;
    let main = elf::map(kernel, &program, PIE_BASE)?;
    kernel.memory.set_heap(main.end);
    let _ = kernel.program.set((full_path.clone(), argv.to_vec()));
    let _ = kernel.environment.set(envp.to_vec());
    let top = kernel.memory.window().size();
    let stack = kernel.memory.map(&MapRequest {
        allowed: Prot::all(),
        place: Place::Anywhere(top.saturating_sub(STACK_BYTES)),
        len: STACK_BYTES,
        prot: Prot::RW,
        backing: Backing::Anonymous,
        kind: Kind::Stack,
        charge: Charge::Never,
    })?;
    let mut entry = main.entry;
    let mut base = 0;
    if let Some(interpreter) = &program.headers.interpreter {
        let interpreter = String::from_utf8_lossy(interpreter).into_owned();
        let (linker, _) = elf::open(kernel, &interpreter)?;
        let mapped = elf::map(kernel, &linker, 0)?;
        (entry, base) = (mapped.entry, mapped.bias);
    }
    let vdso = match kernel.clock.get() {
        Some(clock) => clock.map(&kernel.memory)?,
        None => 0,
    };
    let vectors = stack::Vectors {
        argv,
        envp,
        path: &full_path,
        program: &main,
        interpreter_base: base,
        vdso,
    };
    let rsp = stack::write(kernel, stack.saturating_add(STACK_BYTES), &vectors)?;
    Ok(Registers {
        rip: entry,
        rsp,
        rflags: 0x202,
        ..Registers::default()
    })
}
