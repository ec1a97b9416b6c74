/// What a sandbox may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Memory of all its processes and its /tmp; swap is off.
    pub memory_bytes: u64,
    /// 1000 is one processor.
    pub cpu_milli: u32,
    /// Processes and threads, its init included.
    pub pids: u32,
    /// Each of /tmp and /dev/shm.
    pub tmp_bytes: u64,
    /// Processors it may run on, as in cpuset(7), e.g. `0-1,3`; any when None.
    pub cpuset: Option<String>,
    pub io: Option<IoLimits>,
    pub cpu_weight: CpuWeight,
}

/// What a sandbox gets of processors that others want too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuWeight {
    /// As much as any other.
    Serving,
    /// A sixteenth of that: nobody waits for it yet.
    Waiting,
}

/// Limits of one block device, bytes per second.
#[derive(Debug, Clone)]
pub struct IoLimits {
    /// `major:minor`.
    pub device: String,
    pub read_bytes_per_s: Option<u64>,
    pub write_bytes_per_s: Option<u64>,
}

/// What is to be different from now on; None leaves it as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct LimitChange {
    pub memory_bytes: Option<u64>,
    pub cpu_milli: Option<u32>,
    pub pids: Option<u32>,
    pub cpu_weight: Option<CpuWeight>,
}
