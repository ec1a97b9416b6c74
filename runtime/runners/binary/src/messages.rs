//! The JSON payloads a runner receives and sends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

const MAX_MESSAGE_BYTES: usize = 4096;
const MAX_STACK_BYTES: usize = 16_384;

/// INIT: what function this runner serves.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Init {
    pub function: String,
    pub version: serde_json::Value,
    #[serde(default)]
    pub entry: Option<String>,
    pub root: String,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub memory_mb: u64,
}

/// INVOKE: head of one request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invoke {
    pub id: String,
    pub kind: Kind,
    #[serde(default)]
    pub method: String,
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Time left, relative, when it was sent.
    pub deadline_ms: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Http,
    Event,
}

/// HEAD: status and headers of an answer.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

/// ERROR, and the error of INIT_DONE.
#[derive(Debug, Serialize)]
pub struct Fault {
    #[serde(rename = "type")]
    kind: &'static str,
    message: String,
    stack: String,
    code: &'static str,
}

impl Fault {
    fn new(code: &'static str, kind: &'static str, message: &str, stack: &str) -> Self {
        Self {
            kind,
            message: cut(message, MAX_MESSAGE_BYTES),
            stack: cut(stack, MAX_STACK_BYTES),
            code,
        }
    }

    /// The program failed; `stack` is what it last wrote to stderr.
    pub fn function(kind: &'static str, message: &str, stack: &str) -> Self {
        Self::new("function_error", kind, message, stack)
    }

    /// The program's answer cannot be read as one.
    pub fn bad_response(message: &str) -> Self {
        Self::new("function_bad_response", "BadResponse", message, "")
    }

    /// There is a program but it can never run here.
    pub fn init(message: &str) -> Self {
        Self::new("function_init_error", "InitError", message, "")
    }

    /// Nothing in the bundle can be called.
    pub fn no_handler(message: &str) -> Self {
        Self::new("function_no_handler", "NoHandler", message, "")
    }

    pub fn cancelled() -> Self {
        let message = "The invocation was cancelled and its program ended.";
        Self::new("function_cancelled", "Cancelled", message, "")
    }
}

/// At most `limit` bytes of `text`, cut between characters.
fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_cut_between_characters() {
        let fault = Fault::function("ExitError", &"é".repeat(4000), &"ü".repeat(10_000));
        assert_eq!((fault.message.len(), fault.stack.len()), (4096, 16_384));
        let odd = Fault::init(&format!("a{}", "é".repeat(4000)));
        assert_eq!(odd.message.len(), 4095);
    }
}
