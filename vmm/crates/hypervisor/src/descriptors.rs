//! What the processor itself reads: stub, interrupt and global descriptor tables, task state
//! (Intel SDM volume 3, chapters 3, 6 and 8).

use kvm_bindings::{kvm_dtable, kvm_segment, kvm_sregs};
use vmm_abi::PAGE_SIZE;

use crate::inside::INSIDE_CODE;
use crate::system_area::{IDT_PAGE, STUB_PAGE, SystemArea, TOP_TABLE, VCPU_PAGES, VECTOR_PAGE};

/// The one port that user code may write: what `syscall` leads to does so.
pub(crate) const SYSCALL_PORT: u16 = 0x50;
/// The port of the exception entry points; privileged, so user code cannot reach it.
pub(crate) const FAULT_PORT: u16 = 0x51;

// Selectors are those of Linux on x86-64, since programs and debuggers know them.
const KERNEL_CODE: u16 = 0x10;
/// User data selector.
pub(crate) const USER_DATA: u16 = 0x2b;
/// User code selector.
pub(crate) const USER_CODE: u16 = 0x33;
const TASK: u16 = 0x40;

/// IA32_STAR: `syscall` takes CS 0x10 and SS 0x18; `sysret` CS 0x33 and SS 0x2b.
pub(crate) const STAR: u64 = (0x23 << 48) | (0x10 << 32);
/// RFLAGS bits that `syscall` clears: what Linux clears (TF, IF, DF, IOPL, NT, AC...).
pub(crate) const SYSCALL_MASK: u64 = 0x0025_7fd5;

const VECTORS: u64 = 32;
/// The interrupt stack (of 7) that all exceptions use, also one between `syscall`, which keeps the stack
/// pointer of the guest, and the `out` of the stub.
const STACK_ENTRY: u64 = 1;
const ENTRY_BYTES: u64 = 16;

/// Offset of the task state in a vCPU's descriptor page, behind the descriptors.
const TASK_OFFSET: u64 = 128;
const TASK_BYTES: u64 = 104;
/// I/O permission bytes up to the one of the syscall port, and the 0xff that must end them.
const IO_MAP_BYTES: u64 = (SYSCALL_PORT / 8) as u64 + 2;
const TASK_LIMIT: u64 = TASK_BYTES + IO_MAP_BYTES - 1;

/// Writes stub, entry points and interrupt descriptor table.
pub(crate) fn write_shared(area: &SystemArea) {
    area.write(STUB_PAGE, &[0xcc; PAGE_SIZE as usize]);
    for (address, bytes) in shared() {
        area.write(address, &bytes);
    }
}

/// The first word of what the processor reads for a vCPU that is not as it was written. There is none, whatever
/// the guest does: it has no access, and the processor's own are to be let alone by descriptors written as used.
pub(crate) fn first_change(area: &SystemArea, index: u64) -> Option<u64> {
    let written = shared().into_iter().chain(of_vcpu(index));
    written
        .into_iter()
        .find_map(|(address, bytes)| area.first_difference(address, &bytes))
}

/// Where the touching code lies in the stub page.
pub(crate) const TOUCHING_CODE: u64 = STUB_PAGE + 16;

/// Addresses and bytes. The stub is `out SYSCALL_PORT, al; hlt`; further on lies the touching code,
/// `1: lodsq; mov al, [rax]; dec edx; jnz 1b; syscall`. The rest are traps up to where code may be laid.
fn shared() -> [(u64, Vec<u8>); 3] {
    let mut stub = vec![0xcc; (INSIDE_CODE - STUB_PAGE) as usize];
    let code = [0xe6, SYSCALL_PORT as u8, 0xf4];
    stub.splice(..code.len(), code);
    let touching = [0x48, 0xad, 0x8a, 0x00, 0xff, 0xca, 0x75, 0xf8, 0x0f, 0x05];
    let at = (TOUCHING_CODE % PAGE_SIZE) as usize;
    for (to, from) in stub.iter_mut().skip(at).zip(touching) {
        *to = from;
    }

    let mut vectors = Vec::new();
    let mut idt = Vec::new();
    for vector in 0..VECTORS {
        let mut entry = [0xcc; ENTRY_BYTES as usize];
        let code = [0xe6, FAULT_PORT as u8, 0xf4];
        for (to, from) in entry.iter_mut().zip(code) {
            *to = from;
        }
        vectors.extend_from_slice(&entry);
        let target = VECTOR_PAGE.saturating_add(vector.saturating_mul(ENTRY_BYTES));
        // int3 and into may be executed by user code; all other vectors only arise.
        let level = if vector == 3 || vector == 4 { 3u64 } else { 0 };
        let kind = 0x8e | (level << 5);
        let low = (target & 0xffff)
            | (u64::from(KERNEL_CODE) << 16)
            | (STACK_ENTRY << 32)
            | (kind << 40)
            | (((target >> 16) & 0xffff) << 48);
        idt.extend_from_slice(&low.to_le_bytes());
        idt.extend_from_slice(&(target >> 32).to_le_bytes());
    }
    [(STUB_PAGE, stub), (VECTOR_PAGE, vectors), (IDT_PAGE, idt)]
}

/// Which vector's entry point an address lies in.
pub(crate) fn vector_at(rip: u64) -> Option<u8> {
    let vector = rip.checked_sub(VECTOR_PAGE)? / ENTRY_BYTES;
    if vector < VECTORS {
        u8::try_from(vector).ok()
    } else {
        None
    }
}

/// Whether the processor pushes an error code for a vector.
pub(crate) fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

fn descriptor_page(index: u64) -> u64 {
    VCPU_PAGES.saturating_add(index.saturating_mul(PAGE_SIZE.saturating_mul(2)))
}

/// First address behind the exception stack of a vCPU.
pub(crate) fn stack_top(index: u64) -> u64 {
    descriptor_page(index).saturating_add(PAGE_SIZE.saturating_mul(2))
}

/// Writes descriptor table and task state of one vCPU.
pub(crate) fn write_vcpu(area: &SystemArea, index: u64) {
    for (address, bytes) in of_vcpu(index) {
        area.write(address, &bytes);
    }
}

fn of_vcpu(index: u64) -> [(u64, Vec<u8>); 2] {
    let page = descriptor_page(index);
    let task = page.saturating_add(TASK_OFFSET);
    let descriptors: [u64; 10] = [
        0,
        0,
        0x00af_9b00_0000_ffff, // 0x10 kernel code, 64 bit
        0x00cf_9300_0000_ffff, // 0x18 kernel data
        0x00cf_fb00_0000_ffff, // 0x20 user code, 32 bit (never used, sysret counts from it)
        0x00cf_f300_0000_ffff, // 0x28 user data
        0x00af_fb00_0000_ffff, // 0x30 user code, 64 bit
        0,
        TASK_LIMIT | ((task & 0xff_ffff) << 16) | (0x8b << 40) | (((task >> 24) & 0xff) << 56), // 0x40 busy 64-bit task state
        task >> 32,
    ];
    let bytes: Vec<u8> = descriptors
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect();

    let mut state = vec![0u8; TASK_BYTES as usize];
    let stack = stack_top(index).to_le_bytes();
    state.splice(36..44, stack);
    state.splice(102..104, (TASK_BYTES as u16).to_le_bytes());
    let mut permissions = vec![0xffu8; IO_MAP_BYTES as usize];
    if let Some(byte) = permissions.get_mut(usize::from(SYSCALL_PORT / 8)) {
        *byte &= !(1 << (SYSCALL_PORT % 8));
    }
    state.extend_from_slice(&permissions);
    [(page, bytes), (task, state)]
}

fn user_segment(selector: u16, kind: u8, long: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 3,
        db: u8::from(long == 0),
        s: 1,
        l: long,
        g: 1,
        ..kvm_segment::default()
    }
}

/// The user code segment.
pub(crate) fn user_code() -> kvm_segment {
    user_segment(USER_CODE, 11, 1)
}

/// The user stack segment.
pub(crate) fn user_stack() -> kvm_segment {
    user_segment(USER_DATA, 3, 0)
}

/// System registers of a vCPU that starts in user code.
pub(crate) fn fill_sregs(sregs: &mut kvm_sregs, index: u64) {
    let page = descriptor_page(index);
    sregs.cs = user_code();
    sregs.ss = user_stack();
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs] {
        // Null selectors, as Linux leaves them for 64-bit programs.
        *segment = kvm_segment {
            selector: 0,
            ..user_segment(0, 3, 0)
        };
    }
    sregs.tr = kvm_segment {
        base: page.saturating_add(TASK_OFFSET),
        limit: TASK_LIMIT as u32,
        selector: TASK,
        type_: 11,
        present: 1,
        ..kvm_segment::default()
    };
    sregs.gdt = kvm_dtable {
        base: page,
        limit: 79,
        ..kvm_dtable::default()
    };
    sregs.idt = kvm_dtable {
        base: IDT_PAGE,
        limit: (VECTORS * 16 - 1) as u16,
        ..kvm_dtable::default()
    };
    sregs.cr0 = 0x8005_0033; // PE, MP, ET, NE, WP, AM, PG
    sregs.cr3 = TOP_TABLE;
    sregs.cr4 = 0x5_0620; // PAE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE
    sregs.efer = 0xd01; // SCE, LME, LMA, NXE
}
