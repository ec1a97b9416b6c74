//! What a program writes to stderr, as LOG frames of whole lines.

use cloister_protocol::MAX_DATA_BYTES;

const MAX_LOG_BYTES: usize = 1 << 20;
const TAIL_BYTES: usize = 8192;
const TRUNCATED: &str = "[cloister] log truncated after 1 MiB\n";
/// LOG payloads start with the stream they were written to.
const STDERR: u8 = 2;

/// Gathers one invocation's stderr.
#[derive(Default)]
pub struct LogLines {
    partial: Vec<u8>,
    tail: Vec<u8>,
    sent_bytes: usize,
    truncated: bool,
}

impl LogLines {
    /// Takes what was read; gives the payloads of the LOG frames to send now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.tail.extend_from_slice(bytes);
        let excess = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
        if self.truncated {
            return Vec::new();
        }
        self.partial.extend_from_slice(bytes);
        let whole = match self.partial.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at.saturating_add(1),
            // A line longer than a frame leaves in pieces.
            None if self.partial.len() >= MAX_DATA_BYTES => self.partial.len(),
            None => 0,
        };
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        self.payloads(&lines)
    }

    /// What is left when the program has ended: a last line without a line feed.
    pub fn finish(&mut self) -> Vec<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.partial);
        if rest.is_empty() {
            return Vec::new();
        }
        rest.push(b'\n');
        self.payloads(&rest)
    }

    /// The last lines written, for an error's stack.
    pub fn last_lines(&self) -> String {
        String::from_utf8_lossy(&self.tail).trim().to_owned()
    }

    fn payloads(&mut self, lines: &[u8]) -> Vec<Vec<u8>> {
        let room = MAX_LOG_BYTES.saturating_sub(self.sent_bytes);
        let fits = lines.get(..room).unwrap_or(lines);
        self.sent_bytes = self.sent_bytes.saturating_add(fits.len());
        // A byte that is no UTF-8 becomes a replacement character of up to three bytes.
        let mut payloads: Vec<Vec<u8>> = fits
            .chunks(MAX_DATA_BYTES / 4)
            .map(|piece| payload(&String::from_utf8_lossy(piece)))
            .collect();
        if fits.len() < lines.len() {
            self.truncated = true;
            self.partial = Vec::new();
            payloads.push(payload(TRUNCATED));
        }
        payloads
    }
}

fn payload(text: &str) -> Vec<u8> {
    let mut bytes = vec![STDERR];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_leave_until_the_end() {
        let mut log = LogLines::default();
        assert!(log.push(b"one").is_empty());
        assert_eq!(log.push(b" line\ntwo"), [b"\x02one line\n".to_vec()]);
        assert_eq!(log.finish(), [b"\x02two\n".to_vec()]);
        assert_eq!(log.last_lines(), "one line\ntwo");
    }

    #[test]
    fn a_flood_is_cut_after_a_mebibyte_with_one_note() {
        let mut log = LogLines::default();
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        let mut sent = 0;
        let mut notes = 0;
        for _ in 0..5000 {
            for payload in log.push(&line) {
                assert!(payload.len() <= MAX_DATA_BYTES);
                let note = payload.ends_with(TRUNCATED.as_bytes());
                notes += usize::from(note);
                sent += if note { 0 } else { payload.len() - 1 };
            }
        }
        assert_eq!((sent, notes), (1 << 20, 1));
        assert!(log.finish().is_empty());
    }

    #[test]
    fn an_endless_line_is_not_held() {
        let mut log = LogLines::default();
        let mut sent = 0;
        for _ in 0..100 {
            sent += log.push(&[b'x'; 4096]).iter().map(Vec::len).sum::<usize>();
            assert!(log.partial.len() <= MAX_DATA_BYTES);
        }
        assert!(sent > 300_000);
    }
}
