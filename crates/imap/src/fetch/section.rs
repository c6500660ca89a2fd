//! Sections of a message (RFC 3501 §6.4.5): `BODY[2.HEADER.FIELDS (SUBJECT)]<0.100>`.

use super::{Piece, piece_len};
use crate::response::{put, string};
use mail::mime::{Content, Part, PartIndex, Structure, header_fields};
use std::ops::Range;

/// A section: a path to a part, and what of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// Part numbers from the outside in; empty for the message itself.
    pub path: Vec<u32>,
    /// What of that part.
    pub text: SectionText,
}

/// What of a part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SectionText {
    /// The message with its header, or the body of a part.
    Whole,
    /// `HEADER`: of the message, or of the message inside the part.
    Header,
    /// `HEADER.FIELDS`
    HeaderFields(Vec<String>),
    /// `HEADER.FIELDS.NOT`
    HeaderFieldsNot(Vec<String>),
    /// `TEXT`: the body of the message, or of the message inside the part.
    Text,
    /// `MIME`: the part's own header.
    Mime,
}

/// Which octets of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partial {
    /// The first octet, from 0.
    pub start: u32,
    /// How many at most.
    pub length: u32,
}

impl Section {
    /// The whole message.
    #[must_use]
    pub fn whole() -> Self {
        Self::of(SectionText::Whole)
    }

    /// Something of the message itself.
    #[must_use]
    pub fn of(text: SectionText) -> Self {
        Self {
            path: Vec::new(),
            text,
        }
    }

    /// Writes what stands between the brackets.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let path: Vec<String> = self.path.iter().map(u32::to_string).collect();
        put(out, &path.join("."));
        let (word, names) = match &self.text {
            SectionText::Whole => return,
            SectionText::Header => ("HEADER", None),
            SectionText::HeaderFields(names) => ("HEADER.FIELDS", Some(names)),
            SectionText::HeaderFieldsNot(names) => ("HEADER.FIELDS.NOT", Some(names)),
            SectionText::Text => ("TEXT", None),
            SectionText::Mime => ("MIME", None),
        };
        if !path.is_empty() {
            out.push(b'.');
        }
        put(out, word);
        if let Some(names) = names {
            put(out, " (");
            for (i, name) in names.iter().enumerate() {
                if i > 0 {
                    out.push(b' ');
                }
                match !name.is_empty() && name.bytes().all(crate::parse::is_atom_char) {
                    true => put(out, name),
                    false => string(out, name.as_bytes()),
                }
            }
            out.push(b')');
        }
    }
}

/// The octets of a section. `None` when the message has no such part.
pub(super) fn extract(message: &[u8], structure: &Structure, section: &Section) -> Option<Vec<Piece>> {
    let root = structure.part(structure.root());
    // What HEADER and TEXT are about: the message, or the message inside a part.
    let (part, inner) = if section.path.is_empty() {
        (root, Some(root))
    } else {
        let part = structure.part(find(structure, &section.path)?);
        let inner = match part.content {
            Content::Message(child) => Some(structure.part(child)),
            _ => None,
        };
        (part, inner)
    };
    let one = |range: &Range<usize>| Some(vec![Piece::Message(range.clone())]);
    match &section.text {
        SectionText::Whole if section.path.is_empty() => one(&(part.header.start..part.body.end)),
        SectionText::Whole => one(&part.body),
        SectionText::Mime => one(&part.header),
        SectionText::Header => one(&inner?.header),
        SectionText::Text => one(&inner?.body),
        SectionText::HeaderFields(names) => Some(fields(message, inner?, |n| is_in(names, n))),
        SectionText::HeaderFieldsNot(names) => Some(fields(message, inner?, |n| !is_in(names, n))),
    }
}

fn is_in(names: &[String], name: &[u8]) -> bool {
    names.iter().any(|n| n.as_bytes().eq_ignore_ascii_case(name))
}

/// The chosen fields and the empty line that ends them.
fn fields(message: &[u8], part: &Part, keep: impl Fn(&[u8]) -> bool) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for field in header_fields(message, part.header.clone()).filter(|f| keep(f.name)) {
        let span = field.span();
        match pieces.last_mut() {
            Some(Piece::Message(before)) if before.end == span.start => before.end = span.end,
            _ => pieces.push(Piece::Message(span.clone())),
        }
        // The last field of a message without body may lack its line ending.
        if !field.raw.ends_with(b"\n") {
            pieces.push(Piece::Text(b"\r\n".to_vec()));
        }
    }
    pieces.push(Piece::Text(b"\r\n".to_vec()));
    pieces
}

/// The part of a path of numbers. A message that is no multipart has one part, its body.
fn find(structure: &Structure, path: &[u32]) -> Option<PartIndex> {
    let mut container = structure.root();
    let mut path = path.iter().peekable();
    loop {
        let number = usize::try_from(*path.next()?).ok()?;
        let part = match &structure.part(container).content {
            Content::Multipart(children) if !children.is_empty() => *children.get(number.checked_sub(1)?)?,
            _ if number == 1 => container,
            _ => return None,
        };
        if path.peek().is_none() {
            return Some(part);
        }
        container = match &structure.part(part).content {
            Content::Multipart(children) if !children.is_empty() && part != container => part,
            Content::Message(inner) => *inner,
            _ => return None,
        };
    }
}

/// The octets of a partial.
pub(super) fn cut(pieces: Vec<Piece>, partial: Partial) -> Vec<Piece> {
    let mut skip = partial.start as usize;
    let mut left = partial.length as usize;
    let mut out = Vec::new();
    for piece in pieces {
        let len = piece_len(&piece);
        let from = skip.min(len);
        let to = from.saturating_add(left).min(len);
        skip -= from;
        left -= to - from;
        match piece {
            Piece::Text(text) => out.push(Piece::Text(text[from..to].to_vec())),
            Piece::Message(range) => out.push(Piece::Message(range.start + from..range.start + to)),
        }
        if left == 0 {
            break;
        }
    }
    out
}
