//! Images: a manifest `<name>.json` each, and layers that several share (README.md, "Images").

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;
use serde::Deserialize;
use tracing::{debug, warn};

use crate::large_pages::{self, Effort};
use crate::refusal::{Code, Refusal};
use crate::request::{is_digest, is_image_name};

const MAX_MANIFEST_BYTES: u64 = 65_536;
const MAX_LAYERS: usize = 32;
const MAX_ARGUMENTS: usize = 64;
/// For so long a program that was laid out is taken to lie as it did; a look at it takes a millisecond or two.
const LAID_OUT_FOR: Duration = Duration::from_secs(60);

/// A manifest that was found right.
#[derive(Debug)]
pub struct Image {
    pub name: String,
    pub digest: String,
    /// Lowest first.
    pub layers: Vec<PathBuf>,
    argv: Vec<String>,
    pub env: Vec<(String, String)>,
    laid_out: Mutex<Option<Instant>>,
}

impl Image {
    /// The runner's command line in a sandbox of that much memory.
    pub fn argv(&self, memory_mb: u32, extra: &[String]) -> Vec<String> {
        let memory = memory_mb.to_string();
        let own = self.argv.iter();
        own.map(|word| word.replace("{memoryMb}", &memory))
            .chain(extra.iter().cloned())
            .collect()
    }

    /// Before a sandbox of the image: its program into large pages, which cannot be done while somebody maps small ones. Looked after again from
    /// time to time, because the kernel takes back pages of which nobody makes use. Blocks as long as the program is read; whoever comes
    /// meanwhile waits too.
    pub fn lay_out(&self) {
        let Ok(mut last) = self.laid_out.lock() else {
            return;
        };
        if last.is_none_or(|at| at.elapsed() >= LAID_OUT_FOR) {
            let Some(program) = self.argv.first() else {
                return;
            };
            let effort = match *last {
                None => Effort::First,
                Some(_) => Effort::Later,
            };
            match large_pages::lay_out(&self.layers, program, effort) {
                Ok(Some(large_pages::Outcome { bytes, large })) => {
                    debug!(image = self.name, program, bytes, large, "program read");
                }
                Ok(None) => {}
                // Pages are then as large as they happen to be.
                Err(error) => warn!(image = self.name, program, %error, "program not read"),
            }
            *last = Some(Instant::now());
        }
    }
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("there is no such image")]
    Missing,
    #[error("its manifest cannot be read: {0}")]
    Read(std::io::Error),
    #[error("its manifest is no regular file of at most 64 KiB")]
    File,
    #[error("its manifest is wrong: {0}")]
    Manifest(String),
    #[error("its layer {0} is missing")]
    Layer(String),
}

impl From<Errno> for ImageError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::Missing,
            other => Self::Read(other.into()),
        }
    }
}

/// Tells whether a manifest is still the file that was read: device, inode, size, time of change.
type Mark = (u64, u64, i64, i64, u64);

#[allow(
    clippy::unnecessary_cast,
    reason = "types differ between architectures"
)]
fn mark(stat: &Stat) -> Mark {
    (
        stat.st_dev as u64,
        stat.st_ino as u64,
        stat.st_size as i64,
        stat.st_ctime as i64,
        stat.st_ctime_nsec as u64,
    )
}

/// The images of one folder. A manifest is read again when its file has changed.
pub struct Images {
    folder: PathBuf,
    directory: OwnedFd,
    read: HashMap<String, (Mark, Arc<Image>)>,
}

impl Images {
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            folder: folder.canonicalize()?,
            directory: rustix::fs::open(folder, flags, Mode::empty())?,
            read: HashMap::new(),
        })
    }

    /// The image of that name, as its manifest is now.
    pub fn get(&mut self, name: &str) -> Result<Arc<Image>, Refusal> {
        self.load(name).map_err(|error| {
            Refusal::new(
                Code::UnknownImage,
                format!("The image {name} cannot be used: {error}."),
                "Run ./cloister setup, which builds the images.",
            )
        })
    }

    /// Name and digest of every image that can be used, and why others cannot.
    pub fn all(&mut self) -> (BTreeMap<String, String>, Vec<(String, ImageError)>) {
        let (mut usable, mut faulty) = (BTreeMap::new(), Vec::new());
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".json")) else {
                continue;
            };
            match self.load(name) {
                Ok(image) => {
                    usable.insert(image.name.clone(), image.digest.clone());
                }
                // Other records lie beside the manifests.
                Err(ImageError::Missing) => {}
                Err(error) => faulty.push((name.to_owned(), error)),
            }
        }
        (usable, faulty)
    }

    fn load(&mut self, name: &str) -> Result<Arc<Image>, ImageError> {
        if !is_image_name(name) {
            return Err(ImageError::Missing);
        }
        // O_NONBLOCK: opening a FIFO must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = format!("{name}.json");
        let opened = openat2(
            &self.directory,
            &file,
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        );
        let manifest = opened.inspect_err(|_| {
            self.read.remove(name);
        })?;
        let stat = fstat(&manifest)?;
        let mark = mark(&stat);
        if let Some((known, image)) = self.read.get(name) {
            if *known == mark {
                return Ok(Arc::clone(image));
            }
        }
        self.read.remove(name);
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(ImageError::File);
        }
        let mut text = Vec::new();
        File::from(manifest)
            .take(MAX_MANIFEST_BYTES.saturating_add(1))
            .read_to_end(&mut text)
            .map_err(ImageError::Read)?;
        if text.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ImageError::File);
        }
        let image = Arc::new(self.checked(name, &text)?);
        self.read
            .insert(name.to_owned(), (mark, Arc::clone(&image)));
        Ok(image)
    }

    fn checked(&self, name: &str, text: &[u8]) -> Result<Image, ImageError> {
        let wrong = |what: &str| ImageError::Manifest(what.to_owned());
        let json: serde_json::Value = serde_json::from_slice(text)
            .map_err(|error| ImageError::Manifest(error.to_string()))?;
        if json.get("schema").is_none() {
            return Err(ImageError::Missing);
        }
        let manifest: Manifest = serde_json::from_value(json)
            .map_err(|error| ImageError::Manifest(error.to_string()))?;
        if manifest.schema != 1 {
            return Err(wrong("its schema is not 1"));
        }
        if manifest.name != name {
            return Err(wrong("it is named otherwise than its file"));
        }
        if !is_digest(&manifest.digest) || !manifest.layers.iter().all(|layer| is_digest(layer)) {
            return Err(wrong("a digest is not 64 lower-case hex digits"));
        }
        if !(1..=MAX_LAYERS).contains(&manifest.layers.len()) {
            return Err(wrong("it needs 1 to 32 layers"));
        }
        let Runner { argv, env } = manifest.runner;
        let absolute = argv.first().is_some_and(|program| program.starts_with('/'));
        if !absolute || argv.len() > MAX_ARGUMENTS || argv.iter().any(|word| word.contains('\0')) {
            return Err(wrong("argv is no command line with an absolute program"));
        }
        let sound = |(key, value): (&String, &String)| {
            !key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0')
        };
        if !env.iter().all(sound) {
            return Err(wrong("env holds what no environment can"));
        }
        let layers = manifest.layers.into_iter();
        Ok(Image {
            name: manifest.name,
            digest: manifest.digest,
            layers: layers
                .map(|layer| self.layer(layer))
                .collect::<Result<_, _>>()?,
            argv,
            env: env.into_iter().collect(),
            laid_out: Mutex::new(None),
        })
    }

    fn layer(&self, digest: String) -> Result<PathBuf, ImageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = Path::new("layers").join(&digest);
        match openat2(&self.directory, &path, flags, Mode::empty(), resolve) {
            Ok(_) => Ok(self.folder.join(path)),
            Err(_) => Err(ImageError::Layer(digest)),
        }
    }
}

#[derive(Deserialize)]
struct Manifest {
    schema: u32,
    name: String,
    digest: String,
    layers: Vec<String>,
    runner: Runner,
}

#[derive(Deserialize)]
struct Runner {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;

    const LAYER: &str = "11";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("layers").join(LAYER.repeat(32))).unwrap();
        folder
    }

    fn manifest() -> Value {
        json!({"schema": 1, "name": "node24", "digest": "22".repeat(32), "layers": [LAYER.repeat(32)],
            "runner": {"argv": ["/usr/bin/node", "--m={memoryMb}"], "env": {"PATH": "/bin"}}, "sizeBytes": 1})
    }

    fn write(folder: &tempfile::TempDir, manifest: &Value) {
        // A new file each time, as the image builder does it.
        let fresh = folder.path().join("fresh");
        fs::write(&fresh, manifest.to_string()).unwrap();
        fs::rename(fresh, folder.path().join("node24.json")).unwrap();
    }

    #[test]
    fn a_changed_manifest_is_read_again() {
        let folder = folder();
        let mut images = Images::open(folder.path()).unwrap();
        assert_eq!(images.get("node24").unwrap_err().code, Code::UnknownImage);
        write(&folder, &manifest());
        let first = images.get("node24").unwrap();
        assert_eq!(
            first.argv(256, &["-x".into()]),
            ["/usr/bin/node", "--m=256", "-x"]
        );
        assert!(Arc::ptr_eq(&first, &images.get("node24").unwrap()));
        let mut other = manifest();
        other["digest"] = json!("33".repeat(32));
        write(&folder, &other);
        assert_eq!(images.get("node24").unwrap().digest, "33".repeat(32));
        assert_eq!(images.all().0.len(), 1);
        fs::remove_file(folder.path().join("node24.json")).unwrap();
        assert!(images.get("node24").is_err());
    }

    #[test]
    fn a_wrong_manifest_is_no_image() {
        let folder = folder();
        let mut images = Images::open(folder.path()).unwrap();
        for (pointer, value) in [
            ("/schema", json!(2)),
            ("/name", json!("python3")),
            ("/digest", json!("..")),
            ("/layers", json!([])),
            ("/layers/0", json!("../../etc")),
            ("/layers/0", json!("44".repeat(32))),
            ("/layers", json!(vec![LAYER.repeat(32); 33])),
            ("/runner/argv", json!([])),
            ("/runner/argv/0", json!("node")),
            ("/runner/argv/1", json!("a\0b")),
            ("/runner/env", json!({"A=B": "c"})),
            ("/runner/env/PATH", json!("a\0b")),
            ("/runner", json!(null)),
        ] {
            let mut wrong = manifest();
            *wrong.pointer_mut(pointer).unwrap() = value;
            write(&folder, &wrong);
            let refusal = images.get("node24").expect_err(pointer);
            assert_eq!(refusal.code, Code::UnknownImage);
            assert_eq!(images.all().1.len(), 1);
        }
        fs::write(folder.path().join("node24.json"), [b' '; 70_000]).unwrap();
        assert!(images.get("node24").is_err());
    }

    #[test]
    fn links_and_pipes_are_no_manifest() {
        let folder = folder();
        fs::write(folder.path().join("real"), manifest().to_string()).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("node24.json")).unwrap();
        let mut images = Images::open(folder.path()).unwrap();
        assert!(images.get("node24").is_err());
        fs::remove_file(folder.path().join("node24.json")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("node24.json"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(images.get("node24").is_err());
    }
}
