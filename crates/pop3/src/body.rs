//! Writes a message as a multi-line response: dots stuffed, TOP's lines counted, piece by piece.

/// Streams one message into the output (RFC 1939 §3, §7).
///
/// A line that begins with a dot gets another one. That goes for lines behind a bare LF too: a
/// client that takes a bare LF for a line ending must not take the message's own dot for its end.
#[derive(Debug)]
pub struct MessageWriter {
    at_line_start: bool,
    /// The current line holds something other than CR.
    line_has_text: bool,
    last: [u8; 2],
    in_header: bool,
    /// Lines of the body still to send; `None` is all.
    lines_left: Option<u32>,
}

impl MessageWriter {
    /// For the whole message, or for its header and that many lines of its body (TOP).
    #[must_use]
    pub fn new(body_lines: Option<u32>) -> Self {
        Self {
            at_line_start: true,
            line_has_text: false,
            last: *b"\r\n",
            in_header: true,
            lines_left: body_lines,
        }
    }

    /// Whether TOP has all it asked for; the rest of the message need not be read.
    #[must_use]
    pub fn is_satisfied(&self) -> bool {
        !self.in_header && self.lines_left == Some(0)
    }

    /// Appends a piece of the message to `out`.
    pub fn write(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        while !piece.is_empty() && !self.is_satisfied() {
            let end = memchr::memchr(b'\n', piece).map_or(piece.len(), |i| i + 1);
            let (line, rest) = piece.split_at(end);
            if self.at_line_start && line.first() == Some(&b'.') {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            self.note(line);
            piece = rest;
        }
    }

    /// Remembers what the end of `line` (whole or in part) means for what follows.
    fn note(&mut self, line: &[u8]) {
        for b in &line[line.len().saturating_sub(2)..] {
            self.last = [self.last[1], *b];
        }
        self.at_line_start = line.last() == Some(&b'\n');
        self.line_has_text |= line.iter().any(|b| !matches!(b, b'\r' | b'\n'));
        if !self.at_line_start {
            return;
        }
        let was_empty = !std::mem::take(&mut self.line_has_text);
        if self.in_header {
            self.in_header = !was_empty;
        } else if let Some(left) = &mut self.lines_left {
            *left = left.saturating_sub(1);
        }
    }

    /// Ends the response: the last line is ended if it was not, then the dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        match self.last {
            [b'\r', b'\n'] => {}
            [_, b'\r'] => out.push(b'\n'),
            _ => out.extend_from_slice(b"\r\n"),
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(message: &[u8], body_lines: Option<u32>, cut: usize) -> Vec<u8> {
        let mut writer = MessageWriter::new(body_lines);
        let mut out = Vec::new();
        for piece in message.chunks(cut) {
            writer.write(piece, &mut out);
        }
        writer.finish(&mut out);
        out
    }

    #[test]
    fn dots_and_ends() {
        for (message, wire) in [
            ("A: b\r\n\r\n.x\r\n..\r\n", "A: b\r\n\r\n..x\r\n...\r\n.\r\n"),
            ("A: b\r\n\r\nno end", "A: b\r\n\r\nno end\r\n.\r\n"),
            ("A: b\r\n\r\ncr\r", "A: b\r\n\r\ncr\r\n.\r\n"),
            ("A: b\r\n\r\nlf\n.\n", "A: b\r\n\r\nlf\n..\n\r\n.\r\n"),
            ("", ".\r\n"),
        ] {
            assert_eq!(
                sent(message.as_bytes(), None, 1000),
                wire.as_bytes(),
                "{message:?}"
            );
        }
    }

    #[test]
    fn top_counts_lines_of_the_body() {
        let m = b"A: b\r\nC: d\r\n\r\n1\r\n\r\n3\r\n";
        assert_eq!(sent(m, Some(0), 3), b"A: b\r\nC: d\r\n\r\n.\r\n");
        assert_eq!(sent(m, Some(2), 3), b"A: b\r\nC: d\r\n\r\n1\r\n\r\n.\r\n");
        assert_eq!(sent(m, Some(9), 3), [&m[..], b".\r\n"].concat());
    }

    proptest! {
        #[test]
        fn a_reader_gets_the_message_back(lines in proptest::collection::vec("[.a\r]{0,6}", 0..12), cut in 1usize..9) {
            let message: String = lines.iter().map(|l| l.replace('\r', "b") + "\r\n").collect();
            let wire = sent(message.as_bytes(), None, cut);
            let mut read = Vec::new();
            let mut rest = &wire[..];
            loop {
                let end = memchr::memmem::find(rest, b"\r\n").unwrap() + 2;
                let (line, next) = rest.split_at(end);
                if line == b".\r\n" {
                    prop_assert!(next.is_empty(), "nothing follows the first lone dot");
                    break;
                }
                read.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
                rest = next;
            }
            prop_assert_eq!(read, message.into_bytes());
        }

        #[test]
        fn any_split_gives_the_same(message in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..120), lines in proptest::option::of(0u32..4), cut in 1usize..9) {
            prop_assert_eq!(sent(&message, lines, cut), sent(&message, lines, 1000));
        }
    }
}
