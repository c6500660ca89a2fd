//! FETCH: the items as values, and the response to them as a pure function over a message.
//!
//! A response is a list of pieces; the message's own octets are named by their place, so that the
//! driver can write them from where they are, piece by piece, as fast as the client reads.

mod envelope;
mod section;
mod structure;

pub use section::{Partial, Section, SectionText};

use crate::flag::Flag;
use crate::response::{flags, put};
use crate::sequence::SeqNum;
use mail::mime::Structure;
use mail::{Timestamp, Uid};
use std::ops::Range;

/// One thing that FETCH asks of each message (RFC 3501 §6.4.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchItem {
    /// `ENVELOPE`
    Envelope,
    /// `FLAGS`
    Flags,
    /// `INTERNALDATE`
    InternalDate,
    /// `RFC822`: as `BODY[]`.
    Rfc822,
    /// `RFC822.HEADER`: as `BODY.PEEK[HEADER]`.
    Rfc822Header,
    /// `RFC822.TEXT`: as `BODY[TEXT]`.
    Rfc822Text,
    /// `RFC822.SIZE`
    Rfc822Size,
    /// `BODY`: the structure without its extensions.
    Body,
    /// `BODYSTRUCTURE`
    BodyStructure,
    /// `UID`
    Uid,
    /// `BODY[…]` or `BODY.PEEK[…]`
    BodySection {
        /// Whether `\Seen` stays as it is.
        peek: bool,
        /// Which part of the message.
        section: Section,
        /// Which octets of that.
        partial: Option<Partial>,
    },
}

/// How much of a message must be read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Needs {
    /// Only what is known about it.
    Nothing,
    /// Its octets up to and with the empty line behind the header.
    Header,
    /// All of it.
    Whole,
}

impl FetchItem {
    /// What of the message answering needs.
    #[must_use]
    pub fn needs(&self) -> Needs {
        match self {
            FetchItem::Flags | FetchItem::InternalDate | FetchItem::Rfc822Size | FetchItem::Uid => {
                Needs::Nothing
            }
            FetchItem::Envelope | FetchItem::Rfc822Header => Needs::Header,
            FetchItem::BodySection { section, .. } if section.path.is_empty() => match section.text {
                SectionText::Header | SectionText::HeaderFields(_) | SectionText::HeaderFieldsNot(_) => {
                    Needs::Header
                }
                _ => Needs::Whole,
            },
            _ => Needs::Whole,
        }
    }

    /// Whether the structure alone tells where in the message the answer stands, so that its octets
    /// can be read afterwards (see [`MessageData::content`]).
    #[must_use]
    pub fn is_a_place(&self) -> bool {
        match self {
            FetchItem::Rfc822 | FetchItem::Rfc822Header | FetchItem::Rfc822Text => true,
            FetchItem::BodySection { section, .. } => !matches!(
                section.text,
                SectionText::HeaderFields(_) | SectionText::HeaderFieldsNot(_)
            ),
            other => other.needs() == Needs::Nothing,
        }
    }

    /// Whether the message is read by this, so that it gets `\Seen`.
    #[must_use]
    pub fn sets_seen(&self) -> bool {
        matches!(
            self,
            FetchItem::Rfc822 | FetchItem::Rfc822Text | FetchItem::BodySection { peek: false, .. }
        )
    }

    /// Whether this hands out text of the body, and not just header fields or structure.
    #[must_use]
    pub fn hands_out_text(&self) -> bool {
        match self {
            FetchItem::Rfc822 | FetchItem::Rfc822Text => true,
            FetchItem::BodySection { section, .. } => {
                matches!(section.text, SectionText::Whole | SectionText::Text)
            }
            _ => false,
        }
    }
}

/// What is known of a message.
#[derive(Clone, Copy, Debug)]
pub struct MessageData<'a> {
    /// Its sequence number.
    pub seq: SeqNum,
    /// Its UID.
    pub uid: Uid,
    /// Its flags.
    pub flags: &'a [Flag],
    /// Whether it is recent in this session.
    pub recent: bool,
    /// When it came.
    pub internal_date: Timestamp,
    /// Its length in octets.
    pub octets: u64,
    /// Its octets and their structure, as far as some item needs them (see [`FetchItem::needs`]).
    /// When every item [is a place](FetchItem::is_a_place), the octets may be left empty.
    pub content: Option<(&'a [u8], &'a Structure)>,
}

/// A piece of a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Octets to write.
    Text(Vec<u8>),
    /// Octets of the message to write.
    Message(Range<usize>),
}

/// The `* n FETCH (…)` line with all its literals.
#[must_use]
pub fn respond(items: &[FetchItem], m: &MessageData<'_>) -> Vec<Piece> {
    let mut pieces = Pieces::default();
    put(&mut pieces.text, &format!("* {} FETCH (", m.seq));
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            pieces.text.push(b' ');
        }
        pieces.item(item, m);
    }
    put(&mut pieces.text, ")\r\n");
    pieces.finish()
}

#[derive(Default)]
struct Pieces {
    done: Vec<Piece>,
    text: Vec<u8>,
}

impl Pieces {
    fn item(&mut self, item: &FetchItem, m: &MessageData<'_>) {
        let out = &mut self.text;
        match item {
            FetchItem::Flags => flags(out, m.flags, m.recent),
            FetchItem::Uid => put(out, &format!("UID {}", m.uid)),
            FetchItem::Rfc822Size => put(out, &format!("RFC822.SIZE {}", m.octets)),
            FetchItem::InternalDate => {
                let date = mail::date::imap_internal_date(m.internal_date);
                put(out, &format!("INTERNALDATE \"{date}\""));
            }
            FetchItem::Envelope => {
                put(out, "ENVELOPE ");
                match m.content {
                    Some((bytes, s)) => envelope::write(out, bytes, s.part(s.root()).header.clone()),
                    None => put(out, "NIL"),
                }
            }
            FetchItem::Body | FetchItem::BodyStructure => {
                let extended = *item == FetchItem::BodyStructure;
                put(out, if extended { "BODYSTRUCTURE " } else { "BODY " });
                match m.content {
                    Some((bytes, s)) => structure::write(out, bytes, s, s.root(), extended),
                    None => put(out, "NIL"),
                }
            }
            FetchItem::Rfc822 => self.section("RFC822", &Section::whole(), None, m),
            FetchItem::Rfc822Header => {
                self.section("RFC822.HEADER", &Section::of(SectionText::Header), None, m)
            }
            FetchItem::Rfc822Text => self.section("RFC822.TEXT", &Section::of(SectionText::Text), None, m),
            FetchItem::BodySection { section, partial, .. } => {
                let mut label = b"BODY[".to_vec();
                section.write(&mut label);
                label.push(b']');
                if let Some(partial) = partial {
                    put(&mut label, &format!("<{}>", partial.start));
                }
                let label = String::from_utf8_lossy(&label).into_owned();
                self.section(&label, section, *partial, m);
            }
        }
    }

    fn section(&mut self, label: &str, section: &Section, partial: Option<Partial>, m: &MessageData<'_>) {
        put(&mut self.text, label);
        self.text.push(b' ');
        let found = m
            .content
            .and_then(|(bytes, s)| section::extract(bytes, s, section));
        let Some(mut found) = found else {
            return put(&mut self.text, "NIL");
        };
        if let Some(partial) = partial {
            found = section::cut(found, partial);
        }
        let octets: usize = found.iter().map(piece_len).sum();
        put(&mut self.text, &format!("{{{octets}}}\r\n"));
        for piece in found {
            match piece {
                Piece::Text(text) => self.text.extend_from_slice(&text),
                Piece::Message(range) if range.is_empty() => {}
                Piece::Message(range) => {
                    self.flush();
                    self.done.push(Piece::Message(range));
                }
            }
        }
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.done.push(Piece::Text(std::mem::take(&mut self.text)));
        }
    }

    fn finish(mut self) -> Vec<Piece> {
        self.flush();
        self.done
    }
}

fn piece_len(piece: &Piece) -> usize {
    match piece {
        Piece::Text(text) => text.len(),
        Piece::Message(range) => range.len(),
    }
}

#[cfg(test)]
mod tests;
