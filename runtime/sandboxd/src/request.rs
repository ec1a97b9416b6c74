//! What clients ask for. Every field is checked here; beyond this module requests are right.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ready::MOST;
use crate::refusal::{Code, Refusal};

const MAX_LABEL_BYTES: usize = 64;
const MAX_EXTRA_ARGUMENTS: usize = 32;
const MAX_ARGUMENT_BYTES: usize = 4096;

/// A request that is right in itself.
#[derive(Debug, PartialEq)]
pub enum Request {
    Create(Create),
    Hello,
    Assign(Assign),
    Kill(String),
    Trace(Trace),
    /// The sandboxes after that one.
    List(Option<String>),
    Drain,
    /// Freezes a sandbox.
    Snapshot(String),
    /// Puts a sandbox back to its snapshot.
    Reset(Reset),
    /// Looks at what a sandbox that was brought back has written.
    Learn(String),
    /// Throws a snapshot away.
    Forget(String),
    /// So many micro-VMs ready at the most.
    Keep(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Container,
    Process,
    Microvm,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Process => "process",
            Self::Microvm => "microvm",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Create {
    pub kind: Kind,
    pub image: String,
    pub memory_mb: u32,
    pub cpu_milli: u32,
    pub pids: u32,
    pub tmp_mb: u32,
    pub bundle: Option<String>,
    pub label: String,
    #[serde(default)]
    pub argv_extra: Vec<String>,
    /// A micro-VM that may be frozen.
    #[serde(default)]
    pub freezable: bool,
    /// A micro-VM that is brought back instead of booted.
    pub snapshot: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assign {
    pub sandbox: String,
    pub bundle: String,
    pub label: String,
    pub memory_mb: Option<u32>,
    pub cpu_milli: Option<u32>,
    pub pids: Option<u32>,
}

/// Starts the trace of a micro-VM's system calls, or ends it when there is no mark.
#[derive(Debug, PartialEq)]
pub struct Trace {
    pub sandbox: String,
    pub mark: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceFields {
    sandbox: String,
    mark: Option<String>,
}

/// Puts a sandbox back to the snapshot it was brought back from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reset {
    pub sandbox: String,
    /// What comes on the sandbox's connection when nothing more of its former life can: hexadecimal.
    pub mark: String,
    /// What the runner is to see as its process id from then on.
    pub guest_pid: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    sandbox: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedSnapshot {
    snapshot: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keep {
    ready: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Reads the payload of a REQUEST frame. None: it is no JSON object, which ends the connection.
pub fn parse(payload: &[u8]) -> Option<Result<Request, Refusal>> {
    match serde_json::from_slice(payload) {
        Ok(Value::Object(fields)) => Some(known(fields)),
        _ => None,
    }
}

/// Whether a request asks for a sandbox, rightly or wrongly.
pub fn is_create(payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Op {
        op: String,
    }
    serde_json::from_slice::<Op>(payload).is_ok_and(|request| request.op == "create")
}

fn known(mut fields: Map<String, Value>) -> Result<Request, Refusal> {
    let Some(Value::String(op)) = fields.remove("op") else {
        return Err(Refusal::bad("The request has no op."));
    };
    match op.as_str() {
        "create" => {
            let create: Create = read(fields)?;
            check_create(&create)?;
            Ok(Request::Create(create))
        }
        "assign" => {
            let assign: Assign = read(fields)?;
            check_assign(&assign)?;
            Ok(Request::Assign(assign))
        }
        "kill" => read::<Named>(fields).map(|named| Request::Kill(named.sandbox)),
        "snapshot" => read::<Named>(fields).map(|named| Request::Snapshot(named.sandbox)),
        "reset" => read::<Reset>(fields)
            .and_then(check_reset)
            .map(Request::Reset),
        "learn" => read::<Named>(fields).map(|named| Request::Learn(named.sandbox)),
        "keep" => read::<Keep>(fields).and_then(|keep| {
            within("ready", keep.ready, 0, MOST)?;
            Ok(Request::Keep(keep.ready))
        }),
        "forget" => read::<NamedSnapshot>(fields).map(|named| Request::Forget(named.snapshot)),
        "trace" => read::<TraceFields>(fields)
            .and_then(check_trace)
            .map(Request::Trace),
        "list" => read::<After>(fields).map(|list| Request::List(list.after)),
        "hello" => read::<Nothing>(fields).map(|_| Request::Hello),
        "drain" => read::<Nothing>(fields).map(|_| Request::Drain),
        _ => Err(Refusal::new(
            Code::UnknownOp,
            "There is no such op.",
            "Use create, hello, assign, kill, snapshot, reset, learn, forget, keep, trace, list or drain.",
        )),
    }
}

fn read<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Refusal> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| Refusal::bad(format!("The request is wrong: {error}.")))
}

/// A mark that the guest could guess would be worth nothing.
fn check_reset(reset: Reset) -> Result<Reset, Refusal> {
    const LENGTHS: std::ops::RangeInclusive<usize> = 32..=128;
    within("guestPid", reset.guest_pid, 2, 32_767)?;
    let mark = reset.mark.as_bytes();
    let digits = mark.iter().all(u8::is_ascii_hexdigit);
    if digits && mark.len() % 2 == 0 && LENGTHS.contains(&mark.len()) {
        return Ok(reset);
    }
    Err(Refusal::bad("mark is not 16 to 64 bytes in hex digits."))
}

fn check_trace(fields: TraceFields) -> Result<Trace, Refusal> {
    /// Means lines without a mark.
    const PLAIN: u64 = u64::MAX;
    let mark = match fields.mark {
        None => None,
        Some(text) => {
            let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u64::from_str_radix(&text, 16)
                .ok()
                .filter(|mark| digits && *mark != 0 && *mark != PLAIN);
            Some(number.ok_or_else(|| Refusal::bad("mark is not 16 hex digits, or is 0."))?)
        }
    };
    Ok(Trace {
        sandbox: fields.sandbox,
        mark,
    })
}

fn check_create(create: &Create) -> Result<(), Refusal> {
    if !is_image_name(&create.image) {
        return Err(Refusal::bad("image is no image's name."));
    }
    within("memoryMb", create.memory_mb, 64, 4096)?;
    within("cpuMilli", create.cpu_milli, 10, 64_000)?;
    within("pids", create.pids, 8, 4096)?;
    within("tmpMb", create.tmp_mb, 1, 4096)?;
    if let Some(bundle) = &create.bundle {
        check_digest(bundle)?;
    }
    check_label(&create.label)?;
    if create.kind != Kind::Microvm && (create.freezable || create.snapshot.is_some()) {
        return Err(Refusal::bad(
            "Only a micro-VM can be frozen and brought back.",
        ));
    }
    if create.freezable && create.snapshot.is_some() {
        return Err(Refusal::bad("What is brought back cannot be frozen again."));
    }
    let extra = &create.argv_extra;
    let fits = |word: &String| word.len() <= MAX_ARGUMENT_BYTES && !word.contains('\0');
    if extra.len() > MAX_EXTRA_ARGUMENTS || !extra.iter().all(fits) {
        return Err(Refusal::bad(
            "argvExtra is more than 32 arguments of at most 4096 bytes.",
        ));
    }
    Ok(())
}

fn check_assign(assign: &Assign) -> Result<(), Refusal> {
    check_digest(&assign.bundle)?;
    check_label(&assign.label)?;
    if let Some(value) = assign.memory_mb {
        within("memoryMb", value, 64, 4096)?;
    }
    if let Some(value) = assign.cpu_milli {
        within("cpuMilli", value, 10, 64_000)?;
    }
    if let Some(value) = assign.pids {
        within("pids", value, 8, 4096)?;
    }
    Ok(())
}

fn within(name: &str, value: u32, least: u32, most: u32) -> Result<(), Refusal> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Refusal::bad(format!(
        "{name} must be from {least} to {most}."
    )))
}

fn check_label(label: &str) -> Result<(), Refusal> {
    let printable = |byte: u8| matches!(byte, b' '..=b'~');
    if label.len() <= MAX_LABEL_BYTES && label.bytes().all(printable) {
        return Ok(());
    }
    Err(Refusal::bad(
        "label must be at most 64 printable ASCII characters.",
    ))
}

fn check_digest(digest: &str) -> Result<(), Refusal> {
    if is_digest(digest) {
        return Ok(());
    }
    Err(Refusal::bad("bundle must be 64 lower-case hex digits."))
}

/// Whether it is a SHA-256 in lower-case hex; such a name leads nowhere else as a path.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether it may name an image: lower-case letters, digits and dashes, a letter first, at most 32.
pub fn is_image_name(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn create() -> Value {
        json!({"op": "create", "kind": "container", "image": "node24", "memoryMb": 256, "cpuMilli": 1000,
            "pids": 128, "tmpMb": 64, "bundle": "0a".repeat(32), "label": "hello@3", "argvExtra": []})
    }

    fn outcome(value: &Value) -> Result<Request, Refusal> {
        parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_the_readme_shows_is_taken() {
        assert!(matches!(outcome(&create()), Ok(Request::Create(_))));
        let mut cell = create();
        cell.as_object_mut().unwrap().remove("bundle");
        cell.as_object_mut().unwrap().remove("argvExtra");
        assert!(matches!(outcome(&cell), Ok(Request::Create(_))));
        assert_eq!(outcome(&json!({"op": "hello"})), Ok(Request::Hello));
        assert_eq!(outcome(&json!({"op": "list"})), Ok(Request::List(None)));
        let keep = |ready: u32| outcome(&json!({"op": "keep", "ready": ready}));
        assert_eq!(keep(0), Ok(Request::Keep(0)));
        assert!(keep(MOST + 1).is_err());
    }

    #[test]
    fn each_wrong_field_is_refused() {
        for (field, value) in [
            ("kind", json!("vm")),
            ("image", json!("../node24")),
            ("image", json!("")),
            ("image", json!("x".repeat(33))),
            ("memoryMb", json!(63)),
            ("memoryMb", json!(4097)),
            ("memoryMb", json!(-1)),
            ("memoryMb", json!(1e300)),
            ("memoryMb", json!("256")),
            ("memoryMb", json!(64.5)),
            ("cpuMilli", json!(9)),
            ("cpuMilli", json!(64_001)),
            ("pids", json!(7)),
            ("pids", json!(4097)),
            ("tmpMb", json!(0)),
            ("tmpMb", json!(4097)),
            ("bundle", json!("0A".repeat(32))),
            ("bundle", json!("../".repeat(21) + "a")),
            ("label", json!("x".repeat(65))),
            ("label", json!("a\nb")),
            ("label", json!("é")),
            ("argvExtra", json!(vec!["x"; 33])),
            ("argvExtra", json!(["x".repeat(4097)])),
            ("argvExtra", json!(["a\0b"])),
            ("privileged", json!(true)),
        ] {
            let mut request = create();
            request[field] = value.clone();
            let refusal = outcome(&request).expect_err(&format!("{field}: {value}"));
            assert_eq!(refusal.code, Code::BadRequest);
        }
        for field in [
            "kind", "image", "memoryMb", "cpuMilli", "pids", "tmpMb", "label",
        ] {
            let mut request = create();
            request.as_object_mut().unwrap().remove(field);
            assert!(outcome(&request).is_err(), "without {field}");
        }
    }

    #[test]
    fn other_requests_are_checked_too() {
        let reset = |mark: String, pid: u32| json!({"op": "reset", "sandbox": "sb_1", "mark": mark, "guestPid": pid});
        let right = outcome(&reset("0a".repeat(32), 301));
        assert!(matches!(right, Ok(Request::Reset(_))));
        for request in [
            json!({"op": "reset", "sandbox": "sb_1", "guestPid": 301}),
            json!({"op": "reset", "sandbox": "sb_1", "mark": "0a".repeat(32)}),
            reset("0a".repeat(32), 1),
            reset("0a".repeat(32), 40_000),
            reset("0a".repeat(15), 301),
            reset("0a".repeat(65), 301),
            reset("0".repeat(33), 301),
            reset("0g".repeat(16), 301),
            reset("+a".repeat(16), 301),
            json!({}),
            json!({"op": 1}),
            json!({"op": "kill"}),
            json!({"op": "kill", "sandbox": "x", "all": true}),
            json!({"op": "hello", "x": 1}),
            json!({"op": "assign", "sandbox": "x", "bundle": "..", "label": ""}),
            json!({"op": "assign", "sandbox": "x", "bundle": "00".repeat(32), "label": "", "pids": 1}),
        ] {
            assert_eq!(outcome(&request).unwrap_err().code, Code::BadRequest);
        }
        assert_eq!(
            outcome(&json!({"op": "shell"})).unwrap_err().code,
            Code::UnknownOp
        );
        for bytes in [&b""[..], b"[]", b"null", b"{", b"\xff", &[b'['; 60_000]] {
            assert!(parse(bytes).is_none());
        }
    }
}
