//! /dev: null, zero, full, random, urandom and the links to the standard descriptors.

use std::sync::Arc;

use vmm_abi::{Errno, Iovec, S_IFCHR, Stat};
use vmm_memory::AddressSpace;

use super::Node;
use super::text::{StaticDir, TextNode};
use crate::file::File;

/// Bytes made at a time for devices that produce any number.
const CHUNK: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

/// A character device of the mem family (major 1).
#[derive(Clone, Copy, Debug)]
struct Device {
    kind: Kind,
    minor: u32,
}

impl Device {
    fn attributes(self) -> Stat {
        let rdev = (1 << 8) | u64::from(self.minor);
        let (ino, mode) = (u64::from(self.minor), S_IFCHR | 0o666);
        Stat {
            dev: 6,
            ino,
            nlink: 1,
            mode,
            rdev,
            blksize: 4096,
            ..Stat::default()
        }
    }
}

impl Node for Device {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.attributes())
    }

    fn open(&self, _flags: u32) -> Result<Arc<dyn File>, Errno> {
        Ok(Arc::new(*self))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl File for Device {
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(self.attributes())
    }

    fn read(&self, memory: &AddressSpace, to: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        if self.kind == Kind::Null {
            return Ok(0);
        }
        let mut done = 0u64;
        let mut chunk = vec![0u8; CHUNK];
        for entry in to {
            let mut at = entry.base;
            let mut left = entry.len;
            while left > 0 {
                let want = left.min(CHUNK as u64);
                let part = chunk.get_mut(..want as usize).ok_or(Errno::EIO)?;
                if self.kind == Kind::Random {
                    random(part)?;
                }
                match memory.write(at, part) {
                    Ok(()) => {}
                    Err(errno) if done == 0 => return Err(errno),
                    Err(_) => return Ok(done),
                }
                done = done.saturating_add(want);
                at = at.saturating_add(want);
                left = left.saturating_sub(want);
            }
        }
        Ok(done)
    }

    fn write(&self, _memory: &AddressSpace, from: &[Iovec], _offset: u64) -> Result<u64, Errno> {
        if self.kind == Kind::Full {
            return Err(Errno::ENOSPC);
        }
        Ok(from
            .iter()
            .fold(0, |sum, entry| entry.len.saturating_add(sum)))
    }

    fn is_zero(&self) -> bool {
        self.kind == Kind::Zero
    }

    fn size(&self) -> Option<u64> {
        // Devices of this family have a position, which says nothing.
        Some(0)
    }

    fn put(&self, bytes: &[u8], _offset: u64) -> Result<usize, Errno> {
        if self.kind == Kind::Full {
            return Err(Errno::ENOSPC);
        }
        Ok(bytes.len())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Fills a buffer from the host's getrandom(2).
///
/// # Errors
/// What the host says.
pub fn random(mut buffer: &mut [u8]) -> Result<(), Errno> {
    while !buffer.is_empty() {
        let flags = rustix::rand::GetRandomFlags::empty();
        let count = match rustix::rand::getrandom(&mut *buffer, flags) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(Errno(error.raw_os_error())),
        };
        buffer = buffer.get_mut(count..).unwrap_or_default();
    }
    Ok(())
}

/// The tree to mount at /dev.
#[must_use]
pub fn dev_tree() -> Arc<dyn Node> {
    let device = |kind, minor| Arc::new(Device { kind, minor }) as Arc<dyn Node>;
    let link =
        |ino, target: &'static str| TextNode::link(ino, move || Ok(target.as_bytes().to_vec()));
    StaticDir::with(
        1,
        vec![
            ("null", device(Kind::Null, 3)),
            ("zero", device(Kind::Zero, 5)),
            ("full", device(Kind::Full, 7)),
            ("random", device(Kind::Random, 8)),
            ("urandom", device(Kind::Random, 9)),
            ("fd", link(20, "/proc/self/fd")),
            ("stdin", link(21, "/proc/self/fd/0")),
            ("stdout", link(22, "/proc/self/fd/1")),
            ("stderr", link(23, "/proc/self/fd/2")),
        ],
    )
}
