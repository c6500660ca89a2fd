//! The other side of SMTP, as little of it as reads a message: what the bare receiver and the sink speak.
//!
//! Promises: the bytes of each message are handed on as they came (dots still doubled), up to and
//! including the line end before the final dot.
//! Never: looks at an address, a header or a size; this is a measuring tool, not a server.

use memchr::{memchr, memmem};

/// Octets of a command line at most.
const LINE_OCTETS_MAX: usize = 4096;
/// Octets of a message at most: the tool must not be filled.
const MESSAGE_OCTETS_MAX: usize = 256 << 20;

/// What a session asks of its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Go on reading.
    More,
    /// A whole message was taken; nothing is read until [`Wire::answer`] is called.
    Message,
    /// Close the connection after writing what is there.
    Close,
}

/// One session.
#[derive(Debug, Default)]
pub struct Wire {
    carry: Vec<u8>,
    in_data: bool,
    waits: bool,
    /// Octets that are to be written to the peer.
    pub out: Vec<u8>,
}

impl Wire {
    /// A session that greets.
    pub fn new() -> Self {
        Self {
            out: b"220 bare.example ready\r\n".to_vec(),
            ..Self::default()
        }
    }

    /// Takes what was read. Whole messages are appended to `kept`.
    pub fn feed(&mut self, bytes: &[u8], kept: &mut Vec<u8>) -> After {
        if self.carry.is_empty() && !self.waits {
            let (used, after) = self.walk(bytes, 0, kept);
            self.carry.extend_from_slice(&bytes[used..]);
            return after;
        }
        let known = self.carry.len();
        self.carry.extend_from_slice(bytes);
        if self.waits {
            let too_much = self.carry.len() > MESSAGE_OCTETS_MAX;
            return if too_much { After::Close } else { After::More };
        }
        self.resume(known, kept)
    }

    /// The message is safe (or was counted): 250. Goes on with what has come since.
    pub fn answer(&mut self, kept: &mut Vec<u8>) -> After {
        self.waits = false;
        self.out.extend_from_slice(b"250 2.0.0 taken\r\n");
        self.resume(0, kept)
    }

    /// Walks the carried octets, of which `known` were searched before.
    fn resume(&mut self, known: usize, kept: &mut Vec<u8>) -> After {
        let carry = std::mem::take(&mut self.carry);
        let (used, after) = self.walk(&carry, known, kept);
        self.carry = carry;
        if used == self.carry.len() {
            self.carry.clear();
        } else {
            self.carry.drain(..used);
        }
        after
    }

    /// Follows whole lines and messages; answers how many octets are done with.
    fn walk(&mut self, bytes: &[u8], known: usize, kept: &mut Vec<u8>) -> (usize, After) {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            if self.in_data {
                // The end mark may straddle what was searched before.
                let from = known.saturating_sub(at).saturating_sub(4).min(rest.len());
                let end = if rest.starts_with(b".\r\n") {
                    Some((0, 3))
                } else {
                    memmem::find(&rest[from..], b"\r\n.\r\n").map(|n| (from + n + 2, from + n + 5))
                };
                let Some((message, used)) = end else {
                    let too_big = rest.len() > MESSAGE_OCTETS_MAX;
                    return (at, if too_big { After::Close } else { After::More });
                };
                kept.extend_from_slice(&rest[..message]);
                self.in_data = false;
                self.waits = true;
                return (at + used, After::Message);
            }
            let Some(end) = memchr(b'\n', rest) else {
                let too_long = rest.len() > LINE_OCTETS_MAX;
                return (at, if too_long { After::Close } else { After::More });
            };
            at += end + 1;
            if self.command(&rest[..end]) {
                return (at, After::Close);
            }
        }
    }

    /// One command; whether the session is over.
    fn command(&mut self, line: &[u8]) -> bool {
        let verb: [u8; 4] = std::array::from_fn(|n| line.get(n).map_or(0, u8::to_ascii_uppercase));
        let words: &[u8] = match &verb {
            b"EHLO" => b"250-bare.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n",
            b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" | b"HELO" => b"250 2.0.0 ok\r\n",
            b"DATA" => {
                self.in_data = true;
                b"354 go on\r\n"
            }
            b"QUIT" => b"221 2.0.0 bye\r\n",
            _ => b"502 5.5.1 not here\r\n",
        };
        self.out.extend_from_slice(words);
        verb == *b"QUIT"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALK: &[u8] = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nA: 1\r\n\r\n..x\r\n.\r\n\
                          MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\nQUIT\r\n";

    fn hold(pieces: &[&[u8]]) -> (String, Vec<u8>, usize) {
        let (mut wire, mut kept, mut messages) = (Wire::new(), Vec::new(), 0);
        for piece in pieces {
            let mut after = wire.feed(piece, &mut kept);
            while after == After::Message {
                messages += 1;
                after = wire.answer(&mut kept);
            }
        }
        (String::from_utf8(wire.out).unwrap(), kept, messages)
    }

    #[test]
    fn any_cut_of_the_bytes_gives_the_same_talk() {
        let whole = hold(&[TALK]);
        assert_eq!(whole.1, b"A: 1\r\n\r\n..x\r\n");
        assert_eq!(whole.2, 2);
        assert!(whole.0.ends_with("221 2.0.0 bye\r\n"));
        assert_eq!(whole.0.matches("250 2.0.0 taken").count(), 2);
        for cut in 0..TALK.len() {
            assert_eq!(hold(&[&TALK[..cut], &TALK[cut..]]), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = TALK.chunks(1).collect();
        assert_eq!(hold(&single), whole);
    }

    #[test]
    fn nothing_is_answered_before_the_message_is_safe() {
        let (mut wire, mut kept) = (Wire::new(), Vec::new());
        assert_eq!(
            wire.feed(b"DATA\r\nx\r\n.\r\nQUIT\r\n", &mut kept),
            After::Message
        );
        assert!(wire.out.ends_with(b"354 go on\r\n"));
        assert_eq!(wire.feed(b"", &mut kept), After::More);
        assert!(wire.out.ends_with(b"354 go on\r\n"));
        assert_eq!(wire.answer(&mut kept), After::Close);
        assert!(wire.out.ends_with(b"250 2.0.0 taken\r\n221 2.0.0 bye\r\n"));
    }

    #[test]
    fn endless_lines_end_the_session() {
        let (mut wire, mut kept) = (Wire::new(), Vec::new());
        assert_eq!(wire.feed(&[b'x'; LINE_OCTETS_MAX + 1], &mut kept), After::Close);
    }
}
