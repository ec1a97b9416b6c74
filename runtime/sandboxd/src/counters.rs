//! Where micro-VMs count: a file of one page each, which its monitor writes and the worker reads on its own (vmm/README.md, "Counters").

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

/// Bytes of a file.
const PAGE_BYTES: u64 = 4096;

/// The folder of an instance's files, beside its socket and open to the same group.
pub struct Counters {
    folder: PathBuf,
}

/// One sandbox's file. It goes with this.
pub struct CounterFile {
    path: PathBuf,
    file: File,
}

impl Counters {
    /// Makes the folder anew; what a former run left in it is gone.
    pub fn make(socket: &Path, group: Option<u32>) -> io::Result<Self> {
        let mut folder = socket.as_os_str().to_owned();
        folder.push(".counters");
        let folder = PathBuf::from(folder);
        remove(&folder)?;
        DirBuilder::new().mode(0o700).create(&folder)?;
        // Whoever may write beside the socket could lay a link in its place meanwhile.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = File::from(open(&folder, flags, Mode::empty())?);
        fchown(&made, Some(0), group.or(Some(0)))?;
        // Whatever the umask is.
        made.set_permissions(Permissions::from_mode(0o750))?;
        Ok(Self { folder })
    }

    /// A file of zeros for the sandbox of that id.
    pub fn file(&self, id: &str) -> io::Result<CounterFile> {
        let path = self.folder.join(id);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let made = CounterFile { path, file };
        made.file.set_len(PAGE_BYTES)?;
        made.file.set_permissions(Permissions::from_mode(0o644))?;
        Ok(made)
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // What stays is removed by the next start.
        let _ = remove(&self.folder);
    }
}

impl CounterFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for CounterFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_go_with_their_sandboxes_and_the_folder_with_its_instance() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("s");
        let left = place.path().join("s.counters");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("sb_old"), "x").unwrap();
        let counters = Counters::make(&socket, Some(1)).unwrap();
        let folder = fs::metadata(&left).unwrap();
        assert_eq!((folder.mode() & 0o7777, folder.gid()), (0o750, 1));
        let file = counters.file("sb_1").unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), [0; PAGE_BYTES as usize]);
        assert!(counters.file("sb_1").is_err());
        drop(file);
        assert_eq!(fs::read_dir(&left).unwrap().count(), 0);
        drop(counters);
        assert!(!left.exists());
    }
}
