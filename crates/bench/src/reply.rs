//! SMTP replies as the load generator reads them (RFC 5321 §4.2).
//!
//! Promises: a reply is handed out only when all its lines are there; odd bytes are an error, not a guess.
//! Never: more than [`REPLY_OCTETS_MAX`] octets held for one reply.

use memchr::memchr;

/// Octets of one reply at most, all lines together.
pub const REPLY_OCTETS_MAX: usize = 64 * 1024;

/// One whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The last line without its line end.
    pub line: String,
}

impl Reply {
    /// Whether the first digit is `class`.
    pub fn is(&self, class: u16) -> bool {
        self.code / 100 == class
    }
}

/// The bytes are no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an SMTP reply: {0}")]
pub struct Odd(String);

/// Cuts the first whole reply off `bytes`: the reply and the octets it took, or `None` while lines are
/// missing.
///
/// # Errors
/// [`Odd`] for a line that does not begin with three digits, or too many octets.
pub fn cut(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Odd> {
    let mut at = 0;
    while let Some(length) = memchr(b'\n', &bytes[at..]) {
        let line = bytes[at..at + length].trim_ascii_end();
        at += length + 1;
        let (digits, rest) = line.split_at(line.len().min(3));
        let code = match digits {
            [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(Odd(String::from_utf8_lossy(&line[..line.len().min(80)]).into())),
        };
        match rest.first() {
            Some(b'-') => {}
            None | Some(b' ') => {
                let line = String::from_utf8_lossy(line).into_owned();
                return Ok(Some((Reply { code, line }, at)));
            }
            Some(_) => return Err(Odd(String::from_utf8_lossy(&line[..line.len().min(80)]).into())),
        }
    }
    if bytes.len() > REPLY_OCTETS_MAX {
        return Err(Odd(format!("more than {REPLY_OCTETS_MAX} octets")));
    }
    Ok(None)
}

/// What errors are counted by: code, enhanced code and the first words, digits that differ between
/// messages taken out.
pub fn kind(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let mut out: Vec<&str> = words.by_ref().take(2).collect();
    out.extend(words.take(8).map(|w| {
        if w.bytes().any(|b| b.is_ascii_digit() || b == b'<') {
            "…"
        } else {
            w
        }
    }));
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_many_lines_and_half_lines() {
        let (reply, used) = cut(b"250 2.0.0 Ok\r\n354 go\r\n").unwrap().unwrap();
        assert_eq!((reply.code, reply.line.as_str(), used), (250, "250 2.0.0 Ok", 14));
        let ehlo = b"250-mail.example\r\n250-PIPELINING\r\n250 SIZE\r\n";
        let (reply, used) = cut(ehlo).unwrap().unwrap();
        assert_eq!((reply.line.as_str(), used), ("250 SIZE", ehlo.len()));
        for end in 0..ehlo.len() {
            assert_eq!(cut(&ehlo[..end]).unwrap(), None, "{end} octets");
        }
        assert!(cut(b"354\r\n").unwrap().unwrap().0.is(3));
    }

    #[test]
    fn what_is_no_reply_is_said() {
        for odd in [&b"hello\r\n"[..], b"25\r\n", b"\r\n", b"650 x\r\n", b"250=x\r\n"] {
            assert!(cut(odd).is_err(), "{odd:?}");
        }
        assert!(cut(&vec![b'2'; REPLY_OCTETS_MAX + 1]).is_err());
    }

    #[test]
    fn errors_of_one_kind_count_together() {
        let a = kind("451 4.3.0 message AB12 for <a@b.c> not taken now");
        assert_eq!(a, "451 4.3.0 message … for … not taken now");
        assert_eq!(a, kind("451 4.3.0 message CD34 for <x@y.z> not taken now"));
    }
}
