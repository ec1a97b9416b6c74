//! The socket's file, and the lock that keeps an instance single.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

const BACKLOG: i32 = 512;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another sandboxd serves instance {0}. Stop it first, or choose another --instance.")]
    InstanceTaken(String),
    #[error("the lock {path} cannot be had: {error}. Run as root.")]
    Lock { path: String, error: io::Error },
    #[error("another program listens at {0}. Stop it first, or choose another --socket.")]
    SocketTaken(String),
    #[error("{0} is there and is no socket. Move it away, or choose another --socket.")]
    NoSocket(String),
    #[error("there is no group {0}. Create it, or name another with --socket-group.")]
    NoGroup(String),
    #[error(
        "the socket {path} cannot be made: {error}. Make its folder, or choose a --socket of at most 107 bytes."
    )]
    Socket { path: String, error: io::Error },
}

/// Held for as long as an instance is served; the kernel gives it back when the process ends, however it ends.
pub struct InstanceLock {
    file: File,
    path: PathBuf,
}

impl InstanceLock {
    /// Takes the lock of an instance in `folder` (/run), or says who has it.
    pub fn take(folder: &Path, instance: &str) -> Result<Self, SocketError> {
        let path = folder.join(format!("cloister-sandboxd-{instance}.lock"));
        let failed = |error: io::Error| SocketError::Lock {
            path: path.display().to_string(),
            error,
        };
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
            let file = File::from(opened.map_err(|error| failed(error.into()))?);
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(SocketError::InstanceTaken(instance.to_owned()));
                }
                Err(error) => return Err(failed(error.into())),
            }
            // A former holder may have removed the file between open and lock; then another has the name.
            let held = file.metadata().map_err(failed)?;
            match std::fs::symlink_metadata(&path) {
                Ok(named) if named.ino() == held.ino() && named.dev() == held.dev() => {
                    return Ok(Self { file, path });
                }
                _ => continue,
            }
        }
    }

    /// Removes the file, then gives the lock back.
    pub fn release(self) {
        let _ = std::fs::remove_file(&self.path);
        drop(self.file);
    }
}

/// The number of a group that is given by name or number.
pub fn group_id(name: &str) -> Result<u32, SocketError> {
    if let Ok(number) = name.parse::<u32>() {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err(SocketError::NoGroup(name.to_owned())),
    }
}

/// Listens at `path`, mode 0660, for root and `group`. A file that a former process left is removed, one that is served is not.
pub fn listen_at(path: &Path, group: Option<u32>) -> Result<OwnedFd, SocketError> {
    let shown = path.display().to_string();
    let failed = |error: io::Error| SocketError::Socket {
        path: shown.clone(),
        error,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NoSocket(shown)),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
                tracing::info!(path = %shown, "removed the socket file of a former process");
            }
            _ => return Err(SocketError::SocketTaken(shown)),
        },
    }
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let made = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let socket = made.map_err(|error| failed(error.into()))?;
    bind(&socket, &address).map_err(|error| failed(error.into()))?;
    // Nobody can connect before listen(2), so the rights are right from the first moment.
    let gid = group.map(Gid::from_raw).map(Gid::as_raw);
    std::os::unix::fs::chown(path, Some(0), gid.or(Some(0))).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
    listen(&socket, BACKLOG).map_err(|error| failed(error.into()))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instance_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let first = InstanceLock::take(folder.path(), "0123abcd").unwrap();
        assert!(matches!(
            InstanceLock::take(folder.path(), "0123abcd"),
            Err(SocketError::InstanceTaken(_))
        ));
        let other = InstanceLock::take(folder.path(), "0123abce").unwrap();
        first.release();
        other.release();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        InstanceLock::take(folder.path(), "0123abcd").unwrap();
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = listen_at(&path, Some(1)).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!(
            (file.mode() & 0o7777, file.uid(), file.gid()),
            (0o660, 0, 1)
        );
        assert!(matches!(
            listen_at(&path, None),
            Err(SocketError::SocketTaken(_))
        ));
        drop(first);
        listen_at(&path, None).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            listen_at(&path, None),
            Err(SocketError::NoSocket(_))
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn groups_have_names_and_numbers() {
        assert_eq!(group_id("root").unwrap(), 0);
        assert_eq!(group_id("1234").unwrap(), 1234);
        assert!(group_id("no-such-group").is_err());
    }
}
