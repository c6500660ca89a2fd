//! A view of a message's header section: fields with their exact bytes and places, nothing copied.
//!
//! The message is what a stranger sent. Fields are found by RFC 5322 §2.2 (name, colon, folded
//! body); a line that is neither a field nor a continuation ends the header section.

use std::ops::Range;

/// One header field, by reference into the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<'a> {
    /// The name as it was written, without white space before the colon.
    pub name: &'a [u8],
    /// Everything after the colon up to but not including the last line ending; folds inside.
    pub raw_value: &'a [u8],
    /// The whole field, from its name to its last line ending, inclusive.
    pub raw: &'a [u8],
    /// Where `raw` begins in the message.
    pub offset: usize,
}

impl<'a> Field<'a> {
    /// Whether the field has this name; case does not matter (RFC 5322 §1.2.2).
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value unfolded (RFC 5322 §2.2.3) and trimmed; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn value(&self) -> String {
        let bytes: Vec<u8> = self
            .raw_value
            .iter()
            .copied()
            .filter(|b| *b != b'\r' && *b != b'\n')
            .collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// The place of the whole field in the message.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.offset..self.offset + self.raw.len()
    }
}

/// The fields of a message's header section, in order.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

/// Walks the header fields of `message`.
#[must_use]
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { message, at: 0 }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let start = self.at;
        let first_end = line_end(self.message, start)?;
        let first = &self.message[start..first_end];
        let colon = memchr::memchr(b':', first)?;
        let name = first[..colon].trim_ascii_end();
        // RFC 5322 §3.6.8: a field name is printable ASCII without the colon.
        if name.is_empty() || !name.iter().all(|b| (33..=126).contains(b)) {
            return None;
        }
        let mut end = first_end;
        while matches!(self.message.get(end), Some(b' ' | b'\t')) {
            end = line_end(self.message, end)?;
        }
        self.at = end;
        let raw = &self.message[start..end];
        Some(Field {
            name,
            raw_value: without_line_ending(&raw[colon + 1..]),
            raw,
            offset: start,
        })
    }
}

/// The first field of that name.
#[must_use]
pub fn first<'a>(message: &'a [u8], name: &str) -> Option<Field<'a>> {
    fields(message).find(|f| f.is(name))
}

/// Where the body begins: behind the empty line that ends the header section, or at the end of the
/// message when there is none.
#[must_use]
pub fn body_offset(message: &[u8]) -> usize {
    let mut walk = fields(message);
    for _ in walk.by_ref() {}
    let rest = &message[walk.at..];
    match rest {
        [b'\r', b'\n', ..] => walk.at + 2,
        [b'\n', ..] => walk.at + 1,
        _ => {
            // A line that is no field: the section ends at the next empty line, if there is one.
            match memchr::memmem::find(rest, b"\r\n\r\n") {
                Some(i) => walk.at + i + 4,
                None if rest.is_empty() => message.len(),
                None => walk.at,
            }
        }
    }
}

/// Index behind the line that starts at `from`; `None` at the end of the message.
fn line_end(message: &[u8], from: usize) -> Option<usize> {
    if from >= message.len() {
        return None;
    }
    Some(memchr::memchr(b'\n', &message[from..]).map_or(message.len(), |i| from + i + 1))
}

fn without_line_ending(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_and_body() {
        let m = b"From: a@b.c\r\nSubject : folded\r\n\tonce\r\nX:\r\n\r\nbody: no field\r\n";
        let all: Vec<_> = fields(m).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[1].name, b"Subject");
        assert_eq!(all[1].value(), "folded\tonce");
        assert_eq!(all[2].value(), "");
        assert_eq!(&m[body_offset(m)..], b"body: no field\r\n");
        assert_eq!(body_offset(b"\r\nx"), 2);
        assert_eq!(body_offset(b"A: b\r\n"), 6);
        assert_eq!(body_offset(b""), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(m in proptest::collection::vec(any::<u8>(), 0..300)) {
            let end = fields(&m).map(|f| f.span().end).last().unwrap_or(0);
            prop_assert!(body_offset(&m) >= end);
            prop_assert!(body_offset(&m) <= m.len());
        }
    }
}
