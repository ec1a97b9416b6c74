//! The command line.

use std::path::PathBuf;

use tracing::Level;

/// What `--help` prints.
pub const HELP: &str = "\
Makes, holds and ends the sandboxes of one node. Runs as root.

Usage: sandboxd --socket PATH --instance ID --images DIR --bundles DIR [options]

  --socket PATH          Unix socket to serve at
  --instance ID          8 lower-case hex digits that name this instance's cgroups
  --images DIR           image manifests and layers
  --bundles DIR          function bundles, one folder per SHA-256
  --socket-group GROUP   name or number of the group that may connect (default: root only)
  --uid-base N           first host uid of sandboxes; 65,536 are used (default 700000)
  --max-sandboxes N      more are refused (default 4096)
  --log-level LEVEL      error, warn, info, debug or trace (default info)
  --version, --help
";

/// Host uids that sandboxes of one instance use, counted from `--uid-base`.
pub const UID_SLOTS: u32 = 65_536;
const DEFAULT_UID_BASE: u32 = 700_000;
/// Below this are the system's own accounts and people's.
const MIN_UID_BASE: u32 = 65_536;
const DEFAULT_MAX_SANDBOXES: u32 = 4096;

/// What is wrong with the command line.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("{0}. See sandboxd --help.")]
    Arguments(#[from] lexopt::Error),
    #[error("--{0} is missing. See sandboxd --help.")]
    Missing(&'static str),
    #[error("--instance must be 8 lower-case hex digits. Choose another.")]
    Instance,
    #[error("--uid-base must be from 65536 to 4294836224. Choose another.")]
    UidBase,
    #[error("--max-sandboxes must be from 1 to 65536. Choose another.")]
    MaxSandboxes,
    #[error("--log-level must be error, warn, info, debug or trace.")]
    LogLevel,
}

/// What was asked for.
pub enum Command {
    Serve(Box<Options>),
    Help,
    Version,
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    pub socket: PathBuf,
    pub socket_group: Option<String>,
    pub instance: String,
    pub images: PathBuf,
    pub bundles: PathBuf,
    pub uid_base: u32,
    pub max_sandboxes: u32,
    pub log_level: Level,
}

/// Reads arguments, without the program's name.
pub fn parse(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Command, OptionsError> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut socket, mut socket_group, mut instance) = (None, None, None);
    let (mut images, mut bundles) = (None, None);
    let (mut uid_base, mut max_sandboxes) = (DEFAULT_UID_BASE, DEFAULT_MAX_SANDBOXES);
    let mut log_level = Level::INFO;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("socket") => socket = Some(PathBuf::from(parser.value()?)),
            Long("socket-group") => socket_group = Some(parser.value()?.string()?),
            Long("instance") => instance = Some(parser.value()?.string()?),
            Long("images") => images = Some(PathBuf::from(parser.value()?)),
            Long("bundles") => bundles = Some(PathBuf::from(parser.value()?)),
            Long("uid-base") => uid_base = parser.value()?.parse()?,
            Long("max-sandboxes") => max_sandboxes = parser.value()?.parse()?,
            Long("log-level") => {
                log_level = match parser.value()?.string()?.as_str() {
                    "error" => Level::ERROR,
                    "warn" => Level::WARN,
                    "info" => Level::INFO,
                    "debug" => Level::DEBUG,
                    "trace" => Level::TRACE,
                    _ => return Err(OptionsError::LogLevel),
                }
            }
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("version") | Short('V') => return Ok(Command::Version),
            _ => return Err(argument.unexpected().into()),
        }
    }
    let instance = instance.ok_or(OptionsError::Missing("instance"))?;
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if instance.len() != 8 || !instance.bytes().all(hex) {
        return Err(OptionsError::Instance);
    }
    // The last uid is -1 to the kernel; the whole range must lie below.
    if uid_base < MIN_UID_BASE
        || uid_base
            .checked_add(UID_SLOTS)
            .is_none_or(|end| end > 4_294_901_760)
    {
        return Err(OptionsError::UidBase);
    }
    if !(1..=UID_SLOTS).contains(&max_sandboxes) {
        return Err(OptionsError::MaxSandboxes);
    }
    Ok(Command::Serve(Box::new(Options {
        socket: socket.ok_or(OptionsError::Missing("socket"))?,
        socket_group,
        instance,
        images: images.ok_or(OptionsError::Missing("images"))?,
        bundles: bundles.ok_or(OptionsError::Missing("bundles"))?,
        uid_base,
        max_sandboxes,
        log_level,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: [&str; 8] = [
        "--socket",
        "/s",
        "--instance",
        "0123abcd",
        "--images",
        "/i",
        "--bundles",
        "/b",
    ];

    fn parsed(extra: &[&str]) -> Result<Command, OptionsError> {
        parse(LEAST.iter().chain(extra).map(Into::into))
    }

    #[test]
    fn the_least_is_enough() {
        let Ok(Command::Serve(options)) = parsed(&[]) else {
            panic!("refused");
        };
        assert_eq!((options.uid_base, options.max_sandboxes), (700_000, 4096));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for extra in [
            &["--instance", "0123ABCD"][..],
            &["--instance", "../../.."],
            &["--uid-base", "0"],
            &["--uid-base", "4294967295"],
            &["--uid-base", "-1"],
            &["--max-sandboxes", "0"],
            &["--max-sandboxes", "65537"],
            &["--log-level", "loud"],
            &["--what"],
            &["more"],
        ] {
            assert!(parsed(extra).is_err(), "{extra:?}");
        }
        assert!(parse(LEAST[..6].iter().map(Into::into)).is_err());
    }
}
