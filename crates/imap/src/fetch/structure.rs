//! BODY and BODYSTRUCTURE (RFC 3501 §7.4.2).
//!
//! Recursion follows the nesting of parts, which `mail::mime::DEPTH_MAX` bounds.

use super::envelope;
use crate::response::{nstring, put, string};
use mail::mime::{Content, Disposition, Parameter, Part, PartIndex, Structure};

/// Writes the structure of a part, with the extension data when `extended`.
pub(super) fn write(out: &mut Vec<u8>, message: &[u8], s: &Structure, at: PartIndex, extended: bool) {
    let part = s.part(at);
    out.push(b'(');
    if let Content::Multipart(children) = &part.content {
        multipart(out, message, s, children, extended);
        out.push(b' ');
        string(out, part.content_type.subtype.to_ascii_uppercase().as_bytes());
        if extended {
            out.push(b' ');
            parameters(out, &part.content_type.parameters);
            extension(out, part);
        }
    } else {
        single(out, message, s, part, extended);
    }
    out.push(b')');
}

fn multipart(out: &mut Vec<u8>, message: &[u8], s: &Structure, children: &[PartIndex], extended: bool) {
    for child in children {
        write(out, message, s, *child, extended);
    }
    if children.is_empty() {
        // RFC 3501 §9 `body-type-mpart` has one part at least.
        put(out, "(\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 0 0");
        put(out, if extended { " NIL NIL NIL NIL)" } else { ")" });
    }
}

fn single(out: &mut Vec<u8>, message: &[u8], s: &Structure, part: &Part, extended: bool) {
    if part.content == Content::Opaque {
        // Not looked into, so nothing can be said of what is inside.
        put(out, "\"APPLICATION\" \"OCTET-STREAM\"");
    } else {
        string(out, part.content_type.kind.to_ascii_uppercase().as_bytes());
        out.push(b' ');
        string(out, part.content_type.subtype.to_ascii_uppercase().as_bytes());
    }
    out.push(b' ');
    parameters(out, &part.content_type.parameters);
    out.push(b' ');
    nstring(out, part.id.as_deref().map(str::as_bytes));
    out.push(b' ');
    nstring(out, part.description.as_deref().map(str::as_bytes));
    out.push(b' ');
    string(out, part.encoding.to_ascii_uppercase().as_bytes());
    put(out, &format!(" {}", part.body.len()));
    match part.content {
        Content::Message(inner) => {
            out.push(b' ');
            envelope::write(out, message, s.part(inner).header.clone());
            out.push(b' ');
            write(out, message, s, inner, extended);
            put(out, &format!(" {}", part.body_lines));
        }
        Content::Leaf if part.content_type.kind.eq_ignore_ascii_case("text") => {
            put(out, &format!(" {}", part.body_lines));
        }
        _ => {}
    }
    if extended {
        out.push(b' ');
        nstring(out, part.md5.as_deref().map(str::as_bytes));
        extension(out, part);
    }
}

/// Disposition, language and location.
fn extension(out: &mut Vec<u8>, part: &Part) {
    out.push(b' ');
    match &part.disposition {
        Some(Disposition {
            kind,
            parameters: all,
        }) => {
            out.push(b'(');
            string(out, kind.to_ascii_uppercase().as_bytes());
            out.push(b' ');
            parameters(out, all);
            out.push(b')');
        }
        None => put(out, "NIL"),
    }
    out.push(b' ');
    match part.languages.as_slice() {
        [] => put(out, "NIL"),
        [one] => string(out, one.as_bytes()),
        many => {
            for (i, tag) in many.iter().enumerate() {
                out.push(if i == 0 { b'(' } else { b' ' });
                string(out, tag.as_bytes());
            }
            out.push(b')');
        }
    }
    out.push(b' ');
    nstring(out, part.location.as_deref().map(str::as_bytes));
}

fn parameters(out: &mut Vec<u8>, all: &[Parameter]) {
    if all.is_empty() {
        return put(out, "NIL");
    }
    for (i, Parameter { name, value }) in all.iter().enumerate() {
        out.push(if i == 0 { b'(' } else { b' ' });
        string(out, name.to_ascii_uppercase().as_bytes());
        out.push(b' ');
        string(out, value.as_bytes());
    }
    out.push(b')');
}
