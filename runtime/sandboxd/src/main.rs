//! sandboxd: the only privileged process of a node (README.md).

mod bundles;
mod clients;
mod connection;
mod controlling;
mod counters;
mod creating;
mod daemon;
mod ending;
mod hypervisor;
mod images;
mod jobs;
mod large_pages;
mod learning;
mod logging;
mod making;
mod options;
mod output;
mod peer;
mod ready;
mod refusal;
mod request;
mod reset;
mod sandboxes;
mod slots;
mod snapshots;
mod socket;
mod watch;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use cloister_container::{CgroupError, Hierarchy, Instance};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::signal::{SIGINT, SIGTERM};

use bundles::Bundles;
use counters::Counters;
use daemon::{Daemon, Parts};
use hypervisor::Hypervisor;
use images::Images;
use options::{Command, Options};
use socket::{InstanceLock, SocketError};

#[cfg(not(any(panic = "abort", test, clippy)))]
compile_error!(
    "a panic ends this program at once: build it with the settings of .cargo/config.toml"
);

/// sysexits.h: wrong use.
const EXIT_USAGE: u8 = 64;

/// Why sandboxd cannot serve.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("sandboxd makes namespaces and cgroups for others. Run it as root.")]
    NotRoot,
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("{0}. {remedy}", remedy = .0.remedy())]
    Cgroup(#[from] CgroupError),
    #[error("--{option} {path} cannot be opened: {error}. Create the folder, or name another.")]
    Folder {
        option: &'static str,
        path: String,
        error: io::Error,
    },
    #[error("{what} failed: {error}. See the log before this line.")]
    System {
        what: &'static str,
        error: io::Error,
    },
}

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve(options)) => options,
        Ok(Command::Help) => return print(options::HELP),
        Ok(Command::Version) => {
            return print(concat!("sandboxd ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "sandboxd: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let guard = logging::start(options.log_level);
    let outcome = serve(*options);
    drop(guard);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            let _ = writeln!(io::stderr(), "sandboxd: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(options: Options) -> Result<(), Fault> {
    if !rustix::process::geteuid().is_root() {
        return Err(Fault::NotRoot);
    }
    let signals = signals().map_err(system("watching for signals"))?;
    raise_open_files();
    let group = options.socket_group.as_deref().map(socket::group_id);
    let group = group.transpose()?;
    // Told before anything is touched; opened for good behind the private mount namespace, where they are mounted from.
    open_folders(&options)?;
    // Before anything of the instance is touched: what another sandboxd holds are no leftovers.
    let lock = InstanceLock::take(Path::new("/run"), &options.instance)?;
    let hierarchy = Hierarchy::detect()?;
    let cgroup = hierarchy.kind();
    let (instance, found) = Instance::claim(hierarchy, &options.instance)?;
    if found.processes > 0 || found.cgroups > 0 || found.mounts > 0 {
        tracing::warn!(
            processes = found.processes,
            cgroups = found.cgroups,
            mounts = found.mounts,
            "removed what a former sandboxd of this instance left"
        );
    }
    let outcome = listen_and_run(
        options,
        Ground {
            hypervisor: hypervisor(),
            cgroup,
            group,
            signals,
        },
        instance,
    );
    lock.release();
    outcome?;
    tracing::info!("ended");
    Ok(())
}

/// Micro-VMs are made where one that is tried here runs.
fn hypervisor() -> Option<Hypervisor> {
    let own = std::env::current_exe().ok()?;
    match Hypervisor::try_here(own.parent()?) {
        Ok(hypervisor) => Some(hypervisor),
        Err(error) => {
            tracing::warn!(%error, "no micro-VMs here");
            None
        }
    }
}

/// What serving needs besides the options.
struct Ground {
    hypervisor: Option<Hypervisor>,
    cgroup: &'static str,
    group: Option<u32>,
    signals: UnixStream,
}

fn open_folders(options: &Options) -> Result<(Images, Bundles), Fault> {
    let folder = |option: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |error| Fault::Folder {
            option,
            path,
            error,
        }
    };
    let images = Images::open(&options.images).map_err(folder("images", &options.images))?;
    let bundles = Bundles::open(&options.bundles).map_err(folder("bundles", &options.bundles))?;
    Ok((images, bundles))
}

/// Serves until told to end; the instance's cgroups go in any case.
fn listen_and_run(options: Options, ground: Ground, instance: Instance) -> Result<(), Fault> {
    let path = options.socket.clone();
    let opened = open_folders(&options).and_then(|folders| {
        let listener = socket::listen_at(&path, ground.group)?;
        let counters = Counters::make(&path, ground.group);
        Ok((
            folders,
            listener,
            counters.map_err(system("making the folder of counters"))?,
        ))
    });
    let ((images, bundles), listener, counters) = match opened {
        Ok(opened) => opened,
        Err(fault) => {
            instance.remove()?;
            return Err(fault);
        }
    };
    let name = options.instance.clone();
    let daemon = Daemon::new(Parts {
        options,
        hypervisor: ground.hypervisor.map(Arc::new),
        counters,
        cgroup: ground.cgroup,
        instance,
        images,
        bundles,
        listener,
        group: ground.group,
        signals: ground.signals,
    });
    let daemon = daemon.map_err(system("starting to serve"))?;
    tracing::info!(instance = %name, socket = %path.display(), cgroup = ground.cgroup, "serving");
    let ready = serde_json::json!({"ready": true, "pid": std::process::id(), "instance": name});
    // Whoever started it may have closed the pipe by now, which harms nobody.
    let _ = writeln!(io::stdout(), "{ready}");
    let ended = daemon.run().map_err(system("waiting for events"));
    let _ = std::fs::remove_file(&path);
    if let Some(instance) = Arc::into_inner(ended?) {
        instance.remove()?;
    }
    Ok(())
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Fault {
    move |error| Fault::System { what, error }
}

/// A socket that is readable once SIGTERM or SIGINT has come.
fn signals() -> io::Result<UnixStream> {
    let (reading, writing) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGTERM, writing.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGINT, writing)?;
    Ok(reading)
}

/// Each sandbox takes several descriptors; the usual soft limit of 1024 is for programs that use select(2).
fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}
