//! Compiles lists of the system calls that a program may make, in seccompiler's JSON, to programs for seccomp(2). For build scripts.
//!
//! seccompiler compares a call with one number after the other: the last of a list of three hundred meets fifteen hundred instructions, and the kernel runs
//! the whole for every number there is when a filter is installed (seccomp_cache_prepare in kernel/seccomp.c). Here a number is looked for by halves. What a
//! list asks about arguments stays as seccompiler makes it.

use std::collections::{BTreeMap, HashMap};

use seccompiler::{BpfProgram, SeccompAction, TargetArch, compile_from_json, sock_filter};
use serde::Deserialize;
use serde_json::{Value, json};

// linux/bpf_common.h
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// What each of seccompiler's programs begins with: an end of the process for another architecture, and the number in the accumulator.
const HEAD: usize = 4;

/// Why a list cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("the lists are not as seccompiler has them: {0}")]
    Json(#[from] serde_json::Error),
    #[error("seccompiler: {0}")]
    Seccompiler(#[from] seccompiler::Error),
    #[error("there is no list {0}")]
    Missing(String),
    #[error("seccompiler's program for {0} has another form than is known")]
    Form(String),
}

/// The parts of seccompiler's format that a search depends on.
#[derive(Deserialize)]
struct List {
    mismatch_action: Value,
    match_action: Value,
    filter: Vec<Value>,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    /// This is returned.
    Always(u32),
    /// Its arguments decide. The number is in the accumulator, and is compared first.
    Asked(BpfProgram),
}

/// Lists by name.
pub struct Lists(BTreeMap<String, List>);

impl Lists {
    /// All that the sources hold.
    ///
    /// # Errors
    /// [`FilterError::Json`].
    pub fn parse(sources: &[&str]) -> Result<Self, FilterError> {
        let mut lists = BTreeMap::new();
        for source in sources {
            lists.extend(serde_json::from_str::<BTreeMap<String, List>>(source)?);
        }
        Ok(Self(lists))
    }

    /// One program for the list `name`, as the text of a slice of `seccompiler::sock_filter` in Rust, to be included. What the list `before` matches is
    /// answered as that one says, whatever `name` says of it; it may ask about no arguments.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn program(&self, name: &str, before: Option<&str>) -> Result<String, FilterError> {
        let texts =
            self.instructions(name, before)?
                .into_iter()
                .map(|sock_filter { code, jt, jf, k }| {
                    format!(
                        "seccompiler::sock_filter {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},"
                    )
                });
        Ok(format!("&[\n{}\n]", texts.collect::<Vec<_>>().join("\n")))
    }

    fn instructions(&self, name: &str, before: Option<&str>) -> Result<BpfProgram, FilterError> {
        let list = self.list(name)?;
        let mut head = BpfProgram::new();
        let mut calls = list.calls(&mut head)?;
        if let Some(before) = before {
            for (number, outcome) in self.list(before)?.calls(&mut head)? {
                if matches!(outcome, Outcome::Asked(_)) {
                    return Err(FilterError::Form(before.to_owned()));
                }
                calls.insert(number, outcome);
            }
        }
        if head.is_empty() {
            // Nothing to take the look at the architecture from.
            return Err(FilterError::Missing(format!("{name} with a call in it")));
        }
        head.extend(search(&spans(calls, action(&list.mismatch_action)?)));
        Ok(head)
    }

    fn list(&self, name: &str) -> Result<&List, FilterError> {
        let missing = || FilterError::Missing(name.to_owned());
        self.0.get(name).ok_or_else(missing)
    }
}

impl List {
    /// What becomes of the calls that it names, by number; and how every program begins.
    fn calls(&self, head: &mut BpfProgram) -> Result<BTreeMap<u32, Outcome>, FilterError> {
        let mut rules: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for rule in &self.filter {
            let syscall = rule.get("syscall").and_then(Value::as_str);
            rules
                .entry(syscall.unwrap_or_default())
                .or_default()
                .push(rule);
        }
        let mut calls = BTreeMap::new();
        for (syscall, rules) in rules {
            let program = self.compile(&rules)?;
            let form = || FilterError::Form(syscall.to_owned());
            let (begin, rest) = program.split_at_checked(HEAD).ok_or_else(form)?;
            *head = begin.to_vec();
            let number = match rest.first() {
                Some(first) if first.code == JUMP_IF_EQUAL => first.k,
                _ => return Err(form()),
            };
            let asks = rules.iter().all(|rule| rule.get("args").is_some());
            let outcome = if asks {
                Outcome::Asked(rest.to_vec())
            } else {
                Outcome::Always(action(&self.match_action)?)
            };
            calls.insert(number, outcome);
        }
        Ok(calls)
    }

    /// seccompiler's program for some of the rules.
    fn compile(&self, rules: &[&Value]) -> Result<BpfProgram, FilterError> {
        const NAME: &str = "one";
        let source = json!({NAME: {
            "mismatch_action": self.mismatch_action,
            "match_action": self.match_action,
            "filter": rules,
        }});
        let source = source.to_string();
        let mut programs: HashMap<String, BpfProgram> =
            compile_from_json(source.as_bytes(), TargetArch::x86_64)?;
        programs
            .remove(NAME)
            .ok_or_else(|| FilterError::Missing(NAME.to_owned()))
    }
}

fn action(said: &Value) -> Result<u32, FilterError> {
    Ok(u32::from(SeccompAction::deserialize(said)?))
}

/// The number from which on each outcome holds, in order, without a gap from 0 to the end.
fn spans(calls: BTreeMap<u32, Outcome>, otherwise: u32) -> Vec<(u32, Outcome)> {
    let mut spans = vec![(0, Outcome::Always(otherwise))];
    for (number, outcome) in calls {
        if spans.last().is_some_and(|(from, _)| *from == number) {
            spans.pop();
        }
        let next = number.saturating_add(1);
        if spans.last().is_none_or(|(_, former)| *former != outcome) {
            spans.push((number, outcome));
        }
        if next > number {
            spans.push((next, Outcome::Always(otherwise)));
        }
    }
    spans
}

/// Instructions that find the span of the number in the accumulator, and return what holds there.
fn search(spans: &[(u32, Outcome)]) -> BpfProgram {
    let (low, high) = spans.split_at(spans.len() / 2);
    let Some((boundary, outcome)) = high.first() else {
        return BpfProgram::new();
    };
    if low.is_empty() {
        return match outcome {
            Outcome::Always(returned) => vec![instruction(RETURN, 0, 0, *returned)],
            Outcome::Asked(program) => program.clone(),
        };
    }
    let (low, high) = (search(low), search(high));
    let mut found = match u8::try_from(low.len()) {
        Ok(far) => vec![instruction(JUMP_IF_AT_LEAST, far, 0, *boundary)],
        Err(_) => vec![
            instruction(JUMP_IF_AT_LEAST, 0, 1, *boundary),
            instruction(JUMP, 0, 0, low.len() as u32),
        ],
    };
    found.extend(low);
    found.extend(high);
    found
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
