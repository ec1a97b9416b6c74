//! Files in pages of 2 MiB that nobody can change any more: of memory, on a tmpfs of their own which is mounted nowhere.
//!
//! A memory file (memfd_create(2)) is in such pages only where the whole machine is set to that; a tmpfs has a setting of its own (tmpfs(5), "huge").

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use crate::mounts::{NODEV, NOEXEC, NOSUID, RDONLY, set_attributes};

const LARGE: usize = 2 << 20;
const NAME: &CStr = c"file";

/// A copy of a file in large pages, as far as the kernel has some, open for reading. Its mount is read-only, and was made so when nothing had it open for
/// writing, so that nobody, not even who has the descriptor, can write to it. None where the kernel knows no such pages (CONFIG_TRANSPARENT_HUGEPAGE).
///
/// # Errors
/// What the kernel says, ENOSPC and ENOMEM among it. Nothing is left then.
pub fn copy_in_large_pages(file: &File) -> io::Result<Option<File>> {
    let bytes = file.metadata()?.len();
    let kind = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    match fsconfig_set_string(&kind, "huge", "within_size") {
        Err(Errno::INVAL) => return Ok(None),
        other => other?,
    }
    let most = bytes.next_multiple_of(LARGE as u64);
    fsconfig_set_string(&kind, "size", most.to_string())?;
    fsconfig_set_string(&kind, "mode", "0700")?;
    fsconfig_create(&kind)?;
    let mount = fsmount(
        &kind,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let copy = File::from(openat(&mount, NAME, flags, Mode::from_raw_mode(0o400))?);
    // What is written is put in a large page where it lies within the size.
    copy.set_len(bytes)?;
    let mut piece = vec![0; LARGE];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut piece, at)?;
        if count == 0 {
            break;
        }
        copy.write_all_at(piece.get(..count).unwrap_or_default(), at)?;
        at = at.saturating_add(count as u64);
    }
    if at != bytes {
        return Err(io::Error::other("the file was changed while it was copied"));
    }
    drop(copy);
    // Refused while something is open for writing (mount_setattr(2), EBUSY).
    set_attributes(&mount, c"", RDONLY | NOSUID | NODEV | NOEXEC, false)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(Some(openat(&mount, NAME, flags, Mode::empty())?.into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step of a test is to end it")]
mod tests {
    use std::fs::OpenOptions;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_copy_is_the_same_and_cannot_be_changed() {
        let file = tempfile::tempfile().unwrap();
        for bytes in [0, 5, LARGE, 3 * LARGE + 4097] {
            let content: Vec<u8> = (0..bytes).map(|at| (at / 7) as u8).collect();
            file.set_len(bytes as u64).unwrap();
            file.write_all_at(&content, 0).unwrap();
            let copy = copy_in_large_pages(&file).unwrap();
            let copy = copy.expect("this kernel has large pages");
            let mut found = vec![1; bytes];
            copy.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(copy.metadata().unwrap().len(), bytes as u64);
            assert!(found == content);
            assert!(copy.write_all_at(b"x", 0).is_err());
            let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
            let opened = OpenOptions::new().write(true).open(path);
            let refused = opened.unwrap_err().raw_os_error();
            assert_eq!(refused, Some(libc::EROFS));
            let flags = rustix::fs::fstatvfs(&copy).unwrap().f_flag;
            assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        }
    }
}
