//! Real virtual machines on the host's /dev/kvm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_abi::inside::{InsideCode, InsideSpan};
use vmm_abi::{Errno, Fault, Prot, Registers};
use vmm_memory::{AddressSpace, Backing, Charge, Kind, Limits, MapRequest, Place, Window};

use crate::{BoundVcpu, Exit, Machine, WINDOW_BYTES, install_kick_handler};

const CODE: u64 = 0x40_0000;

struct Guest {
    vcpu: BoundVcpu,
    machine: Machine,
    memory: Arc<AddressSpace>,
    registers: Registers,
    /// How often [`Guest::run`] went on after a kick.
    interrupted: u64,
}

fn guest(code: &[u8]) -> Guest {
    install_kick_handler().unwrap();
    let window = Window::reserve(WINDOW_BYTES).unwrap();
    // SAFETY: the address space keeps the window; fields drop in order, the vCPU and machine first.
    let machine = unsafe { Machine::new(window.base(), None, None) }.unwrap();
    let limits = Limits { bytes: 64 << 20 };
    let memory = Arc::new(AddressSpace::new(window, machine.mapper(), limits));
    map(&memory, CODE, Prot::RW);
    memory.write(CODE, code).unwrap();
    memory.protect(CODE, 4096, Prot::READ | Prot::EXEC).unwrap();
    let vcpu = BoundVcpu::new(machine.take_vcpu().unwrap());
    let registers = Registers {
        rip: CODE,
        ..Registers::default()
    };
    Guest {
        vcpu,
        machine,
        memory,
        registers,
        interrupted: 0,
    }
}

fn map(memory: &AddressSpace, at: u64, prot: Prot) {
    let request = MapRequest {
        allowed: Prot::all(),
        place: Place::Fixed(at),
        len: 4096,
        prot,
        backing: Backing::Anonymous,
        kind: Kind::Anonymous,
        charge: Charge::Always,
    };
    memory.map(&request).unwrap();
}

impl Guest {
    fn run(&mut self) -> Exit {
        loop {
            let exit = self.vcpu.run(&mut self.registers).unwrap();
            if exit != Exit::Interrupted {
                return exit;
            }
            self.interrupted = self.interrupted.saturating_add(1);
        }
    }
}

fn page_fault(address: u64, code: u64) -> Exit {
    Exit::Fault(Fault {
        vector: 14,
        code,
        address,
    })
}

#[test]
fn a_system_call_leaves_with_all_registers_and_comes_back() {
    // mov eax, 39; syscall; mov ebx, eax; mov eax, 60; syscall
    let mut guest = guest(&[
        0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x89, 0xc3, 0xb8, 60, 0, 0, 0, 0x0f, 0x05,
    ]);
    guest.registers.r15 = 0x1234_5678_9abc_def0;
    guest.registers.fs_base = 0x7000;
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.registers.rax, 39);
    assert_eq!(guest.registers.rip, CODE + 7);
    assert_eq!(guest.registers.r15, 0x1234_5678_9abc_def0);
    assert_eq!(guest.registers.fs_base, 0x7000);
    guest.registers.rax = 4711;
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!((guest.registers.rax, guest.registers.rbx), (60, 4711));
}

#[test]
fn protections_are_those_of_the_mapping() {
    // mov [rdi], al; mov eax, 1; syscall
    let mut guest = guest(&[0x88, 0x07, 0xb8, 1, 0, 0, 0, 0x0f, 0x05]);
    let page = 0x7f_0000_0000;
    guest.registers.rdi = page;
    let start = guest.registers;
    assert_eq!(guest.run(), page_fault(page, 6), "nothing is mapped");
    assert_eq!(guest.registers.rip, CODE);

    map(&guest.memory, page, Prot::RW);
    guest.registers = start;
    assert_eq!(guest.run(), Exit::Syscall);

    guest.memory.protect(page, 4096, Prot::READ).unwrap();
    guest.registers = start;
    assert_eq!(guest.run(), page_fault(page, 7), "read-only");

    guest.memory.protect(page, 4096, Prot::RW).unwrap();
    guest.registers = start;
    assert_eq!(guest.run(), Exit::Syscall);

    guest.registers = Registers { rip: page, ..start };
    assert_eq!(guest.run(), page_fault(page, 0x15), "no execution");

    guest.memory.unmap(page, 4096).unwrap();
    guest.registers = start;
    assert_eq!(guest.run(), page_fault(page, 6), "gone again");
}

#[test]
fn execution_is_taken_away_too() {
    let mut guest = guest(&[0xb8, 1, 0, 0, 0, 0x0f, 0x05]);
    let start = guest.registers;
    assert_eq!(guest.run(), Exit::Syscall);
    guest.memory.protect(CODE, 4096, Prot::READ).unwrap();
    guest.registers = start;
    assert_eq!(guest.run(), page_fault(CODE, 0x15));
}

#[test]
fn the_system_area_is_out_of_reach() {
    let mut guest = guest(&[0x88, 0x07, 0xeb, 0xfe]);
    // Behind them lies what it may write.
    for page in 0..7u64 {
        let address = WINDOW_BYTES + page * 4096;
        guest.registers = Registers {
            rip: CODE,
            rdi: address,
            ..Registers::default()
        };
        match guest.run() {
            Exit::Fault(fault) => assert_eq!((fault.vector, fault.address), (14, address)),
            other => panic!("a write to page {page} of the system area: {other:?}"),
        }
    }
}

#[test]
fn ports_and_privileged_instructions_are_faults() {
    let cases: [(&[u8], u8); 7] = [
        (&[0xe6, 0x51], 13),       // out 0x51, al: the exception port
        (&[0xe6, 0x80], 13),       // out 0x80, al
        (&[0xf4], 13),             // hlt
        (&[0x0f, 0x22, 0xd8], 13), // mov cr3, rax
        (&[0x0f, 0x0b], 6),        // ud2
        (&[0xcc], 3),              // int3
        (&[0xcd, 0x80], 13),       // int 0x80
    ];
    for (code, vector) in cases {
        let mut guest = guest(code);
        match guest.run() {
            // Some KVMs give #UD for an interrupt that no gate takes.
            Exit::Fault(fault) if code[0] == 0xcd => assert!([6, 11, 13].contains(&fault.vector)),
            Exit::Fault(fault) => assert_eq!(fault.vector, vector, "{code:x?}"),
            other => panic!("{code:x?}: {other:?}"),
        }
    }
}

#[test]
fn a_kick_ends_a_busy_loop() {
    let mut guest = guest(&[0xeb, 0xfe]);
    let kicker = guest.vcpu.kicker();
    let other = std::thread::spawn(move || kicker.kick());
    assert_eq!(
        guest.vcpu.run(&mut guest.registers).unwrap(),
        Exit::Interrupted
    );
    other.join().unwrap();
    assert_eq!(guest.registers.rip, CODE);
}

#[test]
fn a_kick_before_the_run_counts() {
    let mut guest = guest(&[0xeb, 0xfe]);
    guest.vcpu.kicker().kick();
    assert_eq!(
        guest.vcpu.run(&mut guest.registers).unwrap(),
        Exit::Interrupted
    );
}

#[test]
fn vector_state_can_be_read_and_set() {
    // movq xmm0, rdi; syscall; movq rbx, xmm0; syscall
    let mut guest = guest(&[
        0x66, 0x48, 0x0f, 0x6e, 0xc7, 0x0f, 0x05, 0x66, 0x48, 0x0f, 0x7e, 0xc3, 0x0f, 0x05,
    ]);
    let initial = guest.machine.initial_fpu(&guest.vcpu).unwrap();
    guest.vcpu.set_fpu(&initial).unwrap();
    guest.registers.rdi = 0x1122_3344_5566_7788;
    assert_eq!(guest.run(), Exit::Syscall);
    let state = guest.vcpu.fpu().unwrap();
    let mut bytes = state.to_bytes();
    assert_eq!(bytes[160..168], 0x1122_3344_5566_7788u64.to_le_bytes());
    bytes[160] = 0x99;
    guest.vcpu.set_fpu(&state.with_bytes(&bytes)).unwrap();
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.registers.rbx, 0x1122_3344_5566_7799);
}

#[test]
fn large_pages_are_split_where_protection_differs() {
    let mut guest = guest(&[0x88, 0x07, 0xb8, 1, 0, 0, 0, 0x0f, 0x05]);
    let start = 0x10_0000_0000;
    let request = MapRequest {
        allowed: Prot::all(),
        place: Place::Fixed(start),
        len: 8 << 20,
        prot: Prot::RW,
        backing: Backing::Anonymous,
        kind: Kind::Anonymous,
        charge: Charge::Always,
    };
    guest.memory.map(&request).unwrap();
    let write = |guest: &mut Guest, at: u64| {
        guest.registers = Registers {
            rip: CODE,
            rdi: at,
            ..Registers::default()
        };
        guest.run()
    };
    assert_eq!(write(&mut guest, start + (3 << 20)), Exit::Syscall);
    guest
        .memory
        .protect(start + (3 << 20), 4096, Prot::READ)
        .unwrap();
    assert_eq!(
        write(&mut guest, start + (3 << 20)),
        page_fault(start + (3 << 20), 7)
    );
    assert_eq!(write(&mut guest, start + (3 << 20) + 4096), Exit::Syscall);
    guest.memory.unmap(start, 8 << 20).unwrap();
    assert_eq!(
        write(&mut guest, start + (5 << 20)),
        page_fault(start + (5 << 20), 6)
    );
    assert_eq!(guest.memory.write(start, &[1]), Err(Errno::EFAULT));
}

#[test]
fn a_large_reserve_is_reached_wherever_it_is_touched_first() {
    let mut guest = guest(&[0x88, 0x07, 0xb8, 1, 0, 0, 0, 0x0f, 0x05]);
    const PIECE: u64 = 64 << 20;
    let start = 0x10_0000_0000;
    let request = MapRequest {
        allowed: Prot::all(),
        place: Place::Fixed(start + (1 << 20)),
        len: 4 * PIECE,
        prot: Prot::RW,
        backing: Backing::Anonymous,
        kind: Kind::Anonymous,
        charge: Charge::Never,
    };
    guest.memory.map(&request).unwrap();
    let mut write = |memory: &dyn Fn(&AddressSpace), at: u64| {
        memory(&guest.memory);
        guest.registers = Registers {
            rip: CODE,
            rdi: at,
            ..Registers::default()
        };
        loop {
            match guest.run() {
                Exit::Fault(fault) if guest.memory.resolve(&fault) => {}
                exit => return exit,
            }
        }
    };
    let as_it_is = |_: &AddressSpace| {};
    // The ends share their pieces with what is not mapped.
    assert_eq!(write(&as_it_is, start + (1 << 20)), Exit::Syscall);
    assert_eq!(write(&as_it_is, start + 4 * PIECE), Exit::Syscall);
    assert_eq!(write(&as_it_is, start), page_fault(start, 6));
    // Touched before anything of the piece is changed, after, and where the change is.
    let (first, second) = (start + PIECE, start + 2 * PIECE);
    assert_eq!(write(&as_it_is, first + 5), Exit::Syscall);
    let tighten = |memory: &AddressSpace| memory.protect(second, 4096, Prot::READ).unwrap();
    assert_eq!(write(&tighten, second + 4096), Exit::Syscall);
    assert_eq!(write(&as_it_is, second), page_fault(second, 7));
    assert_eq!(write(&as_it_is, second + PIECE - 1), Exit::Syscall);
    // What is unmapped before it was ever touched is not there.
    let third = start + 3 * PIECE;
    let unmap = |memory: &AddressSpace| memory.unmap(third, PIECE).unwrap();
    assert_eq!(write(&unmap, third + 8), page_fault(third + 8, 6));
}

/// Kicks of the thread that runs a guest, from another one, until they end.
struct Kicks {
    over: Arc<AtomicBool>,
    kicking: std::thread::JoinHandle<()>,
}

impl Kicks {
    fn begin(guest: &Guest) -> Self {
        let kicker = guest.vcpu.kicker();
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let kicking = std::thread::spawn(move || {
            // Pauses of ever different length, so that kicks come at any point of the way in and out.
            let mut pause = 0u32;
            while !seen.load(Ordering::Relaxed) {
                pause = pause.wrapping_add(977) % 20_011;
                for _ in 0..pause {
                    std::hint::spin_loop();
                }
                kicker.kick();
            }
        });
        Self { over, kicking }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.kicking.join().unwrap();
    }
}

#[test]
fn kicks_at_any_moment_lose_and_double_nothing() {
    // 0: mov eax, 7; syscall; 7: mov [rdi], al
    let mut guest = guest(&[0xb8, 7, 0, 0, 0, 0x0f, 0x05, 0x88, 0x07]);
    let kicks = Kicks::begin(&guest);
    // On processors that take turns a kick seldom finds the guest at work, so more rounds until one has.
    let mut rounds = 0u64;
    while rounds < 3_000 || (guest.interrupted == 0 && rounds < 100_000) {
        rounds += 1;
        let round = 1 + rounds % 3_000;
        guest.registers = Registers {
            rip: CODE,
            rsp: round,
            rdi: round,
            ..Registers::default()
        };
        assert_eq!(guest.run(), Exit::Syscall);
        assert_eq!((guest.registers.rax, guest.registers.rip), (7, CODE + 7));
        guest.registers.rax = round;
        assert_eq!(guest.run(), page_fault(round, 6));
        let registers = guest.registers;
        assert_eq!((registers.rax, registers.rip), (round, CODE + 7));
        assert_eq!(registers.rsp, round);
    }
    kicks.end();
    assert!(guest.interrupted > 0);
}

/// 1: mov eax, 39; syscall; mov rbx, rax; mov eax, 1; syscall; jmp 1b
const TWO_CALLS: &[u8] = &[
    0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x48, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xed,
];

/// A guest whose call 39 is served inside, by what is at rdi, as soon as it has left once.
fn served_inside() -> Guest {
    let mut guest = guest(TWO_CALLS);
    guest
        .machine
        .lay_inside(InsideCode {
            // cmp eax, 39; jne 1f; mov rax, [rdi]; jmp rcx; 1: jmp to the stub
            bytes: &[
                0x83, 0xf8, 39, 0x75, 5, 0x48, 0x8b, 0x07, 0xff, 0xe1, 0xeb, 0xb4, 0xcc, 0xcc,
                0xcc, 0xcc,
            ],
            numbers: vec![39],
            spans: vec![InsideSpan {
                start: 8,
                end: 10,
                number: 39,
                midst: vmm_abi::inside::Midst::Plain,
            }],
        })
        .unwrap();
    map(&guest.memory, DATA, Prot::RW);
    guest.memory.write(DATA, &4711u64.to_le_bytes()).unwrap();
    guest.registers.rdi = DATA;
    let start = guest.registers;
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!((guest.registers.rax, guest.registers.rip), (39, CODE + 7));
    guest.registers = start;
    guest
}
const DATA: u64 = 0x7f_0000_0000;

/// Runs to the second call; answers what the first one did, and whether it left.
fn first_call(guest: &mut Guest) -> (u64, bool) {
    assert_eq!(guest.run(), Exit::Syscall);
    let left = guest.registers.rax == 39;
    if left {
        assert_eq!(guest.registers.rip, CODE + 7);
        guest.registers.rax = 4711;
        assert_eq!(guest.run(), Exit::Syscall);
    }
    assert_eq!((guest.registers.rax, guest.registers.rip), (1, CODE + 17));
    (guest.registers.rbx, left)
}

#[test]
fn a_call_that_is_served_inside_does_not_leave_while_that_is_allowed() {
    let mut guest = served_inside();
    assert_eq!(first_call(&mut guest), (4711, true), "nobody allowed it");
    guest.vcpu.serve_inside(true).unwrap();
    // Where `syscall` changes to CPL 0 all leave.
    let (answer, leaves) = first_call(&mut guest);
    assert_eq!(answer, 4711);
    guest.vcpu.serve_inside(false).unwrap();
    assert_eq!(first_call(&mut guest), (4711, true));
    guest.vcpu.serve_inside(true).unwrap();
    assert_eq!(first_call(&mut guest), (4711, leaves));
    // What it cannot reach is for whoever serves outside.
    guest.memory.protect(DATA, 4096, Prot::empty()).unwrap();
    assert_eq!(first_call(&mut guest), (4711, true));
    guest.memory.protect(DATA, 4096, Prot::RW).unwrap();
    assert_eq!(first_call(&mut guest), (4711, leaves));
}

#[test]
fn kicks_lose_no_call_that_is_served_inside() {
    let mut guest = served_inside();
    let kicks = Kicks::begin(&guest);
    for round in 0..3_000u64 {
        guest.vcpu.serve_inside(true).unwrap();
        guest.registers.rbx = round;
        assert_eq!(first_call(&mut guest).0, 4711);
    }
    kicks.end();
}

#[test]
fn a_wild_instruction_pointer_is_the_guests_fault() {
    // mov rcx, rdi; jmp rsi: into the stub, as if `syscall` had been at rdi
    let mut guest = guest(&[0x48, 0x89, 0xf9, 0xff, 0xe6]);
    for wild in [1 << 47, 1 << 63, u64::MAX] {
        guest.registers = Registers {
            rip: CODE,
            rdi: wild,
            rsi: WINDOW_BYTES,
            ..Registers::default()
        };
        let general_protection = Exit::Fault(Fault {
            vector: 13,
            code: 0,
            address: 0,
        });
        // QEMU's processor does not know the I/O bitmap of a task that is in use.
        if guest.run() != general_protection {
            assert_eq!(guest.registers.rip, wild);
        }
        guest.registers.rip = wild;
        assert_eq!(guest.run(), general_protection);
        assert_eq!(guest.registers.rip, wild);
    }
}

#[test]
fn the_guests_counter_is_the_hosts_where_that_is_said() {
    // rdtsc; shl rdx, 32; or rax, rdx; syscall
    let mut guest = guest(&[
        0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x0f, 0x05,
    ]);
    let khz = guest.machine.guest_ticks_khz().unwrap();
    assert_eq!(
        khz != 0,
        crate::machine::has_invariant_counter(),
        "no KVM is known that keeps a steady counter from guests"
    );
    if khz == 0 {
        return;
    }
    for _ in 0..20 {
        guest.registers.rip = CODE;
        let before = crate::vcpu::ticks();
        assert_eq!(guest.run(), Exit::Syscall);
        let range = before..=crate::vcpu::ticks();
        assert!(range.contains(&guest.registers.rax), "{range:?}");
    }
}

#[test]
fn segment_bases_that_the_guest_changed_are_found_and_left_to_nobody_else() {
    // 0: rdfsbase rax; syscall; 7: wrfsbase rdi; syscall; 14: rdfsbase rbx; syscall
    let mut guest = guest(&[
        0xf3, 0x48, 0x0f, 0xae, 0xc0, 0x0f, 0x05, 0xf3, 0x48, 0x0f, 0xae, 0xd7, 0x0f, 0x05, 0xf3,
        0x48, 0x0f, 0xae, 0xc3, 0x0f, 0x05,
    ]);
    guest.registers.fs_base = 0x7000;
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.registers.rax, 0x7000);
    guest.registers.rdi = 0x9000;
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.registers.rbx, 0x9000);
    assert_eq!(guest.registers.fs_base, 0x9000);

    // The same vCPU for another thread, whose base is what the first one began with.
    let Guest {
        vcpu,
        machine,
        memory: _memory,
        ..
    } = guest;
    machine.return_vcpu(vcpu.release());
    let mut vcpu = BoundVcpu::new(machine.take_vcpu().unwrap());
    let mut registers = Registers {
        rip: CODE,
        fs_base: 0x7000,
        ..Registers::default()
    };
    while vcpu.run(&mut registers).unwrap() == Exit::Interrupted {}
    assert_eq!(registers.rax, 0x7000);
}

#[test]
fn whoever_jumps_to_the_stub_changes_nothing() {
    // mov eax, 39; lea rcx, [rip + 2]; jmp rsi; mov eax, 1; syscall
    let mut guest = guest(&[
        0xb8, 39, 0, 0, 0, 0x48, 0x8d, 0x0d, 2, 0, 0, 0, 0xff, 0xe6, 0xb8, 1, 0, 0, 0, 0x0f, 0x05,
    ]);
    guest
        .machine
        .lay_inside(InsideCode {
            // mov rdx, cs; jmp rcx
            bytes: &[0x48, 0x8c, 0xca, 0xff, 0xe1, 0xcc, 0xcc, 0xcc],
            numbers: vec![39],
            spans: Vec::new(),
        })
        .unwrap();
    guest.registers.rsi = WINDOW_BYTES;
    // QEMU's processor does not know the I/O bitmap of a task that is in use.
    if guest.run() != Exit::Syscall {
        return;
    }
    assert_eq!((guest.registers.rax, guest.registers.rip), (39, CODE + 14));
    guest.vcpu.serve_inside(true).unwrap();
    let mut registers = Registers {
        rip: CODE + 14,
        ..Registers::default()
    };
    // Where `syscall` stays in user code it is served at CPL 3, and the guest runs on into what was never written; else it leaves.
    let exit = loop {
        match guest.vcpu.run(&mut registers).unwrap() {
            Exit::Interrupted => {}
            exit => break exit,
        }
    };
    match exit {
        Exit::Syscall => assert_eq!(registers.rax, 1),
        _ => assert_eq!(registers.rdx & 3, 3),
    }
}
