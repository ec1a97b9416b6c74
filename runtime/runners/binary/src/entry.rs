//! Finds the program of a function and says why it cannot run before anything is invoked.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use crate::messages::Fault;

const DEFAULT_NAMES: [&str; 2] = ["bootstrap", "main"];
const STATIC_REMEDY: &str = "Link it statically (musl, or glibc with -static).";
const SHELL_REMEDY: &str = "Deploy a compiled program, or use the runtime node24 or python3.";

/// The program to run for `entry`, or for the default names if it is absent.
pub fn find_program(root: &str, entry: Option<&str>) -> Result<PathBuf, Fault> {
    let root = Path::new(root);
    let path = match entry.filter(|name| !name.is_empty()) {
        Some(name) => named(root, name)?,
        None => default_program(root)?,
    };
    check_runnable(&path)?;
    Ok(path)
}

fn named(root: &Path, name: &str) -> Result<PathBuf, Fault> {
    let relative = Path::new(name);
    let inside = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(Fault::init(&format!(
            "The entry {name} is not a path inside the function's folder. Name it relative to the folder, without \"..\"."
        )));
    }
    let path = root.join(relative);
    if path.is_file() {
        return Ok(path);
    }
    Err(Fault::no_handler(&format!(
        "The entry {name} is not in the bundle, which holds {}. Set entry in cloister.json to the name of the program.",
        listing(root)
    )))
}

fn default_program(root: &Path) -> Result<PathBuf, Fault> {
    if let Some(path) = DEFAULT_NAMES
        .map(|name| root.join(name))
        .into_iter()
        .find(|path| path.is_file())
    {
        return Ok(path);
    }
    let mut programs = files(root).into_iter().filter(|path| is_executable(path));
    match (programs.next(), programs.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Fault::no_handler(&format!(
            "The bundle has no executable file, only {}. Add the program with chmod +x, or set entry in cloister.json.",
            listing(root)
        ))),
        _ => Err(Fault::no_handler(
            "The bundle has more than one executable file and none is called bootstrap or main. Set entry in cloister.json.",
        )),
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(root)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.retain(|path| path.is_file());
    paths.sort();
    paths
}

fn listing(root: &Path) -> String {
    let names: Vec<String> = files(root)
        .iter()
        .take(10)
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    if names.is_empty() {
        "no file".into()
    } else {
        names.join(", ")
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & 0o111 != 0)
}

fn check_runnable(path: &Path) -> Result<(), Fault> {
    let name = path.display();
    if !is_executable(path) {
        return Err(Fault::init(&format!(
            "{name} is not executable. Run chmod +x on it before deploying."
        )));
    }
    let file = File::open(path)
        .map_err(|error| Fault::init(&format!("{name} cannot be opened: {error}.")))?;
    let mut start = Vec::new();
    let _ = (&file).take(512).read_to_end(&mut start);
    if let Some(line) = start.strip_prefix(b"#!") {
        return check_interpreter(path, line);
    }
    if !start.starts_with(b"\x7fELF") {
        return Err(Fault::init(&format!(
            "{name} is neither an ELF program nor a script. {SHELL_REMEDY}"
        )));
    }
    // e_ident class and data, then e_machine: elf(5). 62 is x86-64.
    let machine = (start.get(4), start.get(5), start.get(18), start.get(19));
    if machine != (Some(&2), Some(&1), Some(&62), Some(&0)) {
        return Err(Fault::init(&format!(
            "{name} is built for another kind of machine. Build it for x86-64 Linux."
        )));
    }
    match elf_interpreter(&file, &start) {
        Some(loader) if !Path::new(&loader).exists() => Err(Fault::init(&format!(
            "{name} needs the dynamic loader {loader}, which the image binary does not have. {STATIC_REMEDY}"
        ))),
        _ => Ok(()),
    }
}

fn check_interpreter(path: &Path, line: &[u8]) -> Result<(), Fault> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_whitespace();
    let interpreter = words.next().unwrap_or_default();
    if Path::new(interpreter).exists() {
        return Ok(());
    }
    Err(Fault::init(&format!(
        "{} is a script for {interpreter}, and the image binary has no shell and no interpreter. {SHELL_REMEDY}",
        path.display()
    )))
}

/// PT_INTERP of a 64-bit little-endian ELF file.
fn elf_interpreter(file: &File, header: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    let table_at = u64::from_le_bytes(*header.get(32..)?.first_chunk()?);
    let entry_bytes = u64::from(u16::from_le_bytes(*header.get(54..)?.first_chunk()?));
    let count = u64::from(u16::from_le_bytes(*header.get(56..)?.first_chunk()?));
    for index in 0..count.min(64) {
        let mut entry = [0; 56];
        let at = table_at.checked_add(index.checked_mul(entry_bytes)?)?;
        file.read_exact_at(&mut entry, at).ok()?;
        if u32::from_le_bytes(*entry.first_chunk()?) != PT_INTERP {
            continue;
        }
        let offset = u64::from_le_bytes(*entry.get(8..)?.first_chunk()?);
        let bytes = u64::from_le_bytes(*entry.get(32..)?.first_chunk()?);
        let mut path = vec![0; usize::try_from(bytes.min(4096)).ok()?];
        file.read_exact_at(&mut path, offset).ok()?;
        path.retain(|byte| *byte != 0);
        return String::from_utf8(path).ok();
    }
    None
}
