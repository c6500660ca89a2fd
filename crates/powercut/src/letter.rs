//! The messages that are sent: each has a number that stands in its Message-ID, so that it is known
//! again wherever it turns up, and octets that differ from every other's.

use std::sync::Arc;
use store::simulated::Dice;

/// What stands in front of a letter's number in its Message-ID.
const BEFORE: &[u8] = b"<letter.";
/// What stands behind it.
const BEHIND: u8 = b'@';

/// Number of a letter within an era.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LetterId(pub u64);

/// How long letters are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// A few lines.
    Small,
    /// Longer than one checksummed chunk of a blob.
    Middle,
    /// Longer than what goes into the log.
    Large,
}

impl Size {
    /// A size: mostly small.
    pub fn draw(dice: &mut Dice) -> Self {
        match dice.below(40) {
            0 => Self::Large,
            1..=3 => Self::Middle,
            _ => Self::Small,
        }
    }

    fn octets(self, dice: &mut Dice) -> usize {
        let (least, more) = match self {
            Self::Small => (20, 4_000),
            Self::Middle => (66_000, 40_000),
            Self::Large => (1_060_000, 100_000),
        };
        least + dice.below(more) as usize
    }
}

/// Writes a letter: header fields and lines, among them lines that begin with a dot.
#[must_use]
pub fn write(id: LetterId, from: &str, to: &str, size: Size, dice: &mut Dice) -> Arc<[u8]> {
    let mut out = format!(
        "From: {from}\r\nTo: {to}\r\nSubject: letter {n}\r\nDate: Mon, 23 Nov 2026 13:04:13 +0000\r\n\
         Message-ID: <letter.{n}@powercut.example>\r\n\r\n",
        n = id.0
    )
    .into_bytes();
    let octets = size.octets(dice);
    let end = out.len() + octets;
    while out.len() < end {
        if dice.chance(1, 16) {
            out.push(b'.');
        }
        for _ in 0..1 + dice.below(9) {
            out.extend_from_slice(format!("{:016x}", dice.word()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    out.into()
}

/// The number of the first letter that octets speak of.
#[must_use]
pub fn named_in(octets: &[u8]) -> Option<LetterId> {
    let at = memchr::memmem::find(octets, BEFORE)? + BEFORE.len();
    let digits = octets.get(at..)?.split(|b| *b == BEHIND).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(LetterId)
}

/// As DATA sends it: dots at the beginning of lines doubled (RFC 5321 §4.5.2), and the end mark.
#[must_use]
pub fn stuffed(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 64 + 8);
    for line in octets.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_known_by_its_number_and_repeated_by_its_dice() {
        let letter = |n| {
            write(
                LetterId(n),
                "a@b.example",
                "c@d.example",
                Size::Small,
                &mut Dice::new(n),
            )
        };
        assert_eq!(named_in(&letter(71)), Some(LetterId(71)));
        assert_eq!(letter(71), letter(71));
        assert_ne!(letter(71), letter(72));
        assert_eq!(named_in(b"no letter"), None);
    }

    #[test]
    fn dots_are_doubled() {
        assert_eq!(stuffed(b"a\r\n.b\r\n"), b"a\r\n..b\r\n.\r\n");
    }
}
