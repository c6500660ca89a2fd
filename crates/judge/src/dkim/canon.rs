//! The canonical forms of header fields and bodies (RFC 6376 §3.4).
//!
//! Promises: exact to the octet for CRLF messages; one pass, bounded memory whatever the body's
//! size. A lone CR or LF is an octet like any other in a body.

use mail::header::Field;
use std::fmt;

/// How much of a body is collected before it is handed on.
const CHUNK_OCTETS: usize = 16 * 1024;

/// One of the two forms.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Canon {
    /// As it stands.
    Simple,
    /// White space and case of names may change on the way.
    Relaxed,
}

/// The forms for header and body (`c=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Canonicalization {
    /// The form of header fields.
    pub header: Canon,
    /// The form of the body.
    pub body: Canon,
}

impl Canon {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "simple" => Some(Canon::Simple),
            "relaxed" => Some(Canon::Relaxed),
            _ => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Canon::Simple => "simple",
            Canon::Relaxed => "relaxed",
        }
    }
}

impl Canonicalization {
    /// Both forms relaxed: what survives most relays.
    pub const RELAXED: Self = Self {
        header: Canon::Relaxed,
        body: Canon::Relaxed,
    };

    /// Reads `c=`; the body's form is simple when only one is given (RFC 6376 §3.5).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (header, body) = text.split_once('/').unwrap_or((text, "simple"));
        Some(Self {
            header: Canon::parse(header)?,
            body: Canon::parse(body)?,
        })
    }
}

impl fmt::Display for Canonicalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.header.as_str(), self.body.as_str())
    }
}

/// Appends the canonical form of a field with its CRLF.
pub(crate) fn field(field: &Field<'_>, canon: Canon, out: &mut Vec<u8>) {
    match canon {
        Canon::Simple => {
            let raw = field.raw.strip_suffix(b"\n").unwrap_or(field.raw);
            out.extend_from_slice(raw.strip_suffix(b"\r").unwrap_or(raw));
        }
        Canon::Relaxed => relaxed_field(field.name, field.raw_value, out),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the canonical form of a signature's own field: the value of `b=` gone, no CRLF
/// (RFC 6376 §3.7).
pub(crate) fn signature_field(field: &Field<'_>, canon: Canon, out: &mut Vec<u8>) {
    let value = without_signature(field.raw_value);
    match canon {
        Canon::Simple => {
            // The name, the colon and any white space before it, as they stand.
            let before = field.raw.iter().position(|b| *b == b':').map_or(0, |i| i + 1);
            out.extend_from_slice(&field.raw[..before]);
            out.extend_from_slice(&value);
        }
        Canon::Relaxed => relaxed_field(field.name, &value, out),
    }
}

/// RFC 6376 §3.4.2: name in lower case, unfolded, runs of white space one space, none at the ends.
fn relaxed_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let start = out.len();
    let mut space = false;
    for (i, byte) in value.iter().enumerate() {
        match byte {
            b'\r' if value.get(i + 1) == Some(&b'\n') => {}
            b'\n' => {}
            b' ' | b'\t' => space = true,
            _ => {
                if space && out.len() > start {
                    out.push(b' ');
                }
                space = false;
                out.push(*byte);
            }
        }
    }
}

/// The value of a signature field with the content of its `b=` tag deleted, white space around it
/// included.
fn without_signature(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for (i, spec) in value.split(|b| *b == b';').enumerate() {
        if i > 0 {
            out.push(b';');
        }
        let equals = spec.iter().position(|b| *b == b'=');
        match equals {
            Some(at) if spec[..at].trim_ascii() == b"b" => out.extend_from_slice(&spec[..=at]),
            _ => out.extend_from_slice(spec),
        }
    }
    out
}

/// Hands the canonical form of a body to `sink`, piece by piece.
pub(crate) fn body(body: &[u8], canon: Canon, sink: &mut dyn FnMut(&[u8])) {
    let mut chunk = Vec::with_capacity(CHUNK_OCTETS + 1024);
    // Empty lines at the end do not count, and which ones those are shows only later.
    let mut empty_lines = 0usize;
    let mut anything = false;
    let mut rest = body;
    while !rest.is_empty() {
        let (line, after) = next_line(rest);
        rest = after;
        let line = match canon {
            Canon::Simple => line,
            Canon::Relaxed => without_trailing_wsp(line),
        };
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        anything = true;
        for _ in 0..std::mem::take(&mut empty_lines) {
            chunk.extend_from_slice(b"\r\n");
            flush_if_full(&mut chunk, sink);
        }
        match canon {
            Canon::Simple => chunk.extend_from_slice(line),
            Canon::Relaxed => push_reduced(line, &mut chunk),
        }
        chunk.extend_from_slice(b"\r\n");
        flush_if_full(&mut chunk, sink);
    }
    // RFC 6376 §3.4.3: an empty body is one CRLF in the simple form; §3.4.4: nothing in the other.
    if !anything && canon == Canon::Simple {
        chunk.extend_from_slice(b"\r\n");
    }
    sink(&chunk);
}

fn flush_if_full(chunk: &mut Vec<u8>, sink: &mut dyn FnMut(&[u8])) {
    if chunk.len() >= CHUNK_OCTETS {
        sink(chunk);
        chunk.clear();
    }
}

/// The first line without its CRLF, and what follows.
fn next_line(text: &[u8]) -> (&[u8], &[u8]) {
    let mut from = 0;
    while let Some(i) = memchr::memchr(b'\n', &text[from..]) {
        let lf = from + i;
        if lf > 0 && text[lf - 1] == b'\r' {
            return (&text[..lf - 1], &text[lf + 1..]);
        }
        from = lf + 1;
    }
    (text, &[])
}

fn without_trailing_wsp(line: &[u8]) -> &[u8] {
    let end = line
        .iter()
        .rposition(|b| !matches!(b, b' ' | b'\t'))
        .map_or(0, |i| i + 1);
    &line[..end]
}

/// Runs of white space become one space.
fn push_reduced(line: &[u8], out: &mut Vec<u8>) {
    let mut rest = line;
    while let Some(at) = memchr::memchr2(b' ', b'\t', rest) {
        out.extend_from_slice(&rest[..at]);
        out.push(b' ');
        let run = rest[at..]
            .iter()
            .position(|b| !matches!(b, b' ' | b'\t'))
            .unwrap_or(rest.len() - at);
        rest = &rest[at + run..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::header;
    use proptest::prelude::*;

    fn canonical_body(text: &[u8], canon: Canon) -> Vec<u8> {
        let mut out = Vec::new();
        body(text, canon, &mut |piece| out.extend_from_slice(piece));
        out
    }

    fn canonical_header(message: &[u8], canon: Canon) -> Vec<u8> {
        let mut out = Vec::new();
        for f in header::fields(message) {
            field(&f, canon, &mut out);
        }
        out
    }

    /// RFC 6376 §3.4.5.
    #[test]
    fn the_examples_of_the_rfc() {
        let message = b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n C \r\nD \t E\r\n\r\n\r\n";
        let text = &message[header::body_offset(message)..];
        assert_eq!(canonical_header(message, Canon::Relaxed), b"a:X\r\nb:Y Z\r\n");
        assert_eq!(canonical_body(text, Canon::Relaxed), b" C\r\nD E\r\n");
        assert_eq!(
            canonical_header(message, Canon::Simple),
            b"A: X\r\nB : Y\t\r\n\tZ  \r\n"
        );
        assert_eq!(canonical_body(text, Canon::Simple), b" C \r\nD \t E\r\n");
    }

    #[test]
    fn bodies() {
        let table: [(&[u8], &[u8], &[u8]); 14] = [
            (b"", b"\r\n", b""),
            (b"\r\n", b"\r\n", b""),
            (b"\r\n\r\n\r\n", b"\r\n", b""),
            (b" ", b" \r\n", b""),
            (b" \t\r\n\r\n", b" \t\r\n", b""),
            (b"a", b"a\r\n", b"a\r\n"),
            (b"a\r\n", b"a\r\n", b"a\r\n"),
            (b"a\r\n \r\n", b"a\r\n \r\n", b"a\r\n"),
            (b"a\r\n \r\n\t \r\n\r\n", b"a\r\n \r\n\t \r\n", b"a\r\n"),
            (b"\r\n\r\na", b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
            (b"a \t b\t\r\n", b"a \t b\t\r\n", b"a b\r\n"),
            (b"\ta", b"\ta\r\n", b" a\r\n"),
            (b"a\nb\r\n", b"a\nb\r\n", b"a\nb\r\n"),
            (b"a\r\n\r\n b \r\n\r\n", b"a\r\n\r\n b \r\n", b"a\r\n\r\n b\r\n"),
        ];
        for (text, simple, relaxed) in table {
            assert_eq!(
                canonical_body(text, Canon::Simple),
                simple,
                "{:?}",
                text.escape_ascii().to_string()
            );
            assert_eq!(
                canonical_body(text, Canon::Relaxed),
                relaxed,
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn the_signature_itself_is_taken_out() {
        let message = b"DKIM-Signature : bh=ab;\r\n\tb = c d\r\n e ; B=z;b_=1; x=b=2\r\n";
        let f = header::first(message, "dkim-signature").unwrap();
        let mut out = Vec::new();
        signature_field(&f, Canon::Simple, &mut out);
        assert_eq!(out, b"DKIM-Signature : bh=ab;\r\n\tb =; B=z;b_=1; x=b=2");
        out.clear();
        signature_field(&f, Canon::Relaxed, &mut out);
        assert_eq!(out, b"dkim-signature:bh=ab; b =; B=z;b_=1; x=b=2");
    }

    proptest! {
        /// What may happen to white space on the way does not change the relaxed form, and a
        /// canonical form is its own canonical form.
        #[test]
        fn canonical_forms_are_stable(text in proptest::collection::vec(prop_oneof![
            Just(&b"\r\n"[..]), Just(&b" "[..]), Just(&b"\t"[..]), Just(&b"a"[..]), Just(&b"bc"[..])
        ], 0..60)) {
            let text = text.concat();
            for canon in [Canon::Simple, Canon::Relaxed] {
                let once = canonical_body(&text, canon);
                prop_assert_eq!(&canonical_body(&once, canon), &once);
            }
            let mut more = text.clone();
            more.extend_from_slice(if text.is_empty() || text.ends_with(b"\n") { b" \t\r\n\r\n" } else { b" \r\n" });
            prop_assert_eq!(canonical_body(&more, Canon::Relaxed), canonical_body(&text, Canon::Relaxed));
        }
    }
}
