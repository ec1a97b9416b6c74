#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

use super::*;

/// Where rax does not hold the number: two stretches, one behind the other.
fn laid(area: &SystemArea) -> Inside {
    let span = |start, end, number| InsideSpan {
        start,
        end,
        number,
        midst: Midst::Plain,
    };
    let code = InsideCode {
        bytes: &[0xcc; 32],
        numbers: vec![39, 435],
        spans: vec![span(8, 12, 39), span(20, 32, 435)],
    };
    let inside = Inside::default();
    inside.lay(area, code).unwrap();
    inside
}

#[test]
fn whoever_is_stopped_within_is_as_at_the_call() {
    let area = SystemArea::new().unwrap();
    let inside = laid(&area);
    for (offset, expected) in [
        (0, 5),
        (7, 5),
        (8, 39),
        (11, 39),
        (12, 5),
        (19, 5),
        (20, 435),
        (31, 435),
    ] {
        let mut registers = Registers {
            rip: INSIDE_CODE + offset,
            rax: 5,
            ..Registers::default()
        };
        assert_eq!(
            inside.step_back(&area, &mut registers),
            Some(Stopped::AtCall)
        );
        assert_eq!(registers.rax, expected, "{offset}");
    }
    for outside in [0, STUB_PAGE, INSIDE_CODE - 1, INSIDE_CODE + 32, u64::MAX] {
        let mut registers = Registers {
            rip: outside,
            rax: 5,
            ..Registers::default()
        };
        assert!(
            inside.step_back(&area, &mut registers).is_none(),
            "{outside:#x}"
        );
        assert_eq!(registers.rax, 5);
        registers.rip = INSIDE_CODE;
        assert!(
            Inside::default().step_back(&area, &mut registers).is_none(),
            "without any code"
        );
    }
}

#[test]
fn code_is_laid_once_and_knows_where_its_words_are() {
    let area = Arc::new(SystemArea::new().unwrap());
    let inside = laid(&area);
    let code = |bytes| InsideCode {
        bytes,
        numbers: Vec::new(),
        spans: Vec::new(),
    };
    inside.lay(&area, code(&[0x90])).unwrap_err();
    let long = Box::leak(vec![0x90; MOST_CODE_BYTES + 1].into_boxed_slice());
    Inside::default().lay(&area, code(long)).unwrap_err();
    let words = Words::of(&area);
    let address = words.get(ADDRESS_WORD).unwrap();
    assert_eq!(
        address.load(std::sync::atomic::Ordering::Relaxed),
        system_area::WORDS
    );
    assert!(words.get(WORDS - 1).is_some());
    assert!(words.get(WORDS).is_none() && words.get(usize::MAX).is_none());
}

#[test]
fn numbers_are_those_of_an_int() {
    let inside = laid(&SystemArea::new().unwrap());
    assert!(inside.may_serve(39) && inside.may_serve(1 << 32 | 435));
    assert!(!inside.may_serve(0) && !inside.may_serve(39 << 32));
}

#[test]
fn whoever_is_stopped_with_the_lock_gives_it_back_with_its_registers() {
    use std::sync::atomic::Ordering::Relaxed;
    use vmm_abi::inside::{LOCK, RESULT, SAVED};
    const ZERO: u64 = 1 << 6;
    let area = Arc::new(SystemArea::new().unwrap());
    let words = Words::of(&area);
    let midsts = (0..).map_while(Midst::from_number);
    let spans = midsts
        .zip((0..).step_by(4))
        .map(|(midst, start)| InsideSpan {
            start,
            end: start + 4,
            number: 45,
            midst,
        });
    let code = InsideCode {
        bytes: &[0xcc; 32],
        numbers: vec![45],
        spans: spans.collect(),
    };
    let inside = Inside::default();
    inside.lay(&area, code).unwrap();
    let (at, behind) = (Some(Stopped::AtCall), Some(Stopped::BehindCall));
    // Where and how it stopped; what it is to do, whether its registers are those put aside, and whether the lock was its own.
    let cases = [
        (0, 5, 0, at, false, false),
        (4, 1, 0, at, false, false),
        (4, 0, 0, at, false, true),
        (8, 5, 0, at, false, true),
        (12, 5, ZERO, at, true, true),
        (16, 5, 0, at, true, true),
        (16, 5, ZERO, behind, true, true),
        (20, 5, 0, behind, true, true),
        (24, 5, 0, behind, false, false),
    ];
    for (offset, rax, rflags, expected, moved, own) in cases {
        for (place, value) in [(LOCK, 1), (SAVED, 0x1000), (SAVED + 1, 21), (SAVED + 2, 22)] {
            words.get_open(place).unwrap().store(value, Relaxed);
        }
        words.get_open(SAVED + 3).unwrap().store(23, Relaxed);
        words.get_open(RESULT).unwrap().store(99, Relaxed);
        let mut registers = Registers {
            rip: INSIDE_CODE + offset,
            rax,
            rflags,
            rcx: 0x2000,
            rdx: 11,
            rsi: 12,
            rdi: 13,
            r11: 0x202,
            ..Registers::default()
        };
        assert_eq!(
            inside.step_back(&area, &mut registers),
            expected,
            "{offset}"
        );
        let others = (registers.rcx, registers.rdx, registers.rsi, registers.rdi);
        let as_moved = (0x1000, 21, 22, 23);
        assert_eq!(others == as_moved, moved, "{offset}: {others:?}");
        let lock = words.get_open(LOCK).unwrap().load(Relaxed);
        assert_eq!(lock == 0, own, "{offset}");
        match (offset, expected) {
            (24, _) => assert_eq!((registers.rip, registers.rax), (0x2000, 5)),
            (_, Some(Stopped::BehindCall)) => {
                let got = (registers.rip, registers.rax, registers.rflags);
                assert_eq!(got, (0x1000, 99, 0x202));
            }
            _ => assert_eq!((registers.rax, registers.rflags), (45, rflags)),
        }
    }
    assert!(words.get_open(vmm_abi::inside::OPEN_WORDS).is_none());
}
