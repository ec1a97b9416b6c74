use std::fmt::Write as _;

use super::Handler;
use super::table::{Level, ROWS};

const HEAD: &str = "\
# System calls in the micro-VM

Made from the table in `vmm/crates/kernel/src/syscalls/table.rs` by `cloister-vm syscalls`; a test fails
when this page and the table disagree. A call that is not listed answers ENOSYS.

- **full**: all that Linux documents and that means anything in a sandbox of one process.
- **partial**: the note says what is missing; what is missing is refused.
- **fixed**: always the same answer.

Where `syscall` does not change to CPL 0 (vmm/README.md, \"Kinds of KVM\") the calls marked * are answered without leaving the guest while
nobody traces them; they are not counted then.

The last column names the host calls a guest can lead the monitor to by that call.

| number | name | level | note | host calls |
|---|---|---|---|---|
";

/// docs/syscalls.md.
#[must_use]
pub fn page() -> String {
    let mut text = String::from(HEAD);
    for row in ROWS {
        let level = match row.level {
            Level::Full => "full",
            Level::Partial => "partial",
            Level::Fixed => "fixed",
        };
        let host = row.host.join(", ");
        let mark = match row.handler {
            Handler::Constant(_) => "*",
            Handler::Plain(_) | Handler::WithFpu(_) => "",
        };
        let _ = writeln!(
            text,
            "| {} | {}{mark} | {level} | {} | {host} |",
            row.number, row.name, row.note
        );
    }
    let mut host: Vec<&str> = ROWS.iter().flat_map(|row| row.host).copied().collect();
    host.sort_unstable();
    host.dedup();
    let _ = writeln!(
        text,
        "\n{} calls; {} host calls: {}.",
        ROWS.len(),
        host.len(),
        host.join(", ")
    );
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/syscalls.md");
        let written = std::fs::read_to_string(path).expect("docs/syscalls.md is there");
        assert!(
            written == super::page(),
            "run: cloister-vm syscalls > docs/syscalls.md"
        );
    }
}
