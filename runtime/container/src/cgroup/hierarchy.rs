use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::CgroupError;

/// Controllers that every sandbox is limited by. v1 counts processor time in `cpuacct`; in v2 `cpu` does both.
pub(crate) const ALWAYS: [&str; 3] = ["cpu", "memory", "pids"];
/// Period of the processor quota, microseconds (cgroup-v2.rst, cpu.max).
pub(crate) const CPU_PERIOD_US: u64 = 100_000;

/// A mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub path: PathBuf,
    pub v2: bool,
    pub controllers: Vec<String>,
}

/// The cgroup hierarchies of this machine.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    mounts: Vec<Mounted>,
}

/// A kernel file with a figure of one sandbox, readable by everybody.
#[derive(Debug, Clone)]
pub struct StatFile {
    pub path: PathBuf,
    /// `ns`, `bytes`, or `usage_usec` (the line of that name in cpu.stat).
    pub format: &'static str,
}

/// Where a sandbox's use can be read.
#[derive(Debug, Clone)]
pub struct StatFiles {
    pub cpu: StatFile,
    pub memory_peak: StatFile,
    pub memory: StatFile,
}

impl Hierarchy {
    /// Reads which hierarchies are mounted. Fails when cpu, memory or pids cannot be limited.
    pub fn detect() -> Result<Hierarchy, CgroupError> {
        let source = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(source).map_err(CgroupError::file(source, "read"))?;
        let mut mounts: Vec<Mounted> = Vec::new();
        for line in text.lines() {
            let Some(mut mounted) = parse_mount(line) else {
                continue;
            };
            if mounted.v2 {
                let list = mounted.path.join("cgroup.controllers");
                let names = fs::read_to_string(&list).map_err(CgroupError::file(&list, "read"))?;
                mounted.controllers = names.split_whitespace().map(str::to_owned).collect();
            }
            // A hierarchy that is mounted twice is one.
            if !mounts
                .iter()
                .any(|known| known.v2 == mounted.v2 && known.controllers == mounted.controllers)
            {
                mounts.push(mounted);
            }
        }
        let hierarchy = Hierarchy { mounts };
        for controller in ALWAYS {
            hierarchy.of(controller)?;
        }
        Ok(hierarchy)
    }

    /// `v1`, `v2`, or `hybrid` where v2 is mounted beside v1.
    pub fn kind(&self) -> &'static str {
        match (
            self.mounts.iter().any(|one| one.v2),
            self.mounts
                .iter()
                .any(|one| !one.v2 && !one.controllers.is_empty()),
        ) {
            (true, true) => "hybrid",
            (true, false) => "v2",
            _ => "v1",
        }
    }

    /// The hierarchy a controller is in. v1 comes first: a controller is in one hierarchy only.
    pub(crate) fn of(&self, controller: &'static str) -> Result<&Mounted, CgroupError> {
        let has = |mounted: &&Mounted| mounted.controllers.iter().any(|name| name == controller);
        self.mounts
            .iter()
            .filter(has)
            .min_by_key(|one| one.v2)
            .ok_or(CgroupError::NoController { controller })
    }

    /// Every hierarchy that can hold a cgroup of ours, for clearing away.
    pub(crate) fn all(&self) -> &[Mounted] {
        &self.mounts
    }

    /// Distinct hierarchies of some controllers, plus v1's accounting of processor time.
    pub(crate) fn of_all(
        &self,
        controllers: &[&'static str],
    ) -> Result<Vec<&Mounted>, CgroupError> {
        let mut found: Vec<&Mounted> = Vec::new();
        let mut wanted: Vec<&'static str> = controllers.to_vec();
        if wanted.contains(&"cpu") && !self.of("cpu")?.v2 {
            wanted.push("cpuacct");
        }
        for controller in wanted {
            let mounted = self.of(controller)?;
            if !found.contains(&mounted) {
                found.push(mounted);
            }
        }
        Ok(found)
    }
}

/// A line of mountinfo (proc(5)) as a hierarchy; None for another file system and for named hierarchies without controllers.
fn parse_mount(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    let path = PathBuf::from(before.split(' ').nth(4)?);
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1)?;
    match kind {
        "cgroup2" => Some(Mounted {
            path,
            v2: true,
            controllers: Vec::new(),
        }),
        "cgroup" => {
            let flags = [
                "rw",
                "ro",
                "xattr",
                "noprefix",
                "clone_children",
                "cpuset_v2_mode",
                "favordynmods",
            ];
            let controllers: Vec<String> = options
                .split(',')
                .filter(|word| !flags.contains(word) && !word.contains('='))
                .map(str::to_owned)
                .collect();
            (!controllers.is_empty()).then_some(Mounted {
                path,
                v2: false,
                controllers,
            })
        }
        _ => None,
    }
}

/// Writes a cgroup file in one write(2), as the kernel wants it.
pub(crate) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(CgroupError::file(path, "written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_read() {
        let line = |kind: &str, options: &str| {
            parse_mount(&format!(
                "34 28 0:29 / /sys/fs/cgroup/x rw,relatime shared:9 - {kind} cgroup {options}"
            ))
        };
        assert_eq!(
            line("cgroup", "rw,cpu,cpuacct").map(|one| one.controllers),
            Some(vec!["cpu".to_owned(), "cpuacct".to_owned()])
        );
        assert_eq!(line("cgroup", "rw,xattr,name=systemd"), None);
        assert_eq!(line("tmpfs", "rw"), None);
        assert!(line("cgroup2", "rw").is_some_and(|one| one.v2));
        assert_eq!(parse_mount("nonsense"), None);
    }
}
