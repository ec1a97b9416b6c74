use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::hierarchy::{ALWAYS, CPU_PERIOD_US, Hierarchy, StatFile, StatFiles, write};
use crate::error::CgroupError;
use crate::limits::{CpuWeight, LimitChange, Limits};

/// The cgroups of one sandbox: a folder of the same name in each hierarchy it is limited in.
#[derive(Debug)]
pub(crate) struct CellCgroup {
    hierarchy: Hierarchy,
    /// `cloister-<instance>/<cell>`.
    name: PathBuf,
    folders: Vec<PathBuf>,
}

impl CellCgroup {
    /// Makes the folders; no process is in them yet. On failure none is left.
    pub fn make(
        hierarchy: &Hierarchy,
        parent: &Path,
        cell: u64,
    ) -> Result<CellCgroup, CgroupError> {
        let mut made = CellCgroup {
            hierarchy: hierarchy.clone(),
            name: parent.join(format!("cell-{cell}")),
            folders: Vec::new(),
        };
        for mounted in hierarchy.of_all(&ALWAYS)? {
            let path = mounted.path.join(&made.name);
            fs::create_dir(&path).map_err(CgroupError::file(&path, "made"))?;
            made.folders.push(path);
        }
        Ok(made)
    }

    fn folder(&self, controller: &'static str) -> Result<(PathBuf, bool), CgroupError> {
        let mounted = self.hierarchy.of(controller)?;
        Ok((mounted.path.join(&self.name), mounted.v2))
    }

    /// Moves a whole process in. The first call after a while takes 11 to 18 ms on v1.
    pub fn attach(&self, pid: u32) -> Result<(), CgroupError> {
        self.folders
            .iter()
            .try_for_each(|folder| write(&folder.join("cgroup.procs"), &pid.to_string()))
    }

    /// Sets every limit, and joins `pid` to the hierarchies that only some limits need. Fails where a limit cannot be had.
    pub fn limit(&mut self, limits: &Limits, pid: u32) -> Result<(), CgroupError> {
        self.change(&LimitChange {
            memory_bytes: Some(limits.memory_bytes),
            cpu_milli: Some(limits.cpu_milli),
            pids: Some(limits.pids),
            // A new cgroup has the weight of one that serves.
            cpu_weight: Some(limits.cpu_weight).filter(|weight| *weight != CpuWeight::Serving),
        })?;
        if let Some(cpus) = &limits.cpuset {
            let (folder, v2) = self.join("cpuset")?;
            if !v2 {
                // Without memory nodes a v1 cpuset takes no process.
                let nodes = folder.parent().unwrap_or(&folder).join("cpuset.mems");
                let all = fs::read_to_string(&nodes).map_err(CgroupError::file(&nodes, "read"))?;
                write(&folder.join("cpuset.mems"), all.trim())?;
            }
            write(&folder.join("cpuset.cpus"), cpus)?;
            self.enter(&folder, pid)?;
        }
        if let Some(io) = &limits.io {
            let controller = if self.hierarchy.of("io").is_ok() {
                "io"
            } else {
                "blkio"
            };
            let (folder, v2) = self.join(controller)?;
            let rates = [
                ("rbps", "read", io.read_bytes_per_s),
                ("wbps", "write", io.write_bytes_per_s),
            ];
            for (key, word, rate) in rates {
                let Some(rate) = rate else { continue };
                if v2 {
                    write(
                        &folder.join("io.max"),
                        &format!("{} {key}={rate}", io.device),
                    )?;
                } else {
                    let file = format!("blkio.throttle.{word}_bps_device");
                    write(&folder.join(file), &format!("{} {rate}", io.device))?;
                }
            }
            self.enter(&folder, pid)?;
        }
        Ok(())
    }

    /// The folder for a controller that not every sandbox needs.
    fn join(&mut self, controller: &'static str) -> Result<(PathBuf, bool), CgroupError> {
        let (folder, v2) = self.folder(controller)?;
        if !self.folders.contains(&folder) {
            fs::create_dir(&folder).map_err(CgroupError::file(&folder, "made"))?;
            self.folders.push(folder.clone());
        }
        Ok((folder, v2))
    }

    fn enter(&self, folder: &Path, pid: u32) -> Result<(), CgroupError> {
        write(&folder.join("cgroup.procs"), &pid.to_string())
    }

    /// Changes limits of a sandbox that may be running.
    pub fn change(&self, change: &LimitChange) -> Result<(), CgroupError> {
        if let Some(bytes) = change.memory_bytes {
            self.limit_memory(bytes)?;
        }
        if let Some(milli) = change.cpu_milli {
            let quota_us = u64::from(milli).saturating_mul(CPU_PERIOD_US) / 1000;
            let (folder, v2) = self.folder("cpu")?;
            if v2 {
                write(
                    &folder.join("cpu.max"),
                    &format!("{quota_us} {CPU_PERIOD_US}"),
                )?;
            } else {
                write(
                    &folder.join("cpu.cfs_period_us"),
                    &CPU_PERIOD_US.to_string(),
                )?;
                write(&folder.join("cpu.cfs_quota_us"), &quota_us.to_string())?;
            }
        }
        if let Some(pids) = change.pids {
            let (folder, _) = self.folder("pids")?;
            write(&folder.join("pids.max"), &pids.to_string())?;
        }
        if let Some(weight) = change.cpu_weight {
            let (folder, v2) = self.folder("cpu")?;
            // The defaults of the two (cgroup-v2.rst, cpu.weight; sched-design-CFS.rst), and a sixteenth of them.
            let (file, serving, waiting) = if v2 {
                ("cpu.weight", "100", "6")
            } else {
                ("cpu.shares", "1024", "64")
            };
            let value = match weight {
                CpuWeight::Serving => serving,
                CpuWeight::Waiting => waiting,
            };
            write(&folder.join(file), value)?;
        }
        Ok(())
    }

    fn limit_memory(&self, bytes: u64) -> Result<(), CgroupError> {
        let (folder, v2) = self.folder("memory")?;
        let bytes = bytes.to_string();
        if v2 {
            write(&folder.join("memory.max"), &bytes)?;
            let swap = folder.join("memory.swap.max");
            // Absent in a kernel without swap: then there is none to be off.
            if swap.exists() {
                write(&swap, "0")?;
            }
            return write(&folder.join("memory.oom.group"), "1");
        }
        let both = folder.join("memory.memsw.limit_in_bytes");
        let memory = folder.join("memory.limit_in_bytes");
        if !both.exists() {
            // No swap accounting: no page of this group goes to swap (memory.txt, 5.3).
            write(&folder.join("memory.swappiness"), "0")?;
            return write(&memory, &bytes);
        }
        // Memory alone may never exceed memory and swap together, so the order depends on whether it grows.
        if write(&memory, &bytes).is_ok() {
            return write(&both, &bytes);
        }
        write(&both, &bytes)?;
        write(&memory, &bytes)
    }

    pub fn stat_files(&self) -> Result<StatFiles, CgroupError> {
        let (memory, v2) = self.folder("memory")?;
        let of = |name: &str| StatFile {
            path: memory.join(name),
            format: "bytes",
        };
        let (peak, current) = if v2 {
            ("memory.peak", "memory.current")
        } else {
            ("memory.max_usage_in_bytes", "memory.usage_in_bytes")
        };
        let (cpu, v2) = self.folder("cpu")?;
        let cpu = if v2 {
            StatFile {
                path: cpu.join("cpu.stat"),
                format: "usage_usec",
            }
        } else {
            StatFile {
                path: self.folder("cpuacct")?.0.join("cpuacct.usage"),
                format: "ns",
            }
        };
        Ok(StatFiles {
            cpu,
            memory_peak: of(peak),
            memory: of(current),
        })
    }

    /// Whether the kernel's OOM killer struck in here.
    pub fn saw_oom_kill(&self) -> bool {
        let Ok((folder, v2)) = self.folder("memory") else {
            return false;
        };
        let file = folder.join(if v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        });
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .any(|count| count.trim() != "0")
    }

    pub fn memory_peak_bytes(&self) -> Option<u64> {
        let file = self.stat_files().ok()?.memory_peak.path;
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Removes the folders, which must be empty of processes. Gives the first failure, after trying all.
    pub fn remove(&mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        self.folders.retain(|folder| match fs::remove_dir(folder) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                outcome = Err(error);
                true
            }
        });
        outcome
    }
}

impl CellCgroup {
    /// Removes the folders by a call that may wait for the kernel; false when something stays.
    pub fn remove_with(mut self, remove: fn(&Path) -> io::Result<()>) -> bool {
        self.folders.retain(|folder| remove(folder).is_err());
        self.folders.is_empty()
    }
}

impl Drop for CellCgroup {
    fn drop(&mut self) {
        // What cannot go now is found by the next start.
        let _ = self.remove();
    }
}
