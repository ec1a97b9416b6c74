//! Linux is the oracle: each program of vmm/tests/guests runs natively and in the micro-VM and must
//! say the same and end the same. The programs of vmm/tests/hostile run in the micro-VM only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test is to end it"
)]

mod compiled;
mod guest_programs;
mod hanging;
mod said;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use compiled::Made;
use guest_programs::{Kind, Program, run_here, run_in_vm};
use said::Said;
use tempfile::TempDir;
use vmm_kernel::syscalls::ROWS;

/// Programs that do not say the same yet, each with the reason. One that does must leave the list.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "files_folders",
        "a removed working directory is not known any more",
    ),
    (
        "futex_shared",
        "a futex is told by its address alone, also where a file is mapped twice",
    ),
    (
        "mm_files",
        "a touch behind a file's end is told without address; mappings of files do not grow",
    ),
];

/// Programs that need the dynamic loader.
const DYNAMIC_ONLY: &[&str] = &["dynamic"];

/// The status of a program that misses what its cases stand on (vmm/tests/guests/guests.h).
const CANNOT_SET_UP: i32 = 99;

struct Outcome {
    program: Program,
    /// How the micro-VM differs from what is expected.
    difference: Option<String>,
    calls: BTreeSet<String>,
}

/// Every program has run once for all tests; `None` when this run only compiles.
static OUTCOMES: LazyLock<Option<Vec<Outcome>>> = LazyLock::new(|| {
    let source = Made::of_environment();
    let list: Vec<Program> = source
        .programs(Kind::Guests)
        .into_iter()
        .filter(|program| !(program.is_static && DYNAMIC_ONLY.contains(&program.name.as_str())))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(program) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(outcome(&source, program));
        }
        done
    };
    let workers = std::thread::available_parallelism().unwrap().get();
    let outcomes: Vec<Option<Outcome>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let done = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        done.collect()
    });
    outcomes.into_iter().collect()
});

fn outcome(source: &Made, program: &Program) -> Option<Outcome> {
    let folder = TempDir::new().unwrap();
    let path = source.provide(Kind::Guests, program, folder.path())?;
    let expected = match source.expectation(Kind::Guests, program) {
        Some(stdout) => Said::well(stdout),
        None => run_here(&path),
    };
    let vm = run_in_vm(folder.path(), &[], program);
    Some(Outcome {
        program: program.clone(),
        difference: difference(&expected, &vm),
        calls: calls(&vm),
    })
}

fn difference(expected: &Said, vm: &Said) -> Option<String> {
    if expected.code() == CANNOT_SET_UP {
        return Some(format!("it cannot run here: {}\n", expected.stdout));
    }
    said::difference(expected, vm)
}

/// The system calls of a run, by `--stats`.
fn calls(vm: &Said) -> BTreeSet<String> {
    let Some(line) = vm.stderr.lines().rfind(|line| line.starts_with('{')) else {
        return BTreeSet::new();
    };
    let stats: serde_json::Value = serde_json::from_str(line).unwrap();
    let counts = stats.get("syscalls").unwrap().as_object().unwrap();
    counts.keys().cloned().collect()
}

/// Programs that call what may be served within the guest.
const SERVED_INSIDE: [&str; 5] = [
    "identity",
    "inside",
    "process",
    "refused_privileges",
    "refused_processes",
];

fn traced_calls(program: &Program) -> BTreeSet<String> {
    let folder = TempDir::new().unwrap();
    let provided = Made::of_environment().provide(Kind::Guests, program, folder.path());
    assert!(provided.is_some(), "it was there before");
    calls(&run_in_vm(folder.path(), &["--strace"], program))
}

fn outcomes() -> Option<&'static [Outcome]> {
    OUTCOMES.as_deref()
}

#[test]
fn every_program_says_in_the_micro_vm_what_it_says_on_linux() {
    let Some(outcomes) = outcomes() else { return };
    let listed: BTreeMap<_, _> = DIFFERENT.iter().copied().collect();
    let wrong: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !listed.contains_key(outcome.program.name.as_str()))
        .filter_map(|outcome| {
            let difference = outcome.difference.as_ref()?;
            Some(format!("{}:\n{difference}", outcome.program.title()))
        })
        .collect();
    println!(
        "{} of {} programs say the same, {} are known to differ",
        outcomes.iter().filter(|o| o.difference.is_none()).count(),
        outcomes.len(),
        DIFFERENT.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_known_to_differ_still_does() {
    let Some(outcomes) = outcomes() else { return };
    for (name, reason) in DIFFERENT {
        let differs = outcomes
            .iter()
            .any(|outcome| outcome.program.name == *name && outcome.difference.is_some());
        assert!(
            differs,
            "{name} says the same now: take it off DIFFERENT ({reason})"
        );
    }
}

#[test]
fn every_call_of_the_table_has_a_case() {
    let Some(outcomes) = outcomes() else { return };
    let called: BTreeSet<&str> = outcomes
        .iter()
        .flat_map(|outcome| outcome.calls.iter().map(String::as_str))
        .collect();
    // What a guest serves by itself is not counted, but while somebody traces it serves nothing.
    let traced: BTreeSet<String> = outcomes
        .iter()
        .filter(|outcome| SERVED_INSIDE.contains(&outcome.program.name.as_str()))
        .flat_map(|outcome| traced_calls(&outcome.program))
        .collect();
    let missing: Vec<&str> = ROWS
        .iter()
        .map(|row| row.name)
        .filter(|name| !called.contains(name) && !traced.contains(*name))
        .collect();
    assert!(missing.is_empty(), "no program calls {missing:?}");
}

/// Runs a program that Linux is not asked about; `None` when this run only compiles.
fn hostile(name: &str, options: &[&str]) -> Option<Said> {
    let folder = TempDir::new().unwrap();
    let program = Program {
        name: name.into(),
        is_static: false,
    };
    Made::of_environment().provide(Kind::Hostile, &program, folder.path())?;
    Some(run_in_vm(folder.path(), options, &program))
}

#[test]
fn wild_arguments_never_stop_the_monitor() {
    let Some(said) = hostile("wild", &[]) else {
        return;
    };
    // Some of the wild calls write to the standard output.
    assert!(said.stdout.ends_with("still here\n"), "{said:?}");
    assert_eq!(said.code(), 0);
}

#[test]
fn the_memory_limit_is_real() {
    let Some(said) = hostile("memory_limit", &["--memory-mb", "64"]) else {
        return;
    };
    assert_eq!(said.stdout, "done\n", "{said:?}");
    assert_eq!(said.code(), 0);
}
