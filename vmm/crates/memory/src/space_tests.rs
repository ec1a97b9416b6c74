use super::*;
use crate::NoMapper;

fn space(limit: u64) -> AddressSpace {
    let limits = Limits { bytes: limit };
    AddressSpace::new(
        Window::reserve(1 << 30).unwrap(),
        Arc::new(NoMapper),
        limits,
    )
}

fn anonymous(place: Place, len: u64, prot: Prot) -> MapRequest<'static> {
    MapRequest {
        allowed: Prot::all(),
        place,
        len,
        prot,
        backing: Backing::Anonymous,
        kind: Kind::Anonymous,
        charge: Charge::Always,
    }
}

#[test]
fn bytes_written_are_read_and_protection_is_honoured() {
    let space = space(1 << 20);
    let at = space
        .map(&anonymous(Place::Anywhere(0), 8192, Prot::RW))
        .unwrap();
    space.write(at + 4090, b"across pages").unwrap();
    assert_eq!(
        space
            .read_string(at + 4090, 64, Errno::ENAMETOOLONG)
            .unwrap(),
        b"across pages"
    );
    space.protect(at, 4096, Prot::READ).unwrap();
    assert_eq!(space.write(at + 4090, b"across pages"), Err(Errno::EFAULT));
    space.unmap(at, 4096).unwrap();
    assert_eq!(space.read(at, &mut [0]), Err(Errno::EFAULT));
    assert_eq!(space.read(at + 4096, &mut [0]), Ok(()));
}

#[test]
fn the_limit_counts_writable_memory_only() {
    let space = space(1 << 20);
    let reserved = space
        .map(&anonymous(Place::Anywhere(0), 64 << 20, Prot::empty()))
        .unwrap();
    assert_eq!(
        space.protect(reserved, 2 << 20, Prot::RW),
        Err(Errno::ENOMEM)
    );
    assert_eq!(space.refusals(), 1);
    space.protect(reserved, 1 << 20, Prot::RW).unwrap();
    let more = space.map(&anonymous(Place::Anywhere(0), 4096, Prot::RW));
    assert_eq!(more, Err(Errno::ENOMEM));
    space.unmap(reserved, 64 << 20).unwrap();
    assert_eq!(space.committed_bytes(), 0);
    assert_eq!(space.used_bytes(), (0, 1 << 20));
    assert_eq!(space.refusals(), 2);
}

#[test]
fn with_a_meter_what_is_touched_counts_and_shared_memory_as_a_whole() {
    const MIB: u64 = 1 << 20;
    let touched = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&touched);
    let meter = Box::new(move || Some(seen.load(Ordering::Relaxed)));
    let space = space(8 * MIB).with_meter(meter);
    let private = anonymous(Place::Anywhere(0), 8 * MIB, Prot::RW);
    for _ in 0..4 {
        space.map(&private).unwrap();
    }
    touched.store(MIB, Ordering::Relaxed);
    assert_eq!(space.map(&private), Err(Errno::ENOMEM));
    let shared = MapRequest {
        len: 4 * MIB,
        backing: Backing::SharedAnonymous,
        kind: Kind::SharedAnonymous,
        ..private
    };
    let at = space.map(&shared).unwrap();
    assert_eq!(space.map(&shared), Err(Errno::ENOMEM));
    assert_eq!(space.used_bytes().0, 5 * MIB);
    space.protect(at, 4 * MIB, Prot::READ).unwrap();
    assert_eq!(space.used_bytes().0, MIB);
    assert_eq!(space.refusals(), 2);
}

#[test]
fn a_hint_is_followed_beside_what_is_there_and_far_down() {
    let limits = Limits { bytes: 1 << 30 };
    let window = Window::reserve(1 << 37).unwrap();
    let space = AddressSpace::new(window, Arc::new(NoMapper), limits);
    let map = |hint| {
        space
            .map(&anonymous(Place::Near(hint), 4096, Prot::RW))
            .unwrap()
    };
    let top = map(0);
    assert_eq!(map(1 << 31), 1 << 31);
    let piece = 1 << 36;
    assert_eq!(map(piece + 8192), top - 4096, "nothing is there");
    let first = anonymous(Place::Fixed(piece), 4096, Prot::RW);
    assert_eq!(space.map(&first), Ok(piece));
    assert_eq!(map(piece + 8192), piece + 8192);
    assert_eq!(map(piece + PIECE - 4096), piece + PIECE - 4096);
    assert_eq!(map(piece + PIECE), top - 8192, "another piece");
    assert_eq!(map(piece), top - 12288, "taken");
    for wild in [u64::MAX, 1 << 63, 1, 4096] {
        assert!(map(wild) > piece);
    }
}

#[test]
fn wild_ranges_are_errors() {
    let space = space(1 << 20);
    assert_eq!(space.unmap(1, 4096), Err(Errno::EINVAL));
    assert_eq!(space.unmap(0, u64::MAX), Err(Errno::EINVAL));
    assert_eq!(space.protect(1 << 40, 4096, Prot::READ), Err(Errno::ENOMEM));
    let huge = space.map(&anonymous(Place::Anywhere(0), 1 << 62, Prot::READ));
    assert_eq!(huge, Err(Errno::ENOMEM));
    let zero = space.map(&anonymous(Place::Fixed(0), 4096, Prot::READ));
    assert_eq!(zero, Err(Errno::EPERM));
    assert_eq!(space.read(u64::MAX, &mut [0; 2]), Err(Errno::EFAULT));
    assert_eq!(space.read_iovecs(0, 1025).unwrap_err(), Errno::EINVAL);
}

#[test]
fn growth_moves_contents_when_it_must() {
    let space = space(1 << 22);
    let at = space
        .map(&anonymous(Place::Anywhere(0), 8192, Prot::RW))
        .unwrap();
    space.write(at, b"kept").unwrap();
    // The mapping is the topmost one, so it cannot grow in place.
    assert_eq!(
        space.remap(at, 8192, 1 << 20, None, false),
        Err(Errno::ENOMEM)
    );
    let new = space.remap(at, 8192, 1 << 20, None, true).unwrap();
    assert_ne!(new, at);
    assert_eq!(space.read_string(new, 8, Errno::EINVAL).unwrap(), b"kept");
    assert!(!space.is_mapped(at));
    assert_eq!(space.committed_bytes(), 1 << 20);
    assert_eq!(space.remap(new, 1 << 20, 4096, None, false), Ok(new));
    assert_eq!(space.committed_bytes(), 4096);
}

#[test]
fn the_break_moves_both_ways() {
    let space = space(1 << 20);
    space.set_heap(0x40_0000);
    assert_eq!(space.set_break(0), 0x40_0000);
    assert_eq!(space.set_break(0x40_1234), 0x40_1234);
    space.write(0x40_1fff, b"x").unwrap();
    assert_eq!(
        space.set_break(0x80_0000),
        0x40_1234,
        "over the limit it stays"
    );
    assert_eq!(space.set_break(0x40_0000), 0x40_0000);
    assert_eq!(space.write(0x40_0000, b"x"), Err(Errno::EFAULT));
}

#[test]
fn a_reserve_is_free_and_so_is_a_large_part_of_it_but_not_a_small_one() {
    const MIB: u64 = 1 << 20;
    let full = Box::new(|| Some(8 * MIB));
    let space = space(8 * MIB).with_meter(full);
    let reserve = MapRequest {
        charge: Charge::InParts,
        ..anonymous(Place::Anywhere(0), 64 * MIB, Prot::RW)
    };
    space.map(&reserve).unwrap();
    let at = space
        .map(&MapRequest {
            prot: Prot::empty(),
            ..reserve
        })
        .unwrap();
    assert_eq!(space.protect(at, MIB, Prot::RW), Err(Errno::ENOMEM));
    space.protect(at, 64 * MIB, Prot::RW).unwrap();
    assert_eq!(space.refusals(), 1);
}
