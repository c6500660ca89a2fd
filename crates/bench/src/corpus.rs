//! The letters of the load: a header of their own, a body cut from one prepared text.
//!
//! Promises: every message has exactly the size asked for (header, body and last line end), lines of at
//! most 78 octets, no line that begins with a dot, and a Message-ID of its own.
//! Never: a copy of the body for each message; sessions send slices of the same text.

use std::fmt::Write as _;
use std::ops::Range;

/// Octets of a body line, line end included.
const LINE_OCTETS: usize = 78;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Octets of a message at least: the header must fit.
pub const SIZE_OCTETS_MIN: usize = 512;

/// A fast generator of numbers that need not be secret (xorshift64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Text that looks like base64, as most octets of real mail do.
#[derive(Debug)]
pub struct Corpus {
    text: Vec<u8>,
}

impl Corpus {
    /// Prepares text enough for bodies of `body_octets_max`.
    pub fn new(body_octets_max: usize) -> Self {
        let lines = (1 << 20) / LINE_OCTETS + body_octets_max.div_ceil(LINE_OCTETS) + 2;
        let mut dice = Dice::new(0x9E37_79B9_7F4A_7C15);
        let mut text = Vec::with_capacity(lines * LINE_OCTETS);
        for _ in 0..lines {
            let mut bits = 0;
            for column in 0..LINE_OCTETS - 2 {
                if column % 10 == 0 {
                    bits = dice.roll();
                }
                text.push(ALPHABET[(bits & 63) as usize]);
                bits >>= 6;
            }
            text.extend_from_slice(b"\r\n");
        }
        Self { text }
    }

    /// A place in the text for a body of `octets`: whole lines, the last one cut.
    pub fn place(&self, octets: usize, dice: &mut Dice) -> Range<usize> {
        let lines = (self.text.len() - octets.min(self.text.len())) / LINE_OCTETS;
        let start = (dice.roll() % lines.max(1) as u64) as usize * LINE_OCTETS;
        start..start + octets
    }

    /// The octets at a place that [`place`](Self::place) gave.
    pub fn at(&self, place: Range<usize>) -> &[u8] {
        &self.text[place]
    }
}

/// Who writes to whom.
#[derive(Debug, Clone)]
pub struct Heading<'a> {
    /// The author's address.
    pub from: &'a str,
    /// The first recipient's address.
    pub to: &'a str,
    /// The Date field's value.
    pub date: &'a str,
    /// What tells this run's messages from those of any other run.
    pub run: &'a str,
    /// The message's number in this run.
    pub number: u64,
}

/// One message, ready to be written in three parts: head, slice of the corpus, tail.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The header and the empty line.
    pub head: String,
    /// Where in the corpus the body is.
    pub body: Range<usize>,
    /// The body's last line end and the dot.
    pub tail: &'static [u8],
}

impl Letter {
    /// Writes the header into `head` and chooses the body, so that the message has `size` octets.
    pub fn write(
        heading: &Heading<'_>,
        size: usize,
        corpus: &Corpus,
        dice: &mut Dice,
        head: &mut String,
    ) -> Self {
        head.clear();
        let domain = heading.from.rsplit('@').next().unwrap_or("localhost");
        // Writing to a String cannot fail.
        let _ = write!(
            head,
            "From: Load Generator <{}>\r\nTo: <{}>\r\nSubject: letter {} of run {}\r\nDate: {}\r\n\
             Message-ID: <{}.{}@{domain}>\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n",
            heading.from, heading.to, heading.number, heading.run, heading.date, heading.run, heading.number,
        );
        let octets = size.saturating_sub(head.len() + 2);
        // A body must not end in the middle of a line end.
        let (octets, tail): (usize, &'static [u8]) = if octets % LINE_OCTETS == LINE_OCTETS - 1 {
            (octets - 1, b"=\r\n.\r\n")
        } else {
            (octets, b"\r\n.\r\n")
        };
        Self {
            head: std::mem::take(head),
            body: corpus.place(octets, dice),
            tail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(size: usize) -> Vec<u8> {
        let corpus = Corpus::new(size);
        let heading = Heading {
            from: "a@sender.example",
            to: "user1@bench.example",
            date: "Mon, 23 Nov 2026 13:04:13 +0000",
            run: "r1",
            number: 7,
        };
        let letter = Letter::write(&heading, size, &corpus, &mut Dice::new(5), &mut String::new());
        [letter.head.as_bytes(), corpus.at(letter.body), letter.tail].concat()
    }

    #[test]
    fn every_size_is_exact_and_every_line_short() {
        for size in (SIZE_OCTETS_MIN..SIZE_OCTETS_MIN + 200).chain([10_240, 102_400]) {
            let bytes = whole(size);
            assert!(bytes.ends_with(b"\r\n.\r\n"));
            assert_eq!(
                bytes.len(),
                size + 3,
                "the dot and its line end are not the message's"
            );
            let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
            for line in &lines[..lines.len() - 2] {
                assert!(line.ends_with(b"\r") && line.len() <= LINE_OCTETS);
                assert!(!line.starts_with(b"."));
                assert_eq!(line.iter().filter(|b| **b == b'\r').count(), 1);
            }
        }
    }

    #[test]
    fn the_message_id_names_run_and_number() {
        let text = String::from_utf8(whole(1024)).unwrap();
        assert!(
            text.contains("\r\nMessage-ID: <r1.7@sender.example>\r\n"),
            "{text}"
        );
    }
}
