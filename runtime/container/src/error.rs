use std::io;
use std::path::{Path, PathBuf};

/// What can be wrong with a machine's cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A limit needs a controller the kernel does not offer here.
    #[error("the cgroup controller {controller} is not to be had on this machine")]
    NoController { controller: &'static str },
    /// A controller that is there cannot be handed to Cloister's own cgroups.
    #[error("the cgroup controllers {controllers} cannot be enabled in {}: {source}", path.display())]
    NotDelegated {
        controllers: String,
        path: PathBuf,
        source: io::Error,
    },
    /// Reading or writing a cgroup file failed.
    #[error("{} cannot be {verb}: {source}", path.display())]
    File {
        path: PathBuf,
        verb: &'static str,
        source: io::Error,
    },
    /// Processes of a former run do not end.
    #[error("{count} processes that a former run left in {} do not end", path.display())]
    Stuck { path: PathBuf, count: usize },
    /// The set-up of an instance beside its cgroups failed.
    #[error("{step} failed: {source}")]
    Instance {
        step: &'static str,
        source: io::Error,
    },
}

impl CgroupError {
    pub(crate) fn file(path: &Path, verb: &'static str) -> impl FnOnce(io::Error) -> CgroupError {
        move |source| CgroupError::File {
            path: path.to_path_buf(),
            verb,
            source,
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> String {
        match self {
            CgroupError::NoController { controller } => {
                format!("Enable it: boot without cgroup_disable={controller} and mount its hierarchy, or use cgroup v2.")
            }
            CgroupError::NotDelegated { .. } => {
                "Run Cloister where the root cgroup is writable and holds no processes of its own.".to_owned()
            }
            CgroupError::File { .. } | CgroupError::Instance { .. } => {
                "Run Cloister as root with cgroups mounted read-write; ./cloister doctor says what is missing.".to_owned()
            }
            CgroupError::Stuck { .. } => "Look at them with ps; a process in state D waits for the kernel.".to_owned(),
        }
    }
}

/// Why there is no sandbox, or no function in it.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A limit cannot be set.
    #[error("{0}")]
    Limit(#[from] CgroupError),
    /// The kernel refuses a part of the isolation.
    #[error("the sandbox's {step} failed: {message}")]
    Isolation { step: String, message: String },
    /// Something else of the set-up failed.
    #[error("the sandbox's {step} failed: {message}")]
    Setup { step: String, message: String },
}

impl SpawnError {
    pub(crate) fn setup(step: &str) -> impl FnOnce(io::Error) -> SpawnError {
        move |error| SpawnError::Setup {
            step: step.to_owned(),
            message: error.to_string(),
        }
    }

    /// As setup, for rustix.
    pub(crate) fn call(step: &str) -> impl FnOnce(rustix::io::Errno) -> SpawnError {
        move |error| SpawnError::Setup {
            step: step.to_owned(),
            message: io::Error::from(error).to_string(),
        }
    }

    /// sandboxd's stable word for it: `limit_unavailable`, `isolation_unavailable` or `setup_failed`.
    pub fn code(&self) -> &'static str {
        match self {
            SpawnError::Limit(_) => "limit_unavailable",
            SpawnError::Isolation { .. } => "isolation_unavailable",
            SpawnError::Setup { .. } => "setup_failed",
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> String {
        match self {
            SpawnError::Limit(error) => error.remedy(),
            SpawnError::Isolation { .. } => {
                "Use a kernel (5.12 or newer) with user, time and cgroup namespaces, seccomp filters and overlayfs; ./cloister doctor says what is missing.".to_owned()
            }
            SpawnError::Setup { .. } => "Try again; if it stays, run ./cloister doctor.".to_owned(),
        }
    }
}
