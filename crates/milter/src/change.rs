//! A change that a filter wants, checked and cleaned: what it holds can be put into a message as it
//! stands.
//!
//! Cleaning rather than refusing, where the meaning is clear: a line break in a value becomes a
//! fold, other control characters become spaces. What cannot be a field name or an address is a
//! fault of the filter.

use crate::{Answer, Fault};
use mail::{EmailAddress, ReversePath};
use std::fmt;

/// Octets of a field name at most.
const NAME_OCTETS_MAX: usize = 256;
/// Octets of a line of a message at most, without its CRLF (RFC 5322 §2.1.1).
const LINE_OCTETS_MAX: usize = 998;
/// Octets of a reason at most; what is longer is cut.
const REASON_OCTETS_MAX: usize = 512;
/// Octets of a value that are told in words.
const TOLD_OCTETS_MAX: usize = 120;

/// A change to a message or its envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A field at the end of the header section.
    AddHeader {
        /// Its name.
        name: String,
        /// What follows the colon, folded, without the last CRLF.
        value: Vec<u8>,
    },
    /// A field in front of the one that stands at this place now, counted from 0.
    InsertHeader {
        /// The place; beyond the end means at the end.
        index: u32,
        /// Its name.
        name: String,
        /// What follows the colon.
        value: Vec<u8>,
    },
    /// Another value for the n-th field of a name, counted from 1 among those that the filter was
    /// shown, whatever it changed since. When there is none, the field is added.
    ChangeHeader {
        /// Which one.
        index: u32,
        /// Its name.
        name: String,
        /// What follows the colon; `None` removes the field.
        value: Option<Vec<u8>>,
    },
    /// Another body, as it came.
    ReplaceBody(Vec<u8>),
    /// One more recipient.
    AddRecipient {
        /// Who.
        address: EmailAddress,
        /// ESMTP parameters of RCPT.
        parameters: String,
    },
    /// One recipient less.
    RemoveRecipient(EmailAddress),
    /// Another reverse-path.
    ChangeSender {
        /// Which.
        sender: ReversePath,
        /// ESMTP parameters of MAIL.
        parameters: String,
    },
    /// To be kept apart, for this reason.
    Quarantine(String),
}

impl Change {
    /// Checks and cleans a change; `None` when the answer is none. `leading_space`: values come with
    /// the white space behind the colon.
    pub(crate) fn from_answer(answer: Answer, leading_space: bool) -> Result<Option<Self>, Fault> {
        let value_of = |value: &[u8]| clean_value(value, leading_space);
        Ok(Some(match answer {
            Answer::AddHeader(name, value) => {
                let name = field_name(&name)?;
                let value = fits(&name, value_of(&value))?;
                Self::AddHeader { name, value }
            }
            Answer::InsertHeader(index, name, value) => {
                let name = field_name(&name)?;
                let value = fits(&name, value_of(&value))?;
                Self::InsertHeader { index, name, value }
            }
            Answer::ChangeHeader(index, name, value) => {
                let name = field_name(&name)?;
                let value = if value.is_empty() {
                    None
                } else {
                    Some(fits(&name, value_of(&value))?)
                };
                Self::ChangeHeader { index, name, value }
            }
            Answer::ReplaceBody(octets) => Self::ReplaceBody(octets),
            Answer::AddRecipient(address) => Self::AddRecipient {
                address: email(&address)?,
                parameters: String::new(),
            },
            Answer::AddRecipientWithParameters(address, parameters) => Self::AddRecipient {
                address: email(&address)?,
                parameters: words(&parameters),
            },
            Answer::RemoveRecipient(address) => Self::RemoveRecipient(email(&address)?),
            Answer::ChangeSender(address, parameters) => Self::ChangeSender {
                sender: match inside(&address) {
                    b"" => ReversePath::Null,
                    _ => ReversePath::Address(email(&address)?),
                },
                parameters: words(&parameters),
            },
            Answer::Quarantine(reason) => Self::Quarantine(words(&reason)),
            _ => return Ok(None),
        }))
    }
}

/// Text for people: one line of printable characters.
fn words(octets: &[u8]) -> String {
    let mut text: String = String::from_utf8_lossy(octets)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut end = text.len().min(REASON_OCTETS_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.trim().to_owned()
}

fn inside(address: &[u8]) -> &[u8] {
    let address = address.trim_ascii();
    address
        .strip_prefix(b"<")
        .and_then(|a| a.strip_suffix(b">"))
        .unwrap_or(address)
}

fn email(address: &[u8]) -> Result<EmailAddress, Fault> {
    std::str::from_utf8(inside(address))
        .ok()
        .and_then(|text| EmailAddress::parse(text).ok())
        .ok_or(Fault::BadAddress)
}

/// RFC 5322 §3.6.8: printable ASCII without the colon.
fn field_name(name: &[u8]) -> Result<String, Fault> {
    let good = !name.is_empty()
        && name.len() <= NAME_OCTETS_MAX
        && name.iter().all(|b| (33..=126).contains(b) && *b != b':');
    std::str::from_utf8(name)
        .ok()
        .filter(|_| good)
        .map(str::to_owned)
        .ok_or(Fault::BadField("its name"))
}

/// RFC 5322 §2.1.1: no line may be longer than 998 octets.
fn fits(name: &str, value: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let mut before = name.len() + 1;
    for line in value.split(|b| *b == b'\n') {
        if before + line.strip_suffix(b"\r").unwrap_or(line).len() > LINE_OCTETS_MAX {
            return Err(Fault::BadField("a line over 998 octets without a space"));
        }
        before = 0;
    }
    Ok(value)
}

/// A field's value so that it cannot be anything else: every line but the first begins with a space
/// or a tab and has something behind it, lines end with CRLF, there are no other control characters
/// than tabs, and long lines are folded where they have spaces. Without `leading_space` one space is
/// put in front of a value that is not empty.
#[must_use]
pub fn clean_value(value: &[u8], leading_space: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 1);
    if !leading_space {
        out.push(b' ');
    }
    // CRLF, LF and CR are all line breaks here.
    for line in value.split(|b| matches!(b, b'\r' | b'\n')) {
        let line: Vec<u8> = line
            .iter()
            .map(|b| if is_control(*b) { b' ' } else { *b })
            .collect();
        let line = line.trim_ascii_end();
        let is_first = out.len() <= usize::from(!leading_space);
        if line.is_empty() {
            continue;
        }
        if !is_first {
            out.extend_from_slice(b"\r\n");
            if !matches!(line[0], b' ' | b'\t') {
                out.push(b'\t');
            }
        }
        fold(&mut out, line);
    }
    if out == b" " {
        out.clear();
    }
    out
}

fn is_control(b: u8) -> bool {
    (b < b' ' && b != b'\t') || b == 127
}

/// Appends a line; a long one is broken in front of a space or tab, with something before it.
fn fold(out: &mut Vec<u8>, line: &[u8]) {
    // Room for the name in front of the first line.
    let lines_max = LINE_OCTETS_MAX - NAME_OCTETS_MAX - 2;
    let mut rest = line;
    while rest.len() > lines_max {
        let lead = rest.len() - rest.trim_ascii_start().len();
        let cut = rest[..lines_max]
            .iter()
            .rposition(|b| matches!(b, b' ' | b'\t'))
            .filter(|cut| *cut > lead);
        let Some(cut) = cut else { break };
        let kept = rest[..cut].trim_ascii_end();
        out.extend_from_slice(kept);
        out.extend_from_slice(b"\r\n");
        rest = &rest[cut..];
    }
    out.extend_from_slice(rest);
}

/// A body as it may be stored and sent: lines end with CRLF, a CR or LF alone is a line ending too,
/// zeros are left out.
#[must_use]
pub fn clean_body(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 2);
    let mut rest = body;
    while let Some(at) = rest.iter().position(|b| matches!(b, b'\r' | b'\n' | 0)) {
        out.extend_from_slice(&rest[..at]);
        let taken = match &rest[at..] {
            [b'\r', b'\n', ..] => 2,
            _ => 1,
        };
        if rest[at] != 0 {
            out.extend_from_slice(b"\r\n");
        }
        rest = &rest[at + taken..];
    }
    out.extend_from_slice(rest);
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn told(value: &[u8]) -> String {
    let text = words(value);
    match text.char_indices().nth(TOLD_OCTETS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddHeader { name, value } => write!(f, "added {name}: {}", told(value)),
            Self::InsertHeader { index, name, value } => {
                write!(f, "inserted {name}: {} at place {index}", told(value))
            }
            Self::ChangeHeader {
                index,
                name,
                value: Some(value),
            } => write!(f, "changed {name} (number {index}) to: {}", told(value)),
            Self::ChangeHeader { index, name, .. } => write!(f, "removed {name} (number {index})"),
            Self::ReplaceBody(body) => write!(f, "replaced the body, {} octets", body.len()),
            Self::AddRecipient { address, .. } => write!(f, "added the recipient {address}"),
            Self::RemoveRecipient(address) => write!(f, "removed the recipient {address}"),
            Self::ChangeSender { sender, .. } => write!(f, "changed the sender to {sender}"),
            Self::Quarantine(reason) => write!(f, "asked for quarantine: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cleaned(value: &str) -> String {
        String::from_utf8(clean_value(value.as_bytes(), false)).unwrap()
    }

    #[test]
    fn values_cannot_be_more_than_one_field() {
        for (value, expected) in [
            ("yes", " yes"),
            ("a\n\tb", " a\r\n\tb"),
            ("a\r\n b", " a\r\n b"),
            ("a\r\nBcc: x@y.z", " a\r\n\tBcc: x@y.z"),
            ("a\nX: y\n\nbody", " a\r\n\tX: y\r\n\tbody"),
            ("a\rb", " a\r\n\tb"),
            ("a\n \nb", " a\r\n\tb"),
            ("a\x1b[2J\x7f", " a [2J"),
            ("\n\n", ""),
            ("\nx", " x"),
        ] {
            assert_eq!(cleaned(value), expected, "{value:?}");
        }
        assert_eq!(clean_value(b"\ta b", true), b"\ta b");
    }

    #[test]
    fn long_values_are_folded() {
        let value = "word ".repeat(1_000);
        let out = cleaned(&value);
        assert!(
            out.split("\r\n")
                .all(|l| l.len() <= LINE_OCTETS_MAX - NAME_OCTETS_MAX)
        );
        assert_eq!(out.replace("\r\n", "").trim(), value.trim());
        let name = "X".repeat(NAME_OCTETS_MAX);
        assert!(fits(&name, clean_value(value.as_bytes(), false)).is_ok());
        assert!(fits("X", clean_value(&[b'x'; 1_000], false)).is_err());
    }

    #[test]
    fn bodies_have_whole_lines() {
        assert_eq!(clean_body(b"a\r\nb\nc\rd\0e"), b"a\r\nb\r\nc\r\nde\r\n");
        assert_eq!(clean_body(b"\n.\n"), b"\r\n.\r\n");
        assert_eq!(clean_body(b""), b"");
    }

    #[test]
    fn addresses_and_names_are_checked() {
        let change = |answer| Change::from_answer(answer, false);
        let at = |text: &[u8]| change(Answer::AddRecipient(text.to_vec()));
        assert!(at(b"<bob@example.com>").is_ok() && at(b"bob@example.com").is_ok());
        for bad in [
            &b"<bob>"[..],
            b"<>",
            b"bob@example.com> NOTIFY=NEVER",
            b"a@b\r\n.c",
            b"\xff@b.c",
        ] {
            assert_eq!(at(bad), Err(Fault::BadAddress), "{bad:?}");
        }
        for bad in [&b""[..], b"a b", b"a:", b"a\r\nb", b"\xc3\xa9"] {
            let answer = Answer::AddHeader(bad.to_vec(), b"v".to_vec());
            assert_eq!(change(answer), Err(Fault::BadField("its name")), "{bad:?}");
        }
        let null = change(Answer::ChangeSender(b"<>".to_vec(), vec![]))
            .unwrap()
            .unwrap();
        assert!(matches!(
            null,
            Change::ChangeSender {
                sender: ReversePath::Null,
                ..
            }
        ));
    }

    proptest! {
        #[test]
        fn any_value_stays_in_its_field(value in prop::collection::vec(any::<u8>(), 0..600), lead in any::<bool>()) {
            let out = clean_value(&value, lead);
            let message = [b"X:", &out[..], b"\r\nY: z\r\n\r\n"].concat();
            let fields: Vec<_> = mail::header::fields(&message).collect();
            prop_assert_eq!(fields.len(), 2);
            prop_assert_eq!(fields[0].raw_value, &out[..]);
            prop_assert_eq!(clean_value(&out, true), out);
        }

        #[test]
        fn any_body_has_whole_lines(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let out = clean_body(&body);
            let without = String::from_utf8_lossy(&out).replace("\r\n", "");
            prop_assert!(!without.contains(['\r', '\n', '\0']));
            prop_assert_eq!(clean_body(&out), out);
        }
    }
}
