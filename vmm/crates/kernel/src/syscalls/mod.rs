//! System calls: one table and, by family, the handlers behind it. A handler only translates between
//! arguments in registers and the nouns of this crate.

mod attributes;
mod copy;
mod events;
mod extended;
mod files;
mod fixed;
mod locks;
mod memory;
mod messages;
mod names;
mod open;
mod page;
mod paths;
mod process;
mod signals;
mod sockets;
mod table;
mod threads;
mod time;
mod timers;
mod transfer;
mod waiting;

use std::io::Write;

use vmm_abi::Errno;

use crate::args::{Args, Ret, SysResult};
use crate::kernel::Identity;
use crate::task::{Fpu, Task};

pub(crate) use events::waits_on;
pub(crate) use open::named_file;
pub use page::page;
pub use table::{Arg, Level, ROWS, Row};
pub(crate) use threads::{futex, leave_robust_futexes};
pub(crate) use transfer::{rest_of, total};
pub(crate) use waiting::with_bands;

/// [`crate::Kernel::trace_mark`] for a trace whose lines have no mark.
pub const PLAIN_TRACE: u64 = u64::MAX;

/// What serves one call. Calls that need the floating-point state get it, too.
#[derive(Clone, Copy)]
pub enum Handler {
    Plain(fn(&mut Task, Args) -> SysResult),
    /// The result is always the same in a process, and there is no other effect.
    Constant(fn(&Identity) -> Result<u64, Errno>),
    WithFpu(fn(&mut Task, Args, &mut dyn Fpu) -> SysResult),
}

/// Position in [`ROWS`] of a call's number.
#[must_use]
pub fn position(number: u64) -> Option<usize> {
    ROWS.binary_search_by(|row| u64::from(row.number).cmp(&number))
        .ok()
}

/// Serves one call once; [`Ret::Block`] when it has to be asked again.
pub(crate) fn dispatch(task: &mut Task, number: u64, args: Args, fpu: &mut dyn Fpu) -> SysResult {
    // The number is an `int`: the upper half of the register does not count.
    let position = position(number & 0xffff_ffff);
    let Some(row) = position.and_then(|index| ROWS.get(index)) else {
        return Err(Errno::ENOSYS);
    };
    match row.handler {
        Handler::Plain(handler) => handler(task, args),
        Handler::Constant(handler) => handler(&task.kernel.identity).map(Ret::from),
        Handler::WithFpu(handler) => handler(task, args, fpu),
    }
}

/// Numbers of the calls whose result is always the same in a process, and that have no other effect, with what they leave in rax.
pub fn constants(identity: &Identity) -> impl Iterator<Item = (u16, u64)> {
    ROWS.iter().filter_map(|row| match row.handler {
        Handler::Constant(handler) => {
            let rax = handler(identity).unwrap_or_else(|errno| errno.to_rax());
            Some((row.number, rax))
        }
        Handler::Plain(_) | Handler::WithFpu(_) => None,
    })
}

/// Writes one finished call, in the manner of strace(1).
pub(crate) fn trace(task: &Task, number: u64, args: Args, result: &Result<Ret, Errno>) {
    let row = position(number).and_then(|index| ROWS.get(index));
    let name = row.map_or_else(|| format!("syscall_{number}"), |row| row.name.to_owned());
    let kinds = row.map_or(&[Arg::Word; 6][..], |row| row.args);
    let shown: Vec<String> = kinds
        .iter()
        .enumerate()
        .map(|(index, kind)| match kind {
            Arg::Fd | Arg::Int | Arg::Signal => args.int(index).to_string(),
            Arg::Path => task
                .memory()
                .read_string(args.word(index), 200, Errno::ENAMETOOLONG)
                .map_or_else(
                    |_| format!("{:#x}", args.word(index)),
                    |path| format!("{:?}", String::from_utf8_lossy(&path)),
                ),
            Arg::Length => args.word(index).to_string(),
            Arg::Address | Arg::Flags | Arg::Word => format!("{:#x}", args.word(index)),
        })
        .collect();
    let outcome = match result {
        Ok(Ret::Value(value)) if *value > 1 << 20 => format!("{value:#x}"),
        Ok(Ret::Value(value)) => value.to_string(),
        Ok(_) => "?".into(),
        Err(errno) => format!("-1 {errno}"),
    };
    write_trace(task, &format!("{name}({}) = {outcome}", shown.join(", ")));
}

/// Writes a line about a thread by one write(2): shorter than what a pipe takes as a whole (PIPE_BUF), so that nothing gets between.
///
/// A mark stands in front as U+0001, 16 hex digits and a space. The guest, which may write to the same pipe, does not know it.
pub(crate) fn write_trace(task: &Task, line: &str) {
    let (mark, tid) = (task.kernel.trace_mark(), task.shared.tid);
    let text = if mark == PLAIN_TRACE {
        format!("[{tid}] {line}\n")
    } else {
        format!("\u{1}{mark:016x} [{tid}] {line}\n")
    };
    // Whoever reads it may be gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
