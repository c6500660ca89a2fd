//! What a server said, read back: codes, enhanced status, the exact words.
//!
//! Promises: a reply is bounded in lines and octets; a malformed one is an error, never a guess.

use crate::framer::{LineFault, Lines};
use mail::EnhancedStatus;
use std::fmt;

/// Octets of a reply line that we accept at most. RFC 5321 §4.5.3.1.5 binds servers to 512; some
/// write more.
pub const LINE_OCTETS_MAX: usize = 4_096;
/// Lines of a reply that we accept at most.
pub const LINES_MAX: usize = 256;

/// A reply of the other side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerReply {
    /// The three digits.
    pub code: u16,
    /// The enhanced status of the first line, when there is one.
    pub status: Option<EnhancedStatus>,
    /// The words behind the code, line by line, as they came (control characters and octets that
    /// are not UTF-8 replaced).
    pub lines: Vec<String>,
}

impl ServerReply {
    /// Whether the command was done (2xx).
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether more is awaited from us (3xx).
    #[must_use]
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// Whether trying later can help (4xx).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// Whether trying again cannot help (5xx).
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The status that it stands for; made from the code when none was said (RFC 3463 §2: X.0.0).
    #[must_use]
    pub fn status_or_class(&self) -> EnhancedStatus {
        self.status.unwrap_or(match self.code / 100 {
            5 => EnhancedStatus::new(5, 0, 0),
            2 | 3 => EnhancedStatus::new(2, 0, 0),
            _ => EnhancedStatus::new(4, 0, 0),
        })
    }
}

impl fmt::Display for ServerReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" "))
    }
}

/// Why what came is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line that does not begin with three digits and a space or hyphen.
    #[error("the server's line is no SMTP reply")]
    Syntax,
    /// The code changed within a multi-line reply.
    #[error("the server's reply changed its code between two lines")]
    CodeChanged,
    /// More lines or longer ones than we accept.
    #[error("the server's reply is too long")]
    TooLong,
}

/// Gathers the lines of replies.
#[derive(Debug, Default)]
pub struct Replies {
    lines: Lines,
    partial: Option<ServerReply>,
}

impl Replies {
    /// The next whole reply. `None`: more input is needed. `hear` is told every line.
    ///
    /// # Errors
    /// When what came is no reply; the connection is of no use any more.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        mut hear: impl FnMut(&[u8]),
    ) -> Result<Option<ServerReply>, ReplyError> {
        while let Some(line) = self.lines.next(input, LINE_OCTETS_MAX, |line| match line {
            Ok(line) => Ok(line.to_vec()),
            Err(LineFault::TooLong) => Err(ReplyError::TooLong),
            Err(_) => Err(ReplyError::Syntax),
        }) {
            let line = line?;
            hear(&line);
            if let Some(reply) = self.line(&line)? {
                return Ok(Some(reply));
            }
        }
        // Nobody waits for the end of an endless line.
        if self.lines.is_overlong() {
            return Err(ReplyError::TooLong);
        }
        Ok(None)
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<ServerReply>, ReplyError> {
        let (code, last, words) = parts(line).ok_or(ReplyError::Syntax)?;
        let words = readable(words);
        let mut reply = match self.partial.take() {
            None => ServerReply {
                code,
                status: EnhancedStatus::parse_prefix(&words)
                    .map(|(status, _)| status)
                    // RFC 2034 §4: a status of another class than the code's means nothing.
                    .filter(|status| u16::from(status.class) == code / 100),
                lines: Vec::new(),
            },
            Some(partial) if partial.code == code => partial,
            Some(_) => return Err(ReplyError::CodeChanged),
        };
        if reply.lines.len() >= LINES_MAX {
            return Err(ReplyError::TooLong);
        }
        reply.lines.push(words);
        if last {
            return Ok(Some(reply));
        }
        self.partial = Some(reply);
        Ok(None)
    }
}

/// Code, whether it is the last line, words.
fn parts(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_first_chunk::<3>()?;
    if !digits.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&digits[0]) {
        return None;
    }
    let code = digits.iter().fold(0u16, |n, d| n * 10 + u16::from(d - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', words)) => Some((code, true, words)),
        Some((b'-', words)) => Some((code, false, words)),
        Some(_) => None,
    }
}

fn readable(words: &[u8]) -> String {
    String::from_utf8_lossy(words)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Option<ServerReply>, ReplyError> {
        Replies::default().next(&mut text.as_bytes(), |_| {})
    }

    #[test]
    fn replies() {
        let r = read("250-mail.example.com\r\n250-SIZE 100\r\n250 OK\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(r.lines, ["mail.example.com", "SIZE 100", "OK"]);
        let r = read("550 5.1.1 no\r\n").unwrap().unwrap();
        assert_eq!(r.status, Some(EnhancedStatus::new(5, 1, 1)));
        assert_eq!(read("550 4.1.1 no\r\n").unwrap().unwrap().status, None);
        assert_eq!(read("250\r\n").unwrap().unwrap().lines, [""]);
        assert_eq!(read("250-x\r\n").unwrap(), None);
        for (text, error) in [
            ("hello\r\n", ReplyError::Syntax),
            ("199 x\r\n", ReplyError::Syntax),
            ("2500 x\r\n", ReplyError::Syntax),
            ("250 x\n", ReplyError::Syntax),
            ("250-x\r\n251 y\r\n", ReplyError::CodeChanged),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
        assert_eq!(read(&"250-x\r\n".repeat(300)), Err(ReplyError::TooLong));
        assert_eq!(
            read(&format!("250 {}\r\n", "x".repeat(5_000))),
            Err(ReplyError::TooLong)
        );
        assert_eq!(
            read(&"x".repeat(5_000)),
            Err(ReplyError::TooLong),
            "it never ends"
        );
    }

    proptest! {
        #[test]
        fn our_own_replies_read_back(text in "[ -~\n]{0,200}", code in prop_oneof![Just(250u16), Just(451), Just(550)]) {
            let status = EnhancedStatus::new((code / 100) as u8, 1, 2);
            let mut out = Vec::new();
            crate::Reply::made(code, status, text).write(&mut out);
            let mut replies = Replies::default();
            let got = replies.next(&mut &out[..], |_| {}).unwrap().unwrap();
            prop_assert_eq!((got.code, got.status), (code, Some(status)));
        }
    }
}
