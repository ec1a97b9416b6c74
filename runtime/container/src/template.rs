use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{
    MountFlags, MoveMountFlags, UnmountFlags, mount, mount_bind, move_mount, unmount,
};

use crate::mounts::{NODEV, NOEXEC, NOSUID, RDONLY, copy_of_tree, set_attributes};

/// Harmless devices: name, major, minor (devices.txt of the kernel).
const DEVICES: [(&str, u32, u32); 5] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
];

const EMPTY: &str = "empty";

/// Read-only root file systems, one per image, mounted once in sandboxd's private mount namespace; a sandbox gets a copy of the mount.
#[derive(Debug)]
pub(crate) struct Templates {
    folder: PathBuf,
    known: Mutex<HashMap<Vec<PathBuf>, PathBuf>>,
}

impl Templates {
    /// Mounts a small tmpfs on `folder`, which exists and is empty, and builds /dev in it. The caller's thread is in a private mount namespace.
    pub fn set_up(folder: &Path) -> io::Result<Templates> {
        mount(
            "cloister",
            folder,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            Some(c"size=1m,mode=0755"),
        )?;
        let dev = folder.join("dev");
        for path in [&dev, &dev.join("shm"), &folder.join("cell")] {
            fs::create_dir(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        for (name, major, minor) in DEVICES {
            let path = dev.join(name);
            mknodat(
                CWD,
                &path,
                FileType::CharacterDevice,
                Mode::empty(),
                makedev(major, minor),
            )?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        }
        symlink("/proc/self/fd", dev.join("fd"))?;
        for (number, name) in ["stdin", "stdout", "stderr"].iter().enumerate() {
            symlink(format!("/proc/self/fd/{number}"), dev.join(name))?;
        }
        let empty = folder.join(EMPTY);
        File::create(&empty)?;
        fs::set_permissions(&empty, fs::Permissions::from_mode(0o444))?;
        mount_bind(&empty, &empty)?;
        let name = CString::new(empty.as_os_str().as_encoded_bytes())?;
        set_attributes(CWD, &name, RDONLY | NOSUID | NODEV | NOEXEC, false)?;
        Ok(Templates {
            folder: folder.to_path_buf(),
            known: Mutex::new(HashMap::new()),
        })
    }

    /// An empty folder each sandbox may mount its root on, in its own namespace.
    pub fn mount_point(&self) -> PathBuf {
        self.folder.join("cell")
    }

    /// An empty file on a read-only mount of its own, to hide others behind.
    pub fn empty_file(&self) -> PathBuf {
        self.folder.join(EMPTY)
    }

    /// A detached, read-only root made of `layers`, lowest first, with /dev in it.
    pub fn root_of(&self, layers: &[PathBuf]) -> io::Result<OwnedFd> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let path = match known.get(layers) {
            Some(path) => path.clone(),
            None => {
                let path = self.folder.join(format!("root-{}", known.len()));
                self.make(&path, layers)?;
                known.insert(layers.to_vec(), path.clone());
                path
            }
        };
        drop(known);
        copy_of_tree(&path)
    }

    fn make(&self, path: &Path, layers: &[PathBuf]) -> io::Result<()> {
        match fs::create_dir(path) {
            // A former attempt failed between this and the mount.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        if let [only] = layers {
            mount_bind(only, path)?;
        } else {
            // By descriptor: a path may be long and may hold a colon; the option may not.
            let open: Vec<File> = layers
                .iter()
                .map(|layer| {
                    fs::OpenOptions::new()
                        .read(true)
                        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
                        .open(layer)
                })
                .collect::<io::Result<_>>()?;
            let words: Vec<String> = open
                .iter()
                .rev()
                .map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()))
                .collect();
            let option = CString::new(format!("lowerdir={}", words.join(":")))?;
            mount(
                "cloister",
                path,
                "overlay",
                MountFlags::RDONLY,
                Some(option.as_c_str()),
            )?;
        }
        let finished = self.furnish(path);
        if finished.is_err() {
            let _ = unmount(path, UnmountFlags::DETACH);
        }
        finished
    }

    fn furnish(&self, path: &Path) -> io::Result<()> {
        let name = CString::new(path.as_os_str().as_encoded_bytes())?;
        set_attributes(CWD, &name, RDONLY | NOSUID | NODEV, false)?;
        let dev = copy_of_tree(self.folder.join("dev"))?;
        set_attributes(&dev, c"", RDONLY | NOSUID | NOEXEC, false)?;
        Ok(move_mount(
            &dev,
            "",
            CWD,
            path.join("dev"),
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?)
    }

    /// Unmounts everything.
    pub fn remove(&self) -> io::Result<()> {
        Ok(unmount(&self.folder, UnmountFlags::DETACH)?)
    }
}
