//! SPF records, read (RFC 7208 §4.5, §4.6.1, §12): the whole record is checked before any of it is
//! evaluated.

use super::macros::MacroString;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A record: its mechanisms in order, and its modifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) directives: Vec<Directive>,
    pub(super) redirect: Option<Modifier>,
    pub(super) exp: Option<Modifier>,
}

/// A modifier that names a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Modifier {
    pub(super) text: String,
    pub(super) domain: MacroString,
}

/// A mechanism with its qualifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) text: String,
    pub(super) qualifier: Qualifier,
    pub(super) mechanism: Mechanism,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

/// Lengths of the prefixes that have to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(MacroString),
    A(Option<MacroString>, Cidr),
    Mx(Option<MacroString>, Cidr),
    Ptr(Option<MacroString>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(MacroString),
}

/// Whether a text is an SPF record: the version, then a space or the end (RFC 7208 §4.5).
pub(super) fn is_record(text: &[u8]) -> bool {
    const VERSION: &[u8] = b"v=spf1";
    text.len() >= VERSION.len()
        && text[..VERSION.len()].eq_ignore_ascii_case(VERSION)
        && matches!(text.get(VERSION.len()), None | Some(b' '))
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// In words: which term breaks the grammar, and how.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).ok().filter(|t| t.is_ascii());
        let text = text.ok_or("the record holds characters beyond ASCII")?;
        let mut record = Record {
            directives: Vec::new(),
            redirect: None,
            exp: None,
        };
        for term in text.split(' ').skip(1).filter(|t| !t.is_empty()) {
            record.add(term).map_err(|why| format!("the term {term} {why}"))?;
        }
        Ok(record)
    }

    fn add(&mut self, term: &str) -> Result<(), String> {
        let name_end = term
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
            .unwrap_or(term.len());
        let is_modifier =
            term[name_end..].starts_with('=') && term.starts_with(|c: char| c.is_ascii_alphabetic());
        if !is_modifier {
            self.directives.push(directive(term)?);
            return Ok(());
        }
        let (name, value) = (&term[..name_end], &term[name_end + 1..]);
        let slot = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.exp,
            // RFC 7208 §6: unknown modifiers are ignored, but they have to keep the grammar.
            _ => return MacroString::parse(value).map(|_| ()),
        };
        if slot.is_some() {
            return Err("stands twice".to_owned());
        }
        *slot = Some(Modifier {
            text: term.to_owned(),
            domain: MacroString::parse_domain(value)?,
        });
        Ok(())
    }
}

fn directive(term: &str) -> Result<Directive, String> {
    let (qualifier, rest) = match term.as_bytes().first() {
        Some(b'+') => (Qualifier::Pass, &term[1..]),
        Some(b'-') => (Qualifier::Fail, &term[1..]),
        Some(b'~') => (Qualifier::SoftFail, &term[1..]),
        Some(b'?') => (Qualifier::Neutral, &term[1..]),
        _ => (Qualifier::Pass, term),
    };
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, argument) = rest.split_at(end);
    Ok(Directive {
        text: term.to_owned(),
        qualifier,
        mechanism: mechanism(&name.to_ascii_lowercase(), argument)?,
    })
}

/// `argument` begins with its `:` or `/`, or is empty.
fn mechanism(name: &str, argument: &str) -> Result<Mechanism, String> {
    let domain = || {
        let text = argument.strip_prefix(':').ok_or("needs a domain")?;
        MacroString::parse_domain(text)
    };
    let domain_and_cidr = || {
        let (front, cidr) = dual_cidr(argument);
        match front.strip_prefix(':') {
            Some(text) => Ok((Some(MacroString::parse_domain(text)?), cidr)),
            None if front.is_empty() => Ok((None, cidr)),
            None => Err("has a prefix length that is none".to_owned()),
        }
    };
    match name {
        "all" if argument.is_empty() => Ok(Mechanism::All),
        "all" => Err("must stand alone".to_owned()),
        "include" => Ok(Mechanism::Include(domain()?)),
        "exists" => Ok(Mechanism::Exists(domain()?)),
        "a" => domain_and_cidr().map(|(d, c)| Mechanism::A(d, c)),
        "mx" => domain_and_cidr().map(|(d, c)| Mechanism::Mx(d, c)),
        "ptr" if argument.is_empty() => Ok(Mechanism::Ptr(None)),
        "ptr" => Ok(Mechanism::Ptr(Some(domain()?))),
        "ip4" => ip4(argument),
        "ip6" => ip6(argument),
        _ => Err("is no mechanism".to_owned()),
    }
}

fn ip4(argument: &str) -> Result<Mechanism, String> {
    let (front, length) = cidr_suffix(argument, "/", 32);
    let ip = front.strip_prefix(':').and_then(|t| t.parse().ok());
    let ip = ip.ok_or("needs an IPv4 address")?;
    Ok(Mechanism::Ip4(ip, length.unwrap_or(32)))
}

fn ip6(argument: &str) -> Result<Mechanism, String> {
    let (front, length) = cidr_suffix(argument, "/", 128);
    let ip = front.strip_prefix(':').and_then(|t| t.parse().ok());
    let ip = ip.ok_or("needs an IPv6 address")?;
    Ok(Mechanism::Ip6(ip, length.unwrap_or(128)))
}

/// Takes `/24`, `//64` or `/24//64` off the end.
fn dual_cidr(argument: &str) -> (&str, Cidr) {
    let (rest, v6) = cidr_suffix(argument, "//", 128);
    let (rest, v4) = cidr_suffix(rest, "/", 32);
    let cidr = Cidr {
        v4: v4.unwrap_or(32),
        v6: v6.unwrap_or(128),
    };
    (rest, cidr)
}

/// Takes a slash and a length off the end. What is no length stays: a domain may hold slashes, and
/// its own grammar says whether these are allowed.
fn cidr_suffix<'a>(text: &'a str, slash: &str, max: u8) -> (&'a str, Option<u8>) {
    let Some((front, digits)) = text.rsplit_once(slash) else {
        return (text, None);
    };
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    match digits.parse::<u8>() {
        Ok(length) if canonical && length <= max => (front, Some(length)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions() {
        for (text, yes) in [
            ("v=spf1", true),
            ("V=SPF1 -all", true),
            ("v=spf10 -all", false),
            ("v=spf1\t-all", false),
            (" v=spf1 -all", false),
            ("v=spf", false),
        ] {
            assert_eq!(is_record(text.as_bytes()), yes, "{text}");
        }
    }

    #[test]
    fn grammar() {
        for good in [
            "v=spf1",
            "v=spf1    -all  ",
            "v=spf1 +a -mx ~ptr ?all",
            "v=spf1 A:Example.COM/24//64 MX/0 mx//0 a/32//128",
            "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ip6:::1 ip6:::ffff:1.2.3.4/96",
            "v=spf1 exists:%{ir}.%{v}._spf.%{d2} include:_spf.%{o} redirect=%{d}",
            "v=spf1 a:%{l1r/}/24 exists:%{l/}",
            "v=spf1 moo.cow-far_out=man:dog/cat exp=e.%{d} x=",
            "v=spf1 a:1.a-b.c-d a:x/y.com",
            "v=spf1 -exists:%%.%_%-",
        ] {
            assert!(
                Record::parse(good.as_bytes()).is_ok(),
                "{good}: {:?}",
                Record::parse(good.as_bytes())
            );
        }
        for bad in [
            "v=spf1 all:x",
            "v=spf1 all/8",
            "v=spf1 -all.",
            "v=spf1 a:",
            "v=spf1 a:foo",
            "v=spf1 a:1.2.3.4",
            "v=spf1 a:example.com/",
            "v=spf1 a/33",
            "v=spf1 a/024",
            "v=spf1 a//129",
            "v=spf1 a:foo.com//33/33",
            "v=spf1 a:abc.-",
            "v=spf1 ip4:1.2.3",
            "v=spf1 ip4:1.2.3.4//32",
            "v=spf1 ip4:1.2.3.4/33",
            "v=spf1 ip4:01.2.3.4",
            "v=spf1 ip4",
            "v=spf1 ip6:1.2.3.4",
            "v=spf1 ip6:::1//33",
            "v=spf1 include",
            "v=spf1 include:x.com/24",
            "v=spf1 exists:",
            "v=spf1 exists:a.%{o}.",
            "v=spf1 ptr:",
            "v=spf1 ptr/0",
            "v=spf1 redirect=",
            "v=spf1 exp=",
            "v=spf1 redirect=a.b redirect=a.b",
            "v=spf1 exp=a.b exp=c.d",
            "v=spf1 moo.cow/far_out=x",
            "v=spf1 o k=a",
            "v=spf1 x=%",
            "v=spf1 x=%{q}",
            "v=spf1 exists:%{d0}.a.b",
            "v=spf1 exists:%{c}.a.b",
            "v=spf1 exists:%(d).a.b",
            "v=spf1 -=x",
            "v=spf1 a:foo.com\t-all",
            "v=spf1 ip4:1.2.3.4 \u{e9}",
            "v=spf1 version=1 -",
        ] {
            assert!(Record::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_record_is_answered(text in "v=spf1 [ -~]{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Record::parse(text.as_bytes());
            let _ = Record::parse(&bytes);
        }
    }
}
