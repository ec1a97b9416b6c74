//! Guests that would rather not be reset, or would like to pretend.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

mod asleep;
mod freezing;
mod resettable;
mod runner;
mod written;

use std::io::{Read, Write};

use cloister_protocol::FrameType;
use freezing::frozen;
use resettable::Resettable;
use runner::bundle;
use serde_json::{Value, json};

const PYTHON: &str = r#"
import array, ctypes, fcntl, gc, mmap, os, random, select, signal, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.sbrk.argtypes = [ctypes.c_long]
kept, calls = [], 0

def thread(target, *args):
    threading.Thread(target=target, args=args, daemon=True).start()

def forever(step):
    while True:
        step()

def busy():
    lock = threading.Lock(); lock.acquire()
    reading, writing = os.pipe()
    poll = select.epoll(); poll.register(reading, select.EPOLLIN)
    other = os.pipe()
    out = os.open('/tmp/out', os.O_CREAT | os.O_WRONLY)
    ours, theirs = socket.socketpair()
    for _ in range(3):
        thread(forever, lambda: sum(range(1000)))
    thread(lock.acquire)
    thread(os.read, reading, 1)
    thread(poll.poll)
    thread(time.sleep, 1000)
    thread(theirs.recv, 10)
    thread(forever, lambda: os.write(other[1], b'x' * 70000))
    thread(forever, lambda: os.pwrite(out, b'x' * 4096, random.randrange(1 << 20)))
    # Python takes signals in its first thread only; ignored they still go off.
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal(signal.SIGALRM, 1)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    time.sleep(0.02)

def meddle():
    page, anonymous, shared = 4096, 0x22, 0x21
    for size in (1, 3, 700, 20000):
        at = libc.mmap(None, size * page, 3, anonymous, -1, 0)
        ctypes.memset(at, 0x5a, min(size, 5000) * page)
        for n in range(0, min(size, 4000), 3):
            libc.mprotect(at + n * page, page, n % 2)
        for n in range(1, min(size, 4000), 7):
            libc.munmap(at + n * page, page)
    kept.append(mmap.mmap(-1, 8 << 20))
    kept[-1][:] = b'\x5a' * (8 << 20)
    libc.sbrk(16 << 20)
    # All that this process has mapped, made inaccessible and accessible again, and some of it written to.
    for line in open('/proc/self/maps'):
        span, prot = line.split()[:2]
        low, high = (int(text, 16) for text in span.split('-'))
        if 'w' in prot and '[stack]' not in line and '/' in line:
            libc.mprotect(low, high - low, 7)
        if 'x' in prot and '/' in line and high - low > 1 << 20:
            # Code that has run: writable, changed where nothing runs, executable.
            libc.mprotect(high - page, page, 7)
            ctypes.memset(high - 16, 0x5a, 16)
    kept.append(b'\x5a' * (60 << 20))
    fd = os.memfd_create('memory'); os.ftruncate(fd, 1 << 20); kept.append(mmap.mmap(fd, 1 << 20))

def cycle():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    rights = array.array('i', [ours.fileno(), theirs.fileno()])
    ours.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    ours.close(); theirs.close()

def flood(lie):
    def write():
        # As if it had been reset: marks that might be, and what a runner says then.
        for mark in range(100):
            os.write(3, b'%032x' % mark + bytes(16) + lie)
    fcntl.fcntl(3, fcntl.F_SETFL, 0)
    thread(forever, write)

def leave(after):
    time.sleep(after)
    os._exit(3)

def rest():
    # A thread that has answered counts as free a moment later, and a call that comes before that gets another one.
    main, free = threading.main_thread().ident, 0
    while not free:
        time.sleep(0.001)
        frame = sys._current_frames()[main]
        while frame and frame.f_code.co_name != '_work':
            frame = frame.f_back
        free = frame.f_locals['self']._free if frame else 0
    print('resting', flush=True)
    forever(lambda: time.sleep(1000))

def handler(event, context):
    global calls
    calls += 1
    say = event['say']
    if say == 'busy': busy()
    if say == 'rest': thread(rest)
    if say == 'meddle': meddle()
    if say == 'cycle': cycle()
    if say == 'close':
        socket.socket(fileno=os.dup(3)).shutdown(socket.SHUT_WR)
        # An answer that cannot be sent would end this process by itself.
        time.sleep(1000)
    if say == 'leave':
        print('leaving', flush=True)
        thread(leave, event['after'])
    if say == 'flood': thread(flood, b'\x02\0\0\0\0\0\0\0\x10\0\0\0{}')
    if say == 'tables':
        # A page in each of many gigabytes, each with page tables and slots of its own.
        for n in range(1, 200):
            # MAP_FIXED_NOREPLACE: a hint far from everything else is not followed.
            at = libc.mmap((n << 31) + (n << 21), 4096, 3, 0x10_0022, -1, 0)
            ctypes.memset(at, 1, 4096)
    if say == 'wait': time.sleep(0.05)
    # The words that guest code of the machine's may write, and those of what was read by it.
    hidden = 0x80_0000_7000
    if say == 'hide':
        # All but how much of what it was sent is left: it would read it again.
        ctypes.memset(hidden, 0x5a, 8)
        ctypes.memset(hidden + 16, 0x5a, 4080)
    if say == 'hidden':
        return [ctypes.string_at(hidden, 4096).count(0x5a), ctypes.string_at(hidden - 4096, 4096).count(b'secret')]
    return [calls, len(os.listdir('/proc/self/task')), len(os.listdir('/proc/self/fd')),
            sum(1 for _ in open('/proc/self/maps')), os.listdir('/tmp'), signal.getitimer(signal.ITIMER_REAL)[1]]
"#;

fn guest() -> (tempfile::TempDir, Resettable) {
    let bundle = bundle("main.py", PYTHON);
    let guest = Resettable::of_function("python3", bundle.path(), "main.py");
    (bundle, guest)
}

fn call(guest: &mut Resettable, stream: u32, event: Value) -> Value {
    let (status, body) = guest.runner.call(stream, &event);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Resets, and asks: the answer must be the one that the snapshot alone gives.
fn is_as_it_was(guest: &mut Resettable, pid: i32, clean: &Value) {
    let answer = guest.reset(pid);
    assert_eq!(answer["ok"], true, "{answer}");
    guest.runner.renew(pid.unsigned_abs());
    assert_eq!(&call(guest, 2, json!({"say": "hello"})), clean, "{answer}");
}

#[test]
fn threads_that_compute_wait_and_write_are_gone() {
    let (_bundle, mut guest) = guest();
    let clean = call(&mut guest, 2, json!({"say": "hello"}));
    for round in 0..10 {
        let busy = call(&mut guest, 3, json!({"say": "busy"}));
        assert!(busy[1].as_u64() > Some(8), "{busy}");
        is_as_it_was(&mut guest, 200 + round, &clean);
    }
    guest.finish();
}

#[test]
fn mappings_that_were_added_taken_away_and_changed_are_back() {
    let (_bundle, mut guest) = guest();
    let clean = call(&mut guest, 2, json!({"say": "hello"}));
    is_as_it_was(&mut guest, 200, &clean);
    let before = guest.private_bytes();
    for round in 0..5 {
        call(&mut guest, 3, json!({"say": "meddle"}));
        assert!(guest.private_bytes() > before + (60 << 20));
        is_as_it_was(&mut guest, 201 + round, &clean);
        let after = guest.private_bytes();
        assert!(after < before + (8 << 20), "{before} {after}");
        assert!(guest.find(&[0x5a; 64]).is_empty());
    }
    guest.finish();
}

#[test]
fn what_was_hidden_in_the_machines_words_is_gone() {
    let (_bundle, mut guest) = guest();
    let clean = call(&mut guest, 2, json!({"say": "hello"}));
    for round in 0..5 {
        call(&mut guest, 4, json!({"say": "hello", "word": "secret"}));
        // From then on nobody of this guest reads without leaving it: the lock is taken.
        call(&mut guest, 5, json!({"say": "hide"}));
        let there = call(&mut guest, 6, json!({"say": "hidden"}));
        assert!(there[0].as_u64() > Some(4000), "{there}");
        is_as_it_was(&mut guest, 200 + round, &clean);
        let there = call(&mut guest, 3, json!({"say": "hidden"}));
        // What is there now are a few registers of its own.
        assert!(there[0].as_u64() < Some(64) && there[1] == 0, "{there}");
    }
    guest.finish();
}

#[test]
fn what_says_it_was_reset_is_not_believed() {
    let (_bundle, mut guest) = guest();
    let clean = call(&mut guest, 2, json!({"say": "hello"}));
    for round in 0..5 {
        // Its answer may come before, between or not at all.
        guest.runner.start(3, &json!({"say": "flood"}));
        let mut bytes = [0; 4096];
        while !bytes.windows(32).any(|window| window == [b'0'; 32]) {
            assert!(guest.runner.socket().read(&mut bytes).unwrap() > 0);
        }
        is_as_it_was(&mut guest, 200 + round, &clean);
    }
    guest.finish();
}

#[test]
fn what_was_sent_and_not_read_is_not_for_the_next_life() {
    let (_bundle, mut guest) = guest();
    let clean = call(&mut guest, 2, json!({"say": "hello"}));
    for round in 0..5 {
        // It is asleep while this comes: half a frame that would never end.
        guest.runner.start(3, &json!({"say": "wait"}));
        guest
            .runner
            .socket()
            .write_all(&[0, 0, 4, 0, 9, 0, 0, 0, 3, 0, 0, 0, 7, 7])
            .unwrap();
        is_as_it_was(&mut guest, 200 + round, &clean);
    }
    guest.finish();
}

/// Asks for a reset that must not succeed; the monitor ends.
fn refused(mut guest: Resettable) -> Value {
    guest.ask(300, &"5c".repeat(16));
    let heard = guest.heard();
    assert_ne!(heard["ok"], true, "{heard}");
    assert!(!guest.runner.process.wait().unwrap().success());
    heard
}

#[test]
fn files_that_hold_each_other_end_the_guest() {
    let (_bundle, mut guest) = guest();
    call(&mut guest, 2, json!({"say": "cycle"}));
    let heard = refused(guest);
    assert_eq!(heard["reason"], "files of the former process are held");
}

#[test]
fn a_stream_that_was_closed_ends_the_guest() {
    let (_bundle, mut guest) = guest();
    guest.runner.start(2, &json!({"say": "close"}));
    guest.runner.await_end_of_file();
    let heard = refused(guest);
    assert_eq!(heard["reason"], "the stream at 3: EPIPE (32)");
}

#[test]
fn page_tables_without_end_end_the_guest() {
    let (_bundle, mut guest) = guest();
    call(&mut guest, 2, json!({"say": "tables"}));
    let heard = refused(guest);
    let reason = "page tables, slots or memory of the monitor have grown too much";
    assert_eq!(heard["reason"], reason);
}

#[test]
fn a_program_that_ends_meanwhile_is_reset_or_gone_but_never_half() {
    let bundle = bundle("main.py", PYTHON);
    let snapshot = frozen("python3", bundle.path(), |runner| {
        runner.init_to_be_frozen("main.py");
        runner.call(1, &json!({"say": "rest"}));
        // Else one life of the snapshot may begin with a thread more than another.
        runner.await_frame(FrameType::Log);
    });
    let mut outcomes = [0, 0];
    for round in 0..24 {
        let mut guest = Resettable::of(&snapshot, "python3", bundle.path());
        let clean = call(&mut guest, 2, json!({"say": "hello"}));
        let after = f64::from(round % 8) * 0.000_3;
        guest
            .runner
            .start(3, &json!({"say": "leave", "after": after}));
        guest.runner.await_frame(FrameType::Log);
        guest.ask(300, &"5c".repeat(16));
        let heard = guest.heard();
        if heard["ok"] == true {
            outcomes[0] += 1;
            guest.runner.await_mark(&[0x5c; 16]);
            guest.runner.renew(300);
            assert_eq!(call(&mut guest, 2, json!({"say": "hello"})), clean);
            guest.finish();
        } else {
            outcomes[1] += 1;
            assert_eq!(
                guest.runner.process.wait().unwrap().code(),
                Some(3),
                "{heard}"
            );
        }
    }
    assert_eq!(outcomes[0] + outcomes[1], 24);
}

#[test]
fn a_monitor_that_is_killed_in_a_reset_says_nothing() {
    let bundle = bundle("main.py", PYTHON);
    let snapshot = frozen("python3", bundle.path(), |runner| {
        runner.init_to_be_frozen("main.py");
    });
    for _ in 0..5 {
        let mut guest = Resettable::of(&snapshot, "python3", bundle.path());
        call(&mut guest, 2, json!({"say": "busy"}));
        guest.ask(300, &"5c".repeat(16));
        guest.runner.process.kill().unwrap();
        let heard = guest.heard();
        // It may just have been done.
        assert!(heard.is_null() || heard["ok"] == true, "{heard}");
        guest.runner.process.wait().unwrap();
        assert_eq!(guest.heard(), Value::Null);
    }
}
