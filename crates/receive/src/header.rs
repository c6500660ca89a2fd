//! What reception reads of and changes in a message's header section. Pure.

use mail::header::{Field, fields};
use mail::{Domain, QueueId, Timestamp, date};
use std::ops::Range;

/// Octets of a Message-ID that journeys and the queue keep at most (RFC 5322 §2.1.1).
const MESSAGE_ID_OCTETS_MAX: usize = 998;

/// Header fields of a message at most. Verifying signatures holds some seventy octets for each, and
/// a field can be as short as four: without a bound a message would take many times its own size.
pub(crate) const FIELDS_MAX: usize = 2_000;

/// What was found in one walk over the header section.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    /// All fields. Beyond [`FIELDS_MAX`] nothing more is looked at.
    pub(crate) fields: usize,
    /// `Received:` fields.
    pub(crate) received: usize,
    /// The Message-ID without brackets.
    pub(crate) message_id: Option<String>,
    /// Whether there is a `Date:`.
    pub(crate) date: bool,
    /// The values of all `From:` fields.
    pub(crate) from: Vec<Vec<u8>>,
    /// Places of `Return-Path:` fields: only the last server writes one (RFC 5321 §4.4).
    pub(crate) return_paths: Vec<Range<usize>>,
    /// Places of `Bcc:` fields.
    pub(crate) bcc: Vec<Range<usize>>,
}

/// Walks over the header section.
pub(crate) fn look(message: &[u8]) -> Found {
    let mut found = Found::default();
    for field in fields(message).take(FIELDS_MAX + 1) {
        found.fields += 1;
        let is = |name| field.is(name);
        if is("Received") {
            found.received += 1;
        } else if is("Message-ID") && found.message_id.is_none() {
            found.message_id = message_id(&field);
        } else if is("Date") {
            found.date = true;
        } else if is("From") {
            found.from.push(field.raw_value.to_vec());
        } else if is("Return-Path") {
            found.return_paths.push(field.span());
        } else if is("Bcc") {
            found.bcc.push(field.span());
        }
    }
    found
}

fn message_id(field: &Field<'_>) -> Option<String> {
    let value = field.value();
    let id = value
        .trim_start_matches('<')
        .split('>')
        .next()
        .unwrap_or("")
        .trim();
    (!id.is_empty() && id.len() <= MESSAGE_ID_OCTETS_MAX).then(|| id.to_owned())
}

/// The message without these places, which may stand in any order and overlap.
pub(crate) fn without(message: &[u8], mut places: Vec<Range<usize>>) -> Vec<u8> {
    places.sort_by_key(|p| p.start);
    let mut out = Vec::with_capacity(message.len());
    let mut at = 0;
    for place in places {
        if place.start > at {
            out.extend_from_slice(&message[at..place.start]);
        }
        at = at.max(place.end);
    }
    out.extend_from_slice(&message[at.min(message.len())..]);
    out
}

/// The fields that a submitted message must have and has not (RFC 6409 §8): Date, Message-ID.
pub(crate) fn missing(found: &Found, id: QueueId, domain: &Domain, now: Timestamp) -> (String, String) {
    let mut fields = String::new();
    let message_id = match &found.message_id {
        Some(given) => given.clone(),
        None => {
            let made = format!("{id}@{domain}");
            fields.push_str(&format!("Message-ID: <{made}>\r\n"));
            made
        }
    };
    if !found.date {
        fields.push_str(&format!("Date: {}\r\n", date::rfc5322(now)));
    }
    (fields, message_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] =
        b"Return-Path: <x@y.z>\r\nReceived: a\r\nReceived: b\r\n\tc\r\nBcc: d@e.f,\r\n g@h.i\r\n\
        From: a@b.c\r\nMessage-ID: <1@b.c>\r\n\r\nBcc: in the body\r\n";

    #[test]
    fn one_walk_finds_all() {
        let found = look(MESSAGE);
        assert_eq!(found.received, 2);
        assert_eq!(found.message_id.as_deref(), Some("1@b.c"));
        assert!(!found.date);
        assert_eq!(found.from, [b" a@b.c".to_vec()]);
        assert_eq!((found.return_paths.len(), found.bcc.len()), (1, 1));
    }

    #[test]
    fn a_walk_ends_behind_the_most_fields() {
        let message = "Bcc:\r\n".repeat(FIELDS_MAX + 100);
        let found = look(message.as_bytes());
        assert_eq!((found.fields, found.bcc.len()), (FIELDS_MAX + 1, FIELDS_MAX + 1));
    }

    #[test]
    fn places_are_cut_out_and_the_body_stays() {
        let found = look(MESSAGE);
        let cut = without(MESSAGE, [found.bcc, found.return_paths].concat());
        assert!(cut.starts_with(b"Received: a\r\nReceived: b\r\n\tc\r\nFrom:"));
        assert!(cut.ends_with(b"\r\n\r\nBcc: in the body\r\n"));
        assert_eq!(without(b"abcdef", vec![1..3, 2..4]), b"aef");
    }

    #[test]
    fn what_is_missing_is_added() {
        let domain = Domain::parse("b.c").unwrap();
        let (fields, id) = missing(&Found::default(), QueueId(0), &domain, Timestamp::from_secs(0));
        assert_eq!(id, "0000000000000@b.c");
        assert_eq!(
            fields,
            "Message-ID: <0000000000000@b.c>\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
        let (fields, id) = missing(&look(MESSAGE), QueueId(0), &domain, Timestamp::from_secs(0));
        assert_eq!(
            (fields.as_str(), id.as_str()),
            ("Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n", "1@b.c")
        );
    }
}
