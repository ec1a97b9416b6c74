//! Opening files.

use std::sync::Arc;

use vmm_abi::*;
use vmm_memory::AddressSpace;

use super::paths::{path, walk_bound};
use crate::args::{Args, Restart, Ret, SysResult};
use crate::file::{File, OpenFile};
use crate::pipe::PipeEnd;
use crate::task::Task;
use crate::vfs::{Bounds, Node};

/// Flags that are not kept with the description.
const ONCE: u32 = O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;

/// What to open, and how.
struct Request {
    dirfd: i32,
    name: Vec<u8>,
    flags: u32,
    mode: u32,
    bounds: Bounds,
}

/// open(2)
pub fn open(task: &mut Task, args: Args) -> SysResult {
    let Args([name, flags, mode, ..]) = args;
    openat(task, Args([AT_FDCWD as u64, name, flags, mode, 0, 0]))
}

/// creat(2)
pub fn creat(task: &mut Task, args: Args) -> SysResult {
    let flags = u64::from(O_CREAT | O_WRONLY | O_TRUNC);
    open(task, Args([args.word(0), flags, args.word(1), 0, 0, 0]))
}

/// openat(2)
pub fn openat(task: &mut Task, args: Args) -> SysResult {
    let request = Request {
        dirfd: args.int(0),
        name: path(task, args.word(1))?,
        flags: args.flags(2),
        mode: args.flags(3) & 0o7777,
        bounds: Bounds::default(),
    };
    open_request(task, &request)
}

/// openat2(2)
pub fn openat2(task: &mut Task, args: Args) -> SysResult {
    const KNOWN: u64 = 0x3f_ffff | O_PATH as u64 | O_TMPFILE as u64;
    let size = args.word(3);
    if size < 24 {
        return Err(Errno::EINVAL);
    }
    if size > 24 {
        // What a newer structure holds must be zero, or it asks for something unknown.
        let mut rest = vec![0u8; size.min(PAGE_SIZE).saturating_sub(24) as usize];
        let at = args.word(2).checked_add(24).ok_or(Errno::EFAULT)?;
        task.memory().read(at, &mut rest)?;
        if size > PAGE_SIZE || rest.iter().any(|byte| *byte != 0) {
            return Err(Errno::E2BIG);
        }
    }
    let [flags, mode, resolve]: [u64; 3] = task.memory().read_value(args.word(2))?;
    let has = |bit: u64| resolve & bit != 0;
    let (no_xdev, no_magic, no_links, beneath, in_root) = (has(1), has(2), has(4), has(8), has(16));
    let known = 1 | 2 | 4 | 8 | 16;
    if flags & !KNOWN != 0 || mode & !0o7777 != 0 || resolve & !known != 0 || (beneath && in_root) {
        return Err(Errno::EINVAL);
    }
    if no_xdev || (no_magic && !no_links) {
        return Err(Errno::EOPNOTSUPP);
    }
    let request = Request {
        dirfd: args.int(0),
        name: path(task, args.word(1))?,
        flags: flags as u32,
        mode: mode as u32,
        bounds: Bounds {
            beneath,
            in_root,
            no_links,
        },
    };
    open_request(task, &request)
}

fn open_request(task: &mut Task, request: &Request) -> SysResult {
    let flags = request.flags;
    let exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
    let follow = flags & O_NOFOLLOW == 0 && !exclusive;
    if request.name.is_empty() {
        return Err(Errno::ENOENT);
    }
    let walked = walk_bound(task, request.dirfd, &request.name, follow, request.bounds)?;
    let mode = request.mode & !*task.kernel.umask.lock();
    let path = String::from_utf8_lossy(&walked.path).into_owned();
    if flags & O_TMPFILE == O_TMPFILE {
        if flags & O_ACCMODE == 0 {
            return Err(Errno::EINVAL);
        }
        let folder = walked.node()?;
        if folder.stat()?.mode & S_IFMT != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let node = folder.unnamed(mode)?;
        let flags = flags & !(O_TMPFILE & !O_DIRECTORY);
        return finish(task, node.open(flags & !O_DIRECTORY)?, &node, path, flags);
    }
    let node = match &walked.node {
        Some(_) if exclusive => return Err(Errno::EEXIST),
        None if flags & O_CREAT != 0 => {
            if walked.directory_wanted {
                return Err(Errno::EISDIR);
            }
            walked.parent.create(&walked.name, S_IFREG | mode, None)?
        }
        _ => Arc::clone(walked.node()?),
    };
    let kind = node.stat()?.mode & S_IFMT;
    if flags & O_PATH != 0 {
        if flags & O_DIRECTORY != 0 && kind != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let file = named_file(&node);
        let kept = flags & (O_PATH | O_DIRECTORY | O_CLOEXEC);
        return finish(task, file, &node, path, kept);
    }
    if kind == S_IFLNK {
        return Err(Errno::ELOOP);
    }
    if kind == S_IFDIR && flags & O_CREAT != 0 {
        return Err(Errno::EISDIR);
    }
    if node.is_fifo() {
        return open_fifo(task, &node, path, flags);
    }
    finish(task, node.open(flags)?, &node, path, flags)
}

fn finish(
    task: &mut Task,
    file: Arc<dyn File>,
    node: &Arc<dyn Node>,
    path: String,
    flags: u32,
) -> SysResult {
    let open = OpenFile::with_node(file, Some(Arc::clone(node)), path, flags & !ONCE);
    task.add_file(open, flags & O_CLOEXEC != 0)
}

/// Opens a FIFO, which waits until the other end has been opened too.
fn open_fifo(task: &mut Task, node: &Arc<dyn Node>, path: String, flags: u32) -> SysResult {
    let complete = |file: &Arc<dyn File>| {
        let end = file.as_any().downcast_ref::<PipeEnd>();
        flags & O_NONBLOCK != 0 || end.is_none_or(PipeEnd::has_met_other)
    };
    let file = match task.waiting_fifo().take() {
        Some(waiting) => waiting,
        None => {
            let file = node.open(flags)?;
            if !complete(&file)
                && let Some(queue) = file.queue()
            {
                task.watch(queue);
            }
            file
        }
    };
    if complete(&file) {
        return finish(task, file, node, path, flags);
    }
    *task.waiting_fifo() = Some(file);
    Ok(Ret::Block(Restart::IfAsked))
}

/// A node as an open file that is only named (O_PATH).
pub(crate) fn named_file(node: &Arc<dyn Node>) -> Arc<dyn File> {
    Arc::new(Named(Arc::clone(node)))
}

struct Named(Arc<dyn Node>);

impl File for Named {
    fn stat(&self) -> Result<Stat, Errno> {
        self.0.stat()
    }

    fn read(&self, _: &AddressSpace, _: &[Iovec], _: u64) -> Result<u64, Errno> {
        Err(Errno::EBADF)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// memfd_create(2)
pub fn memfd_create(task: &mut Task, args: Args) -> SysResult {
    const CLOEXEC: u32 = libc::MFD_CLOEXEC;
    const SEALING: u32 = libc::MFD_ALLOW_SEALING;
    /// MFD_NOEXEC_SEAL and MFD_EXEC: execution is the mapping's matter here.
    const EXECUTION: u32 = 0x18;
    const NAME_MAX: usize = 249;
    let flags = args.flags(1);
    if flags & !(CLOEXEC | SEALING | EXECUTION) != 0 || flags & EXECUTION == EXECUTION {
        return Err(Errno::EINVAL);
    }
    let name =
        task.memory()
            .read_string(args.word(0), NAME_MAX.saturating_add(1), Errno::EINVAL)?;
    let folder = task.kernel.vfs.walk(b"/", b"/dev/shm", true)?;
    let node = folder.node()?.memory_file(0o777, flags & SEALING != 0)?;
    let path = format!("memfd:{}", String::from_utf8_lossy(&name));
    let open = OpenFile::with_node(node.open(O_RDWR)?, Some(node), path, O_RDWR);
    task.add_file(open, flags & CLOEXEC != 0)
}
