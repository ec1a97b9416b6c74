//! Programs of images in large pages. A runtime's program is many megabytes of which a start touches a third, here and there: with the page
//! cache in pieces of 2 MiB that is some dozens of page faults instead of thousands, which inside a micro-VM cost most (vmm/README.md, "Where
//! the time of a start goes"). The pages are the file's own in the page cache: every sandbox shares them, and the kernel takes them back when
//! memory is short.

use std::fs::{File, read_to_string};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::ptr;

use rustix::fs::{Advice, Mode, OFlags, ResolveFlags, fadvise, fdatasync, open, openat2};
use rustix::mm::{self, MapFlags, ProtFlags};

const LARGE: usize = 2 << 20;
/// Smaller programs have too few large pages to be worth the while.
const SMALLEST: usize = 4 << 20;

/// How much may be done about a program in small pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Nobody runs it yet: all of it can be read anew.
    First,
    /// Sandboxes have it mapped, which keeps the pages it is in, and one is waited for.
    Later,
}

/// Bytes of a program, and how many of them lie in large pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub bytes: usize,
    pub large: usize,
}

/// Brings the program at an absolute path of an image into the page cache, in large pages as far as the file system and the kernel make them
/// and nobody has mapped small ones already. `None` for a program that is small or is not found. `layers`: lowest first.
pub fn lay_out(layers: &[PathBuf], program: &str, effort: Effort) -> io::Result<Option<Outcome>> {
    let found = layers.iter().rev().find_map(|layer| find(layer, program));
    let Some(file) = found else {
        return Ok(None);
    };
    let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if bytes < SMALLEST {
        return Ok(None);
    }
    let mut large = read_in(&file, bytes)?;
    if !enough(bytes, large, effort) {
        large = read_again(&file, bytes)?;
    }
    // Where there is none at all the file system makes no such pages.
    if effort == Effort::First && large > 0 && !enough(bytes, large, effort) {
        // The page cache takes large pages where there are some, and does not have the kernel make any.
        drop(large_memory(bytes)?);
        large = read_again(&file, bytes)?;
    }
    Ok(Some(Outcome { bytes, large }))
}

/// Whether as much lies in large pages as is worth the effort.
fn enough(bytes: usize, large: usize, effort: Effort) -> bool {
    let sixteenths = match effort {
        Effort::First => 15,
        Effort::Later => 8,
    };
    (large / LARGE).saturating_mul(16) >= (bytes / LARGE).saturating_mul(sixteenths)
}

/// What has been read in small pages stays so until it is dropped; only pages that nobody maps are.
fn read_again(file: &File, bytes: usize) -> io::Result<usize> {
    fdatasync(file)?;
    fadvise(file, 0, None, Advice::DontNeed)?;
    read_in(file, bytes)
}

/// Memory in large pages, as far as the kernel can make them by moving others together, which it does for memory of a process. Given back, they are the
/// next to be had.
fn large_memory(bytes: usize) -> io::Result<Mapping> {
    let reserve = Mapping::reserve(bytes.saturating_add(LARGE))?;
    // SAFETY: the range is the reserve's, which nothing refers to.
    unsafe {
        let access = mm::MprotectFlags::READ | mm::MprotectFlags::WRITE;
        mm::mprotect(reserve.start, reserve.bytes, access)?;
        mm::madvise(reserve.start, reserve.bytes, mm::Advice::LinuxHugepage)?;
        mm::madvise(reserve.start, reserve.bytes, mm::Advice::LinuxPopulateWrite)?;
    }
    Ok(reserve)
}

/// The file in one layer; links are followed within it.
fn find(layer: &Path, program: &str) -> Option<File> {
    let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(layer, path, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat2(
        &folder,
        program,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
    .ok()?;
    let file = File::from(file);
    file.metadata().ok()?.is_file().then_some(file)
}

/// Reads all of a file through a mapping that asks for large pages; answers how many bytes came to lie in such.
fn read_in(file: &File, bytes: usize) -> io::Result<usize> {
    let reserve = Mapping::reserve(bytes.saturating_add(LARGE))?;
    let skip = (reserve.start as usize).wrapping_neg() % LARGE;
    let at = reserve.start.wrapping_byte_add(skip);
    // SAFETY: the range lies in the reserve, which nothing refers to.
    unsafe {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        mm::mmap(at, bytes, ProtFlags::READ, flags, file.as_fd(), 0)?;
    }
    // SAFETY: as above. Both kinds of advice change no byte; a kernel that does not know one of them refuses it.
    unsafe {
        mm::madvise(at, bytes, mm::Advice::LinuxHugepage)?;
        mm::madvise(at, bytes, mm::Advice::LinuxPopulateRead)?;
    }
    Ok(large_bytes(
        &read_to_string("/proc/self/smaps")?,
        at as usize,
    ))
}

/// The line `FilePmdMapped` (proc_pid_smaps(5)) of the mapping that begins at an address, in bytes.
fn large_bytes(smaps: &str, at: usize) -> usize {
    let begin = format!("{at:x}-");
    let lines = smaps.lines().skip_while(|line| !line.starts_with(&begin));
    lines
        .filter_map(|line| line.strip_prefix("FilePmdMapped:"))
        .find_map(|rest| rest.trim().strip_suffix(" kB")?.parse::<usize>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

/// Address space that is given back.
struct Mapping {
    start: *mut std::ffi::c_void,
    bytes: usize,
}

impl Mapping {
    fn reserve(bytes: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            mm::mmap_anonymous(
                ptr::null_mut(),
                bytes,
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            )?
        };
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `reserve`, and nothing refers to it.
        let _ = unsafe { mm::munmap(self.start, self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_upper_layers_program_is_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let layers = ["lower", "upper"].map(|name| folder.path().join(name));
        for layer in &layers {
            fs::create_dir_all(layer.join("usr/bin")).unwrap();
        }
        let bytes = SMALLEST + 4096 + 7;
        fs::write(layers[0].join("usr/bin/run"), vec![1; 2 * SMALLEST]).unwrap();
        fs::write(layers[1].join("usr/bin/real"), vec![1; bytes]).unwrap();
        // Within the layer, not on the host.
        symlink("/usr/bin/real", layers[1].join("usr/bin/run")).unwrap();
        let outcome = lay_out(&layers, "/usr/bin/run", Effort::First)
            .unwrap()
            .unwrap();
        assert_eq!(outcome.bytes, bytes);
        assert!(outcome.large <= bytes, "{outcome:?}");
        assert_eq!(outcome.large % LARGE, 0);
        // Again, when it is in the page cache already.
        let again = lay_out(&layers, "/usr/bin/run", Effort::Later)
            .unwrap()
            .unwrap();
        assert_eq!(again.bytes, bytes);
    }

    #[test]
    fn what_is_small_missing_or_no_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let layers = [folder.path().to_owned()];
        fs::write(folder.path().join("small"), [1; 100]).unwrap();
        for program in ["/small", "/missing", "/", "/../../../etc/passwd"] {
            assert_eq!(
                lay_out(&layers, program, Effort::First).unwrap(),
                None,
                "{program}"
            );
        }
    }

    #[test]
    fn more_is_wanted_while_nobody_runs_it() {
        let first = |large| enough(32 * LARGE + 5, large * LARGE, Effort::First);
        assert_eq!((first(30), first(29)), (true, false));
        let later = |large| enough(32 * LARGE + 5, large * LARGE, Effort::Later);
        assert_eq!((later(16), later(15)), (true, false));
    }

    #[test]
    fn the_line_of_that_mapping_counts() {
        let smaps = "1000-2000 r--p 00 00:00 1 /a\nFilePmdMapped:  9 kB\n\
            a000-f000 r--p 00 00:00 2 /b\nRss:   4 kB\nFilePmdMapped:      2048 kB\n\
            ff000-fff00 r--p 00 00:00 2 /b\nFilePmdMapped:      1 kB\n";
        assert_eq!(large_bytes(smaps, 0xa000), 2 << 20);
        assert_eq!(large_bytes(smaps, 0x5000), 0);
    }
}
