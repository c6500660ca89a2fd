//! The MIME structure of a message: its parts with their places, found in one pass.
//!
//! Promises: any bytes give a structure; a part's ranges lie within its parent's body; parts and
//! depth are bounded, and what lies beyond the limits is one opaque part. Time is linear in the
//! message. Nothing is decoded: transfer encodings, charsets, encoded-words and RFC 2231 parameters
//! stay as they were written. Never: a copy of a body.

mod addresses;
mod content;

pub use addresses::{ADDRESSES_MAX, AddressItem, addresses};
pub use content::{ContentType, Disposition, LANGUAGES_MAX, PARAMETERS_MAX, Parameter};

use crate::header::{self, Field};
use std::ops::Range;

/// Parts of one message at most, counting the message itself and each multipart.
pub const PARTS_MAX: usize = 1_000;
/// How deep parts may stand inside each other; the message itself is at depth 0.
pub const DEPTH_MAX: usize = 50;
/// Octets of a multipart's boundary at most. RFC 2046 §5.1.1 says 70; writers of more exist.
pub const BOUNDARY_OCTETS_MAX: usize = 250;

/// The place of a part in [`Structure::parts`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PartIndex(usize);

/// What a part's body is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Text, data: nothing inside that is a part.
    Leaf,
    /// A multipart (RFC 2046 §5.1) and its parts in order; it may have none.
    Multipart(Vec<PartIndex>),
    /// A message/rfc822 (RFC 2046 §5.2.1): the body is itself a message with a header.
    Message(PartIndex),
    /// A multipart or message that was not looked into, because a limit was reached.
    Opaque,
}

/// One part: the message itself, a body part, or a message inside a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The header with the empty line behind it, as offsets in the message.
    pub header: Range<usize>,
    /// The body, without the line ending that belongs to the next boundary.
    pub body: Range<usize>,
    /// Line endings in the body: what IMAP calls its size in lines.
    pub body_lines: usize,
    /// Content-Type, or the default of the place (text/plain; message/rfc822 in a digest).
    pub content_type: ContentType,
    /// Content-Transfer-Encoding as written; `7BIT` when there is none.
    pub encoding: String,
    /// Content-Disposition (RFC 2183).
    pub disposition: Option<Disposition>,
    /// Content-ID with its angle brackets.
    pub id: Option<String>,
    /// Content-Description, unfolded and not decoded.
    pub description: Option<String>,
    /// Content-Language (RFC 3282): the tags.
    pub languages: Vec<String>,
    /// Content-Location (RFC 2557), unfolded.
    pub location: Option<String>,
    /// Content-MD5 (RFC 1864).
    pub md5: Option<String>,
    /// What the body is made of.
    pub content: Content,
}

/// The parts of one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Structure {
    parts: Vec<Part>,
}

impl Structure {
    /// Finds the parts of a message.
    #[must_use]
    pub fn of(message: &[u8]) -> Self {
        Scan::new(message).run()
    }

    /// The index of the message itself.
    #[must_use]
    pub fn root(&self) -> PartIndex {
        PartIndex(0)
    }

    /// A part. An index of another structure gives some part of this one.
    #[must_use]
    pub fn part(&self, at: PartIndex) -> &Part {
        &self.parts[at.0.min(self.parts.len() - 1)]
    }

    /// All parts, each behind the part that holds it.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// Walks the header fields within `bytes[range]`; a line that is no field is passed over, so that
/// one broken line does not hide the fields behind it.
pub fn header_fields(bytes: &[u8], range: Range<usize>) -> impl Iterator<Item = Field<'_>> {
    let section = bytes.get(range.clone()).unwrap_or(&[]);
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < section.len() {
            if let Some(mut field) = header::fields(&section[at..]).next() {
                field.offset += range.start + at;
                at += field.raw.len();
                return Some(field);
            }
            at = line_end(section, at);
        }
        None
    })
}

/// An enclosing part whose end is not yet seen.
struct Open {
    part: usize,
    newlines_before: usize,
    /// The boundary of a multipart, until its closing delimiter was seen.
    boundary: Option<Vec<u8>>,
    /// Parts without a Content-Type are messages (RFC 2046 §5.1.5).
    digest: bool,
}

/// A boundary line that was found.
struct Delimiter {
    line: Range<usize>,
    open: usize,
    closing: bool,
}

struct Scan<'a> {
    message: &'a [u8],
    parts: Vec<Part>,
    open: Vec<Open>,
    /// `newlines` line endings stand before `counted_to`, which only moves forward.
    newlines: usize,
    counted_to: usize,
}

impl<'a> Scan<'a> {
    fn new(message: &'a [u8]) -> Self {
        Self {
            message,
            parts: Vec::new(),
            open: Vec::new(),
            newlines: 0,
            counted_to: 0,
        }
    }

    fn run(mut self) -> Structure {
        let mut start = 0;
        let mut digest = false;
        loop {
            let (delimiter, body_start) = self.begin_part(start, digest);
            let found = match delimiter {
                Some(d) => Some(d),
                // A message inside: its header follows at once.
                None if self.expects_message() => {
                    start = body_start;
                    digest = false;
                    continue;
                }
                None => self.next_delimiter(body_start),
            };
            match self.next_part_start(found) {
                Some(next) => (start, digest) = next,
                None => return Structure { parts: self.parts },
            }
        }
    }

    /// Passes delimiters until one opens a part. `None` at the end of the message.
    fn next_part_start(&mut self, mut found: Option<Delimiter>) -> Option<(usize, bool)> {
        loop {
            let Some(d) = found else {
                self.close_down_to(0, self.message.len());
                return None;
            };
            let end = before_line_ending(self.message, d.line.start);
            self.close_down_to(d.open + 1, end);
            if !d.closing && self.parts.len() < PARTS_MAX {
                return Some((d.line.end, self.open[d.open].digest));
            }
            // Behind the closing delimiter, or beyond the limit, only outer boundaries count.
            self.open[d.open].boundary = None;
            found = self.next_delimiter(d.line.end);
        }
    }

    fn expects_message(&self) -> bool {
        self.open.last().is_some_and(
            |o| matches!(&self.parts[o.part].content, Content::Message(child) if child.0 == self.parts.len()),
        )
    }

    /// Reads the header of the part at `start` and adds the part. Gives the delimiter that cut the
    /// header short, if one did, and where the body begins.
    fn begin_part(&mut self, start: usize, digest: bool) -> (Option<Delimiter>, usize) {
        let index = self.parts.len();
        let (header_end, delimiter) = self.header_end(start);
        let mut part = content::read_header(self.message, start..header_end, digest);
        if let Some(outer) = self.open.last()
            && let Content::Multipart(children) = &mut self.parts[outer.part].content
        {
            children.push(PartIndex(index));
        }
        let has_room = self.open.len() < DEPTH_MAX && index + 1 < PARTS_MAX;
        let mut boundary = None;
        if part.content_type.is("message", "rfc822") {
            // The inner message needs at least its header's place.
            part.content = match has_room && delimiter.is_none() {
                true => Content::Message(PartIndex(index + 1)),
                false => Content::Opaque,
            };
        } else if part.content_type.is_multipart() {
            boundary = part
                .content_type
                .parameter("boundary")
                .map(|b| b.trim_end().as_bytes().to_vec())
                .filter(|b| !b.is_empty() && b.len() <= BOUNDARY_OCTETS_MAX);
            part.content = match has_room {
                true => Content::Multipart(Vec::new()),
                false => Content::Opaque,
            };
            boundary = boundary.filter(|_| has_room);
        }
        self.count_newlines(header_end);
        self.open.push(Open {
            part: index,
            newlines_before: self.newlines,
            boundary,
            digest: part.content_type.is("multipart", "digest"),
        });
        self.parts.push(part);
        (delimiter, header_end)
    }

    /// Where the header that begins at `start` ends, and the delimiter that ended it too early.
    fn header_end(&self, start: usize) -> (usize, Option<Delimiter>) {
        let mut at = start;
        let mut first_bad = None;
        while at < self.message.len() {
            let end = line_end(self.message, at);
            let line = &self.message[at..end];
            if line == b"\r\n" || line == b"\n" {
                return (end, None);
            }
            if line.starts_with(b"--")
                && let Some(d) = self.match_delimiter(at..end)
            {
                return (before_line_ending(self.message, at).max(start), Some(d));
            }
            let is_field = memchr::memchr(b':', line).is_some() || matches!(line.first(), Some(b' ' | b'\t'));
            if !is_field && first_bad.is_none() {
                first_bad = Some(at);
            }
            at = end;
        }
        // No empty line: what is not a field begins the body.
        (first_bad.unwrap_or(self.message.len()), None)
    }

    /// The next boundary line of any open multipart, at or behind the line that starts at `from`.
    fn next_delimiter(&self, from: usize) -> Option<Delimiter> {
        if self.open.iter().all(|o| o.boundary.is_none()) {
            return None;
        }
        let finder = memchr::memmem::Finder::new(b"\n--");
        let mut at = from;
        loop {
            let rest = self.message.get(at..)?;
            if rest.starts_with(b"--")
                && let Some(d) = self.match_delimiter(at..line_end(self.message, at))
            {
                return Some(d);
            }
            at += finder.find(rest)? + 1;
        }
    }

    /// Whether this line, which begins with `--`, is a delimiter; the innermost multipart first.
    fn match_delimiter(&self, line: Range<usize>) -> Option<Delimiter> {
        let text = &self.message[line.start + 2..line.end];
        self.open.iter().enumerate().rev().find_map(|(i, open)| {
            let tail = text.strip_prefix(open.boundary.as_deref()?)?;
            let closing = tail.starts_with(b"--");
            // RFC 2046 §5.1.1: white space may follow. More text means another, longer boundary.
            (closing || tail.trim_ascii().is_empty()).then_some(Delimiter {
                line: line.clone(),
                open: i,
                closing,
            })
        })
    }

    /// Ends the open parts from the innermost down to the one at `depth`.
    fn close_down_to(&mut self, depth: usize, mut end: usize) {
        self.count_newlines(end);
        while self.open.len() > depth {
            let Some(open) = self.open.pop() else { break };
            let part = &mut self.parts[open.part];
            // A header may end behind `end`, with the line ending that the delimiter claims; the
            // part has no body then, and what encloses it reaches as far.
            end = end.max(part.body.start);
            part.body.end = end;
            let behind = self.message.get(end..self.counted_to).unwrap_or_default();
            let newlines = self.newlines - memchr::memchr_iter(b'\n', behind).count();
            part.body_lines = newlines - open.newlines_before;
        }
    }

    fn count_newlines(&mut self, to: usize) {
        if let Some(bytes) = self.message.get(self.counted_to..to) {
            self.newlines += memchr::memchr_iter(b'\n', bytes).count();
            self.counted_to = to;
        }
    }
}

/// Index behind the line that starts at `from`.
fn line_end(bytes: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |i| from + i + 1)
}

/// Index before the line ending that stands right before `at`.
fn before_line_ending(bytes: &[u8], at: usize) -> usize {
    let before = &bytes[..at];
    let before = before.strip_suffix(b"\n").unwrap_or(before);
    before.strip_suffix(b"\r").unwrap_or(before).len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NESTED: &[u8] = b"From: a@b.c\r\n\
Content-Type: multipart/mixed; boundary=\"out er\"\r\n\r\n\
preamble\r\n\
--out er\r\n\
\r\n\
one\r\ntwo\r\n\
--out er\t\r\n\
Content-Type: message/rfc822\r\nContent-Description: fwd\r\n\r\n\
Subject: inner\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n\
--in\r\nContent-Type: text/plain\r\n\r\nplain\r\n\
--in\r\nContent-Type: text/html\r\n\r\n<p>\r\n\
--in--\r\nepilogue\r\n\
--out er--\r\ntail\r\n";

    fn text(part: &Part) -> &str {
        std::str::from_utf8(&NESTED[part.body.clone()]).unwrap()
    }

    #[test]
    fn a_message_in_a_message() {
        let s = Structure::of(NESTED);
        let root = s.part(s.root());
        let Content::Multipart(top) = &root.content else {
            panic!()
        };
        assert_eq!(top.len(), 2);
        assert_eq!(text(s.part(top[0])), "one\r\ntwo");
        assert_eq!(s.part(top[0]).body_lines, 1);
        assert!(s.part(top[0]).content_type.is("text", "plain"));
        let forwarded = s.part(top[1]);
        assert_eq!(forwarded.description.as_deref(), Some("fwd"));
        assert_eq!(forwarded.body_lines, 12);
        let Content::Message(inner) = forwarded.content else {
            panic!()
        };
        assert_eq!(s.part(inner).header.start, forwarded.body.start);
        assert_eq!(s.part(inner).body.end, forwarded.body.end);
        let Content::Multipart(leaves) = &s.part(inner).content else {
            panic!()
        };
        assert_eq!(
            leaves.iter().map(|l| text(s.part(*l))).collect::<Vec<_>>(),
            ["plain", "<p>"]
        );
        assert!(text(forwarded).ends_with("epilogue"));
        assert!(text(root).ends_with("tail\r\n"));
    }

    #[test]
    fn odd_messages() {
        for (message, parts, body) in [
            (&b""[..], 1, ""),
            (b"\r\nbody", 1, "body"),
            (b"A: b", 1, ""),
            (b"no header at all\r\n", 1, "no header at all\r\n"),
            (
                b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\nhi",
                1,
                "--x\r\n\r\nhi",
            ),
            (
                b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--xy\r\n",
                1,
                "--xy\r\n",
            ),
            (
                b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n--x--",
                2,
                "--x\r\n--x--",
            ),
            (
                b"Content-Type: message/rfc822\n\nSubject: b\n\nc",
                2,
                "Subject: b\n\nc",
            ),
        ] {
            let s = Structure::of(message);
            assert_eq!(s.parts().len(), parts, "{}", message.escape_ascii());
            assert_eq!(&message[s.part(s.root()).body.clone()], body.as_bytes());
        }
    }

    #[test]
    fn a_digest_holds_messages() {
        let s = Structure::of(
            b"Content-Type: multipart/digest; boundary=d\r\n\r\n--d\r\n\r\nSubject: s\r\n\r\nx\r\n--d--\r\n",
        );
        assert_eq!(s.parts().len(), 3);
        assert!(s.parts()[1].content_type.is("message", "rfc822"));
    }

    #[test]
    fn bombs_are_bounded() {
        let deep = b"Content-Type: message/rfc822\r\n\r\n".repeat(10_000);
        let s = Structure::of(&deep);
        assert_eq!(s.parts().len(), DEPTH_MAX + 1);
        assert_eq!(s.parts()[DEPTH_MAX].content, Content::Opaque);
        let mut wide = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n".to_vec();
        wide.extend(b"--x\r\n\r\n\r\n".repeat(100_000));
        assert_eq!(Structure::of(&wide).parts().len(), PARTS_MAX);
    }

    fn check_nesting(message: &[u8]) -> Result<(), TestCaseError> {
        let s = Structure::of(message);
        for part in s.parts() {
            prop_assert!(part.header.start <= part.header.end);
            prop_assert_eq!(part.header.end, part.body.start);
            prop_assert!(part.body.end <= message.len());
            let newlines = memchr::memchr_iter(b'\n', &message[part.body.clone()]).count();
            prop_assert_eq!(part.body_lines, newlines);
            let children = match &part.content {
                Content::Multipart(children) => children.clone(),
                Content::Message(child) => vec![*child],
                Content::Leaf | Content::Opaque => Vec::new(),
            };
            let mut at = part.body.start;
            for child in children.iter().map(|c| s.part(*c)) {
                prop_assert!(child.header.start >= at);
                prop_assert!(child.body.end <= part.body.end);
                at = child.body.end;
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_bytes_nest(message in proptest::collection::vec(any::<u8>(), 0..400)) {
            check_nesting(&message)?;
        }

        #[test]
        fn any_mix_of_pieces_nests(pieces in proptest::collection::vec(prop::sample::select(vec![
            "Content-Type: multipart/mixed; boundary=a\r\n", "Content-Type: multipart/digest; boundary=b\r\n",
            "Content-Type: message/rfc822\r\n", "\r\n", "\n", "--a\r\n", "--a--\r\n", "--b\r\n", "--b--", "--",
            "text\r\n", "X: y\r\n", "x", "\r", " folded\r\n",
        ]), 0..60)) {
            check_nesting(pieces.concat().as_bytes())?;
        }
    }
}
