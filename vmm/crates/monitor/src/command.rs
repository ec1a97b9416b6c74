use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use vmm_hypervisor::HostFacts;

/// What `--help` prints.
pub const HELP: &str = "\
usage: cloister-vm run --root DIR [options] -- PROGRAM [ARGUMENT...]
       cloister-vm restore --root DIR --snapshot-fd N [options]
       cloister-vm restore --root DIR --wait --control-fd N [options]
       cloister-vm syscalls [--json] | host-calls | host-facts

Runs one Linux program in a micro-VM. Its exit status is the program's; 128 and
the signal's number when a signal ended it; 125 when the micro-VM could not run.
`syscalls` prints docs/syscalls.md, what a guest may ask (with --json: names by
number); `host-calls` prints docs/host-calls.md, what the monitor may ask of the
host for it; `host-facts` what all micro-VMs of this host have in common, as JSON.

  --root DIR           folder to show as /; several lie over each other, the first on top
  --bind SRC:DST:ro    shows a file or folder of the host at DST, read-only
  --env NAME=VALUE     sets a variable of the program's environment, which is empty otherwise
  --cwd DIR            working directory inside (/)
  --memory-mb N        memory the program may use, in MiB (256)
  --tmp-mb N           size of the private /tmp, in MiB (64)
  --fd3 N              descriptor of this process that the program finds at 3
  --kvm-fd N           descriptor of this process that is an open /dev/kvm; without it /dev/kvm is opened
  --counters-fd N      file of one page, open at N, to count in (vmm/README.md)
  --snapshot-fd N      descriptor of a file: `restore` brings back what is in it; `run` writes the
                       frozen program there and ends, once a byte comes by the socket of --control-fd
  --control-fd N       descriptor of that socket; the answer is one JSON object
  --wait               waits on the socket of --control-fd for the snapshot to bring back, all else made;
                       for one like that of --snapshot-fd, if that is given
  --snapshot-key TEXT  what the snapshot is of; must be the same again for `restore`
  --host-facts JSON    what `cloister-vm host-facts` prints here, so that it is not asked for again
  --verify             reads the whole snapshot first and compares its checksum
  --pid N              process id that a restored program sees (1)
  --strace             writes each system call to the standard error
  --stats              writes counts of exits and system calls as JSON to the standard error
";

/// What `cloister-vm run` was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub roots: Vec<PathBuf>,
    pub binds: Vec<(PathBuf, String)>,
    pub env: Vec<Vec<u8>>,
    pub cwd: String,
    pub memory_mb: u64,
    pub tmp_mb: u64,
    pub fd3: Option<i32>,
    /// A file to count in.
    pub counters_fd: Option<i32>,
    pub kvm_fd: Option<i32>,
    /// A snapshot to write, or to bring back.
    pub snapshot_fd: Option<i32>,
    pub control_fd: Option<i32>,
    pub snapshot_key: String,
    /// Whether the snapshot to bring back is still to come.
    pub wait: bool,
    /// What `cloister-vm host-facts` printed on this host; what is not that is asked for again.
    pub host_facts: Option<HostFacts>,
    /// Whether the pages of a snapshot are to be checked too.
    pub verify: bool,
    pub pid: i32,
    pub strace: bool,
    pub stats: bool,
    pub argv: Vec<Vec<u8>>,
}

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    /// Print the page about system calls.
    Syscalls,
    /// Print the names of system calls by number, as JSON.
    SyscallNames,
    /// Print the page about host calls.
    HostCalls,
    /// Print what machines of this host have in common, for `--host-facts`.
    HostFacts,
    Run(Options),
    Restore(Options),
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// An option or command that is not known.
    Unknown(String),
    /// An option without, or with a malformed, value.
    Value(&'static str, &'static str),
    /// Something that must be given is not.
    Missing(&'static str),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "unknown argument {word}. See `cloister-vm --help`"),
            Self::Value(option, form) => write!(f, "{option} needs a value. Write {option} {form}"),
            Self::Missing(what) => write!(f, "{what} is missing. See `cloister-vm --help`"),
        }
    }
}

impl std::error::Error for CommandError {}

/// Parses the arguments behind the program's name.
///
/// # Errors
/// [`CommandError`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, CommandError> {
    let mut args = args.into_iter();
    match args.next().as_ref().and_then(|word| word.to_str()) {
        Some("--help" | "-h") => Ok(Command::Help),
        Some("syscalls") => match args.next() {
            None => Ok(Command::Syscalls),
            Some(word) if word == "--json" => Ok(Command::SyscallNames),
            Some(word) => Err(CommandError::Unknown(word.to_string_lossy().into_owned())),
        },
        Some("host-calls") => Ok(Command::HostCalls),
        Some("host-facts") => Ok(Command::HostFacts),
        Some("run") => parse_options(args, false),
        Some("restore") => parse_options(args, true),
        Some(other) => Err(CommandError::Unknown(other.to_owned())),
        None => Err(CommandError::Missing("the command `run`")),
    }
}

fn parse_options(
    mut args: impl Iterator<Item = OsString>,
    restore: bool,
) -> Result<Command, CommandError> {
    let mut options = Options {
        roots: Vec::new(),
        binds: Vec::new(),
        env: Vec::new(),
        cwd: "/".into(),
        memory_mb: 256,
        tmp_mb: 64,
        fd3: None,
        counters_fd: None,
        kvm_fd: None,
        snapshot_fd: None,
        control_fd: None,
        snapshot_key: String::new(),
        wait: false,
        host_facts: None,
        verify: false,
        pid: 1,
        strace: false,
        stats: false,
        argv: Vec::new(),
    };
    while let Some(word) = args.next() {
        let mut value = |option, form| args.next().ok_or(CommandError::Value(option, form));
        match word.to_string_lossy().as_ref() {
            "--help" | "-h" => return Ok(Command::Help),
            "--root" => options.roots.push(value("--root", "DIR")?.into()),
            "--bind" => options.binds.push(bind(value("--bind", BIND_FORM)?)?),
            "--env" => options.env.push(value("--env", "NAME=VALUE")?.into_vec()),
            "--cwd" => options.cwd = value("--cwd", "DIR")?.to_string_lossy().into_owned(),
            "--memory-mb" => options.memory_mb = number("--memory-mb", value("--memory-mb", "N")?)?,
            "--tmp-mb" => options.tmp_mb = number("--tmp-mb", value("--tmp-mb", "N")?)?,
            "--fd3" => options.fd3 = Some(descriptor("--fd3", value("--fd3", "N")?)?),
            "--kvm-fd" => options.kvm_fd = Some(descriptor("--kvm-fd", value("--kvm-fd", "N")?)?),
            "--counters-fd" => {
                let number = descriptor("--counters-fd", value("--counters-fd", "N")?)?;
                options.counters_fd = Some(number);
            }
            "--snapshot-fd" => {
                options.snapshot_fd =
                    Some(descriptor("--snapshot-fd", value("--snapshot-fd", "N")?)?);
            }
            "--control-fd" => {
                options.control_fd = Some(descriptor("--control-fd", value("--control-fd", "N")?)?);
            }
            "--snapshot-key" => {
                let key = value("--snapshot-key", "TEXT")?;
                options.snapshot_key = key.to_string_lossy().into_owned();
            }
            "--wait" => options.wait = true,
            "--host-facts" => {
                let facts = value("--host-facts", "JSON")?;
                let facts = serde_json::from_slice(facts.as_bytes()).ok();
                options.host_facts = facts.filter(HostFacts::are_of_here);
            }
            "--verify" => options.verify = true,
            "--pid" => options.pid = process_id(value("--pid", "N")?)?,
            "--strace" => options.strace = true,
            "--stats" => options.stats = true,
            "--" => {
                options.argv = args.by_ref().map(OsStringExt::into_vec).collect();
                break;
            }
            other => return Err(CommandError::Unknown(other.to_owned())),
        }
    }
    if options.roots.is_empty() {
        return Err(CommandError::Missing("--root DIR"));
    }
    if options.wait && options.control_fd.is_none() {
        return Err(CommandError::Missing("--control-fd N"));
    }
    let (file, socket) = (options.snapshot_fd, options.control_fd);
    match (restore, file, socket) {
        (true, None, _) if !options.wait => return Err(CommandError::Missing("--snapshot-fd N")),
        (false, Some(_), None) => return Err(CommandError::Missing("--control-fd N")),
        (false, None, Some(_)) => return Err(CommandError::Missing("--snapshot-fd N")),
        _ => {}
    }
    if restore {
        return Ok(Command::Restore(options));
    }
    if options.argv.is_empty() {
        return Err(CommandError::Missing("the program behind `--`"));
    }
    Ok(Command::Run(options))
}

const BIND_FORM: &str = "SRC:DST:ro";

fn bind(value: OsString) -> Result<(PathBuf, String), CommandError> {
    let wrong = || CommandError::Value("--bind", BIND_FORM);
    let text = value.into_string().map_err(|_| wrong())?;
    let mut parts = text.split(':');
    let (source, target, mode) = (parts.next(), parts.next(), parts.next());
    match (source, target, mode, parts.next()) {
        (Some(source), Some(target), Some("ro"), None)
            if !source.is_empty() && target.starts_with('/') && !target.ends_with('/') =>
        {
            Ok((source.into(), target.to_owned()))
        }
        _ => Err(wrong()),
    }
}

fn descriptor(option: &'static str, value: OsString) -> Result<i32, CommandError> {
    i32::try_from(number(option, value)?).map_err(|_| CommandError::Value(option, "N"))
}

fn process_id(value: OsString) -> Result<i32, CommandError> {
    // PID_MAX of Linux without more than 32 processors.
    let id = number("--pid", value)?;
    let id = i32::try_from(id).ok().filter(|id| (1..32_768).contains(id));
    id.ok_or(CommandError::Value("--pid", "N"))
}

fn number(option: &'static str, value: OsString) -> Result<u64, CommandError> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or(CommandError::Value(option, "N"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Command, CommandError> {
        parse(words.split_whitespace().map(OsString::from))
    }

    #[test]
    fn everything_behind_the_dashes_is_the_program() {
        let command =
            parse_words("run --root /r --bind /a:/fn:ro --fd3 9 --counters-fd 5 -- node --root x")
                .unwrap();
        let Command::Run(options) = command else {
            panic!("{command:?}")
        };
        assert_eq!(
            options.argv,
            [b"node".to_vec(), b"--root".to_vec(), b"x".to_vec()]
        );
        assert_eq!(options.binds, [(PathBuf::from("/a"), "/fn".to_owned())]);
        assert_eq!((options.fd3, options.memory_mb), (Some(9), 256));
        assert_eq!(options.counters_fd, Some(5));
    }

    #[test]
    fn mistakes_are_named() {
        let missing = CommandError::Missing("--root DIR");
        assert_eq!(parse_words("run -- x"), Err(missing));
        let value = CommandError::Value("--memory-mb", "N");
        assert_eq!(parse_words("run --memory-mb lots"), Err(value));
        let bind = CommandError::Value("--bind", BIND_FORM);
        assert_eq!(parse_words("run --bind /a:/b:rw"), Err(bind));
        let missing = CommandError::Missing("--control-fd N");
        let words = "restore --root /r --wait --snapshot-fd 6";
        assert_eq!(parse_words(words), Err(missing));
        assert_eq!(parse_words("fly"), Err(CommandError::Unknown("fly".into())));
    }
}
