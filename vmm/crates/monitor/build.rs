//! Compiles vmm/resources/seccomp/monitor.json to the BPF programs that src/confine.rs installs.
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use seccompiler::{BpfProgram, TargetArch, compile_from_json};

const SOURCE: &str = "../../resources/seccomp/monitor.json";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let programs: HashMap<String, BpfProgram> =
        compile_from_json(fs::File::open(SOURCE)?, TargetArch::x86_64)?;
    for (name, program) in programs {
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
