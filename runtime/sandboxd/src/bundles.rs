//! Function bundles: a folder each, named by its SHA-256.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::refusal::{Code, Refusal};
use crate::request::is_digest;

/// The folder of bundles. Its owner is unprivileged, so nothing in it is followed.
pub struct Bundles {
    directory: OwnedFd,
}

/// One bundle, held open: what is mounted is what was checked, whatever its name leads to by then.
pub struct Bundle {
    folder: OwnedFd,
}

impl Bundle {
    /// A path to the folder for this process only, as long as the bundle is held.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))
    }
}

impl Bundles {
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: rustix::fs::open(folder, flags, Mode::empty())?,
        })
    }

    pub fn get(&self, digest: &str) -> Result<Bundle, Refusal> {
        let unknown = |why: &str| {
            Refusal::new(
                Code::UnknownBundle,
                format!("The bundle {digest} {why}."),
                "Write the bundle into sandboxd's --bundles folder first.",
            )
        };
        if !is_digest(digest) {
            return Err(unknown("has no digest for a name"));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.directory, digest, flags, Mode::empty(), resolve)
            .map(|folder| Bundle { folder })
            .map_err(|error| unknown(&format!("is no folder here ({error})")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_a_folder_named_by_its_digest_is_a_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let name = |byte: &str| byte.repeat(32);
        fs::create_dir(folder.path().join(name("11"))).unwrap();
        fs::write(folder.path().join(name("11")).join("index.mjs"), "x").unwrap();
        fs::write(folder.path().join(name("22")), "x").unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join(name("33"))).unwrap();
        std::os::unix::fs::symlink(name("11"), folder.path().join(name("44"))).unwrap();
        let bundles = Bundles::open(folder.path()).unwrap();
        let bundle = bundles.get(&name("11")).unwrap();
        assert_eq!(fs::read(bundle.path().join("index.mjs")).unwrap(), b"x");
        for digest in [
            name("22"),
            name("33"),
            name("44"),
            name("55"),
            "..".into(),
            "".into(),
        ] {
            let refusal = bundles.get(&digest).err().expect("a bundle");
            assert_eq!(refusal.code, Code::UnknownBundle);
        }
    }

    #[test]
    fn what_is_held_stays_what_was_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("11".repeat(32));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("mine"), "").unwrap();
        let bundle = Bundles::open(folder.path())
            .unwrap()
            .get(&"11".repeat(32))
            .unwrap();
        fs::rename(&path, folder.path().join("away")).unwrap();
        std::os::unix::fs::symlink("/etc", &path).unwrap();
        assert!(bundle.path().join("mine").exists());
    }
}
