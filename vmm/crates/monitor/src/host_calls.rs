//! docs/host-calls.md: the list that seccomp enforces, as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

const SOURCE: &str = include_str!("../../../resources/seccomp/monitor.json");

/// The part of seccompiler's format that the list uses.
#[derive(Deserialize)]
struct Filter {
    filter: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    syscall: String,
    comment: String,
    #[serde(default)]
    args: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    comment: String,
}

const HEAD: &str = "\
# Host calls

Made by `cloister-vm host-calls`. A guest makes no system call of the host. This is what its monitor may be brought to do for it,
enforced by seccomp from before the first byte of the guest is read: any other call ends the monitor, and with it the guest. The
reactor is the one thread that runs no guest code. Source: vmm/resources/seccomp/monitor.json.

| host call | only with | why | reactor |
|---|---|---|---|
";

/// The page, or why the list cannot be read.
///
/// # Errors
/// A list that is no JSON of the expected form.
pub fn page() -> Result<String, serde_json::Error> {
    let filters: BTreeMap<String, Filter> = serde_json::from_str(SOURCE)?;
    let rules = |name: &str| filters.get(name).map_or(&[][..], |filter| &filter.filter);
    let reactor = rules("reactor");
    let mut text = String::from(HEAD);
    let mut names: Vec<&str> = Vec::new();
    for rule in rules("guest") {
        let conditions: Vec<&str> = rule.args.iter().map(|one| one.comment.as_str()).collect();
        let too = reactor.iter().find(|other| other.syscall == rule.syscall);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            rule.syscall,
            conditions.join("; "),
            rule.comment,
            too.map_or("", |other| &other.comment)
        );
        names.push(&rule.syscall);
    }
    for rule in reactor {
        if !names.contains(&rule.syscall.as_str()) {
            let _ = writeln!(text, "| {} | | | {} |", rule.syscall, rule.comment);
            names.push(&rule.syscall);
        }
    }
    names.sort_unstable();
    names.dedup();
    let _ = writeln!(text, "\n{} host calls.", names.len());
    Ok(text)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step of a test is to end it"
)]
mod tests {
    use super::*;

    /// What issue and specification promise.
    const MOST: usize = 60;

    #[test]
    fn the_page_in_docs_is_that_of_the_list() {
        let written = include_str!("../../../../docs/host-calls.md");
        let page = page().unwrap();
        assert!(
            written == page,
            "run: cloister-vm host-calls > docs/host-calls.md"
        );
    }

    #[test]
    fn the_list_stays_short_and_holds_what_the_table_of_calls_names() {
        let filters: BTreeMap<String, Filter> = serde_json::from_str(SOURCE).unwrap();
        let mut names: Vec<&str> = ["guest", "reactor"]
            .iter()
            .flat_map(|role| &filters[*role].filter)
            .map(|rule| rule.syscall.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert!(names.len() <= MOST, "{}", names.len());
        let table = vmm_kernel::syscalls::ROWS;
        for host in table.iter().flat_map(|row| row.host) {
            assert!(names.contains(host), "{host} is in the table of calls only");
        }
    }
}
