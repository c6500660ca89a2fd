//! ENVELOPE (RFC 3501 §7.4.2): the main header fields, addresses taken apart.

use crate::response::{nstring, put};
use mail::header::Field;
use mail::mime::{AddressItem, addresses, header_fields};
use std::ops::Range;

/// Writes the envelope of the message whose header is at `header`.
pub(super) fn write(out: &mut Vec<u8>, message: &[u8], header: Range<usize>) {
    const NAMES: [&str; 10] = [
        "Date",
        "Subject",
        "From",
        "Sender",
        "Reply-To",
        "To",
        "Cc",
        "Bcc",
        "In-Reply-To",
        "Message-ID",
    ];
    let mut found: [Option<Field<'_>>; 10] = [None; 10];
    for field in header_fields(message, header) {
        if let Some(i) = NAMES.iter().position(|n| field.is(n))
            && found[i].is_none()
        {
            found[i] = Some(field);
        }
    }
    let [
        date,
        subject,
        from,
        sender,
        reply_to,
        to,
        cc,
        bcc,
        in_reply_to,
        message_id,
    ] = found;
    let from = list(from);
    // RFC 3501 §7.4.2: Sender and Reply-To that are absent or empty are what From is.
    let or_from = |field| {
        let items = list(field);
        if items.is_empty() { from.clone() } else { items }
    };
    out.push(b'(');
    text(out, date);
    out.push(b' ');
    text(out, subject);
    for items in [
        &from,
        &or_from(sender),
        &or_from(reply_to),
        &list(to),
        &list(cc),
        &list(bcc),
    ] {
        out.push(b' ');
        write_list(out, items);
    }
    out.push(b' ');
    text(out, in_reply_to);
    out.push(b' ');
    text(out, message_id);
    out.push(b')');
}

fn text(out: &mut Vec<u8>, field: Option<Field<'_>>) {
    let unfolded = field.map(|f| {
        let kept = f
            .raw_value
            .iter()
            .copied()
            .filter(|b| !matches!(b, b'\r' | b'\n'));
        kept.collect::<Vec<u8>>()
    });
    nstring(out, unfolded.as_deref().map(<[u8]>::trim_ascii));
}

fn list(field: Option<Field<'_>>) -> Vec<AddressItem> {
    field.map(|f| addresses(f.raw_value)).unwrap_or_default()
}

type Text<'a> = Option<&'a [u8]>;

fn write_list(out: &mut Vec<u8>, items: &[AddressItem]) {
    if items.is_empty() {
        return put(out, "NIL");
    }
    out.push(b'(');
    for item in items {
        let (name, route, local, host): (Text<'_>, Text<'_>, Text<'_>, Text<'_>) = match item {
            AddressItem::Mailbox {
                name,
                route,
                local,
                host,
            } => (name.as_deref(), route.as_deref(), Some(local), Some(host)),
            // RFC 3501 §7.4.2: a NIL host begins a group, and a NIL mailbox too ends it.
            AddressItem::GroupStart(name) => (None, None, Some(name), None),
            AddressItem::GroupEnd => (None, None, None, None),
        };
        out.push(b'(');
        nstring(out, name);
        for part in [route, local, host] {
            out.push(b' ');
            nstring(out, part);
        }
        out.push(b')');
    }
    out.push(b')');
}
