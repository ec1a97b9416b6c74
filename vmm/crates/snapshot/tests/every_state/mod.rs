//! A snapshot in which every type and every variant of a state occurs. Nothing is left to `Default`, so that no field is forgotten.

use vmm_abi::{Prot, Registers, Rlimit, SigAction, SigInfo, SigStack};
use vmm_memory::{Charge, Extent, Kind, MappingState, MemoryState, Vma};
use vmm_snapshot::{
    AddressState, AlarmState, CallState, ClaimState, Description, EpollEntry, FileState, LockState,
    MachineId, PacketState, PipeState, ProcessState, Snapshot, SocketOptions, SocketState,
    ThreadState, TimerState, TmpBody, TmpNodeState,
};

const PAGE: u64 = 4096;

pub fn every_state() -> Snapshot {
    Snapshot {
        machine: MachineId {
            processor: "GenuineExample 6/1/2 0123abcd".into(),
            monitor: "0.1.0 89abcdef".into(),
            boot: "4c1a7d5e-0000-4000-8000-000000000000".into(),
        },
        key: "image 00ff bundle 11ee".into(),
        memory: memory(),
        system: vec![Extent {
            at: 0,
            len: 4 * PAGE,
            offset: 9 * PAGE,
        }],
        process: process(),
    }
}

fn memory() -> MemoryState {
    let kinds = [
        Kind::Anonymous,
        Kind::SharedAnonymous,
        Kind::Heap,
        Kind::Stack,
        Kind::Special("[vvar]".into()),
        Kind::File {
            name: "/usr/bin/node".into(),
            offset: 3 * PAGE,
            shared: false,
        },
    ];
    let mapping = |(index, kind): (u64, Kind)| {
        let start = (index + 1) << 20;
        let beneath = matches!(kind, Kind::File { .. }).then(|| "/usr/bin/node".to_owned());
        MappingState {
            vma: Vma {
                start,
                end: start + 4 * PAGE,
                prot: Prot::RW,
                allowed: Prot::all(),
                kind,
                charge: match index % 3 {
                    0 => Charge::Always,
                    1 => Charge::InParts,
                    _ => Charge::Never,
                },
            },
            beneath,
            extents: vec![Extent {
                at: start + PAGE,
                len: 2 * PAGE,
                offset: index * PAGE,
            }],
        }
    };
    MemoryState {
        mappings: (0..).zip(kinds).map(mapping).collect(),
        heap: (3 << 20, (3 << 20) + 4 * PAGE),
    }
}

fn process() -> ProcessState {
    ProcessState {
        threads: vec![thread(1, None), thread(2, Some(call()))],
        last_tid: 2,
        descriptions: files().into_iter().map(description).collect(),
        descriptors: vec![(0, 0, false), (3, 1, true)],
        descriptor_limit: 1024,
        pipes: vec![
            PipeState {
                ino: 1000,
                capacity: 65_536,
                bytes: b"in the pipe".to_vec(),
                fifo: None,
            },
            PipeState {
                ino: 12,
                capacity: 8192,
                bytes: Vec::new(),
                fifo: Some(6),
            },
        ],
        sockets: sockets(),
        next_socket_ino: 9,
        tmp: tmp(),
        actions: vec![SigAction {
            handler: 0x40_1000,
            flags: 0x0400_0004,
            restorer: 0x40_2000,
            mask: 1 << 9,
        }],
        pending: vec![signal(10)],
        alarm: Some(timer()),
        alarms: vec![
            AlarmState {
                id: 0,
                clock: 1,
                info: Some(signal(14)),
                tid: None,
                timer: timer(),
                overrun: 3,
            },
            AlarmState {
                id: 4,
                clock: 0,
                info: None,
                tid: Some(2),
                timer: timer(),
                overrun: 0,
            },
        ],
        limits: vec![Rlimit {
            current: 1024,
            maximum: u64::MAX,
        }],
        cwd: b"/tmp/folder".to_vec(),
        umask: 0o27,
        program: Some((b"/usr/bin/node".to_vec(), vec![b"node".to_vec()])),
        auxv: Some(vec![6, 0, 0, 0, 0, 0, 0, 0]),
        environment: Some(vec![b"HOME=/tmp".to_vec()]),
        started_ns: 5_000_000_000,
        processor_ns: 250_000_000,
    }
}

fn timer() -> TimerState {
    TimerState {
        next_ns: 9_000_000_000,
        interval_ns: 1_000_000,
    }
}

fn signal(signo: i32) -> SigInfo {
    let mut words = [0; 14];
    words[0] = 1;
    SigInfo {
        signo,
        errno: 0,
        code: -6,
        pad: 0,
        words,
    }
}

fn call() -> CallState {
    CallState {
        number: 202,
        deadline_ns: Some(7_000_000_000),
        progress: 3,
    }
}

fn thread(tid: i32, call: Option<CallState>) -> ThreadState {
    ThreadState {
        tid,
        name: b"node".to_vec(),
        registers: Registers {
            rax: 202,
            rbx: 1,
            rcx: 2,
            rdx: 3,
            rsi: 4,
            rdi: 5,
            rbp: 6,
            rsp: 0x7fff_0000,
            r8: 8,
            r9: 9,
            r10: 10,
            r11: 11,
            r12: 12,
            r13: 13,
            r14: 14,
            r15: 15,
            rip: 0x40_0000,
            rflags: 0x202,
            fs_base: 0x7000_0000,
            gs_base: 0,
        },
        fpu: vec![0x7f, 3, 0, 0],
        mask: 1 << 13,
        saved_mask: Some(u64::MAX),
        pending: vec![signal(12)],
        alt_stack: SigStack {
            sp: 0x6000_0000,
            flags: 0,
            pad: 0,
            size: 8192,
        },
        clear_child_tid: 0x7000_02d0,
        robust_list: (0x7000_02e0, 24),
        call,
        processor_ns: 40_000_000,
    }
}

fn files() -> Vec<FileState> {
    vec![
        FileState::Stream(3),
        FileState::Named,
        FileState::Tmp(3),
        FileState::Event {
            count: 2,
            semaphore: true,
        },
        FileState::Pipe {
            pipe: 0,
            reads: true,
            writes: false,
        },
        FileState::Socket(0),
        FileState::Epoll(vec![EpollEntry {
            fd: 3,
            description: 5,
            events: 0x8000_0001,
            data: 77,
            changed: true,
            disabled: false,
        }]),
        FileState::Timer {
            clock: 1,
            timer: timer(),
        },
        FileState::Signals(1 << 16),
    ]
}

fn description(file: FileState) -> Description {
    let locks = match file {
        FileState::Tmp(_) => vec![
            LockState::Whole { exclusive: true },
            LockState::Range {
                first: 10,
                last: u64::MAX,
                exclusive: false,
            },
        ],
        _ => Vec::new(),
    };
    Description {
        path: "/tmp/folder/file".into(),
        flags: 0o2002,
        position: 11,
        file,
        locks,
    }
}

fn sockets() -> Vec<SocketState> {
    let loopback = "127.0.0.1:8080".parse().unwrap();
    let socket = |name, claim| SocketState {
        family: 2,
        kind: 1,
        ino: 1 << 20,
        options: SocketOptions {
            numbers: vec![(1, 2, 1)],
            receive_timeout_us: 1_000_000,
            send_timeout_us: 2,
            linger: (1, 5),
        },
        packets: vec![PacketState {
            bytes: b"on its way".to_vec(),
            from: Some(AddressState::Unnamed),
            files: vec![1],
        }],
        shutdown: 2,
        error: Some(104),
        backlog: Some((4096, vec![1])),
        name: Some(name),
        claim,
        peer: Some(1),
        peer_name: Some(AddressState::Unnamed),
        connected: true,
    };
    vec![
        socket(
            AddressState::Inet(loopback),
            Some(ClaimState::Port {
                address: loopback,
                both_families: false,
                reuse_address: true,
                reuse_port: false,
            }),
        ),
        socket(
            AddressState::Abstract(b"hidden".to_vec()),
            Some(ClaimState::Abstract(b"hidden".to_vec())),
        ),
        socket(
            AddressState::Path(b"/tmp/socket".to_vec()),
            Some(ClaimState::Node(0x2a, 11)),
        ),
        socket(AddressState::Unnamed, None),
    ]
}

fn tmp() -> Vec<TmpNodeState> {
    let bodies = [
        TmpBody::Root(0),
        TmpBody::Root(1),
        TmpBody::Folder,
        TmpBody::File {
            size: 5000,
            extents: vec![Extent {
                at: 0,
                len: 2 * PAGE,
                offset: 8 * PAGE,
            }],
            seals: 1,
        },
        TmpBody::Link(b"/fn".to_vec()),
        TmpBody::Socket,
        TmpBody::Fifo,
    ];
    let node = |(ino, body): (u64, TmpBody)| {
        let names = match body {
            TmpBody::Root(_) => Vec::new(),
            _ => vec![(0, format!("node {ino}").into_bytes())],
        };
        TmpNodeState {
            ino,
            names,
            mode: 0o100_644,
            times: [(1_700_000_000, 1), (1_700_000_001, 2), (1_700_000_002, 3)],
            body,
        }
    };
    (1..).zip(bodies).map(node).collect()
}
