//! Compiles seccomp/runner.json to the two BPF programs that src/init/lockdown.rs installs.
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use seccompiler::{BpfProgram, TargetArch, compile_from_json};

const SOURCE: &str = "seccomp/runner.json";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let programs: HashMap<String, BpfProgram> =
        compile_from_json(fs::File::open(SOURCE)?, TargetArch::x86_64)?;
    for name in ["absent", "runner"] {
        let program = programs
            .get(name)
            .ok_or_else(|| format!("{SOURCE} has no filter {name}"))?;
        let mut bytes = Vec::new();
        for instruction in program {
            bytes.extend_from_slice(&instruction.code.to_ne_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_ne_bytes());
        }
        fs::write(out.join(format!("{name}.bpf")), bytes)?;
    }
    Ok(())
}
