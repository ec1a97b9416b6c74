//! System calls: one table and, by family, the handlers behind it. A handler only translates between
//! arguments in registers and the nouns of this crate.

mod attributes;
mod copy;
mod events;
mod extended;
mod files;
mod fixed;
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

use vmm_abi::Errno;

use crate::args::{Args, Ret, SysResult};
use crate::task::{Fpu, Task};

pub(crate) use open::named_file;
pub use page::page;
pub use table::{Arg, Level, ROWS, Row};
pub(crate) use threads::leave_robust_futexes;
pub(crate) use waiting::with_bands;

/// What serves one call. Calls that need the floating-point state get it, too.
#[derive(Clone, Copy)]
pub enum Handler {
    Plain(fn(&mut Task, Args) -> SysResult),
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
        Handler::WithFpu(handler) => handler(task, args, fpu),
    }
}

/// Writes one finished call to the standard error, in the manner of strace(1).
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
    eprintln!(
        "[{}] {name}({}) = {outcome}",
        task.shared.tid,
        shown.join(", ")
    );
}
