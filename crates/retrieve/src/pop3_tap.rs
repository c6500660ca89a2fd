//! What the tap sees of a POP3 client: its lines, with passwords blotted out.

use crate::{Connection, Direction};

/// Octets of a line that are held until it is whole; the rest of a longer line is not shown.
const LINE_OCTETS_MAX: usize = 1024;

/// Gathers a client's octets into lines for the tap.
#[derive(Default)]
pub(crate) struct ClientLines {
    partial: Vec<u8>,
    /// The next line is the answer to a challenge: a password in another form.
    secret_next: bool,
}

impl ClientLines {
    /// Shows what was read, line by line.
    pub(crate) fn show(&mut self, connection: &Connection, octets: &[u8]) {
        for piece in octets.split_inclusive(|b| *b == b'\n') {
            let room = LINE_OCTETS_MAX.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                connection.show(Direction::Client, &self.blotted(line));
            }
        }
    }

    fn blotted(&mut self, line: Vec<u8>) -> Vec<u8> {
        let text = String::from_utf8_lossy(&line);
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        if std::mem::take(&mut self.secret_next) {
            return b"***\r\n".to_vec();
        }
        match words.as_slice() {
            [keyword, ..] if keyword.eq_ignore_ascii_case("PASS") => b"PASS ***\r\n".to_vec(),
            [keyword, mechanism] if keyword.eq_ignore_ascii_case("AUTH") => {
                self.secret_next = mechanism.eq_ignore_ascii_case("PLAIN");
                line
            }
            [keyword, mechanism, ..] if keyword.eq_ignore_ascii_case("AUTH") => {
                format!("AUTH {mechanism} ***\r\n").into_bytes()
            }
            _ => line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blotted_out() {
        let mut lines = ClientLines::default();
        for (said, shown) in [
            ("USER bob\r\n", "USER bob\r\n"),
            ("pass secret word\r\n", "PASS ***\r\n"),
            ("AUTH PLAIN c2VjcmV0\r\n", "AUTH PLAIN ***\r\n"),
            ("auth plain\r\n", "auth plain\r\n"),
            ("c2VjcmV0\r\n", "***\r\n"),
            ("STAT\r\n", "STAT\r\n"),
        ] {
            assert_eq!(
                lines.blotted(said.as_bytes().to_vec()),
                shown.as_bytes(),
                "{said}"
            );
        }
    }
}
