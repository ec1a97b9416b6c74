//! Whether any thread of a process runs, as the host sees it.

use std::time::Duration;

/// How many threads a process has, if none of them runs.
fn asleep(process: u32) -> Option<usize> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut count = 0;
    for thread in threads {
        // proc_pid_stat(5): the state stands behind the name, which is in brackets. One that has ended meanwhile does not run.
        let Ok(stat) = std::fs::read_to_string(thread.unwrap().path().join("stat")) else {
            continue;
        };
        if !stat.rsplit(')').next().unwrap().starts_with(" S") {
            return None;
        }
        count += 1;
    }
    Some(count)
}

/// Until no thread of a process runs, and there are at least so many of them; answers how many.
pub fn wait_until_asleep(process: u32, least: usize) -> usize {
    // A minute on a machine that gives each look its time.
    for _ in 0..60_000 {
        if let Some(count) = asleep(process).filter(|count| *count >= least) {
            return count;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("process {process} never has {least} threads that sleep");
}
