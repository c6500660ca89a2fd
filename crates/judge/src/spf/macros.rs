//! SPF macros (RFC 7208 §7): read once, expanded for each question.

use std::net::IpAddr;

/// Octets of a domain name after expansion (RFC 7208 §7.3); labels on the left are dropped.
const DOMAIN_OCTETS_MAX: usize = 253;

/// A text with macros in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MacroString {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Macro(Macro),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Macro {
    letter: Letter,
    /// An upper-case letter: the value is URL-escaped.
    escape: bool,
    /// How many parts are kept, from the right.
    keep: Option<usize>,
    reverse: bool,
    delimiters: String,
}

/// What a macro stands for (RFC 7208 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letter {
    Sender,
    LocalPart,
    SenderDomain,
    Domain,
    Ip,
    ValidatedName,
    Version,
    Helo,
    ReadableIp,
    Receiver,
    Time,
}

/// What the macros of one check stand for.
pub(super) struct Values<'a> {
    pub(super) local_part: &'a str,
    pub(super) sender_domain: &'a str,
    pub(super) domain: &'a str,
    pub(super) ip: IpAddr,
    pub(super) helo: &'a str,
    pub(super) receiver: &'a str,
    pub(super) now_secs: i64,
    /// The validated name of the address; `unknown` when there is none.
    pub(super) validated_name: &'a str,
}

impl MacroString {
    /// Reads a macro-string, as in modifiers that we do not know.
    ///
    /// # Errors
    /// In words: what breaks the grammar.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        read(text, false, |c| matches!(c, '!'..='~'))
    }

    /// Reads a domain-spec: a macro-string that ends in a macro or a top label (RFC 7208 §7.1).
    ///
    /// # Errors
    /// In words: what breaks the grammar.
    pub(super) fn parse_domain(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("has an empty domain".to_owned());
        }
        let parsed = Self::parse(text)?;
        let ends_well = match parsed.parts.last() {
            Some(Part::Macro(_)) => true,
            // `%%`, `%_` and `%-` are macros too, as far as the end is concerned.
            Some(Part::Literal(_)) if ends_in_escape(text) => true,
            Some(Part::Literal(literal)) => ends_in_top_label(literal),
            None => false,
        };
        if ends_well {
            Ok(parsed)
        } else {
            Err("has a domain without a valid top label".to_owned())
        }
    }

    /// Reads the text of an explanation, where spaces and three more macros are allowed.
    ///
    /// # Errors
    /// In words: what breaks the grammar.
    pub(super) fn parse_explanation(text: &str) -> Result<Self, String> {
        read(text, true, |c| matches!(c, ' '..='~'))
    }

    /// Whether expanding it needs the validated name of the address.
    pub(super) fn needs_validated_name(&self) -> bool {
        self.parts
            .iter()
            .any(|p| matches!(p, Part::Macro(m) if m.letter == Letter::ValidatedName))
    }

    /// The text with every macro replaced.
    pub(super) fn expand(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Macro(m) => out.push_str(&m.expand(values)),
            }
        }
        out
    }

    /// Like [`MacroString::expand`], cut to the length of a domain name from the left.
    pub(super) fn expand_domain(&self, values: &Values<'_>) -> String {
        let expanded = self.expand(values);
        let mut name = expanded.strip_suffix('.').unwrap_or(&expanded);
        while name.len() > DOMAIN_OCTETS_MAX {
            match name.split_once('.') {
                Some((_, rest)) => name = rest,
                None => break,
            }
        }
        name.to_owned()
    }
}

fn ends_in_escape(text: &str) -> bool {
    // An even number of percent signs before the last character cancels out.
    let Some((before, last)) = text.char_indices().last().map(|(i, c)| (&text[..i], c)) else {
        return false;
    };
    let percents = before.bytes().rev().take_while(|b| *b == b'%').count();
    matches!(last, '%' | '_' | '-') && percents % 2 == 1
}

fn ends_in_top_label(literal: &str) -> bool {
    let literal = literal.strip_suffix('.').unwrap_or(literal);
    let Some((_, label)) = literal.rsplit_once('.') else {
        return false;
    };
    let alphanumeric = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && !bytes.iter().all(u8::is_ascii_digit)
}

fn read(text: &str, explanation: bool, literal: impl Fn(char) -> bool) -> Result<MacroString, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '%' {
            if !literal(c) {
                return Err("holds a character that is not allowed".to_owned());
            }
            plain.push(c);
            continue;
        }
        let after = rest.chars().next();
        match after {
            Some('%') => plain.push('%'),
            Some('_') => plain.push(' '),
            Some('-') => plain.push_str("%20"),
            Some('{') => {
                let (inner, behind) = rest[1..]
                    .split_once('}')
                    .ok_or("holds a macro that is not closed")?;
                if !plain.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut plain)));
                }
                parts.push(Part::Macro(Macro::parse(inner, explanation)?));
                rest = behind;
                continue;
            }
            _ => return Err("holds a % that begins no macro".to_owned()),
        }
        rest = &rest[1..];
    }
    if !plain.is_empty() {
        parts.push(Part::Literal(plain));
    }
    Ok(MacroString { parts })
}

impl Macro {
    /// Reads what stands between the braces.
    fn parse(inner: &str, explanation: bool) -> Result<Self, String> {
        let no_macro = || format!("holds %{{{inner}}}, which is no macro");
        let first = inner.chars().next().ok_or_else(no_macro)?;
        let letter = match first.to_ascii_lowercase() {
            's' => Letter::Sender,
            'l' => Letter::LocalPart,
            'o' => Letter::SenderDomain,
            'd' => Letter::Domain,
            'i' => Letter::Ip,
            'p' => Letter::ValidatedName,
            'v' => Letter::Version,
            'h' => Letter::Helo,
            'c' if explanation => Letter::ReadableIp,
            'r' if explanation => Letter::Receiver,
            't' if explanation => Letter::Time,
            _ => return Err(no_macro()),
        };
        let rest = &inner[1..];
        let digits_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, rest) = rest.split_at(digits_end);
        let keep = match digits {
            "" => None,
            // More parts than fit a number are all parts.
            _ => Some(digits.parse().unwrap_or(usize::MAX)),
        };
        if keep == Some(0) {
            return Err(no_macro());
        }
        let (reverse, delimiters) = match rest.strip_prefix(['r', 'R']) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if !delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
            return Err(no_macro());
        }
        Ok(Self {
            letter,
            escape: first.is_ascii_uppercase(),
            keep,
            reverse,
            delimiters: delimiters.to_owned(),
        })
    }

    fn expand(&self, values: &Values<'_>) -> String {
        let value = self.letter.value(values);
        let is_delimiter = |c: char| {
            if self.delimiters.is_empty() {
                c == '.'
            } else {
                self.delimiters.contains(c)
            }
        };
        let plain = self.keep.is_none() && !self.reverse && self.delimiters.is_empty();
        let transformed = if plain {
            value
        } else {
            let mut parts: Vec<&str> = value.split(is_delimiter).collect();
            if self.reverse {
                parts.reverse();
            }
            let skip = parts.len().saturating_sub(self.keep.unwrap_or(usize::MAX));
            parts[skip..].join(".")
        };
        if self.escape {
            url_escaped(&transformed)
        } else {
            transformed
        }
    }
}

impl Letter {
    fn value(self, values: &Values<'_>) -> String {
        match self {
            Letter::Sender => format!("{}@{}", values.local_part, values.sender_domain),
            Letter::LocalPart => values.local_part.to_owned(),
            Letter::SenderDomain => values.sender_domain.to_owned(),
            Letter::Domain => values.domain.to_owned(),
            Letter::Ip => dotted(values.ip),
            Letter::ValidatedName => values.validated_name.to_owned(),
            Letter::Version => match values.ip {
                IpAddr::V4(_) => "in-addr".to_owned(),
                IpAddr::V6(_) => "ip6".to_owned(),
            },
            Letter::Helo => values.helo.to_owned(),
            Letter::ReadableIp => values.ip.to_string(),
            Letter::Receiver => values.receiver.to_owned(),
            Letter::Time => values.now_secs.to_string(),
        }
    }
}

/// IPv4 as usual; IPv6 as nibbles with dots (RFC 7208 §7.3), in upper case as others write them in
/// explanations; the DNS does not mind.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let nibbles: Vec<String> = v6
                .octets()
                .iter()
                .flat_map(|o| [format!("{:X}", o >> 4), format!("{:X}", o & 15)])
                .collect();
            nibbles.join(".")
        }
    }
}

/// Escapes all but the unreserved characters (RFC 3986 §2.3).
fn url_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(ip: &str) -> Values<'static> {
        Values {
            local_part: "strong-bad",
            sender_domain: "email.example.com",
            domain: "email.example.com",
            ip: ip.parse().unwrap(),
            helo: "mx.example.org",
            receiver: "mx.example.net",
            now_secs: 1_234_567,
            validated_name: "mx.example.org",
        }
    }

    /// RFC 7208 §7.4.
    #[test]
    fn the_examples_of_the_rfc() {
        for (text, expanded) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            (
                "%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}",
                "3.2.0.192.in-addr.strong.lp._spf.example.com",
            ),
            (
                "%{d2}.trusted-domains.example.net",
                "example.com.trusted-domains.example.net",
            ),
            ("%{S}", "strong-bad%40email.example.com"),
            ("%%-%_-%-", "%- -%20"),
            ("%{p}/%{h}", "mx.example.org/mx.example.org"),
            ("%{d999999999999999999999}", "email.example.com"),
        ] {
            let parsed = MacroString::parse(text).unwrap();
            assert_eq!(parsed.expand(&values("192.0.2.3")), expanded, "{text}");
        }
        let v6 = MacroString::parse("%{ir}.%{v}._spf.%{d2}").unwrap();
        assert_eq!(
            v6.expand(&values("2001:db8::cb01")).to_lowercase(),
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
        );
        let text = MacroString::parse_explanation("%{c} at %{r} and %{t}").unwrap();
        assert_eq!(
            text.expand(&values("2001:db8::cb01")),
            "2001:db8::cb01 at mx.example.net and 1234567"
        );
    }

    #[test]
    fn long_names_lose_labels_on_the_left() {
        let long = format!("{}%{{d}}", "abcdefgh.".repeat(40));
        let name = MacroString::parse_domain(&long)
            .unwrap()
            .expand_domain(&values("192.0.2.3"));
        assert!(name.len() <= 253 && name.len() > 240);
        assert!(name.starts_with("abcdefgh.") && name.ends_with(".email.example.com"));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in any::<String>(), spec in "[%{}a-zA-Z0-9.r_/-]{0,30}") {
            for t in [text, spec] {
                let _ = MacroString::parse(&t).map(|m| m.expand(&values("192.0.2.3")));
                let _ = MacroString::parse_domain(&t).map(|m| m.expand_domain(&values("::1")));
                let _ = MacroString::parse_explanation(&t);
            }
        }
    }
}
