//! Mailbox names: UTF-8 inside, modified UTF-7 on the wire (RFC 3501 §5.1.3).

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::fmt;

/// Octets of a mailbox name in UTF-8 at most.
pub const NAME_OCTETS_MAX: usize = 512;
/// Levels of a mailbox name at most.
pub const NAME_LEVELS_MAX: usize = 20;
/// What separates the levels of a name.
pub const SEPARATOR: char = '/';

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The name of a mailbox. `INBOX` is written in capitals however the client wrote it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MailboxName(String);

/// Why a text cannot name a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Not modified UTF-7 and not UTF-8.
    #[error("the mailbox name is not valid modified UTF-7")]
    Encoding,
    /// Empty, or with an empty level.
    #[error("the mailbox name has an empty level")]
    Empty,
    /// Over [`NAME_OCTETS_MAX`] or [`NAME_LEVELS_MAX`].
    #[error("the mailbox name is too long")]
    TooLong,
    /// A control character, or a wildcard of LIST.
    #[error("the mailbox name holds a character that is not allowed there")]
    Character,
}

impl MailboxName {
    /// `INBOX`.
    #[must_use]
    pub fn inbox() -> Self {
        Self("INBOX".to_owned())
    }

    /// A name in UTF-8. A separator at the end is dropped (RFC 3501 §6.3.3).
    ///
    /// # Errors
    /// When no mailbox can have this name; see [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix(SEPARATOR).unwrap_or(text);
        if text.len() > NAME_OCTETS_MAX || text.split(SEPARATOR).count() > NAME_LEVELS_MAX {
            return Err(NameError::TooLong);
        }
        if text.split(SEPARATOR).any(str::is_empty) {
            return Err(NameError::Empty);
        }
        if text.chars().any(|c| c.is_control() || matches!(c, '*' | '%')) {
            return Err(NameError::Character);
        }
        Ok(Self(with_inbox_in_capitals(text)))
    }

    /// A name as a command has it: modified UTF-7, or UTF-8 from clients that don't encode.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn from_wire(bytes: &[u8]) -> Result<Self, NameError> {
        Self::new(&decode(bytes).ok_or(NameError::Encoding)?)
    }

    /// The name in UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in modified UTF-7.
    #[must_use]
    pub fn to_wire(&self) -> String {
        encode(&self.0)
    }

    /// Whether this is INBOX itself.
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.0 == "INBOX"
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 3501 §5.1: INBOX is the same in any case; so is the first level of what is inside it.
pub(crate) fn with_inbox_in_capitals(text: &str) -> String {
    let first = text.split(SEPARATOR).next().unwrap_or_default();
    if first.eq_ignore_ascii_case("INBOX") {
        format!("INBOX{}", &text[5..])
    } else {
        text.to_owned()
    }
}

/// Text in modified UTF-7.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut wide: Vec<u8> = Vec::new();
    let flush = |wide: &mut Vec<u8>, out: &mut String| {
        if !wide.is_empty() {
            out.push('&');
            BASE64.encode_string(&*wide, out);
            out.push('-');
            wide.clear();
        }
    };
    for c in text.chars() {
        if matches!(c, ' '..='~') {
            flush(&mut wide, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                wide.extend_from_slice(&unit.to_be_bytes());
            }
        }
    }
    flush(&mut wide, &mut out);
    out
}

/// Text from modified UTF-7. Octets beyond ASCII are taken as UTF-8. `None` when it is neither.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let (coded, tail) = rest[at + 1..].split_once('-')?;
        if coded.is_empty() {
            out.push('&');
        } else {
            let wide = BASE64.decode(coded).ok()?;
            let (pairs, odd) = wide.as_chunks::<2>();
            if !odd.is_empty() {
                return None;
            }
            let units = pairs.iter().map(|p| u16::from_be_bytes(*p));
            for c in char::decode_utf16(units) {
                out.push(c.ok()?);
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_3501_example() {
        let wire = "~peter/mail/&U,BTFw-/&ZeVnLIqe-";
        let name = MailboxName::from_wire(wire.as_bytes()).unwrap();
        assert_eq!(name.as_str(), "~peter/mail/台北/日本語");
        assert_eq!(name.to_wire(), wire);
    }

    #[test]
    fn names() {
        let read = |b: &str| MailboxName::from_wire(b.as_bytes()).map(|n| n.0);
        for (wire, name) in [
            ("inbox", "INBOX"),
            ("iNbOx/Work", "INBOX/Work"),
            ("Inboxes", "Inboxes"),
            ("a&-b", "a&b"),
            ("Sent/", "Sent"),
            ("Entwürfe", "Entwürfe"),
            ("&2D3cqQ-", "💩"),
        ] {
            assert_eq!(read(wire).as_deref(), Ok(name));
        }
        for (wire, error) in [
            ("", NameError::Empty),
            ("/", NameError::Empty),
            ("a//b", NameError::Empty),
            ("/a", NameError::Empty),
            ("a\tb", NameError::Character),
            ("a*", NameError::Character),
            ("a&b", NameError::Encoding),
            ("&2D0-", NameError::Encoding),
            ("&A-", NameError::Encoding),
            ("&!-", NameError::Encoding),
        ] {
            assert_eq!(read(wire), Err(error), "{wire}");
        }
        assert_eq!(MailboxName::new(&"a".repeat(600)), Err(NameError::TooLong));
        assert_eq!(MailboxName::new(&"a/".repeat(30)), Err(NameError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            let wire = encode(&text);
            prop_assert!(wire.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert_eq!(decode(wire.as_bytes()), Some(text));
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let _ = MailboxName::from_wire(&bytes);
        }
    }
}
