//! The TXT record by which a domain asks for reports (RFC 8460 §3), read and written.

use mail::{Domain, EmailAddress};
use std::fmt;

/// Octets of a record at most; a longer one is none.
pub const RECORD_OCTETS_MAX: usize = 8 * 1024;
/// Places of a record at most that get the report; the others are passed over.
pub const PLACES_MAX: usize = 5;
/// Octets of an https URI at most; a longer one is passed over.
const URI_OCTETS_MAX: usize = 1_000;
/// The address of our own domains that reports are asked to: one that every domain has (RFC 5321 §4.5.1).
pub const RUA_LOCAL_PART: &str = "postmaster";
const VERSION: &str = "v=TLSRPTv1";

/// A place that reports go to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rua {
    /// By mail (`mailto:`, RFC 6068).
    Mail(EmailAddress),
    /// By POST to this URI.
    Https(String),
}

impl fmt::Display for Rua {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rua::Mail(address) => write!(f, "mailto:{}", encoded(&address.to_string())),
            Rua::Https(uri) => f.write_str(uri),
        }
    }
}

/// What a domain asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The places, in the record's order, at least one and [`PLACES_MAX`] at most.
    pub rua: Vec<Rua>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self.rua.iter().map(ToString::to_string).collect();
        write!(f, "{VERSION}; rua={}", places.join(","))
    }
}

/// Where the record of a domain stands: `_smtp._tls` below it. `None` when that is too long a name.
#[must_use]
pub fn name(domain: &Domain) -> Option<Domain> {
    domain.prefixed("_smtp._tls").ok()
}

impl Record {
    /// The record that a domain of ours is to publish.
    #[must_use]
    pub fn of_ours(domain: &Domain) -> Option<Self> {
        let address = EmailAddress::parse(&format!("{RUA_LOCAL_PART}@{domain}")).ok()?;
        Some(Self {
            rua: vec![Rua::Mail(address)],
        })
    }

    /// The record among the texts that the DNS gave. §3: when there is not exactly one that begins
    /// with the version, the domain asks for nothing.
    #[must_use]
    pub fn among(texts: &[Vec<u8>]) -> Option<Self> {
        let mut records = texts.iter().filter(|text| begins_with_version(text));
        match (records.next(), records.next()) {
            (Some(only), None) => Self::parse(only),
            _ => None,
        }
    }

    /// Reads one text. `None` when it is no record, or names no place that we can reach: fields
    /// that we don't know are passed over, and so are URIs of other schemes.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > RECORD_OCTETS_MAX || !begins_with_version(text) {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        let mut fields = text.split(';').map(|field| field.trim_matches([' ', '\t']));
        let uris = fields.find_map(|field| field.strip_prefix("rua="))?;
        let places = uris.split(',').map(|uri| uri.trim_matches([' ', '\t']));
        let rua: Vec<Rua> = places.filter_map(place).take(PLACES_MAX).collect();
        (!rua.is_empty()).then_some(Self { rua })
    }
}

fn begins_with_version(text: &[u8]) -> bool {
    let behind = text.strip_prefix(VERSION.as_bytes());
    behind.is_some_and(|rest| rest.trim_ascii_start().starts_with(b";"))
}

fn place(uri: &str) -> Option<Rua> {
    let (scheme, rest) = uri.split_once(':')?;
    if scheme.eq_ignore_ascii_case("mailto") {
        let address = rest.split('?').next().unwrap_or_default();
        let address = EmailAddress::parse(&decoded(address)?).ok()?;
        // An address literal could be anybody's.
        address.domain()?;
        return Some(Rua::Mail(address));
    }
    let is_printable = uri.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
    let has_host = rest.strip_prefix("//").is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty() && !host.contains('@')
    });
    let is_https = scheme.eq_ignore_ascii_case("https");
    (is_https && is_printable && has_host && uri.len() <= URI_OCTETS_MAX).then(|| Rua::Https(uri.to_owned()))
}

/// Percent-encoding undone (RFC 3986 §2.1).
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        if octet != b'%' {
            out.push(octet);
            continue;
        }
        let mut digit = || char::from(octets.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

/// An address as a URI and a TXT record can hold it: commas, exclamation marks and the like encoded.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' | b'+' => {
                out.push(char::from(octet));
            }
            _ => out.push_str(&format!("%{octet:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Vec<String> {
        let record = Record::parse(text.as_bytes());
        record.map_or_else(Vec::new, |r| r.rua.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn records() {
        for (text, wanted) in [
            (
                "v=TLSRPTv1;rua=mailto:reports@example.com",
                &["mailto:reports@example.com"][..],
            ),
            (
                "v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt",
                &["https://reporting.example.com/v1/tlsrpt"],
            ),
            (
                "v=TLSRPTv1 ;\trua=mailto:a@b.example , https://b.example/?x=1;",
                &["mailto:a@b.example", "https://b.example/?x=1"],
            ),
            (
                "v=TLSRPTv1; x=y; rua=MAILTO:a%2Bb%21@b.example?subject=Hi",
                &["mailto:a+b%21@b.example"],
            ),
            (
                "v=TLSRPTv1; rua=ftp://x.example/,mailto:a@b.example",
                &["mailto:a@b.example"],
            ),
            ("v=TLSRPTv1; rua=mailto:nobody", &[]),
            ("v=TLSRPTv1; rua=mailto:a@[192.0.2.1]", &[]),
            ("v=TLSRPTv1; rua=mailto:a%0D%0ABcc:%20x@b.example", &[]),
            ("v=TLSRPTv1; rua=http://b.example/", &[]),
            ("v=TLSRPTv1; rua=https://", &[]),
            ("v=TLSRPTv1; rua=https:///x", &[]),
            ("v=TLSRPTv1; rua=https://user@b.example/", &[]),
            ("v=TLSRPTv1; rua=https://b.example/a b", &[]),
            ("v=TLSRPTv1; rua=", &[]),
            ("v=TLSRPTv1;", &[]),
            ("v=TLSRPTv1", &[]),
            ("v=TLSRPTv2; rua=mailto:a@b.example", &[]),
            (" v=TLSRPTv1; rua=mailto:a@b.example", &[]),
            ("v=tlsrptv1; rua=mailto:a@b.example", &[]),
        ] {
            assert_eq!(parsed(text), wanted, "{text}");
        }
        let many = vec!["mailto:a@b.example"; 20].join(",");
        assert_eq!(parsed(&format!("v=TLSRPTv1; rua={many}")).len(), PLACES_MAX);
    }

    #[test]
    fn only_one_record_counts() {
        let text = |text: &str| text.as_bytes().to_vec();
        let ours = text("v=TLSRPTv1; rua=mailto:a@b.example");
        assert!(Record::among(&[text("v=spf1 -all"), ours.clone()]).is_some());
        assert!(Record::among(&[ours.clone(), ours]).is_none());
        assert!(Record::among(&[]).is_none());
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "v=TLSRPTv1; rua=mailto:a%2Cb@b.example,https://b.example/x";
        // A comma in a local part needs quotes, which the address has then.
        let quoted = EmailAddress::parse("\"a,b\"@b.example").unwrap();
        let record = Record {
            rua: vec![Rua::Mail(quoted), Rua::Https("https://b.example/x".into())],
        };
        assert_eq!(Record::parse(record.to_string().as_bytes()), Some(record));
        assert_eq!(parsed(text).len(), 1, "without quotes it is no address");
        let domain = Domain::parse("example.com").unwrap();
        let ours = Record::of_ours(&domain).unwrap().to_string();
        assert_eq!(ours, "v=TLSRPTv1; rua=mailto:postmaster@example.com");
        assert_eq!(name(&domain).unwrap().as_str(), "_smtp._tls.example.com");
    }

    proptest! {
        #[test]
        fn any_octets_are_answered(any in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut text = b"v=TLSRPTv1; rua=".to_vec();
            text.extend(&any);
            for text in [&any, &text] {
                if let Some(record) = Record::parse(text) {
                    prop_assert_eq!(Record::parse(record.to_string().as_bytes()), Some(record));
                }
            }
        }
    }
}
