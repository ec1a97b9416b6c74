//! Extended attributes: no file has any, and none takes one, as on a file system without them.

use vmm_abi::*;

use super::paths::node_at;
use crate::args::{Args, DONE, SysResult};
use crate::task::Task;

/// Longest name of an attribute (XATTR_NAME_MAX of limits.h).
const NAME_MAX: usize = 255;
/// Longest value (XATTR_SIZE_MAX of limits.h).
const VALUE_MAX: u64 = 65536;
/// XATTR_CREATE | XATTR_REPLACE of sys/xattr.h.
const SET_FLAGS: u32 = 3;

/// What a call names: by path, by path without following a last link, by descriptor.
#[derive(Clone, Copy)]
enum By {
    Path,
    Link,
    Descriptor,
}

/// The file must be there; what it is does not matter.
fn find(task: &Task, args: Args, by: By) -> Result<(), Errno> {
    match by {
        By::Path => node_at(task, AT_FDCWD, args.word(0), 0).map(drop),
        By::Link => node_at(task, AT_FDCWD, args.word(0), AT_SYMLINK_NOFOLLOW).map(drop),
        By::Descriptor => task.file(args.int(0)).map(drop),
    }
}

/// The attribute's name must be well-formed. Linux looks at it before it looks for the file.
fn check_name(task: &Task, args: Args) -> Result<(), Errno> {
    let name =
        task.memory()
            .read_string(args.word(1), NAME_MAX.saturating_add(1), Errno::ERANGE)?;
    if name.is_empty() {
        return Err(Errno::ERANGE);
    }
    Ok(())
}

fn set(task: &Task, args: Args, by: By) -> SysResult {
    if args.flags(4) & !SET_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    check_name(task, args)?;
    if args.word(3) > VALUE_MAX {
        return Err(Errno::E2BIG);
    }
    find(task, args, by)?;
    Err(Errno::EOPNOTSUPP)
}

fn get(task: &Task, args: Args, by: By) -> SysResult {
    check_name(task, args)?;
    find(task, args, by)?;
    Err(Errno::EOPNOTSUPP)
}

fn list(task: &Task, args: Args, by: By) -> SysResult {
    find(task, args, by)?;
    DONE
}

macro_rules! calls {
    ($($doc:literal $name:ident $act:ident $by:ident;)*) => {
        $(
            #[doc = $doc]
            pub fn $name(task: &mut Task, args: Args) -> SysResult {
                $act(task, args, By::$by)
            }
        )*
    };
}

calls! {
    "setxattr(2)" setxattr set Path;
    "lsetxattr(2)" lsetxattr set Link;
    "fsetxattr(2)" fsetxattr set Descriptor;
    "getxattr(2)" getxattr get Path;
    "lgetxattr(2)" lgetxattr get Link;
    "fgetxattr(2)" fgetxattr get Descriptor;
    "listxattr(2)" listxattr list Path;
    "llistxattr(2)" llistxattr list Link;
    "flistxattr(2)" flistxattr list Descriptor;
    "removexattr(2)" removexattr get Path;
    "lremovexattr(2)" lremovexattr get Link;
    "fremovexattr(2)" fremovexattr get Descriptor;
}
