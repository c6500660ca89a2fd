//! The MIME header fields of one part (RFC 2045 §5, RFC 2183, RFC 3282), read leniently.

use super::{Content, Part, header_fields};
use std::ops::Range;

/// Parameters of one field at most; the rest is left out.
pub const PARAMETERS_MAX: usize = 64;
/// Tags of one Content-Language at most; the rest is left out.
pub const LANGUAGES_MAX: usize = 32;

/// A parameter as written: RFC 2231 continuations and encodings stay what they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// The attribute, for example `charset` or `filename*0*`.
    pub name: String,
    /// The value without quoting. Octets that are not UTF-8 are replaced.
    pub value: String,
}

/// A Content-Type (RFC 2045 §5.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContentType {
    /// The type as written, for example `text`.
    pub kind: String,
    /// The subtype as written, for example `plain`.
    pub subtype: String,
    /// The parameters in order.
    pub parameters: Vec<Parameter>,
}

/// A Content-Disposition (RFC 2183).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disposition {
    /// `inline`, `attachment` or another, as written.
    pub kind: String,
    /// The parameters in order.
    pub parameters: Vec<Parameter>,
}

impl ContentType {
    /// Whether this is the type and subtype; case does not matter.
    #[must_use]
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
    }

    /// Whether the type is multipart.
    #[must_use]
    pub fn is_multipart(&self) -> bool {
        self.kind.eq_ignore_ascii_case("multipart")
    }

    /// The first parameter of that name; case does not matter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self
            .parameters
            .iter()
            .find(|p| p.name.eq_ignore_ascii_case(name))?;
        Some(&found.value)
    }

    /// Reads a field's value. `None` when there is no `type/subtype`.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut cursor = Cursor { rest: value };
        let kind = cursor.token()?;
        cursor.special(b'/').then_some(())?;
        let subtype = cursor.token()?;
        Some(Self {
            kind,
            subtype,
            parameters: cursor.parameters(),
        })
    }

    /// What a part is that says nothing (RFC 2045 §5.2, RFC 2046 §5.1.5).
    fn default_of(in_digest: bool) -> Self {
        if in_digest {
            return Self {
                kind: "message".to_owned(),
                subtype: "rfc822".to_owned(),
                parameters: Vec::new(),
            };
        }
        Self {
            kind: "text".to_owned(),
            subtype: "plain".to_owned(),
            parameters: vec![Parameter {
                name: "charset".to_owned(),
                value: "us-ascii".to_owned(),
            }],
        }
    }
}

impl Disposition {
    /// Reads a field's value. `None` when it begins with no token.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut cursor = Cursor { rest: value };
        Some(Self {
            kind: cursor.token()?,
            parameters: cursor.parameters(),
        })
    }
}

/// A part from its header, with an empty body behind it. Of a repeated field the first counts.
pub(super) fn read_header(message: &[u8], header: Range<usize>, in_digest: bool) -> Part {
    let mut content_type = None;
    let mut encoding = None;
    let mut part = Part {
        header: header.clone(),
        body: header.end..header.end,
        body_lines: 0,
        content_type: ContentType::default_of(in_digest),
        encoding: "7BIT".to_owned(),
        disposition: None,
        id: None,
        description: None,
        languages: Vec::new(),
        location: None,
        md5: None,
        content: Content::Leaf,
    };
    for field in header_fields(message, header) {
        // All fields of interest begin with this; the test keeps the pass cheap.
        if !field
            .name
            .get(..8)
            .is_some_and(|n| n.eq_ignore_ascii_case(b"content-"))
        {
            continue;
        }
        if field.is("Content-Type") {
            content_type = content_type.or_else(|| Some(ContentType::parse(field.raw_value)));
        } else if field.is("Content-Transfer-Encoding") {
            encoding = encoding.or_else(|| {
                Cursor {
                    rest: field.raw_value,
                }
                .token()
            });
        } else if field.is("Content-Disposition") {
            part.disposition = part.disposition.or_else(|| Disposition::parse(field.raw_value));
        } else if field.is("Content-ID") {
            part.id = part.id.or_else(|| Some(field.value()));
        } else if field.is("Content-Description") {
            part.description = part.description.or_else(|| Some(field.value()));
        } else if field.is("Content-Language") && part.languages.is_empty() {
            part.languages = Cursor {
                rest: field.raw_value,
            }
            .languages();
        } else if field.is("Content-Location") {
            part.location = part.location.or_else(|| Some(field.value()));
        } else if field.is("Content-MD5") {
            part.md5 = part.md5.or_else(|| Some(field.value()));
        }
    }
    // RFC 2045 §5.2: what cannot be read as a Content-Type is plain text.
    match content_type {
        Some(Some(ct)) => part.content_type = ct,
        Some(None) => part.content_type = ContentType::default_of(false),
        None => {}
    }
    if let Some(e) = encoding {
        part.encoding = e;
    }
    part
}

/// Reads structured values piece by piece; comments and white space between pieces are passed over.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn skip_blank(&mut self) {
        loop {
            match self.rest {
                [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] => self.rest = rest,
                [b'(', rest @ ..] => self.rest = behind_comment(rest),
                _ => return,
            }
        }
    }

    fn special(&mut self, c: u8) -> bool {
        self.skip_blank();
        match self.rest.split_first() {
            Some((first, rest)) if *first == c => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// A token; `/` ends it too, `=` and `?` only in names (values of lazy writers hold them).
    fn token(&mut self) -> Option<String> {
        self.run(|b| b <= b' ' || b == 127 || b"()<>@,;:\\\"/[]?=".contains(&b))
    }

    fn run(&mut self, ends: impl Fn(u8) -> bool) -> Option<String> {
        self.skip_blank();
        let end = self.rest.iter().position(|b| ends(*b)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then(|| String::from_utf8_lossy(word).into_owned())
    }

    fn value(&mut self) -> Option<String> {
        self.skip_blank();
        match self.rest.strip_prefix(b"\"") {
            Some(rest) => {
                let (text, rest) = quoted(rest);
                self.rest = rest;
                Some(String::from_utf8_lossy(&text).into_owned())
            }
            None => self.run(|b| b <= b' ' || b == b';' || b == b'"' || b == b'('),
        }
    }

    fn parameters(&mut self) -> Vec<Parameter> {
        let mut all = Vec::new();
        while let Some(i) = self.next_semicolon() {
            self.rest = &self.rest[i + 1..];
            if all.len() >= PARAMETERS_MAX {
                break;
            }
            let Some(name) = self.token() else { continue };
            if self.special(b'=') {
                all.push(Parameter {
                    name,
                    value: self.value().unwrap_or_default(),
                });
            }
        }
        all
    }

    /// Where the next semicolon outside quotes and comments stands.
    fn next_semicolon(&mut self) -> Option<usize> {
        loop {
            self.skip_blank();
            match self.rest {
                [b';', ..] => return Some(0),
                [b'"', rest @ ..] => self.rest = quoted(rest).1,
                [_, rest @ ..] => self.rest = rest,
                [] => return None,
            }
        }
    }

    fn languages(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < LANGUAGES_MAX {
            match self.token() {
                Some(tag) => all.push(tag),
                None if self.special(b',') => {}
                None => break,
            }
        }
        all
    }
}

/// The text of a quoted-string behind its opening quote, folds removed, and what follows it.
pub(super) fn quoted(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut text = Vec::new();
    let mut rest = bytes;
    loop {
        match rest {
            [b'"', tail @ ..] => return (text, tail),
            [b'\\', c, tail @ ..] if !matches!(c, b'\r' | b'\n') => {
                text.push(*c);
                rest = tail;
            }
            [b'\r' | b'\n', tail @ ..] => rest = tail,
            [c, tail @ ..] => {
                text.push(*c);
                rest = tail;
            }
            [] => return (text, rest),
        }
    }
}

/// What follows a comment, from behind its opening parenthesis; comments nest (RFC 5322 §3.2.2).
pub(super) fn behind_comment(bytes: &[u8]) -> &[u8] {
    let mut depth = 1usize;
    let mut rest = bytes;
    while depth > 0 {
        match rest {
            [b'\\', _, tail @ ..] => rest = tail,
            [b'(', tail @ ..] => {
                depth += 1;
                rest = tail;
            }
            [b')', tail @ ..] => {
                depth -= 1;
                rest = tail;
            }
            [_, tail @ ..] => rest = tail,
            [] => break,
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(value: &str) -> String {
        match ContentType::parse(value.as_bytes()) {
            None => "-".to_owned(),
            Some(ct) => {
                let parameters: String = ct
                    .parameters
                    .iter()
                    .map(|p| format!("; {}=[{}]", p.name, p.value))
                    .collect();
                format!("{}/{}{parameters}", ct.kind, ct.subtype)
            }
        }
    }

    #[test]
    fn content_types() {
        for (value, expected) in [
            (" text/plain; charset=\"utf-8\"", "text/plain; charset=[utf-8]"),
            (
                "TEXT / html ;\r\n\tcharset = us-ascii (plain)",
                "TEXT/html; charset=[us-ascii]",
            ),
            ("a/b; x=\"a\\\"b;c\"; y=d=e?f; z", "a/b; x=[a\"b;c]; y=[d=e?f]"),
            (
                "a/b; filename*0*=utf-8''%e2; filename*1=x",
                "a/b; filename*0*=[utf-8''%e2]; filename*1=[x]",
            ),
            ("multipart/mixed; boundary=\"a", "multipart/mixed; boundary=[a]"),
            ("text", "-"),
            ("/plain", "-"),
            ("", "-"),
        ] {
            assert_eq!(shown(value), expected, "{value}");
        }
        let many = format!("a/b{}", "; x=y".repeat(1000));
        assert_eq!(
            ContentType::parse(many.as_bytes()).unwrap().parameters.len(),
            PARAMETERS_MAX
        );
    }

    #[test]
    fn a_header() {
        let h = b"Content-Disposition: attachment; filename=a.txt\r\nContent-Language: en, de-CH (x)\r\n\
broken line\r\nContent-ID: <a@b>\r\ncontent-type: nonsense\r\nContent-Transfer-Encoding: Base64 (x)\r\n\r\n";
        let part = read_header(h, 0..h.len(), true);
        assert_eq!(part.disposition.unwrap().parameters[0].value, "a.txt");
        assert_eq!(part.languages, ["en", "de-CH"]);
        assert_eq!(part.id.as_deref(), Some("<a@b>"));
        assert!(part.content_type.is("text", "plain"));
        assert_eq!(part.encoding, "Base64");
    }

    proptest! {
        #[test]
        fn any_value_is_answered(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (ContentType::parse(&value), Disposition::parse(&value), Cursor { rest: &value }.languages());
        }
    }
}
