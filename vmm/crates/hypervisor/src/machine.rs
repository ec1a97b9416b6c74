use std::arch::x86_64::__cpuid;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use kvm_bindings::{
    KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, Msrs,
    kvm_device_attr, kvm_msr_entry, kvm_sregs,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use parking_lot::Mutex;
use vmm_abi::inside::InsideCode;
use vmm_memory::Mapper;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use crate::descriptors;
use crate::error::kvm;
use crate::inside::{Inside, Words};
use crate::paging::Paging;
use crate::system_area::{MAX_VCPUS, STUB_PAGE, SystemArea};
use crate::{FpuState, HostFacts, HypervisorError, Vcpu};

// kvm-ioctls has this call for virtual machines but not for x86 vCPUs.
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_SYSCALL_MASK: u32 = 0xc000_0084;

/// Physical address bits that the window and the system area behind it need.
const PHYSICAL_BITS: u32 = 40;

/// Floating-point state of a new program (FCW 0x37f, MXCSR 0x1f80), legacy area only.
const CONTROL_WORD: u32 = 0x37f;
const MXCSR: u32 = 0x1f80;

/// One virtual machine.
pub struct Machine {
    vm: Arc<VmFd>,
    kvm: Kvm,
    pub(crate) area: Arc<SystemArea>,
    pub(crate) paging: Arc<Paging>,
    cpuid: kvm_bindings::CpuId,
    inside: Arc<Inside>,
    pool: Mutex<Pool>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

/// A vCPU that is promised to one thread.
#[derive(Debug)]
pub struct VcpuPlace(Reserved);

impl VcpuPlace {
    /// The vCPU, if it is one that is there already.
    #[must_use]
    pub fn into_idle(self) -> Option<Vcpu> {
        match self.0 {
            Reserved::Idle(vcpu) => Some(vcpu),
            Reserved::New(_) => None,
        }
    }
}

#[derive(Debug)]
enum Reserved {
    Idle(Vcpu),
    /// The number of one that is to be made.
    New(u64),
}

#[derive(Default)]
struct Pool {
    idle: Vec<Vcpu>,
    made: u64,
}

impl Machine {
    /// Makes a virtual machine over the guest window at host address `window_base`, of
    /// [`crate::WINDOW_BYTES`].
    ///
    /// # Safety
    /// The window must stay mapped until the machine and its vCPUs are dropped, and nothing in it
    /// may be referred to from Rust.
    ///
    /// `kvm_fd` is an open /dev/kvm, for a process that may not open it itself; None opens it. `facts` are asked for if they are not given.
    ///
    /// # Errors
    /// [`HypervisorError`] for what the host lacks.
    pub unsafe fn new(
        window_base: *mut u8,
        kvm_fd: Option<OwnedFd>,
        facts: Option<&HostFacts>,
    ) -> Result<Self, HypervisorError> {
        let kvm_fd = match kvm_fd {
            // SAFETY: the descriptor is owned and given away here.
            Some(fd) => unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) },
            None => Kvm::new().map_err(|error| HypervisorError::Open(error.into()))?,
        };
        let needed = (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS) as i32;
        if kvm_fd.check_extension_int(Cap::SyncRegs) & needed != needed {
            return Err(HypervisorError::Capability("KVM_CAP_SYNC_REGS"));
        }
        if !kvm_fd.check_extension(Cap::ImmediateExit) {
            return Err(HypervisorError::Capability("KVM_CAP_IMMEDIATE_EXIT"));
        }
        let cpuid = match facts {
            Some(facts) => facts.cpuid()?,
            None => HostFacts::of(&kvm_fd)?.cpuid()?,
        };
        if let Some(leaf) = cpuid
            .as_slice()
            .iter()
            .find(|leaf| leaf.function == 0x8000_0008)
        {
            let bits = leaf.eax & 0xff;
            if bits < PHYSICAL_BITS {
                return Err(HypervisorError::PhysicalBits(bits));
            }
        }
        let vm = Arc::new(kvm_fd.create_vm().map_err(kvm("KVM_CREATE_VM"))?);
        let area = Arc::new(SystemArea::new()?);
        descriptors::write_shared(&area);
        let paging = Paging::new(Arc::clone(&area), Some(Arc::clone(&vm)), window_base as u64)
            .map_err(|errno| HypervisorError::Memory(std::io::Error::from_raw_os_error(errno.0)))?;
        let (paging, pool) = (Arc::new(paging), Mutex::new(Pool::default()));
        Ok(Self {
            vm,
            kvm: kvm_fd,
            area,
            paging,
            cpuid,
            inside: Arc::default(),
            pool,
        })
    }

    /// Lays code that serves system calls within the guest; once. Virtual CPUs that are allowed to ([`Vcpu::serve_inside`]) use it where `syscall`
    /// stays in user code. What it reads are the [`Machine::words`], which must be right before guest code runs.
    ///
    /// # Errors
    /// [`HypervisorError::Stopped`] for code that does not fit, and a second time.
    pub fn lay_inside(&self, code: InsideCode) -> Result<(), HypervisorError> {
        self.inside.lay(&self.area, code)
    }

    /// What code within the guest reads.
    #[must_use]
    pub fn words(&self) -> Words {
        Words::of(&self.area)
    }

    /// What follows changes of guest memory.
    #[must_use]
    pub fn mapper(&self) -> Arc<dyn Mapper> {
        Arc::clone(&self.paging) as Arc<dyn Mapper>
    }

    /// What the host keeps for the machine until it is gone, about: it is found by counting, not measured.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        /// Bytes of slots that cost one: 2.7 MB per GiB.
        const SLOT_BYTES_EACH: u64 = 380;
        /// State, run page and tables of a virtual CPU.
        const VCPU_KEEPS: u64 = 64 << 10;
        let vcpus = self.pool.lock().made.saturating_mul(VCPU_KEEPS);
        let slots = self.paging.covered() / SLOT_BYTES_EACH;
        slots.saturating_add(vcpus)
    }

    /// A place for a thread that is to run guest code, which [`Machine::take`] makes a vCPU of.
    ///
    /// # Errors
    /// [`HypervisorError::TooManyVcpus`].
    pub fn reserve_vcpu(&self) -> Result<VcpuPlace, HypervisorError> {
        let mut pool = self.pool.lock();
        if let Some(vcpu) = pool.idle.pop() {
            return Ok(VcpuPlace(Reserved::Idle(vcpu)));
        }
        let index = pool.made;
        if index >= MAX_VCPUS {
            return Err(HypervisorError::TooManyVcpus);
        }
        pool.made = index.saturating_add(1);
        Ok(VcpuPlace(Reserved::New(index)))
    }

    /// The vCPU of a place, made if it is a new one, which takes a third of a millisecond. The
    /// floating-point state of one that was used before is undefined.
    ///
    /// # Errors
    /// What KVM says.
    pub fn take(&self, place: VcpuPlace) -> Result<Vcpu, HypervisorError> {
        let index = match place.0 {
            Reserved::Idle(vcpu) => return Ok(vcpu),
            Reserved::New(index) => index,
        };
        let fd = self.vm.create_vcpu(index).map_err(kvm("KVM_CREATE_VCPU"))?;
        let sregs = self.prepare(&fd, index)?;
        zero_counter_offset(&fd);
        let (area, inside) = (Arc::clone(&self.area), Arc::clone(&self.inside));
        Ok(Vcpu::new(fd, area, inside, index, sregs))
    }

    /// [`Machine::reserve_vcpu`] and [`Machine::take`] in one.
    ///
    /// # Errors
    /// As those.
    pub fn take_vcpu(&self) -> Result<Vcpu, HypervisorError> {
        self.take(self.reserve_vcpu()?)
    }

    /// Thousands of time-stamp counter ticks per second that a guest sees; 0 where the processor does not
    /// promise an even rate, or guest and host counters differ, so that the one cannot stand for the other.
    ///
    /// # Errors
    /// As [`Machine::take_vcpu`].
    pub fn guest_ticks_khz(&self) -> Result<u32, HypervisorError> {
        if !has_invariant_counter() {
            // KVM then moves the guest's counter whenever a vCPU is loaded.
            return Ok(0);
        }
        let vcpu = self.take_vcpu()?;
        let khz = if vcpu.counter_is_hosts() {
            vcpu.ticks_khz()
        } else {
            0
        };
        self.return_vcpu(vcpu);
        Ok(khz)
    }

    /// Gives a vCPU back for another thread.
    pub fn return_vcpu(&self, vcpu: Vcpu) {
        self.pool.lock().idle.push(vcpu);
    }

    /// The floating-point state a new program starts with, derived from a vCPU's.
    ///
    /// # Errors
    /// [`HypervisorError::Kvm`] when KVM refuses.
    pub fn initial_fpu(&self, vcpu: &Vcpu) -> Result<FpuState, HypervisorError> {
        let mut bytes = vec![0u8; 4096];
        bytes.splice(0..4, CONTROL_WORD.to_le_bytes());
        bytes.splice(24..28, MXCSR.to_le_bytes());
        // XSTATE_BV names x87 and SSE; all else is in its initial state.
        bytes.splice(512..520, 3u64.to_le_bytes());
        Ok(vcpu.fpu()?.with_bytes(&bytes))
    }

    fn prepare(&self, fd: &VcpuFd, index: u64) -> Result<kvm_sregs, HypervisorError> {
        descriptors::write_vcpu(&self.area, index);
        fd.set_cpuid2(&self.cpuid).map_err(kvm("KVM_SET_CPUID2"))?;
        let mut sregs = fd.get_sregs().map_err(kvm("KVM_GET_SREGS"))?;
        descriptors::fill_sregs(&mut sregs, index);
        fd.set_sregs(&sregs).map_err(kvm("KVM_SET_SREGS"))?;
        let features = self
            .cpuid
            .as_slice()
            .iter()
            .find(|leaf| leaf.function == 0xd && leaf.index == 0);
        if self.kvm.check_extension(Cap::Xcrs)
            && let Some(leaf) = features
        {
            // Everything but AMX (bits 17, 18), whose state does not fit KVM_SET_XSAVE.
            let mask = (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & !0x6_0000;
            let mut xcrs = kvm_bindings::kvm_xcrs {
                nr_xcrs: 1,
                ..Default::default()
            };
            if let Some(first) = xcrs.xcrs.first_mut() {
                (first.xcr, first.value) = (0, mask);
            }
            fd.set_xcrs(&xcrs).map_err(kvm("KVM_SET_XCRS"))?;
        }
        set_msrs(
            fd,
            &[
                (MSR_STAR, descriptors::STAR),
                (MSR_LSTAR, STUB_PAGE),
                (MSR_SYSCALL_MASK, descriptors::SYSCALL_MASK),
            ],
        )?;
        Ok(sregs)
    }
}

/// Has `syscall` lead to an address of the stub page.
pub(crate) fn set_entry(fd: &VcpuFd, address: u64) -> Result<(), HypervisorError> {
    set_msrs(fd, &[(MSR_LSTAR, address)])
}

fn set_msrs(fd: &VcpuFd, list: &[(u32, u64)]) -> Result<(), HypervisorError> {
    let entries = list.iter().map(|(index, data)| kvm_msr_entry {
        index: *index,
        data: *data,
        ..Default::default()
    });
    let msrs = Msrs::from_entries(&entries.collect::<Vec<_>>())
        .map_err(|_| HypervisorError::Stopped("a list of MSRs was refused".into()))?;
    let count = fd.set_msrs(&msrs).map_err(kvm("KVM_SET_MSRS"))?;
    if count != list.len() {
        return Err(HypervisorError::Stopped(format!(
            "KVM takes only {count} of {} MSRs",
            list.len()
        )));
    }
    Ok(())
}

/// CPUID 8000_0007, EDX bit 8 (Intel SDM volume 3, 18.17.1).
pub(crate) fn has_invariant_counter() -> bool {
    const LEAF: u32 = 0x8000_0007;
    __cpuid(0x8000_0000).eax >= LEAF && __cpuid(LEAF).edx & (1 << 8) != 0
}

/// Makes the guest's time-stamp counter the host's, where KVM has offsets at all. Whether that worked is
/// found out by comparing them ([`Machine::guest_ticks_khz`]).
fn zero_counter_offset(fd: &VcpuFd) {
    let offset = 0u64;
    let attribute = kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: (&raw const offset) as u64,
    };
    // SAFETY: KVM reads the attribute and the eight bytes its address points to, both of which live
    // here; a KVM without the attribute refuses and changes nothing.
    unsafe { ioctl_with_ref(fd, KVM_SET_DEVICE_ATTR(), &attribute) };
}
