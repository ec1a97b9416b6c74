use std::arch::x86_64::__cpuid;

use vmm_abi::{Errno, PAGE_SIZE};

use super::elf::Mapped;
use crate::Kernel;
use crate::delivery::frame_bytes;
use crate::vfs::random;

/// Bytes of arguments and environment together (a quarter of the stack, as on Linux).
const MAX_STRINGS: usize = 2 << 20;

/// What goes on the first stack (System V ABI for x86-64, 3.4.1).
pub(super) struct Vectors<'a> {
    pub(super) argv: &'a [Vec<u8>],
    pub(super) envp: &'a [Vec<u8>],
    pub(super) path: &'a [u8],
    pub(super) program: &'a Mapped,
    pub(super) interpreter_base: u64,
    /// Address of the vDSO; 0 for none.
    pub(super) vdso: u64,
}

/// Bytes that end up at the top, and where each piece lies.
struct Strings {
    top: u64,
    reversed: Vec<Vec<u8>>,
    used: u64,
}

impl Strings {
    fn push(&mut self, bytes: &[u8], terminate: bool) -> u64 {
        let mut piece = bytes.to_vec();
        if terminate {
            piece.push(0);
        }
        self.used = self.used.saturating_add(piece.len() as u64);
        self.reversed.push(piece);
        self.top.saturating_sub(self.used)
    }
}

/// Writes the stack and answers where rsp starts.
pub(super) fn write(kernel: &Kernel, top: u64, vectors: &Vectors<'_>) -> Result<u64, Errno> {
    let total: usize = vectors.argv.iter().chain(vectors.envp).map(Vec::len).sum();
    if total > MAX_STRINGS {
        return Err(Errno::E2BIG);
    }
    let mut seed = [0u8; 16];
    random(&mut seed)?;
    let mut strings = Strings {
        top,
        reversed: Vec::new(),
        used: 0,
    };
    strings.push(&[0; 8], false);
    let path = strings.push(vectors.path, true);
    let platform = strings.push(b"x86_64", true);
    let seed = strings.push(&seed, false);
    let envp: Vec<u64> = vectors
        .envp
        .iter()
        .rev()
        .map(|s| strings.push(s, true))
        .collect();
    let argv: Vec<u64> = vectors
        .argv
        .iter()
        .rev()
        .map(|s| strings.push(s, true))
        .collect();

    let program = vectors.program;
    let mut auxv: Vec<(u64, u64)> = Vec::new();
    if vectors.vdso != 0 {
        auxv.push((libc::AT_SYSINFO_EHDR, vectors.vdso));
    }
    auxv.extend([
        (libc::AT_HWCAP, u64::from(__cpuid(1).edx)),
        (libc::AT_PAGESZ, PAGE_SIZE),
        (libc::AT_CLKTCK, 100),
        (libc::AT_PHDR, program.headers_at),
        (libc::AT_PHENT, 56),
        (libc::AT_PHNUM, u64::from(program.header_count)),
        (libc::AT_BASE, vectors.interpreter_base),
        (libc::AT_FLAGS, 0),
        (libc::AT_ENTRY, program.entry),
        (libc::AT_UID, 0),
        (libc::AT_EUID, 0),
        (libc::AT_GID, 0),
        (libc::AT_EGID, 0),
        (libc::AT_SECURE, 0),
        (libc::AT_RANDOM, seed),
        // Bit 1: user code may use the FSGSBASE instructions.
        (libc::AT_HWCAP2, 2),
        (libc::AT_EXECFN, path),
        (libc::AT_PLATFORM, platform),
        (libc::AT_MINSIGSTKSZ, frame_bytes()),
        (libc::AT_NULL, 0),
    ]);
    let mut words = vec![argv.len() as u64];
    words.extend(argv.iter().rev());
    words.push(0);
    words.extend(envp.iter().rev());
    words.push(0);
    let vector: Vec<u64> = auxv
        .iter()
        .flat_map(|(kind, value)| [*kind, *value])
        .collect();
    words.extend(&vector);
    let bytes_of = |words: &[u64]| {
        words
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let _ = kernel.auxv.set(bytes_of(&vector));
    let table = bytes_of(&words);
    let rsp = top
        .saturating_sub(strings.used)
        .saturating_sub(table.len() as u64)
        & !15;
    kernel.memory.write(rsp, &table)?;
    let text: Vec<u8> = strings.reversed.iter().rev().flatten().copied().collect();
    kernel
        .memory
        .write(top.saturating_sub(strings.used), &text)?;
    Ok(rsp)
}
