//! Finds the borders in the client's bytes: lines, literals, and the message of an APPEND.
//!
//! Promises: holds one command of bounded size and what was fed but not yet looked at; a streamed
//! literal is handed on and never collected. Never: a look at what a command means.

use crate::parse::grammar::{Announced, announcement};

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// All bytes are used up.
    NeedMore,
    /// A line of [`Framer::command`] ended by announcing a literal. Say what shall become of it:
    /// [`Framer::collect`], [`Framer::stream`], [`Framer::skip`] or [`Framer::forget`].
    Literal {
        /// Octets that follow.
        size: u64,
        /// Whether the client waits for `+`.
        waits: bool,
    },
    /// A whole command, its literals inside, without the last CR LF.
    Command(Vec<u8>),
    /// Octets of the streamed literal; never empty.
    Chunk(Vec<u8>),
    /// The line was longer than allowed; it is passed over. The first octets of the command.
    TooLong(Vec<u8>),
    /// A line ended in LF without CR; the command is passed over. What there was of it.
    BareLf(Vec<u8>),
    /// The command whose literal [`Framer::skip`] gave up on has passed.
    Dropped,
    /// More than [`SKIPPED_OCTETS_MAX`] would have to be passed over.
    Hopeless,
}

/// How the bytes that come next are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    Line,
    /// A literal that goes into the command; octets left.
    Collect(u64),
    /// A literal that is handed on; octets left.
    Stream(u64),
    /// A literal of a command that was given up; octets left.
    Skip(u64),
    /// The rest of a line that was too long.
    SkipLine,
}

/// Cuts bytes into frames.
#[derive(Debug)]
pub struct Framer {
    input: Vec<u8>,
    /// Octets of `input` that are used up.
    used: usize,
    command: Vec<u8>,
    /// Octets of the command that are not literals.
    line_octets: usize,
    line_octets_max: usize,
    reading: Reading,
    /// The command is being given up: what comes of it is passed over.
    dropping: bool,
}

/// Octets of one literal that are passed over at most, to spare the client the connection.
pub const SKIPPED_OCTETS_MAX: u64 = 256 * 1024 * 1024;

/// Octets kept of a command that is refused, enough to find its tag.
const PREFIX_OCTETS: usize = 160;

impl Framer {
    /// A framer that allows lines of this many octets.
    #[must_use]
    pub fn new(line_octets_max: usize) -> Self {
        Self {
            input: Vec::new(),
            used: 0,
            command: Vec::new(),
            line_octets: 0,
            line_octets_max,
            reading: Reading::Line,
            dropping: false,
        }
    }

    /// Allows lines of this many octets from now on.
    pub fn set_line_octets_max(&mut self, max: usize) {
        self.line_octets_max = max;
    }

    /// Adds bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// Octets that were fed and not looked at.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.input.len() - self.used
    }

    /// Octets held in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        self.input.len() + self.command.len()
    }

    /// The literal just announced belongs into the command.
    pub fn collect(&mut self, size: u64) {
        self.command.extend_from_slice(b"\r\n");
        self.reading = Reading::Collect(size);
    }

    /// The literal just announced is handed on in chunks; the command so far is forgotten.
    pub fn stream(&mut self, size: u64) {
        self.command = Vec::new();
        self.line_octets = 0;
        self.reading = Reading::Stream(size);
    }

    /// Gives up on the command whose literal was just announced by a client that does not wait:
    /// the literal and the rest of the command are passed over, then comes [`Frame::Dropped`].
    pub fn skip(&mut self, size: u64) {
        self.forget();
        self.dropping = true;
        self.reading = Reading::Skip(size);
    }

    /// Gives up on the command so far; the next line is a new one.
    pub fn forget(&mut self) {
        self.command = Vec::new();
        self.line_octets = 0;
        self.reading = Reading::Line;
    }

    /// The command so far; while a literal was just announced, it ends with the announcement.
    #[must_use]
    pub fn command(&self) -> &[u8] {
        &self.command
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        loop {
            let left = match self.reading {
                Reading::Line => match self.line() {
                    Some(frame) => return frame,
                    None => continue,
                },
                Reading::SkipLine => {
                    let newline = memchr::memchr(b'\n', &self.input[self.used..]);
                    self.used = newline.map_or(self.input.len(), |i| self.used + i + 1);
                    if newline.is_none() {
                        return self.need_more();
                    }
                    self.reading = Reading::Line;
                    continue;
                }
                Reading::Collect(left) | Reading::Stream(left) | Reading::Skip(left) => left,
            };
            if left == 0 {
                self.reading = Reading::Line;
                continue;
            }
            let pending = self.pending();
            if pending == 0 {
                return self.need_more();
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(pending);
            let octets = &self.input[self.used..self.used + take];
            self.used += take;
            let left = left - take as u64;
            match self.reading {
                Reading::Collect(_) => {
                    self.command.extend_from_slice(octets);
                    self.reading = Reading::Collect(left);
                }
                Reading::Stream(_) => {
                    self.reading = Reading::Stream(left);
                    return Frame::Chunk(octets.to_vec());
                }
                _ => self.reading = Reading::Skip(left),
            }
        }
    }

    fn need_more(&mut self) -> Frame {
        if self.used == self.input.len() {
            // An idle connection holds no buffer.
            self.input = Vec::new();
            self.used = 0;
        }
        Frame::NeedMore
    }

    /// Takes one line. `None` when it was passed over and the next thing can be read.
    fn line(&mut self) -> Option<Frame> {
        let rest = &self.input[self.used..];
        let room = self.line_octets_max.saturating_sub(self.line_octets);
        let newline = memchr::memchr(b'\n', rest);
        if newline.unwrap_or(rest.len()) > room {
            // The same, however the line came in.
            let prefix = prefix(&self.command, &rest[..room.min(rest.len())]);
            self.forget();
            match newline {
                Some(i) => self.used += i + 1,
                None => {
                    self.used = self.input.len();
                    self.reading = Reading::SkipLine;
                }
            }
            let dropped = std::mem::take(&mut self.dropping);
            return Some(if dropped {
                Frame::Dropped
            } else {
                Frame::TooLong(prefix)
            });
        }
        let Some(i) = newline else {
            return Some(self.need_more());
        };
        let line = &rest[..i];
        self.used += i + 1;
        let Some(line) = line.strip_suffix(b"\r") else {
            let prefix = prefix(&self.command, line);
            self.forget();
            let dropped = std::mem::take(&mut self.dropping);
            return Some(if dropped {
                Frame::Dropped
            } else {
                Frame::BareLf(prefix)
            });
        };
        let announced = announcement(line).map(|(_, a)| a);
        if self.dropping {
            return self.dropped_line(announced);
        }
        self.command.extend_from_slice(line);
        self.line_octets += line.len() + 2;
        match announced {
            Some(Announced { size, waits }) => Some(Frame::Literal { size, waits }),
            None => {
                self.line_octets = 0;
                Some(Frame::Command(std::mem::take(&mut self.command)))
            }
        }
    }

    /// A line of a command that was given up. A client that waits again gets its answer instead.
    fn dropped_line(&mut self, announced: Option<Announced>) -> Option<Frame> {
        match announced {
            Some(Announced { size, waits: false }) => {
                self.reading = Reading::Skip(size);
                (size > SKIPPED_OCTETS_MAX).then_some(Frame::Hopeless)
            }
            _ => {
                self.dropping = false;
                Some(Frame::Dropped)
            }
        }
    }
}

fn prefix(command: &[u8], rest: &[u8]) -> Vec<u8> {
    command.iter().chain(rest).take(PREFIX_OCTETS).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds in pieces; literals up to 10 octets are collected, those of `STREAM` streamed, others skipped.
    fn frames(pieces: &[&[u8]]) -> Vec<Frame> {
        let mut framer = Framer::new(40);
        let mut all: Vec<Frame> = Vec::new();
        for piece in pieces {
            framer.feed(piece);
            loop {
                let frame = framer.frame();
                match &frame {
                    Frame::NeedMore => break,
                    Frame::Literal { size, .. } if framer.command().starts_with(b"STREAM") => {
                        framer.stream(*size)
                    }
                    Frame::Literal { size, .. } if *size <= 10 => framer.collect(*size),
                    Frame::Literal { size, waits: false } => framer.skip(*size),
                    Frame::Literal { .. } => framer.forget(),
                    _ => {}
                }
                match (all.last_mut(), frame) {
                    (Some(Frame::Chunk(before)), Frame::Chunk(more)) => before.extend(more),
                    (_, Frame::Hopeless) => return all,
                    (_, frame) => all.push(frame),
                }
            }
        }
        all
    }

    fn command(text: &str) -> Frame {
        Frame::Command(text.as_bytes().to_vec())
    }

    #[test]
    fn borders() {
        let literal = |size, waits| Frame::Literal { size, waits };
        assert_eq!(
            frames(&[b"a NOOP\r\nb N", b"OOP\r\n"]),
            [command("a NOOP"), command("b NOOP")]
        );
        assert_eq!(
            frames(&[b"a LOGIN {3}\r\n", b"bob {2+}\r\npw\r\n"]),
            [
                literal(3, true),
                literal(2, false),
                command("a LOGIN {3}\r\nbob {2+}\r\npw")
            ]
        );
        assert_eq!(
            frames(&[b"STREAM {5}\r\nab", b"c\r\n\r\nx\r\n"]),
            [
                literal(5, true),
                Frame::Chunk(b"abc\r\n".to_vec()),
                command(""),
                command("x")
            ]
        );
        assert_eq!(
            frames(&[b"a {11+}\r\n12345678901 {12+}\r\n123456789012 x\r\nb\r\n"]),
            [literal(11, false), Frame::Dropped, command("b")]
        );
        assert_eq!(
            frames(&[b"a b\nc\r\n"]),
            [Frame::BareLf(b"a b".to_vec()), command("c")]
        );
        let long = [b"t ".as_slice(), &[b'x'; 300], b"\r\nok\r\n"].concat();
        let Frame::TooLong(prefix) = &frames(&[&long])[0] else {
            panic!()
        };
        assert!(prefix.starts_with(b"t xx") && prefix.len() <= PREFIX_OCTETS);
        assert_eq!(frames(&[&long])[1], command("ok"));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(text in "(STREAM|a|b c)?[ {}0-9+\r\nx]{0,80}", cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let bytes = text.replace('\n', "\r\n").into_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(frames(&pieces), frames(&[&bytes]));
        }
    }
}
