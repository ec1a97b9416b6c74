#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

use super::*;

/// Where rax does not hold the number: two stretches, one behind the other.
fn laid(area: &SystemArea) -> Inside {
    let span = |start, end, number| InsideSpan { start, end, number };
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
        assert!(inside.step_back(&mut registers));
        assert_eq!(registers.rax, expected, "{offset}");
    }
    for outside in [0, STUB_PAGE, INSIDE_CODE - 1, INSIDE_CODE + 32, u64::MAX] {
        let mut registers = Registers {
            rip: outside,
            rax: 5,
            ..Registers::default()
        };
        assert!(!inside.step_back(&mut registers), "{outside:#x}");
        assert_eq!(registers.rax, 5);
        registers.rip = INSIDE_CODE;
        assert!(
            !Inside::default().step_back(&mut registers),
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
