use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::cgroup::hierarchy::{ALWAYS, Hierarchy, write};
use crate::cgroup::leftovers::{self, Leftovers};
use crate::cradle::Cradle;
use crate::error::CgroupError;
use crate::namespaces::Namespaces;
use crate::template::Templates;

/// One sandboxd's share of the machine: the cgroups `cloister-<id>`, a private mount namespace with the images' roots, and processes that wait to
/// become sandboxes.
#[derive(Debug)]
pub struct Instance {
    pub(crate) shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
    folder: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub hierarchy: Hierarchy,
    /// `cloister-<id>`, in every hierarchy.
    pub name: PathBuf,
    /// The program `cloister-init`.
    pub init: PathBuf,
    pub templates: Templates,
    pub namespaces: Arc<Namespaces>,
    pub ready: Mutex<Ready>,
    /// A cradle was taken, or the instance closes.
    pub taken: Condvar,
    cells: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Ready {
    pub cradles: VecDeque<Cradle>,
    pub closing: bool,
}

impl Shared {
    pub fn next_cell(&self) -> u64 {
        self.cells.fetch_add(1, Ordering::Relaxed)
    }
}

impl Instance {
    /// Removes what a former run of the same id left and takes its place. `id` is 8 lower-case hex digits. The calling thread, and with it every
    /// thread that it starts later, moves into a private mount namespace: call this before other threads that make sandboxes are started.
    pub fn claim(hierarchy: Hierarchy, id: &str) -> Result<(Instance, Leftovers), CgroupError> {
        let step =
            |step: &'static str| move |source: io::Error| CgroupError::Instance { step, source };
        if id.len() != 8
            || !id
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        {
            return Err(step("the instance's id")(io::Error::other(
                "it is not 8 lower-case hex digits",
            )));
        }
        let name = PathBuf::from(format!("cloister-{id}"));
        let mut found = leftovers::clear(&hierarchy, &name)?;
        let folder = Path::new("/run").join(&name);
        found.mounts = unmount_below(&folder).map_err(step("removing old mounts"))?;
        prepare_cgroups(&hierarchy, &name)?;

        // SAFETY: the thread leaves the shared mount namespace and takes its working folder along; no descriptor changes.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
            .map_err(|error| step("unshare of mounts")(error.into()))?;
        mount_change(
            "/",
            MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
        )
        .map_err(|error| step("making mounts private")(error.into()))?;
        match fs::DirBuilder::new().mode(0o755).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(step("making its folder in /run"))?,
        }
        let templates = Templates::set_up(&folder).map_err(step("mounting its folder"))?;
        let shared = Arc::new(Shared {
            hierarchy,
            name,
            init: init_program().map_err(step("finding cloister-init"))?,
            templates,
            namespaces: Arc::default(),
            ready: Mutex::default(),
            taken: Condvar::new(),
            cells: AtomicU64::new(0),
        });
        let keeping = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("cradles".to_owned())
            .spawn(move || keeping.keep_cradles_ready())
            .map_err(step("starting a thread"))?;
        Ok((
            Instance {
                shared,
                keeper: Some(keeper),
                folder,
            },
            found,
        ))
    }

    /// Removes all that is the instance's. Its sandboxes must have been reaped.
    pub fn remove(mut self) -> Result<(), CgroupError> {
        self.close();
        leftovers::clear(&self.shared.hierarchy, &self.shared.name)?;
        self.shared
            .templates
            .remove()
            .and_then(|()| fs::remove_dir(&self.folder))
            .map_err(|source| CgroupError::Instance {
                step: "removing its folder in /run",
                source,
            })
    }

    fn close(&mut self) {
        let mut ready = self
            .shared
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        ready.closing = true;
        drop(ready);
        self.shared.taken.notify_all();
        if let Some(keeper) = self.keeper.take() {
            // A panic of the thread is an abort of the process; there is nothing else to learn.
            let _ = keeper.join();
        }
        let mut ready = self
            .shared
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for cradle in ready.cradles.drain(..) {
            // What does not end here is ended with the cgroups.
            let _ = cradle.end();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.close();
    }
}

/// `cloister-init` is installed beside the program that uses it (beside `deps` for cargo's tests).
fn init_program() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut folder = own.parent().unwrap_or(Path::new("/"));
    if folder.ends_with("deps") {
        folder = folder.parent().unwrap_or(folder);
    }
    let program = folder.join("cloister-init");
    fs::metadata(&program)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
    Ok(program)
}

/// Unmounts what is mounted at `folder` or below it in this mount namespace, innermost first.
fn unmount_below(folder: &Path) -> io::Result<usize> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let paths: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|path| Path::new(path).starts_with(folder))
        .collect();
    for path in paths.iter().rev() {
        unmount(*path, UnmountFlags::DETACH)?;
    }
    Ok(paths.len())
}

/// Makes the instance's folder in each hierarchy it needs; in v2 the controllers are handed down to it and by it.
fn prepare_cgroups(hierarchy: &Hierarchy, name: &Path) -> Result<(), CgroupError> {
    let optional: Vec<&'static str> = ["cpuset", "io", "blkio"]
        .into_iter()
        .filter(|controller| hierarchy.of(controller).is_ok())
        .collect();
    let all: Vec<&'static str> = ALWAYS.into_iter().chain(optional).collect();
    for mounted in hierarchy.of_all(&all)? {
        let folder = mounted.path.join(name);
        if mounted.v2 {
            let words: Vec<String> = all
                .iter()
                .copied()
                .filter(|controller| hierarchy.of(controller).is_ok_and(|home| home.v2))
                .map(|controller| format!("+{controller}"))
                .collect();
            delegate(&mounted.path, &words)?;
            fs::create_dir(&folder).map_err(CgroupError::file(&folder, "made"))?;
            delegate(&folder, &words)?;
            continue;
        }
        fs::create_dir(&folder).map_err(CgroupError::file(&folder, "made"))?;
        if mounted
            .controllers
            .iter()
            .any(|controller| controller == "cpuset")
        {
            // A v1 cpuset is born empty, and nothing can run in it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = mounted.path.join(file);
                let value =
                    fs::read_to_string(&above).map_err(CgroupError::file(&above, "read"))?;
                write(&folder.join(file), value.trim())?;
            }
        }
    }
    Ok(())
}

fn delegate(folder: &Path, words: &[String]) -> Result<(), CgroupError> {
    let path = folder.join("cgroup.subtree_control");
    fs::write(&path, words.join(" ")).map_err(|source| CgroupError::NotDelegated {
        controllers: words.join(" "),
        path,
        source,
    })
}
