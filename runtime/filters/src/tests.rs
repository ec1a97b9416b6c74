#![allow(
    clippy::arithmetic_side_effects,
    reason = "an overflow is to end the test"
)]

use super::*;

const ARCHITECTURE: u32 = 0xc000_003e;
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
/// Where the arguments begin.
const ARGUMENTS: u32 = 16;

/// What the kernel hands a program: `struct seccomp_data`, in words.
struct Call {
    number: u32,
    architecture: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            8 | 12 => 0,
            _ => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                (if offset % 8 == 0 {
                    argument
                } else {
                    argument >> 32
                }) as u32
            }
        }
    }
}

/// A run of a program, as the kernel runs it.
#[derive(Debug, PartialEq)]
struct Run {
    instructions: usize,
    asks: bool,
    returned: u32,
}

fn run(program: &[sock_filter], call: &Call) -> Run {
    let (mut at, mut accumulator, mut asks) = (0usize, 0u32, false);
    for count in 1..=program.len() {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let when = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            LOAD => {
                accumulator = call.word(k);
                asks |= k >= ARGUMENTS;
            }
            AND => accumulator &= k,
            JUMP => at += k as usize,
            JUMP_IF_EQUAL => at += when(accumulator == k),
            JUMP_IF_AT_LEAST => at += when(accumulator >= k),
            // Above, and any of these bits.
            0x25 => at += when(accumulator > k),
            0x45 => at += when(accumulator & k != 0),
            RETURN => {
                return Run {
                    instructions: count,
                    asks,
                    returned: k,
                };
            }
            other => panic!("instruction {other:#x}"),
        }
    }
    panic!("it does not end");
}

fn numbers() -> impl Iterator<Item = u32> {
    // x32 calls, and the ends.
    let odd = [0x4000_0000, 0x4000_0001, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    (0..1000).chain(odd)
}

/// Every value that a program compares an argument with, and its neighbours, as each argument.
fn arguments(program: &[sock_filter]) -> Vec<[u64; 6]> {
    let mut values: Vec<u64> = vec![0, u64::MAX, 1 << 32];
    let mut loaded = 0;
    for instruction in program {
        let k = u64::from(instruction.k);
        match instruction.code {
            LOAD => loaded = instruction.k,
            RETURN | JUMP => {}
            _ if loaded >= ARGUMENTS => {
                let neighbours = [k, k.wrapping_add(1), k.wrapping_sub(1)];
                values.extend(neighbours.into_iter().chain([k << 32, k << 32 | k]));
            }
            _ => {}
        }
    }
    values.sort_unstable();
    values.dedup();
    let alone = |index: usize, value: u64| {
        let mut arguments = [0; 6];
        arguments[index] = value;
        arguments
    };
    let each = values.iter().flat_map(|value| {
        let value = *value;
        (0..6)
            .map(move |index| alone(index, value))
            .chain([[value; 6]])
    });
    each.collect()
}

/// Our program says of every call what theirs, installed one by one, say.
fn agree(lists: &Lists, name: &str, before: Option<&str>, theirs: &[&[sock_filter]]) {
    let ours = lists.instructions(name, before).unwrap();
    let many = arguments(&theirs.concat());
    for number in numbers() {
        for (count, arguments) in many.iter().enumerate() {
            let call = Call {
                number,
                architecture: ARCHITECTURE,
                arguments: *arguments,
            };
            let runs: Vec<Run> = theirs.iter().map(|program| run(program, &call)).collect();
            // The gravest answer counts (seccomp(2)).
            let returned = runs.iter().map(|run| run.returned);
            let gravest = returned.min_by_key(|returned| (returned & 0xffff_0000) as i32);
            let own = run(&ours, &call);
            assert_eq!(
                Some(own.returned),
                gravest,
                "{name}: call {number} with {arguments:x?}"
            );
            if runs.iter().all(|run| !run.asks) {
                // As many halvings as there can be, the architecture, the number and the answer.
                assert!(own.instructions <= 2 * 10 + 4, "{name}: call {number}");
                if count > 3 {
                    break;
                }
            }
        }
    }
    let foreign = Call {
        number: 0,
        architecture: 0x4000_0003,
        arguments: [0; 6],
    };
    assert_eq!(run(&ours, &foreign), run(theirs[0], &foreign));
}

fn seccompilers(source: &str) -> HashMap<String, BpfProgram> {
    compile_from_json(source.as_bytes(), TargetArch::x86_64).unwrap()
}

const RUNNER: &str = include_str!("../../container/seccomp/runner.json");
const MONITOR: &str = include_str!("../../container/seccomp/monitor.json");
const GUEST: &str = include_str!("../../../vmm/resources/seccomp/monitor.json");

#[test]
fn the_lists_that_are_installed_say_the_same_as_seccompilers_programs_in_a_row() {
    let theirs = [RUNNER, GUEST, MONITOR].map(seccompilers);
    let lists = Lists::parse(&[RUNNER, MONITOR]).unwrap();
    let absent = &theirs[0]["absent"];
    agree(
        &lists,
        "runner",
        Some("absent"),
        &[absent, &theirs[0]["runner"]],
    );
    agree(
        &lists,
        "monitor",
        Some("absent"),
        &[absent, &theirs[2]["monitor"]],
    );
    let lists = Lists::parse(&[GUEST]).unwrap();
    agree(
        &lists,
        "guest",
        Some("absent"),
        &[&theirs[1]["absent"], &theirs[1]["guest"]],
    );
    agree(&lists, "reactor", None, &[&theirs[1]["reactor"]]);
}

#[test]
fn a_list_of_any_length_is_found_in_and_what_asks_of_arguments_is_asked() {
    let rule = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let fcntl = |value: u32| {
        rule(&format!(
            r#"{{"syscall": "fcntl", "args": [{{"index": 1, "type": "dword", "op": "eq", "val": {value}}}]}}"#
        ))
    };
    let masked = rule(
        r#"{"syscall": "mmap", "args": [{"index": 2, "type": "qword", "op": {"masked_eq": 4}, "val": 0}, {"index": 3, "type": "dword", "op": "le", "val": 9}]}"#,
    );
    let filter = [
        rule(r#"{"syscall": "read"}"#),
        fcntl(3),
        masked,
        fcntl(1030),
        rule(r#"{"syscall": "write"}"#),
        rule(r#"{"syscall": "exit_group"}"#),
    ];
    for count in 1..=filter.len() {
        let source = json!({"some": {
            "mismatch_action": "kill_process", "match_action": "allow", "filter": filter[..count],
        }});
        let source = source.to_string();
        let lists = Lists::parse(&[&source]).unwrap();
        agree(&lists, "some", None, &[&seccompilers(&source)["some"]]);
    }
}

#[test]
fn what_is_no_list_is_refused() {
    assert!(matches!(Lists::parse(&["[]"]), Err(FilterError::Json(_))));
    let lists = Lists::parse(&[RUNNER]).unwrap();
    assert!(matches!(
        lists.program("nobody", None),
        Err(FilterError::Missing(_))
    ));
    let unknown = r#"{"a": {"mismatch_action": "trap", "match_action": "allow", "filter": [{"syscall": "no_such_call"}]}}"#;
    let lists = Lists::parse(&[unknown]).unwrap();
    assert!(matches!(
        lists.program("a", None),
        Err(FilterError::Seccompiler(_))
    ));
    // It would let another architecture's calls pass.
    let lists = Lists::parse(&[&unknown.replace(r#"{"syscall": "no_such_call"}"#, "")]).unwrap();
    assert!(matches!(
        lists.program("a", None),
        Err(FilterError::Missing(_))
    ));
    // What asks of arguments cannot come before another list: it would have to go on with that one.
    let lists = Lists::parse(&[GUEST]).unwrap();
    assert!(matches!(
        lists.program("reactor", Some("guest")),
        Err(FilterError::Form(_))
    ));
}
