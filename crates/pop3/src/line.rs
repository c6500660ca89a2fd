//! Finds the lines in what the client sends, with a hard limit, before anything is parsed.

/// One line, or why there is none.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// A line without its CR LF.
    Whole(Vec<u8>),
    /// Longer than the limit; all of it was thrown away.
    TooLong,
    /// Ended by a bare LF, or with a bare CR or NUL inside.
    Malformed,
}

/// Buffers input up to one unfinished line.
#[derive(Default, Debug)]
pub(crate) struct Framer {
    buffer: Vec<u8>,
    /// How much of the buffer was taken already.
    taken: usize,
    /// In the middle of a line that is too long.
    discarding: bool,
}

impl Framer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether there is input that was not taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.buffer.len() && !self.discarding
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next whole line of at most `octets_max` octets, its ending included.
    pub(crate) fn next(&mut self, octets_max: usize) -> Option<Line> {
        let rest = &self.buffer[self.taken..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            if self.discarding || rest.len() >= octets_max {
                self.discarding = true;
                self.taken = self.buffer.len();
            }
            return None;
        };
        let line = &rest[..end];
        let found = if std::mem::take(&mut self.discarding) || end + 1 > octets_max {
            Line::TooLong
        } else {
            match line.strip_suffix(b"\r") {
                Some(text) if memchr::memchr2(b'\r', 0, text).is_none() => Line::Whole(text.to_vec()),
                _ => Line::Malformed,
            }
        };
        self.taken += end + 1;
        Some(found)
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.buffer.len() - self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Vec<Line> {
        let mut framer = Framer::default();
        let mut lines = Vec::new();
        for piece in pieces {
            framer.push(piece);
            while let Some(line) = framer.next(16) {
                lines.push(line);
            }
            assert!(framer.held() < 16, "an unfinished line stays below the limit");
        }
        lines
    }

    #[test]
    fn lines_and_their_faults() {
        assert_eq!(
            all(&[b"NOOP\r\nSTAT\r", b"\n"]),
            [Line::Whole(b"NOOP".to_vec()), Line::Whole(b"STAT".to_vec())]
        );
        assert_eq!(
            all(&[b"12345678901234\r\n123456789012345\r\n\r\n"]),
            [
                Line::Whole(b"12345678901234".to_vec()),
                Line::TooLong,
                Line::Whole(Vec::new())
            ]
        );
        assert_eq!(
            all(&[b"a\nb\rc\r\n\0\r\n"]),
            [Line::Malformed, Line::Malformed, Line::Malformed]
        );
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(data in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200), cut in 1usize..20) {
            let pieces: Vec<&[u8]> = data.chunks(cut).collect();
            prop_assert_eq!(all(&pieces), all(&[&data]));
        }
    }
}
