//! A program of Rust's standard library alone: threads, channels, sockets, files, panics, memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, Once, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn threads() {
    let total = Arc::new(AtomicU64::new(0));
    let all: Vec<_> = (0..16)
        .map(|n| {
            let total = Arc::clone(&total);
            thread::spawn(move || {
                for _ in 0..10_000 {
                    total.fetch_add(n, Ordering::Relaxed);
                }
                n * n
            })
        })
        .collect();
    let squares: u64 = all.into_iter().map(|one| one.join().unwrap()).sum();
    println!("threads {} {squares}", total.load(Ordering::Relaxed));

    let (sender, receiver) = mpsc::sync_channel(4);
    let senders: Vec<_> = (0..4)
        .map(|n| {
            let sender = sender.clone();
            thread::spawn(move || (0..500).for_each(|i| sender.send(n * 1000 + i).unwrap()))
        })
        .collect();
    drop(sender);
    println!("channel {}", receiver.iter().sum::<i32>());
    senders.into_iter().for_each(|one| one.join().unwrap());
    println!("empty {:?}", mpsc::channel::<u8>().1.try_recv());

    let pair = (Mutex::new(0), Condvar::new());
    let barrier = Barrier::new(3);
    let leaders = AtomicU64::new(0);
    thread::scope(|scope| {
        for me in 0..3 {
            let (pair, barrier, leaders) = (&pair, &barrier, &leaders);
            scope.spawn(move || {
                if barrier.wait().is_leader() {
                    leaders.fetch_add(1, Ordering::SeqCst);
                }
                for _ in 0..100 {
                    let mut turn = pair
                        .1
                        .wait_while(pair.0.lock().unwrap(), |turn| *turn % 3 != me)
                        .unwrap();
                    *turn += 1;
                    pair.1.notify_all();
                }
            });
        }
    });
    println!("turns {} {}", pair.0.lock().unwrap(), leaders.into_inner());
    let late = pair
        .1
        .wait_timeout(pair.0.lock().unwrap(), Duration::from_millis(5))
        .unwrap();
    println!("timed out {}", late.1.timed_out());
    drop(late);

    let table = RwLock::new(HashMap::new());
    thread::scope(|scope| {
        for n in 0..8_u64 {
            let table = &table;
            scope.spawn(move || {
                (0..100)
                    .for_each(|i| assert!(table.write().unwrap().insert(n * 100 + i, i).is_none()))
            });
        }
    });
    println!("table {}", table.read().unwrap().len());
    static ONCE: Once = Once::new();
    ONCE.call_once(|| println!("once"));
    ONCE.call_once(|| println!("twice"));
    thread_local!(static HERE: std::cell::Cell<u32> = const { std::cell::Cell::new(1) });
    HERE.set(5);
    let there = thread::Builder::new()
        .name("named".into())
        .stack_size(1 << 20)
        .spawn(|| (HERE.get(), thread::current().name().map(str::to_owned)));
    println!("local {} {:?}", HERE.get(), there.unwrap().join().unwrap());
    let parked = thread::spawn(|| thread::park_timeout(Duration::from_secs(600)));
    parked.thread().unpark();
    parked.join().unwrap();
    println!("unparked {}", thread::available_parallelism().is_ok());
}

fn panics() {
    let caught = std::panic::catch_unwind(|| {
        let empty: Vec<u32> = Vec::new();
        empty[std::hint::black_box(3)]
    });
    println!(
        "caught {}",
        caught.unwrap_err().downcast_ref::<String>().unwrap()
    );
    let thread = thread::spawn(|| panic!("in a thread"));
    println!(
        "joined {:?}",
        thread.join().unwrap_err().downcast_ref::<&str>()
    );
    let poisoned = Arc::new(Mutex::new(1));
    let held = Arc::clone(&poisoned);
    let _ = thread::spawn(move || {
        let _guard = held.lock().unwrap();
        panic!("with a lock");
    })
    .join();
    println!("poisoned {}", poisoned.is_poisoned());
}

fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        stream.write_all(&buffer[..count]).unwrap();
    }
}

fn sockets() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(host).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            for stream in listener.incoming().take(10) {
                thread::spawn(|| echo(stream.unwrap()));
            }
        });
        let mut heard = 0;
        for n in 0..10_u8 {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let sending = thread::spawn(move || {
                writer.write_all(&vec![n; 100_000]).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            heard += stream.read_to_end(&mut Vec::new()).unwrap();
            sending.join().unwrap();
        }
        server.join().unwrap();
        println!(
            "tcp {heard} {:?}",
            TcpStream::connect(address).unwrap_err().kind()
        );
    }
    let sockets = [
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("127.0.0.1:0").unwrap(),
    ];
    sockets[0]
        .connect(sockets[1].local_addr().unwrap())
        .unwrap();
    sockets[0].send(b"datagram").unwrap();
    let mut buffer = [0; 100];
    let (count, from) = sockets[1].recv_from(&mut buffer).unwrap();
    println!("udp {count} {}", from == sockets[0].local_addr().unwrap());
    sockets[1]
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    println!(
        "time out {:?}",
        sockets[1].recv(&mut buffer).unwrap_err().kind()
    );

    let path = "/tmp/rust.sock";
    let listener = UnixListener::bind(path).unwrap();
    println!("taken {:?}", UnixListener::bind(path).unwrap_err().kind());
    let server = thread::spawn(move || echo(listener.accept().unwrap().0));
    let mut stream = UnixStream::connect(path).unwrap();
    writeln!(stream, "a line").unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    drop(stream);
    server.join().unwrap();
    let (a, b) = UnixDatagram::pair().unwrap();
    a.send(b"pair").unwrap();
    println!("unix {line:?} {}", b.recv(&mut buffer).unwrap());
    let (mut reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"piped").unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    println!("pipe {text}");
}

fn files() -> io::Result<()> {
    let root = std::env::temp_dir().join("rust");
    fs::create_dir_all(root.join("a/b"))?;
    fs::write(root.join("one"), "first\nsecond\n")?;
    symlink("one", root.join("link"))?;
    fs::hard_link(root.join("one"), root.join("a/hard"))?;
    println!(
        "link {:?} {}",
        fs::read_link(root.join("link"))?,
        fs::metadata(root.join("link"))?.nlink()
    );
    let mut names: Vec<_> = fs::read_dir(&root)?
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    println!("{names:?}");
    fs::set_permissions(root.join("one"), fs::Permissions::from_mode(0o604))?;
    println!("mode {:o}", fs::metadata(root.join("one"))?.mode() & 0o777);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(root.join("data"))?;
    file.write_all_at(b"far away", 1 << 20)?;
    file.seek(SeekFrom::End(-4))?;
    let mut end = String::new();
    file.read_to_string(&mut end)?;
    file.set_len(10)?;
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1000))?;
    file.sync_all()?;
    println!(
        "data {end:?} {} {:?}",
        file.metadata()?.len(),
        file.metadata()?
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap()
    );
    println!("copied {}", fs::copy(root.join("one"), root.join("two"))?);
    fs::rename(root.join("two"), root.join("a/b/two"))?;
    println!(
        "lines {}",
        BufReader::new(File::open(root.join("a/b/two"))?)
            .lines()
            .count()
    );
    println!("canonical {:?}", fs::canonicalize(root.join("a/../link"))?);
    for wrong in ["none", "one/below", "a"] {
        println!(
            "{wrong} {:?}",
            fs::read(root.join(wrong)).unwrap_err().kind()
        );
    }
    println!("{:?}", fs::remove_dir(root.join("a")).unwrap_err().kind());
    println!("{:?}", File::create("/etc/new").unwrap_err().kind());
    fs::remove_dir_all(&root)?;
    println!("removed {}", !root.try_exists()?);
    Ok(())
}

fn deep(n: u64) -> u64 {
    let mut room = [n; 64];
    std::hint::black_box(&mut room);
    if n == 0 {
        0
    } else {
        deep(n - 1) + room[5] - n + 1
    }
}

fn memory() {
    let tree: BTreeMap<u64, String> = (0..100_000)
        .map(|n| (n * 7919 % 100_003, n.to_string()))
        .collect();
    println!("tree {} {:?}", tree.len(), tree.range(500..).next());
    let mut large = vec![0_u8; 64 << 20];
    large.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    println!(
        "large {}",
        large.iter().map(|byte| u64::from(*byte)).sum::<u64>()
    );
    drop(large);
    println!("refused {}", Vec::<u8>::new().try_reserve(1 << 46).is_err());
    println!(
        "deep {}",
        thread::Builder::new()
            .stack_size(64 << 20)
            .spawn(|| deep(100_000))
            .unwrap()
            .join()
            .unwrap()
    );
    let (start, clock) = (Instant::now(), SystemTime::now());
    thread::sleep(Duration::from_millis(10));
    println!(
        "slept {} {}",
        start.elapsed() >= Duration::from_millis(10),
        clock.elapsed().is_ok()
    );
    println!(
        "arguments {} {:?}",
        std::env::args().count(),
        std::env::var("NOTHING")
    );
}

fn main() {
    // The words of expected panics would only be in the way.
    std::panic::set_hook(Box::new(|_| {}));
    threads();
    panics();
    sockets();
    files().unwrap();
    memory();
    std::process::exit(9);
}
