use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::{fs, io};

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;
use serde::{Deserialize, Serialize};

use crate::HypervisorError;
use crate::error::kvm;

/// What the processor and KVM say of themselves. It is the same for every machine of a host, and asking for it takes half a millisecond where the
/// host is a virtual machine itself and each `cpuid` a trap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// [`processor_id`].
    pub processor: String,
    /// [`boot_id`], where it could be had.
    pub boot: Option<String>,
    /// What KVM can let guests see: function, index, flags, eax, ebx, ecx, edx (kvm_cpuid_entry2).
    cpuid: Vec<[u32; 7]>,
}

impl HostFacts {
    /// Asks.
    ///
    /// # Errors
    /// [`HypervisorError`] for what the host lacks.
    pub fn ask() -> Result<Self, HypervisorError> {
        let kvm = Kvm::new().map_err(|error| HypervisorError::Open(error.into()))?;
        Self::of(&kvm)
    }

    pub(crate) fn of(kvm_fd: &Kvm) -> Result<Self, HypervisorError> {
        let supported = kvm_fd
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(kvm("KVM_GET_SUPPORTED_CPUID"))?;
        let entries = supported.as_slice().iter();
        Ok(Self {
            processor: processor_id(),
            boot: boot_id().ok(),
            cpuid: entries
                .map(|e| [e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx])
                .collect(),
        })
    }

    /// Whether they are of this processor, by its family, model and stepping.
    #[must_use]
    pub fn are_of_here(&self) -> bool {
        let own = __cpuid(1).eax;
        let mut entries = self.cpuid.iter();
        entries.any(|[function, _, _, eax, ..]| *function == 1 && *eax == own)
    }

    pub(crate) fn cpuid(&self) -> Result<CpuId, HypervisorError> {
        let entry = |[function, index, flags, eax, ebx, ecx, edx]: &[u32; 7]| kvm_cpuid_entry2 {
            function: *function,
            index: *index,
            flags: *flags,
            eax: *eax,
            ebx: *ebx,
            ecx: *ecx,
            edx: *edx,
            ..Default::default()
        };
        let entries: Vec<_> = self.cpuid.iter().map(entry).collect();
        CpuId::from_entries(&entries)
            .map_err(|_| HypervisorError::Stopped("there are too many CPUID entries".into()))
    }
}

/// What the kernel calls this boot of the machine (random(4)).
///
/// # Errors
/// Where /proc is not mounted, or shows processes only.
pub fn boot_id() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// Maker, model and features of the processor, which a guest sees as they are: what programs choose their code by.
#[must_use]
pub fn processor_id() -> String {
    let maker = __cpuid(0);
    let mut text = String::new();
    for word in [maker.ebx, maker.edx, maker.ecx] {
        text.extend(word.to_le_bytes().map(char::from));
    }
    // Not EBX of leaf 1, which tells the processor the caller runs on.
    let (model, more, states) = (__cpuid(1), __cpuid_count(7, 0), __cpuid_count(0xd, 0));
    let extended = __cpuid(0x8000_0001);
    let features = [
        model.eax,
        model.ecx,
        model.edx,
        more.ebx,
        more.ecx,
        more.edx,
        states.eax,
        states.ecx,
        extended.ecx,
        extended.edx,
    ];
    for feature in features {
        text.push_str(&format!(" {feature:x}"));
    }
    text
}
