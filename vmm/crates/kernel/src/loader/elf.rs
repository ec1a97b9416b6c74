use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::pread;
use vmm_abi::{ElfHeader, ElfSegment, Errno, PAGE_SIZE, Prot, S_IFMT, S_IFREG};
use vmm_memory::{Backing, Charge, Kind, MapRequest, Place, page_down, page_up};
use zerocopy::{FromBytes, IntoBytes};

use super::LoadError;
use crate::Kernel;
use crate::file::File;

/// Most program headers looked at; Linux takes as many as fit 64 KiB.
const MAX_SEGMENTS: u16 = 128;
/// Highest address a program may name: the window's size is far below it.
const MAX_ADDRESS: u64 = 1 << 46;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// It does not begin like a 64-bit little-endian ELF file, or is cut short.
    NotElf,
    /// It is for another processor or no program.
    WrongKind,
    /// Its program headers contradict themselves or are too many.
    BadHeaders,
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotElf => "it is not a 64-bit ELF file",
            Self::WrongKind => "it is not a program for x86-64",
            Self::BadHeaders => "its program headers are malformed",
        })
    }
}

/// The headers of a program, checked: no sum of theirs overflows.
#[derive(Clone, Debug)]
pub struct Headers {
    pub header: ElfHeader,
    /// PT_LOAD segments, by ascending address, none empty.
    pub segments: Vec<ElfSegment>,
    /// Path of PT_INTERP.
    pub interpreter: Option<Vec<u8>>,
}

impl Headers {
    fn is_fixed(&self) -> bool {
        self.header.kind == ET_EXEC
    }

    /// First and last-plus-one page that the segments take, before they are moved.
    fn span(&self) -> (u64, u64) {
        let start = self.segments.first().map_or(0, |s| page_down(s.vaddr));
        let end = self
            .segments
            .iter()
            .map(|s| s.vaddr.saturating_add(s.memsz))
            .max()
            .unwrap_or(0);
        (start, page_up(end).unwrap_or(end))
    }
}

/// Parses headers by reading pieces of the file: `read(offset, buffer)` fills the buffer whole or
/// answers false.
///
/// # Errors
/// [`ElfError`].
pub fn parse(read: &mut dyn FnMut(u64, &mut [u8]) -> bool) -> Result<Headers, ElfError> {
    let mut header = ElfHeader::default();
    if !read(0, header.as_mut_bytes()) {
        return Err(ElfError::NotElf);
    }
    if !header.ident.starts_with(b"\x7fELF\x02\x01\x01") {
        return Err(ElfError::NotElf);
    }
    if header.machine != EM_X86_64 || !matches!(header.kind, ET_EXEC | ET_DYN) {
        return Err(ElfError::WrongKind);
    }
    let size = size_of::<ElfSegment>();
    if usize::from(header.phentsize) != size || !(1..=MAX_SEGMENTS).contains(&header.phnum) {
        return Err(ElfError::BadHeaders);
    }
    let mut table = vec![0u8; size.saturating_mul(usize::from(header.phnum))];
    if !read(header.phoff, &mut table) {
        return Err(ElfError::BadHeaders);
    }
    let mut segments = Vec::new();
    let mut interpreter = None;
    for bytes in table.chunks_exact(size) {
        let segment = ElfSegment::read_from_bytes(bytes).map_err(|_| ElfError::BadHeaders)?;
        match segment.kind {
            PT_LOAD if segment.memsz > 0 => segments.push(check(segment)?),
            PT_INTERP => {
                let mut path = vec![0u8; segment.filesz.min(4096) as usize];
                if !read(segment.offset, &mut path) || path.pop() != Some(0) || path.contains(&0) {
                    return Err(ElfError::BadHeaders);
                }
                interpreter = Some(path);
            }
            _ => {}
        }
    }
    let ordered = segments
        .iter()
        .zip(segments.iter().skip(1))
        .all(|(a, b)| a.vaddr.saturating_add(a.memsz) <= b.vaddr);
    if segments.is_empty() || !ordered {
        return Err(ElfError::BadHeaders);
    }
    Ok(Headers {
        header,
        segments,
        interpreter,
    })
}

fn check(segment: ElfSegment) -> Result<ElfSegment, ElfError> {
    let end = segment
        .vaddr
        .checked_add(segment.memsz)
        .ok_or(ElfError::BadHeaders)?;
    let file_end = segment
        .offset
        .checked_add(segment.filesz)
        .ok_or(ElfError::BadHeaders)?;
    let congruent = segment.vaddr % PAGE_SIZE == segment.offset % PAGE_SIZE;
    if end > MAX_ADDRESS || file_end > MAX_ADDRESS || segment.filesz > segment.memsz || !congruent {
        return Err(ElfError::BadHeaders);
    }
    Ok(segment)
}

/// An opened program.
pub(super) struct Program {
    file: Arc<dyn File>,
    name: String,
    pub(super) headers: Headers,
}

/// Where a program came to lie.
pub(super) struct Mapped {
    pub(super) entry: u64,
    /// What was added to the addresses in the file.
    pub(super) bias: u64,
    /// Address of the program headers in memory.
    pub(super) headers_at: u64,
    pub(super) header_count: u16,
    /// First page behind it.
    pub(super) end: u64,
}

/// Opens and parses a program; answers its resolved path too.
pub(super) fn open(kernel: &Kernel, path: &str) -> Result<(Program, Vec<u8>), LoadError> {
    let failed = |errno| LoadError::Open(path.to_owned(), errno);
    let walked = kernel
        .vfs
        .walk(b"/", path.as_bytes(), true)
        .map_err(failed)?;
    let node = walked.node().map_err(failed)?;
    let mode = node.stat().map_err(failed)?.mode;
    if mode & S_IFMT != S_IFREG || mode & 0o111 == 0 {
        return Err(failed(Errno::EACCES));
    }
    let file = node.open(0).map_err(failed)?;
    let fd = file.host_fd().ok_or_else(|| failed(Errno::EACCES))?;
    let headers = parse(&mut |offset, buffer| read_exactly(fd, offset, buffer))
        .map_err(|error| LoadError::Elf(path.to_owned(), error))?;
    let name = String::from_utf8_lossy(&walked.path).into_owned();
    Ok((
        Program {
            file,
            name,
            headers,
        },
        walked.path,
    ))
}

fn read_exactly(fd: BorrowedFd<'_>, offset: u64, buffer: &mut [u8]) -> bool {
    let mut done = 0usize;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match pread(fd, rest, offset.saturating_add(done as u64)) {
            Ok(0) => return false,
            Ok(count) => done = done.saturating_add(count),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Maps the segments of a program; `hint` says where a movable one is to go (0: anywhere).
pub(super) fn map(kernel: &Kernel, program: &Program, hint: u64) -> Result<Mapped, LoadError> {
    let headers = &program.headers;
    let (low, high) = headers.span();
    let reserve = MapRequest {
        allowed: Prot::all(),
        place: if headers.is_fixed() {
            Place::FixedNoReplace(low)
        } else {
            Place::Anywhere(hint)
        },
        len: high.saturating_sub(low),
        prot: Prot::empty(),
        backing: Backing::Anonymous,
        kind: Kind::Anonymous,
        charge: Charge::Never,
    };
    let start = kernel.memory.map(&reserve)?;
    let bias = start.wrapping_sub(low);
    for segment in &headers.segments {
        map_segment(kernel, program, segment, bias)?;
    }
    // The headers are in memory where a segment holds their place in the file.
    let phoff = headers.header.phoff;
    let holder = headers
        .segments
        .iter()
        .find(|s| s.offset <= phoff && phoff < s.offset.saturating_add(s.filesz));
    let headers_at = holder.map_or(0, |s| {
        phoff
            .wrapping_sub(s.offset)
            .wrapping_add(s.vaddr)
            .wrapping_add(bias)
    });
    Ok(Mapped {
        entry: headers.header.entry.wrapping_add(bias),
        bias,
        headers_at,
        header_count: headers.header.phnum,
        end: high.wrapping_add(bias),
    })
}

fn map_segment(
    kernel: &Kernel,
    program: &Program,
    segment: &ElfSegment,
    bias: u64,
) -> Result<(), LoadError> {
    let bits = [(PF_R, Prot::READ), (PF_W, Prot::WRITE), (PF_X, Prot::EXEC)];
    let prot = bits
        .into_iter()
        .filter(|(flag, _)| segment.flags & flag != 0)
        .fold(Prot::empty(), |prot, (_, bit)| prot | bit);
    let address = segment.vaddr.wrapping_add(bias);
    let start = page_down(address);
    let file_end = address.saturating_add(segment.filesz);
    let end = page_up(address.saturating_add(segment.memsz)).ok_or(Errno::ENOMEM)?;
    let file_pages_end = if segment.filesz == 0 {
        start
    } else {
        page_up(file_end).ok_or(Errno::ENOMEM)?
    };
    if segment.filesz > 0 {
        let fd = program.file.host_fd().ok_or(Errno::EACCES)?;
        let offset = page_down(segment.offset);
        kernel.memory.map(&MapRequest {
            allowed: Prot::all(),
            place: Place::Fixed(start),
            len: file_pages_end.saturating_sub(start),
            prot,
            backing: Backing::File {
                fd,
                offset,
                shared: false,
            },
            kind: Kind::File {
                name: program.name.clone(),
                offset,
                shared: false,
            },
            charge: Charge::Always,
        })?;
        if prot.contains(Prot::WRITE) && segment.memsz > segment.filesz {
            let tail = vec![0u8; file_pages_end.saturating_sub(file_end) as usize];
            kernel.memory.write(file_end, &tail)?;
        }
    }
    if end > file_pages_end {
        kernel.memory.map(&MapRequest {
            allowed: Prot::all(),
            place: Place::Fixed(file_pages_end),
            len: end.saturating_sub(file_pages_end),
            prot,
            backing: Backing::Anonymous,
            kind: Kind::Anonymous,
            charge: Charge::Always,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_bytes(bytes: &[u8]) -> Result<Headers, ElfError> {
        parse(&mut |offset, buffer| {
            let range = bytes
                .get(offset as usize..)
                .and_then(|rest| rest.get(..buffer.len()));
            range.map(|from| buffer.copy_from_slice(from)).is_some()
        })
    }

    #[test]
    fn this_very_test_program_parses() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let headers = parse_bytes(&bytes).unwrap();
        assert!(
            headers
                .interpreter
                .unwrap()
                .ends_with(b"ld-linux-x86-64.so.2")
        );
        assert!(headers.segments.len() >= 3);
    }

    #[test]
    fn damaged_headers_are_errors_and_never_panics() {
        let good = std::fs::read("/proc/self/exe").unwrap()[..4096].to_vec();
        for at in 0..64 + 56 * 12 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                if let Ok(headers) = parse_bytes(&bytes) {
                    assert!(headers.span().1 <= MAX_ADDRESS + PAGE_SIZE);
                }
            }
        }
        assert_eq!(parse_bytes(&good[..63]).unwrap_err(), ElfError::NotElf);
        assert_eq!(parse_bytes(b"#!/bin/sh\n").unwrap_err(), ElfError::NotElf);
    }
}
