//! Message and changes in, message out. Pure.
//!
//! Fields that are not touched keep their very octets. Numbers of [`Change::ChangeHeader`] count
//! the fields that the filter was shown, also removed ones; the filter's own new fields count behind
//! them.

use crate::change::{Change, clean_body};
use mail::{EmailAddress, ReversePath};

/// A message with its envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// Header section and body.
    pub message: Vec<u8>,
    /// From whom.
    pub reverse_path: ReversePath,
    /// To whom; nobody twice.
    pub recipients: Vec<EmailAddress>,
}

/// Where the header section's fields end, and where the body begins.
#[must_use]
pub fn parts(message: &[u8]) -> (usize, usize) {
    let fields_end = mail::header::fields(message).last().map_or(0, |f| f.span().end);
    (fields_end, mail::header::body_offset(message))
}

/// Applies changes in their order.
#[must_use]
pub fn apply(letter: Letter, changes: &[Change]) -> Letter {
    let Letter {
        message,
        mut reverse_path,
        mut recipients,
    } = letter;
    for change in changes {
        match change {
            Change::AddRecipient { address, .. } if !recipients.contains(address) => {
                recipients.push(address.clone());
            }
            Change::RemoveRecipient(address) => recipients.retain(|r| r != address),
            Change::ChangeSender { sender, .. } => reverse_path = sender.clone(),
            _ => {}
        }
    }
    Letter {
        message: apply_to_message(message, changes),
        reverse_path,
        recipients,
    }
}

/// A field's place in the new header section.
struct Slot<'a> {
    name: &'a [u8],
    /// Its octets; `None` once it is removed.
    octets: Option<Vec<u8>>,
    /// Whether the filter was shown it.
    shown: bool,
}

fn apply_to_message(message: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    let touches_header = changes.iter().any(|c| {
        matches!(
            c,
            Change::AddHeader { .. } | Change::InsertHeader { .. } | Change::ChangeHeader { .. }
        )
    });
    let new_body = changes.iter().rev().find_map(|c| match c {
        Change::ReplaceBody(body) => Some(clean_body(body)),
        _ => None,
    });
    if !touches_header && new_body.is_none() {
        return message;
    }
    let (fields_end, body_at) = parts(&message);
    let mut out = if touches_header {
        header_section(&message[..fields_end], changes)
    } else {
        whole(&message[..fields_end])
    };
    let between = &message[fields_end..body_at.max(fields_end)];
    match new_body {
        None => {
            let rest = &message[fields_end..];
            // A message without a header section: what follows must not continue a new field.
            if matches!(rest.first(), Some(b' ' | b'\t')) && !out.is_empty() {
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(rest);
        }
        Some(body) => {
            out.extend_from_slice(between);
            if !between.ends_with(b"\r\n") {
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(&body);
        }
    }
    out
}

fn header_section(section: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut slots: Vec<Slot<'_>> = mail::header::fields(section)
        .map(|field| Slot {
            name: field.name,
            octets: Some(whole(field.raw)),
            shown: true,
        })
        .collect();
    for change in changes {
        match change {
            Change::AddHeader { name, value } => slots.push(new_slot(name, value)),
            Change::InsertHeader { index, name, value } => {
                let at = place(&slots, *index);
                slots.insert(at, new_slot(name, value));
            }
            Change::ChangeHeader { index, name, value } => {
                let octets = value.as_ref().map(|value| field(name, value));
                match nth(&mut slots, name, *index) {
                    Some(slot) => slot.octets = octets,
                    None => slots.extend(value.as_ref().map(|value| new_slot(name, value))),
                }
            }
            _ => {}
        }
    }
    slots.into_iter().filter_map(|s| s.octets).flatten().collect()
}

fn new_slot<'a>(name: &'a str, value: &[u8]) -> Slot<'a> {
    Slot {
        name: name.as_bytes(),
        octets: Some(field(name, value)),
        shown: false,
    }
}

fn field(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b":", value, b"\r\n"].concat()
}

/// A field with its line ending; the last one of a message without body may lack it.
fn whole(raw: &[u8]) -> Vec<u8> {
    let mut octets = raw.to_vec();
    if !octets.is_empty() && !octets.ends_with(b"\n") {
        octets.extend_from_slice(b"\r\n");
    }
    octets
}

/// Where the field stands before which `index` fields remain.
fn place(slots: &[Slot<'_>], index: u32) -> usize {
    let mut remaining = slots.iter().enumerate().filter(|(_, s)| s.octets.is_some());
    remaining.nth(index as usize).map_or(slots.len(), |(i, _)| i)
}

fn nth<'s, 'a>(slots: &'s mut [Slot<'a>], name: &str, index: u32) -> Option<&'s mut Slot<'a>> {
    let is = |slot: &Slot<'_>| slot.name.eq_ignore_ascii_case(name.as_bytes());
    let shown = slots.iter().filter(|s| s.shown && is(s)).count();
    let number = (index as usize).saturating_sub(1);
    let (want_shown, number) = if number < shown {
        (true, number)
    } else {
        (false, number - shown)
    };
    slots
        .iter_mut()
        .filter(|s| s.shown == want_shown && is(s))
        .nth(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MESSAGE: &str = "A: 1\r\nB: 1\r\n folded\r\nA: 2\r\n\r\nbody\r\n";

    fn add(name: &str, value: &str) -> Change {
        Change::AddHeader {
            name: name.into(),
            value: value.as_bytes().to_vec(),
        }
    }

    fn insert(index: u32, name: &str, value: &str) -> Change {
        Change::InsertHeader {
            index,
            name: name.into(),
            value: value.as_bytes().to_vec(),
        }
    }

    fn change(index: u32, name: &str, value: Option<&str>) -> Change {
        Change::ChangeHeader {
            index,
            name: name.into(),
            value: value.map(|v| v.as_bytes().to_vec()),
        }
    }

    fn applied(message: &str, changes: &[Change]) -> String {
        let out = apply_to_message(message.as_bytes().to_vec(), changes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn header_changes() {
        for (changes, expected) in [
            (vec![], MESSAGE),
            (
                vec![add("C", " 3")],
                "A: 1\r\nB: 1\r\n folded\r\nA: 2\r\nC: 3\r\n\r\nbody\r\n",
            ),
            (
                vec![insert(0, "C", " 3"), insert(2, "D", " 4"), insert(99, "E", " 5")],
                "C: 3\r\nA: 1\r\nD: 4\r\nB: 1\r\n folded\r\nA: 2\r\nE: 5\r\n\r\nbody\r\n",
            ),
            (
                vec![change(2, "a", Some(" x")), change(1, "b", None)],
                "A: 1\r\na: x\r\n\r\nbody\r\n",
            ),
            // Numbers are those that the filter was shown, so both orders of removing work.
            (
                vec![change(1, "A", None), change(2, "A", None)],
                "B: 1\r\n folded\r\n\r\nbody\r\n",
            ),
            (
                vec![change(2, "A", None), change(1, "A", None)],
                "B: 1\r\n folded\r\n\r\nbody\r\n",
            ),
            (
                vec![insert(0, "A", " new"), change(1, "A", Some(" x"))],
                "A: new\r\nA: x\r\nB: 1\r\n folded\r\nA: 2\r\n\r\nbody\r\n",
            ),
            (
                vec![add("A", " 3"), change(3, "A", Some(" x"))],
                "A: 1\r\nB: 1\r\n folded\r\nA: 2\r\nA: x\r\n\r\nbody\r\n",
            ),
            (
                vec![change(7, "Z", Some(" 1")), change(7, "Y", None)],
                "A: 1\r\nB: 1\r\n folded\r\nA: 2\r\nZ: 1\r\n\r\nbody\r\n",
            ),
        ] {
            assert_eq!(applied(MESSAGE, &changes), expected, "{changes:?}");
        }
    }

    #[test]
    fn bodies_and_odd_messages() {
        let new = |text: &str| Change::ReplaceBody(text.as_bytes().to_vec());
        for (message, changes, expected) in [
            (
                MESSAGE,
                vec![new("x\ny")],
                "A: 1\r\nB: 1\r\n folded\r\nA: 2\r\n\r\nx\r\ny\r\n",
            ),
            ("A: 1\r\n\r\nb", vec![new("")], "A: 1\r\n\r\n"),
            ("A: 1", vec![new("x")], "A: 1\r\n\r\nx\r\n"),
            ("A: 1", vec![add("B", " 2")], "A: 1\r\nB: 2\r\n"),
            ("\r\nb\r\n", vec![add("B", " 2")], "B: 2\r\n\r\nb\r\n"),
            (" b: c\r\n", vec![add("B", " 2")], "B: 2\r\n\r\n b: c\r\n"),
            ("", vec![add("B", " 2"), new("x")], "B: 2\r\n\r\nx\r\n"),
            ("junk\r\n\r\nb", vec![new("x")], "junk\r\n\r\nx\r\n"),
        ] {
            assert_eq!(applied(message, &changes), expected, "{message:?} {changes:?}");
        }
    }

    #[test]
    fn envelope_changes() {
        let at = |text: &str| EmailAddress::parse(text).unwrap();
        let letter = Letter {
            message: MESSAGE.into(),
            reverse_path: ReversePath::Address(at("a@b.c")),
            recipients: vec![at("x@y.z"), at("v@w.x")],
        };
        let recipient = |text: &str| Change::AddRecipient {
            address: at(text),
            parameters: String::new(),
        };
        let changes = [
            Change::RemoveRecipient(at("x@y.z")),
            recipient("new@y.z"),
            recipient("v@w.x"),
            Change::ChangeSender {
                sender: ReversePath::Null,
                parameters: String::new(),
            },
        ];
        let out = apply(letter, &changes);
        assert_eq!(out.recipients, [at("v@w.x"), at("new@y.z")]);
        assert!(out.reverse_path.is_null());
        assert_eq!(out.message, MESSAGE.as_bytes());
    }

    proptest! {
        #[test]
        fn untouched_fields_and_the_body_keep_their_octets(
            message in "([A-C]: [a-z]{0,4}\r\n( [a-z]{1,3}\r\n)?){0,5}(\r\n[a-z\r\n]{0,20})?",
            index in 0u32..6,
        ) {
            let out = applied(&message, &[insert(index, "New", " v")]);
            let (at, body) = parts(message.as_bytes());
            let (new_at, new_body) = parts(out.as_bytes());
            prop_assert_eq!(new_at, at + "New: v\r\n".len());
            prop_assert_eq!(&out.as_bytes()[new_body..], &message.as_bytes()[body..]);
            prop_assert_eq!(out.replacen("New: v\r\n", "", 1), message);
        }
    }
}
