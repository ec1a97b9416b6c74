//! Compiles vmm/resources/seccomp/monitor.json to the BPF programs that src/confine.rs installs.
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use cloister_filters::Lists;

const SOURCE: &str = "../../resources/seccomp/monitor.json";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let lists = Lists::parse(&[&fs::read_to_string(SOURCE)?])?;
    for (name, before) in [("guest", Some("absent")), ("reactor", None)] {
        fs::write(out.join(format!("{name}.rs")), lists.program(name, before)?)?;
    }
    Ok(())
}
