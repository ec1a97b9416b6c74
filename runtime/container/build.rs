//! Compiles seccomp/*.json to the BPF programs that src/init/lockdown.rs installs.
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use seccompiler::{BpfProgram, TargetArch, compile_from_json};

/// Each file, and the filters that are taken from it.
const SOURCES: [(&str, &[&str]); 2] = [
    ("seccomp/runner.json", &["absent", "runner"]),
    ("seccomp/monitor.json", &["monitor"]),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for (source, names) in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        let programs: HashMap<String, BpfProgram> =
            compile_from_json(fs::File::open(source)?, TargetArch::x86_64)?;
        for name in names {
            let program = programs
                .get(*name)
                .ok_or_else(|| format!("{source} has no filter {name}"))?;
            let mut bytes = Vec::new();
            for instruction in program {
                bytes.extend_from_slice(&instruction.code.to_ne_bytes());
                bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
                bytes.extend_from_slice(&instruction.k.to_ne_bytes());
            }
            fs::write(out.join(format!("{name}.bpf")), bytes)?;
        }
    }
    Ok(())
}
