//! Compiles seccomp/*.json to the BPF programs that src/init/lockdown.rs installs.
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use cloister_filters::Lists;

const SOURCES: [&str; 2] = ["seccomp/runner.json", "seccomp/monitor.json"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut texts = Vec::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        texts.push(fs::read_to_string(source)?);
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let lists = Lists::parse(&texts)?;
    for name in ["runner", "monitor"] {
        let program = lists.program(name, Some("absent"))?;
        fs::write(out.join(format!("{name}.rs")), program)?;
    }
    Ok(())
}
