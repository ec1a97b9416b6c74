//! How sandboxd says no.

use serde::Serialize;

/// The error codes of README.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    BadRequest,
    UnknownOp,
    UnknownImage,
    UnknownBundle,
    UnknownSandbox,
    AlreadyAssigned,
    IsolationUnavailable,
    LimitUnavailable,
    SetupFailed,
    Draining,
    TooManySandboxes,
    UnknownSnapshot,
    SnapshotRefused,
    TooManySnapshots,
    ResetRefused,
}

/// A reply with `ok: false`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    ok: bool,
    pub code: Code,
    pub message: String,
    pub remedy: String,
}

/// Texts of a refusal, bytes: the reply must fit a frame whatever a kernel path or a client put into them.
const MAX_TEXT_BYTES: usize = 2048;

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            ok: false,
            code,
            message: cut(message.into()),
            remedy: cut(remedy.into()),
        }
    }

    /// The request itself is wrong.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(
            Code::BadRequest,
            message,
            "Send what runtime/sandboxd/README.md describes.",
        )
    }
}

/// Cuts a text at a character's boundary.
fn cut(mut text: String) -> String {
    let mut end = MAX_TEXT_BYTES.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_reply_of_the_readme() {
        let refusal = Refusal::new(Code::UnknownImage, "There is no image x.", "Build it.");
        assert_eq!(
            serde_json::to_string(&refusal).unwrap(),
            r#"{"ok":false,"code":"unknown_image","message":"There is no image x.","remedy":"Build it."}"#
        );
        assert_eq!(Refusal::bad("é".repeat(4000)).message.len(), 2048);
    }
}
