//! Packets: a length of four octets (big-endian), an octet that says the kind, and the data.

use crate::Fault;

/// Octets of data in a packet at most.
pub const DATA_OCTETS_MAX: usize = 65_535;
/// Octets behind a packet's length at most: its kind and its data.
pub const PACKET_OCTETS_MAX: usize = DATA_OCTETS_MAX + 1;

/// A whole packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Which kind.
    pub kind: u8,
    /// What is in it.
    pub data: Vec<u8>,
}

/// Appends a packet.
pub fn write(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    let length = u32::try_from(data.len() + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(data);
}

/// Appends a text and the zero that ends it. Zeros inside it are left out: they would end it early.
pub fn write_text(data: &mut Vec<u8>, text: &[u8]) {
    data.extend(text.iter().filter(|b| **b != 0));
    data.push(0);
}

/// Cuts packets out of octets that come in any pieces.
#[derive(Clone, Debug, Default)]
pub struct Packets {
    buffer: Vec<u8>,
    used: usize,
}

impl Packets {
    /// Takes octets that came in.
    pub fn feed(&mut self, octets: &[u8]) {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        self.buffer.extend_from_slice(octets);
    }

    /// Octets that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() - self.used
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next whole packet, when it is there.
    ///
    /// # Errors
    /// A length of zero, or one over `octets_max`: told as soon as the length is there.
    pub fn next(&mut self, octets_max: usize) -> Result<Option<Packet>, Fault> {
        let rest = &self.buffer[self.used..];
        let Some((length, behind)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*length);
        let length = announced as usize;
        if length > octets_max {
            return Err(Fault::PacketTooLong(announced));
        }
        if length == 0 {
            return Err(Fault::EmptyPacket);
        }
        let Some(packet) = behind.get(..length) else {
            return Ok(None);
        };
        let packet = Packet {
            kind: packet[0],
            data: packet[1..].to_vec(),
        };
        self.used += 4 + length;
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        }
        Ok(Some(packet))
    }
}

/// Reads texts that zeros end, and numbers.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// A text up to its zero.
    pub(crate) fn text(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.0)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    pub(crate) fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    /// All texts to the end, which must come right behind the last one's zero.
    pub(crate) fn texts(&mut self) -> Option<Vec<&'a [u8]>> {
        let mut texts = Vec::new();
        while !self.0.is_empty() {
            texts.push(self.text()?);
        }
        Some(texts)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
