//! The addresses of a header field as IMAP's ENVELOPE wants them: taken apart, nothing decoded.
//!
//! Lenient (RFC 5322 §3.4 with §4.4's obsolete forms): every text gives some list. Encoded-words
//! stay as they stand; quoting is removed (RFC 3501 §9, `addr-name` and `addr-mailbox`).

use super::content::{behind_comment, quoted};

/// Items of one list at most; the rest is left out.
pub const ADDRESSES_MAX: usize = 5_000;

/// One item of an address list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddressItem {
    /// A mailbox.
    Mailbox {
        /// The display name, or the comment behind the address when there is no name.
        name: Option<Vec<u8>>,
        /// The source route of RFC 822 (`@a,@b`), without its colon.
        route: Option<Vec<u8>>,
        /// The local part without quoting.
        local: Vec<u8>,
        /// The domain, or a domain literal with its brackets. Empty when there is none.
        host: Vec<u8>,
    },
    /// A group's name; its members follow, then [`AddressItem::GroupEnd`].
    GroupStart(Vec<u8>),
    /// The end of a group.
    GroupEnd,
}

enum Token {
    /// An atom or a quoted string; whether white space stood before it.
    Word {
        text: Vec<u8>,
        spaced: bool,
    },
    Comment(Vec<u8>),
    Special(u8),
}

/// Takes a field's value apart.
#[must_use]
pub fn addresses(value: &[u8]) -> Vec<AddressItem> {
    let mut list = List::default();
    let mut tokens = Tokens { rest: value };
    while list.items.len() < ADDRESSES_MAX {
        let Some(token) = tokens.next() else { break };
        list.take(token);
    }
    list.flush();
    if list.in_group {
        list.items.push(AddressItem::GroupEnd);
    }
    list.items
}

#[derive(Default)]
struct List {
    items: Vec<AddressItem>,
    in_group: bool,
    /// Words (and `@`) outside angle brackets.
    outside: Vec<Token>,
    /// Words (and `@`, `,`, `:`) inside angle brackets, once they are open.
    inside: Option<Vec<Token>>,
    angle_open: bool,
    comment: Option<Vec<u8>>,
}

impl List {
    fn take(&mut self, token: Token) {
        match token {
            Token::Comment(text) => self.comment = Some(text),
            Token::Special(b'>') => self.angle_open = false,
            Token::Special(b'<') if self.inside.is_none() => {
                self.inside = Some(Vec::new());
                self.angle_open = true;
            }
            token if self.angle_open => self.inside.get_or_insert_default().push(token),
            Token::Special(b',') => self.flush(),
            Token::Special(b';') => {
                self.flush();
                if std::mem::take(&mut self.in_group) {
                    self.items.push(AddressItem::GroupEnd);
                }
            }
            Token::Special(b':') if !self.in_group && self.inside.is_none() => {
                let name = phrase(&std::mem::take(&mut self.outside));
                self.comment = None;
                self.in_group = true;
                self.items.push(AddressItem::GroupStart(name));
            }
            Token::Special(c) if c != b'@' && c != b':' => {}
            token => self.outside.push(token),
        }
    }

    /// Ends the address that was being read.
    fn flush(&mut self) {
        let outside = std::mem::take(&mut self.outside);
        let comment = self.comment.take();
        self.angle_open = false;
        match self.inside.take() {
            Some(inside) => {
                let name = phrase(&outside);
                let (route, address) = split_route(&inside);
                let (local, host) = split_address(address);
                self.items.push(AddressItem::Mailbox {
                    name: Some(name).filter(|n| !n.is_empty()).or(comment),
                    route,
                    local,
                    host,
                });
            }
            None if outside.is_empty() => {}
            None => {
                let (local, host) = split_address(&outside);
                self.items.push(AddressItem::Mailbox {
                    name: comment,
                    route: None,
                    local,
                    host,
                });
            }
        }
    }
}

/// Words with single spaces where white space stood.
fn phrase(tokens: &[Token]) -> Vec<u8> {
    let mut out = Vec::new();
    for token in tokens {
        match token {
            Token::Word { text, spaced } => {
                if *spaced && !out.is_empty() {
                    out.push(b' ');
                }
                out.extend_from_slice(text);
            }
            Token::Special(c) => out.push(*c),
            Token::Comment(_) => {}
        }
    }
    out
}

fn glued(tokens: &[Token]) -> Vec<u8> {
    let mut out = Vec::new();
    for token in tokens {
        match token {
            Token::Word { text, .. } => out.extend_from_slice(text),
            Token::Special(c) => out.push(*c),
            Token::Comment(_) => {}
        }
    }
    out
}

/// Local part and host around the last `@`.
fn split_address(tokens: &[Token]) -> (Vec<u8>, Vec<u8>) {
    match tokens.iter().rposition(|t| matches!(t, Token::Special(b'@'))) {
        Some(at) => (glued(&tokens[..at]), glued(&tokens[at + 1..])),
        None => (phrase(tokens), Vec::new()),
    }
}

/// The source route before the colon (RFC 5322 §4.4 `obs-route`), and the rest.
fn split_route(tokens: &[Token]) -> (Option<Vec<u8>>, &[Token]) {
    let colon = tokens.iter().position(|t| matches!(t, Token::Special(b':')));
    match (tokens.first(), colon) {
        (Some(Token::Special(b'@')), Some(i)) => (Some(glued(&tokens[..i])), &tokens[i + 1..]),
        _ => (None, tokens),
    }
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let blank = self.rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        let spaced = blank > 0;
        self.rest = &self.rest[blank..];
        let (first, rest) = self.rest.split_first()?;
        match first {
            b'"' => {
                let (text, rest) = quoted(rest);
                self.rest = rest;
                Some(Token::Word { text, spaced })
            }
            b'(' => {
                let after = behind_comment(rest);
                let inner = &rest[..rest.len() - after.len()];
                self.rest = after;
                let inner = inner.strip_suffix(b")").unwrap_or(inner);
                Some(Token::Comment(unfolded(inner)))
            }
            b'[' => {
                let end = memchr::memchr(b']', rest).map_or(rest.len(), |i| i + 1);
                let text = unfolded(&self.rest[..end + 1]);
                self.rest = &rest[end..];
                Some(Token::Word { text, spaced })
            }
            b'<' | b'>' | b'@' | b',' | b';' | b':' | b')' | b']' => {
                self.rest = rest;
                Some(Token::Special(*first))
            }
            _ => {
                let end = encoded_word_len(self.rest).unwrap_or_else(|| atom_len(self.rest));
                let (text, rest) = self.rest.split_at(end);
                self.rest = rest;
                Some(Token::Word {
                    text: text.to_vec(),
                    spaced,
                })
            }
        }
    }
}

fn atom_len(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|b| b.is_ascii_whitespace() || b"\"()[]<>@,;:".contains(b))
        .unwrap_or(bytes.len())
        .max(1)
}

/// Length of an encoded-word (RFC 2047 §2), so that a stray comma inside does not cut it.
fn encoded_word_len(bytes: &[u8]) -> Option<usize> {
    let rest = bytes.strip_prefix(b"=?")?;
    // RFC 2047 §2: 75 octets; writers of more exist.
    let window = &rest[..rest.len().min(256)];
    let word = window.split(u8::is_ascii_whitespace).next()?;
    let charset = memchr::memchr(b'?', word)?;
    let encoding = charset + 2;
    (word.get(encoding) == Some(&b'?')).then_some(())?;
    let text = word.get(encoding + 1..)?;
    Some(2 + encoding + 1 + memchr::memmem::find(text, b"?=")? + 2)
}

fn unfolded(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .copied()
        .filter(|b| !matches!(b, b'\r' | b'\n'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(value: &str) -> String {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let mut out = Vec::new();
        for item in addresses(value.as_bytes()) {
            out.push(match item {
                AddressItem::Mailbox {
                    name,
                    route,
                    local,
                    host,
                } => {
                    let name = name.map_or("-".to_owned(), |n| text(&n));
                    let route = route.map_or(String::new(), |r| format!("{}:", text(&r)));
                    format!("{name}|{route}{}|{}", text(&local), text(&host))
                }
                AddressItem::GroupStart(name) => format!("{{{}", text(&name)),
                AddressItem::GroupEnd => "}".to_owned(),
            });
        }
        out.join(" ; ")
    }

    #[test]
    fn lists() {
        for (value, expected) in [
            ("bob@example.com", "-|bob|example.com"),
            (" Bob  Smith <bob@example.com>", "Bob Smith|bob|example.com"),
            (
                "\"Smith, Bob\" <bob@example.com>,a@b",
                "Smith, Bob|bob|example.com ; -|a|b",
            ),
            (
                "bob@example.com (Bob (the) Smith)",
                "Bob (the) Smith|bob|example.com",
            ),
            ("\"a b\"@c.d", "-|a b|c.d"),
            ("=?utf-8?Q?a,b_c?= <x@y>", "=?utf-8?Q?a,b_c?=|x|y"),
            (
                "=?utf-8?Q?a?= =?utf-8?Q?b?=\r\n <x@y>",
                "=?utf-8?Q?a?= =?utf-8?Q?b?=|x|y",
            ),
            (
                "friends: a@b, C <c@d>; , e@f",
                "{friends ; -|a|b ; C|c|d ; } ; -|e|f",
            ),
            ("undisclosed-recipients:;", "{undisclosed-recipients ; }"),
            ("<@a,@b:c@d>", "-|@a,@b:c|d"),
            ("x@[IPv6:2001:db8::1]", "-|x|[IPv6:2001:db8::1]"),
            (
                "bob@example.com <bob@example.com>",
                "bob@example.com|bob|example.com",
            ),
            ("<>", "-||"),
            ("Bob Smith", "-|Bob Smith|"),
            ("J. Random <j.r@x.y>", "J. Random|j.r|x.y"),
            ("a . b @ c . d", "-|a.b|c.d"),
            ("<a@b", "-|a|b"),
            (",,", ""),
            ("", ""),
        ] {
            assert_eq!(shown(value), expected, "{value:?}");
        }
        assert_eq!(addresses("a@b,".repeat(20_000).as_bytes()).len(), ADDRESSES_MAX);
    }

    proptest! {
        #[test]
        fn any_value_is_answered(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = addresses(&value);
        }

        #[test]
        fn any_mix_is_answered(value in "[a\"\\\\()<>@,;:\\[\\]=? \r\n.]{0,60}") {
            let items = addresses(value.as_bytes());
            let starts = items.iter().filter(|i| matches!(i, AddressItem::GroupStart(_))).count();
            let ends = items.iter().filter(|i| matches!(i, AddressItem::GroupEnd)).count();
            prop_assert_eq!(starts, ends);
        }
    }
}
