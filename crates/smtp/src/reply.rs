//! What a server says: a code, an enhanced status, words; and how that is written on the wire.
//!
//! Promises: a written reply is well-formed whatever its words are: no control character, no line
//! over 512 octets, at least one line. Never: the words themselves; those stand in `replies`.

use mail::EnhancedStatus;
use std::borrow::Cow;
use std::fmt;

/// Octets of a reply line at most, with code and CRLF (RFC 5321 §4.5.3.1.5).
pub const REPLY_LINE_OCTETS_MAX: usize = 512;
/// Lines of one of our replies at most; further words are left out.
pub const REPLY_LINES_MAX: usize = 64;

/// A reply. A line feed in the text begins a further line of a multi-line reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The three digits (RFC 5321 §4.2.1).
    pub code: u16,
    /// The enhanced status (RFC 2034), where one belongs.
    pub status: Option<EnhancedStatus>,
    /// The words, for people.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply with fixed words and an enhanced status.
    #[must_use]
    pub const fn fixed(code: u16, status: EnhancedStatus, text: &'static str) -> Self {
        Self {
            code,
            status: Some(status),
            text: Cow::Borrowed(text),
        }
    }

    /// A reply with fixed words where no enhanced status belongs (RFC 2034 §4: the greeting, the
    /// answers to EHLO and HELO, and 3xx).
    #[must_use]
    pub const fn bare(code: u16, text: &'static str) -> Self {
        Self {
            code,
            status: None,
            text: Cow::Borrowed(text),
        }
    }

    /// A reply whose words were made for the occasion.
    #[must_use]
    pub fn made(code: u16, status: EnhancedStatus, text: impl Into<String>) -> Self {
        Self {
            code,
            status: Some(status),
            text: Cow::Owned(text.into()),
        }
    }

    /// The same reply, ending with the transaction's id, by which the operator finds its record.
    #[must_use]
    pub fn with_reference(self, id: impl fmt::Display) -> Self {
        Self {
            text: Cow::Owned(format!("{} (reference {id})", self.text)),
            ..self
        }
    }

    /// Whether the reply ends with a reference already.
    #[must_use]
    pub fn has_reference(&self) -> bool {
        self.text.ends_with(')') && self.text.contains(" (reference ")
    }

    /// Whether the command was done (2xx).
    #[must_use]
    pub const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether trying later can help (4xx).
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// Whether trying again cannot help (5xx).
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// Appends the reply's lines to `out`, each with its CRLF.
    pub fn write(&self, out: &mut Vec<u8>) {
        let lines = self.lines();
        let last = lines.len() - 1;
        for (i, line) in lines.iter().enumerate() {
            let dash = if i == last { ' ' } else { '-' };
            out.extend_from_slice(format!("{:03}{dash}", self.code % 1_000).as_bytes());
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }

    /// What stands behind the code in each line: status and words, fit for the wire.
    fn lines(&self) -> Vec<String> {
        let prefix = self.status.map(|s| format!("{s} ")).unwrap_or_default();
        let words_max = REPLY_LINE_OCTETS_MAX - 6 - prefix.len();
        let mut lines = Vec::new();
        for text in self.text.split('\n') {
            let mut rest: &str = &printable(text);
            loop {
                let (line, more) = split_at_space(rest, words_max);
                lines.push(format!("{prefix}{line}"));
                if more.is_empty() || lines.len() >= REPLY_LINES_MAX {
                    break;
                }
                rest = more;
            }
            if lines.len() >= REPLY_LINES_MAX {
                break;
            }
        }
        lines
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        write!(f, " {}", printable(&self.text.replace('\n', " ")))
    }
}

/// Only what every terminal and every old client takes: printable ASCII (RFC 5321 §4.2 textstring).
fn printable(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' });
    Cow::Owned(shown.collect())
}

fn split_at_space(text: &str, max: usize) -> (&str, &str) {
    if text.len() <= max {
        return (text, "");
    }
    // The text is ASCII here, so every index is a boundary.
    match text[..max].rfind(' ') {
        Some(space) if space > 0 => (&text[..space], &text[space + 1..]),
        _ => text.split_at(max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn on_the_wire() {
        assert_eq!(
            written(&Reply::fixed(250, EnhancedStatus::new(2, 1, 0), "OK")),
            "250 2.1.0 OK\r\n"
        );
        assert_eq!(written(&Reply::bare(250, "a\nb")), "250-a\r\n250 b\r\n");
        assert_eq!(written(&Reply::bare(334, "")), "334 \r\n");
        assert_eq!(
            written(&Reply::made(
                550,
                EnhancedStatus::new(5, 1, 1),
                "x\r\n250 y\u{e9}"
            )),
            "550-5.1.1 x?\r\n550 5.1.1 250 y?\r\n"
        );
    }

    proptest! {
        #[test]
        fn any_words_make_a_well_formed_reply(text in any::<String>(), long in 0usize..3_000) {
            let text = format!("{text}{}", "ab ".repeat(long));
            let out = written(&Reply::made(550, EnhancedStatus::new(5, 7, 1), text));
            prop_assert!(out.ends_with("\r\n"));
            let lines: Vec<&str> = out.strip_suffix("\r\n").unwrap().split("\r\n").collect();
            for (i, line) in lines.iter().enumerate() {
                prop_assert!(line.len() + 2 <= REPLY_LINE_OCTETS_MAX);
                prop_assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)));
                let start = if i + 1 == lines.len() { "550 5.7.1 " } else { "550-5.7.1 " };
                prop_assert!(line.starts_with(start));
            }
            prop_assert!(lines.len() <= REPLY_LINES_MAX);
        }
    }
}
