use std::{fmt, io};

/// Why a virtual machine cannot be made or run.
#[derive(Debug)]
pub enum HypervisorError {
    /// /dev/kvm cannot be opened.
    Open(io::Error),
    /// A KVM call failed; the text names it.
    Kvm(&'static str, io::Error),
    /// KVM lacks a capability that is needed.
    Capability(&'static str),
    /// Memory for the system area cannot be had.
    Memory(io::Error),
    /// The processor's physical addresses are too narrow.
    PhysicalBits(u32),
    /// No more vCPUs fit.
    TooManyVcpus,
    /// The virtual CPU stopped in a way that no guest program can cause.
    Stopped(String),
}

impl fmt::Display for HypervisorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(
                f,
                "cannot open /dev/kvm: {error}. Load a KVM module and let this user read and write /dev/kvm"
            ),
            Self::Kvm(call, error) => {
                write!(
                    f,
                    "{call} failed: {error}. See `./cloister doctor` for what KVM can do here"
                )
            }
            Self::Capability(name) => {
                write!(
                    f,
                    "this KVM has no {name}. Use a kernel of version 5.4 or later"
                )
            }
            Self::Memory(error) => {
                write!(
                    f,
                    "no memory for a virtual machine: {error}. Run fewer sandboxes at once"
                )
            }
            Self::PhysicalBits(bits) => write!(
                f,
                "this processor has {bits} bits of physical address and 40 are needed. Use \
                 isolation `container` on this host"
            ),
            Self::TooManyVcpus => {
                f.write_str("the virtual machine has no more vCPUs. Start fewer threads")
            }
            Self::Stopped(what) => {
                write!(
                    f,
                    "the virtual CPU stopped: {what}. Please report this with the host's CPU model"
                )
            }
        }
    }
}

impl std::error::Error for HypervisorError {}

/// Names the KVM call an error came from.
pub(crate) fn kvm(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> HypervisorError {
    move |error| HypervisorError::Kvm(call, error.into())
}
