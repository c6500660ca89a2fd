//! A message on its way by BDAT (RFC 3030): chunks whose lengths are known when they leave.
//!
//! Promises: text goes as lines that end with CRLF and with its dots as they are; what is held is
//! bounded; an octet that is announced is sent, and no other. Never: a command.

use crate::framer::Stuffer;

/// Octets from which on a chunk leaves before more is taken in. RFC 3030 sets no limit; this bounds
/// what is held.
pub const CHUNK_OCTETS: usize = 256 * 1024;
/// Chunks without an answer at most: about a mebibyte is on its way when a server refuses.
pub const CHUNKS_OUTSTANDING_MAX: usize = 4;
/// Octets of a message that leaves together with its envelope at most: what a new connection carries
/// before its first acknowledgement (RFC 6928: ten segments). So it costs a refused recipient little.
pub const TOGETHER_OCTETS_MAX: u64 = 14_000;

/// The part of the message that was not sent yet.
#[derive(Debug)]
pub(super) struct Chunks {
    held: Vec<u8>,
    /// Makes lines of text; none for a binary message.
    lines: Option<Stuffer>,
    /// Octets of a binary message that are still to come.
    owed: u64,
}

impl Chunks {
    /// Of a text.
    pub(super) fn of_lines() -> Self {
        Self {
            held: Vec::new(),
            lines: Some(Stuffer::without_dots()),
            owed: 0,
        }
    }

    /// Of a message of exactly so many octets, which go as they are.
    pub(super) fn of_octets(announced: u64) -> Self {
        Self {
            held: Vec::new(),
            lines: None,
            owed: announced,
        }
    }

    /// Whether what is held leaves before more comes.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= CHUNK_OCTETS
    }

    /// Takes the next octets. Answers whether they are no more than was announced.
    pub(super) fn push(&mut self, octets: &[u8]) -> bool {
        match &mut self.lines {
            Some(lines) => lines.push(octets, &mut self.held),
            None => match self.owed.checked_sub(octets.len() as u64) {
                Some(owed) => {
                    self.owed = owed;
                    self.held.extend_from_slice(octets);
                }
                None => return false,
            },
        }
        true
    }

    /// The message is whole. Answers whether it has as many octets as was announced.
    pub(super) fn finish(&mut self) -> bool {
        if let Some(lines) = &mut self.lines {
            lines.finish_line(&mut self.held);
        }
        self.owed == 0
    }

    /// Takes what is held; its room can be given back to [`Chunks::reuse`].
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Holds what comes next in this room.
    pub(super) fn reuse(&mut self, mut room: Vec<u8>) {
        if self.held.is_empty() {
            room.clear();
            self.held = room;
        }
    }
}
