//! The pieces of RFC 3501's grammar: atoms, strings, lists.

use super::{ParseError, Parsed};

/// RFC 3501 §9 `ATOM-CHAR`.
pub(crate) fn is_atom_char(b: u8) -> bool {
    b > b' ' && b < 127 && !b"(){%*\"\\]".contains(&b)
}

/// RFC 3501 §9 `ASTRING-CHAR`.
pub(super) fn is_astring_char(b: u8) -> bool {
    is_atom_char(b) || b == b']'
}

/// Reads a command from left to right.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn end(&self) -> Parsed<()> {
        match self.rest {
            [] => Ok(()),
            _ => Err(ParseError::Expected("the end of the command")),
        }
    }

    pub(super) fn eat(&mut self, b: u8) -> bool {
        let found = self.peek() == Some(b);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    /// The one space that separates arguments; clients that send more are forgiven.
    pub(super) fn space(&mut self) -> Parsed<()> {
        if !self.eat(b' ') {
            return Err(ParseError::Expected("another argument"));
        }
        while self.eat(b' ') {}
        Ok(())
    }

    fn take_while(&mut self, keep: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self
            .rest
            .iter()
            .position(|b| !keep(*b))
            .unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    pub(super) fn atom(&mut self) -> Option<&'a str> {
        let atom = self.take_while(is_atom_char);
        std::str::from_utf8(atom).ok().filter(|a| !a.is_empty())
    }

    /// An atom in capitals.
    pub(super) fn word(&mut self) -> Option<String> {
        self.atom().map(str::to_ascii_uppercase)
    }

    /// Takes this word, and nothing when another stands there.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let before = self.rest;
        if self.atom().is_some_and(|a| a.eq_ignore_ascii_case(word)) {
            return true;
        }
        self.rest = before;
        false
    }

    /// Gives up on the rest of the command.
    pub(super) fn skip_all(&mut self) {
        self.rest = &[];
    }

    /// Letters, digits and dots: the name of a fetch item, which a bracket may follow.
    pub(super) fn name(&mut self) -> String {
        let name = self.take_while(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        String::from_utf8_lossy(name).to_ascii_uppercase()
    }

    pub(super) fn set(&mut self) -> &'a [u8] {
        self.take_while(|b| b.is_ascii_digit() || b == b',' || b == b':' || b == b'*')
    }

    pub(super) fn number(&mut self) -> Parsed<u32> {
        let digits = self.take_while(|b| b.is_ascii_digit());
        let text = std::str::from_utf8(digits).unwrap_or_default();
        text.parse().map_err(|_| ParseError::Expected("a number"))
    }

    pub(super) fn nil(&mut self) -> bool {
        let found = self.rest.get(..3).is_some_and(|w| w.eq_ignore_ascii_case(b"NIL"))
            && !self.rest.get(3).is_some_and(|b| is_astring_char(*b));
        if found {
            self.rest = &self.rest[3..];
        }
        found
    }

    /// Whether a literal's announcement is all that is left: its octets have not come yet.
    pub(super) fn at_announcement(&self) -> bool {
        announcement(self.rest).is_some_and(|(start, _)| start == 0)
    }

    pub(super) fn string(&mut self) -> Parsed<Vec<u8>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal(),
            _ => Err(ParseError::Expected("a string")),
        }
    }

    pub(super) fn astring(&mut self) -> Parsed<Vec<u8>> {
        self.string_or(is_astring_char)
    }

    /// RFC 3501 §9 `list-mailbox`: wildcards may stand in it.
    pub(super) fn list_mailbox(&mut self) -> Parsed<Vec<u8>> {
        self.string_or(|b| is_astring_char(b) || b == b'%' || b == b'*')
    }

    /// Octets beyond ASCII are taken too: some clients send names in UTF-8 without quotes.
    fn string_or(&mut self, is_char: impl Fn(u8) -> bool) -> Parsed<Vec<u8>> {
        if matches!(self.peek(), Some(b'"' | b'{')) {
            return self.string();
        }
        let text = self.take_while(|b| is_char(b) || b >= 128);
        match text {
            [] => Err(ParseError::Expected("a string")),
            _ => Ok(text.to_vec()),
        }
    }

    pub(super) fn utf8_astring(&mut self) -> Parsed<String> {
        String::from_utf8(self.astring()?).map_err(|_| ParseError::Expected("UTF-8"))
    }

    pub(super) fn rest_of_line(&mut self) -> Parsed<&'a str> {
        let text = self.take_while(|b| (b'!'..=b'~').contains(&b));
        std::str::from_utf8(text).map_err(|_| ParseError::Expected("base64"))
    }

    fn quoted(&mut self) -> Parsed<Vec<u8>> {
        const UNENDED: ParseError = ParseError::Expected("the end of a quoted string");
        let mut text = Vec::new();
        let mut rest = &self.rest[1..];
        loop {
            match rest {
                [b'"', tail @ ..] => {
                    self.rest = tail;
                    return Ok(text);
                }
                [b'\\', c @ (b'"' | b'\\'), tail @ ..] => {
                    text.push(*c);
                    rest = tail;
                }
                [b'\\', ..] => return Err(ParseError::Expected("\\ or \" behind a \\")),
                [0 | b'\r' | b'\n', ..] | [] => return Err(UNENDED),
                [c, tail @ ..] => {
                    text.push(*c);
                    rest = tail;
                }
            }
        }
    }

    fn literal(&mut self) -> Parsed<Vec<u8>> {
        const BAD: ParseError = ParseError::Expected("a literal");
        let close = memchr::memchr(b'}', self.rest).ok_or(BAD)?;
        let digits = self.rest[1..close]
            .strip_suffix(b"+")
            .unwrap_or(&self.rest[1..close]);
        let size = size(digits).and_then(|n| usize::try_from(n).ok()).ok_or(BAD)?;
        let body = self.rest[close + 1..].strip_prefix(b"\r\n").ok_or(BAD)?;
        let text = body.get(..size).ok_or(BAD)?;
        // RFC 3501 §9: CHAR8 is any octet but NUL.
        if memchr::memchr(0, text).is_some() {
            return Err(ParseError::Expected("a literal without NUL"));
        }
        self.rest = &body[size..];
        Ok(text.to_vec())
    }

    /// A list in parentheses of at most `max` items; it may be empty.
    pub(super) fn list(&mut self, max: usize, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        if !self.eat(b'(') {
            return Err(ParseError::Expected("a list in parentheses"));
        }
        while self.eat(b' ') {}
        let mut count = 0;
        while !self.eat(b')') {
            if count > 0 {
                self.space()?;
                if self.eat(b')') {
                    break;
                }
            }
            count += 1;
            if count > max {
                return Err(ParseError::TooComplex);
            }
            item(self)?;
        }
        Ok(())
    }
}

/// How a literal was announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Announced {
    /// Octets that follow.
    pub(crate) size: u64,
    /// Whether the client waits for our `+` (RFC 3501 §7.5) or sends at once (RFC 7888).
    pub(crate) waits: bool,
}

/// A literal's announcement at the end of a line (without CR LF): where it begins, and what it says.
pub(crate) fn announcement(line: &[u8]) -> Option<(usize, Announced)> {
    let inner = line.strip_suffix(b"}")?;
    // 20 digits and a plus at most.
    let window = inner.len().saturating_sub(22);
    let open = window + memchr::memrchr(b'{', &inner[window..])?;
    let (digits, waits) = match inner[open + 1..].strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (&inner[open + 1..], true),
    };
    let size = size(digits)?;
    Some((open, Announced { size, waits }))
}

fn size(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
