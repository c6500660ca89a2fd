//! What a filter sends, as it stands on the wire: read with hard limits, nothing believed yet.
//! Writing it is for tests, and for whoever plays a filter.

use crate::Fault;
use crate::packet::{self, Packet, Reader};

/// An answer of a filter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Its side of the negotiation; with it, per stage, the macros that it wants.
    Negotiate {
        /// Its version.
        version: u32,
        /// Bits of [`crate::flags::actions`] that it will use.
        actions: u32,
        /// Bits of [`crate::flags::steps`] that it wants.
        steps: u32,
        /// Stage and names.
        macros: Vec<(u32, Vec<u8>)>,
    },
    /// Go on.
    Continue,
    /// Take it; ask no more.
    Accept,
    /// Refuse it for good.
    Reject,
    /// Refuse it for now.
    TempFail,
    /// Take it and throw it away.
    Discard,
    /// No more of this kind.
    Skip,
    /// Refuse with this reply.
    Reply(Vec<u8>),
    /// Refuse with 421 and close the client's connection.
    Shutdown,
    /// Its own connection failed.
    ConnectionFailed,
    /// It works on it.
    Progress,
    /// Add a field at the end of the header section.
    AddHeader(Vec<u8>, Vec<u8>),
    /// Insert a field at this place.
    InsertHeader(u32, Vec<u8>, Vec<u8>),
    /// Change the n-th field of that name; an empty value removes it.
    ChangeHeader(u32, Vec<u8>, Vec<u8>),
    /// A piece of the new body.
    ReplaceBody(Vec<u8>),
    /// Add a recipient.
    AddRecipient(Vec<u8>),
    /// Add a recipient with ESMTP parameters.
    AddRecipientWithParameters(Vec<u8>, Vec<u8>),
    /// Remove a recipient.
    RemoveRecipient(Vec<u8>),
    /// Change the reverse-path; ESMTP parameters behind it.
    ChangeSender(Vec<u8>, Vec<u8>),
    /// Put it where nobody trips over it, for this reason.
    Quarantine(Vec<u8>),
}

impl Answer {
    /// Reads a packet.
    ///
    /// # Errors
    /// An unknown kind, or data that does not fit the kind.
    pub fn decode(packet: Packet) -> Result<Self, Fault> {
        let bare = |answer: Self| {
            packet
                .data
                .is_empty()
                .then_some(answer)
                .ok_or(Fault::Malformed("data where none belongs"))
        };
        let mut data = Reader(&packet.data);
        match packet.kind {
            b'c' => bare(Self::Continue),
            b'a' => bare(Self::Accept),
            b'r' => bare(Self::Reject),
            b't' => bare(Self::TempFail),
            b'd' => bare(Self::Discard),
            b's' => bare(Self::Skip),
            b'4' => bare(Self::Shutdown),
            b'f' => bare(Self::ConnectionFailed),
            b'p' => bare(Self::Progress),
            b'b' => Ok(Self::ReplaceBody(packet.data)),
            b'O' => negotiate(&mut data).ok_or(Fault::Malformed("a negotiation")),
            b'y' => one(&mut data).map(Self::Reply),
            b'q' => one(&mut data).map(Self::Quarantine),
            b'+' => one(&mut data).map(Self::AddRecipient),
            b'-' => one(&mut data).map(Self::RemoveRecipient),
            b'2' => with_parameters(&mut data).map(|(a, p)| Self::AddRecipientWithParameters(a, p)),
            b'e' => with_parameters(&mut data).map(|(a, p)| Self::ChangeSender(a, p)),
            b'h' => two(&mut data).map(|(name, value)| Self::AddHeader(name, value)),
            kind @ (b'i' | b'm') => {
                let place = data.u32().ok_or(Fault::Malformed("a field without its place"))?;
                let (name, value) = two(&mut data)?;
                Ok(match kind {
                    b'i' => Self::InsertHeader(place, name, value),
                    _ => Self::ChangeHeader(place, name, value),
                })
            }
            other => Err(Fault::UnknownAnswer(other)),
        }
    }

    /// Appends it as a packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut data = Vec::new();
        let kind = match self {
            Self::Negotiate {
                version,
                actions,
                steps,
                macros,
            } => {
                for number in [version, actions, steps] {
                    data.extend_from_slice(&number.to_be_bytes());
                }
                for (stage, names) in macros {
                    data.extend_from_slice(&stage.to_be_bytes());
                    packet::write_text(&mut data, names);
                }
                b'O'
            }
            Self::Continue => b'c',
            Self::Accept => b'a',
            Self::Reject => b'r',
            Self::TempFail => b't',
            Self::Discard => b'd',
            Self::Skip => b's',
            Self::Shutdown => b'4',
            Self::ConnectionFailed => b'f',
            Self::Progress => b'p',
            Self::ReplaceBody(octets) => return packet::write(out, b'b', octets),
            Self::Reply(text) => texts(&mut data, b'y', &[text]),
            Self::Quarantine(text) => texts(&mut data, b'q', &[text]),
            Self::AddRecipient(text) => texts(&mut data, b'+', &[text]),
            Self::RemoveRecipient(text) => texts(&mut data, b'-', &[text]),
            Self::AddRecipientWithParameters(address, parameters) => {
                texts(&mut data, b'2', &[address, parameters])
            }
            Self::ChangeSender(address, parameters) => texts(&mut data, b'e', &[address, parameters]),
            Self::AddHeader(name, value) => texts(&mut data, b'h', &[name, value]),
            Self::InsertHeader(place, name, value) => {
                data.extend_from_slice(&place.to_be_bytes());
                texts(&mut data, b'i', &[name, value])
            }
            Self::ChangeHeader(place, name, value) => {
                data.extend_from_slice(&place.to_be_bytes());
                texts(&mut data, b'm', &[name, value])
            }
        };
        packet::write(out, kind, &data);
    }
}

fn texts(data: &mut Vec<u8>, kind: u8, all: &[&[u8]]) -> u8 {
    for text in all {
        packet::write_text(data, text);
    }
    kind
}

fn negotiate(data: &mut Reader<'_>) -> Option<Answer> {
    let (version, actions, steps) = (data.u32()?, data.u32()?, data.u32()?);
    let mut macros = Vec::new();
    while !data.is_empty() {
        macros.push((data.u32()?, data.text()?.to_vec()));
    }
    Some(Answer::Negotiate {
        version,
        actions,
        steps,
        macros,
    })
}

/// One text and nothing behind it.
fn one(data: &mut Reader<'_>) -> Result<Vec<u8>, Fault> {
    let text = data.text().ok_or(Fault::Malformed("a text without its end"))?;
    ended(data, text.to_vec())
}

fn two(data: &mut Reader<'_>) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let unended = Fault::Malformed("a field without its end");
    let name = data.text().ok_or(unended.clone())?;
    let value = data.text().ok_or(unended)?;
    ended(data, (name.to_vec(), value.to_vec()))
}

/// A text, and perhaps another.
fn with_parameters(data: &mut Reader<'_>) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let unended = Fault::Malformed("an address without its end");
    let address = data.text().ok_or(unended.clone())?;
    let parameters = if data.is_empty() {
        &[][..]
    } else {
        data.text().ok_or(unended)?
    };
    ended(data, (address.to_vec(), parameters.to_vec()))
}

fn ended<T>(data: &Reader<'_>, value: T) -> Result<T, Fault> {
    if data.is_empty() {
        Ok(value)
    } else {
        Err(Fault::Malformed("octets behind the last text"))
    }
}
