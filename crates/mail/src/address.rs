//! Addresses: local part, host, reverse-path and recipient, kept as their owner wrote them.
//!
//! Quoting is normalised to the shortest form that means the same (RFC 5321 §4.1.2), so two
//! spellings of one mailbox compare equal and a relayed address leaves in valid form.

use crate::domain::{Domain, DomainError};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of a local part at most (RFC 5321 §4.5.3.1.1).
pub const LOCAL_PART_OCTETS_MAX: usize = 64;
/// Octets of a path at most, brackets included (RFC 5321 §4.5.3.1.3).
pub const PATH_OCTETS_MAX: usize = 256;

/// The part before the `@`, without quoting.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(String);

/// What stands after the `@`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A domain name.
    Domain(Domain),
    /// An address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
    Literal(IpAddr),
}

/// A mailbox address: local part and host.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EmailAddress {
    local: LocalPart,
    host: Host,
}

/// The reverse-path of an envelope: an address, or the null path of bounces (RFC 5321 §4.5.5).
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub enum ReversePath {
    /// `<>`
    Null,
    /// An address to which failures are reported.
    Address(EmailAddress),
}

/// A forward-path of an envelope. `<Postmaster>` without a domain is allowed (RFC 5321 §4.5.1).
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub enum Recipient {
    /// `<Postmaster>`: the postmaster of the server that is spoken to.
    Postmaster,
    /// Any other recipient.
    Address(EmailAddress),
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing, or nothing before the `@`.
    #[error("the local part (before the @) is missing")]
    NoLocalPart,
    /// No `@host`.
    #[error("the domain (after the @) is missing")]
    NoDomain,
    /// Local part longer than 64 octets or the whole longer than 254.
    #[error("the address is too long (64 octets before the @, 254 in all)")]
    TooLong,
    /// A character that must not stand there, or unbalanced quoting.
    #[error("the address holds a character that is not allowed there")]
    Syntax,
    /// An address literal that is none.
    #[error("the address literal in brackets is not an IP address")]
    Literal,
    /// The domain is not one.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
}

fn is_dot_string(s: &str) -> bool {
    !s.is_empty()
        && s.split('.')
            .all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

impl LocalPart {
    /// Reads a dot-string or quoted-string (RFC 5321 §4.1.2, RFC 6531 §3.3).
    ///
    /// # Errors
    /// When it is neither, or longer than 64 octets. Control characters are refused even in quotes.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let value = match text.strip_prefix('"') {
            Some(rest) => unquote(rest.strip_suffix('"').ok_or(AddressError::Syntax)?)?,
            None if text.is_empty() => return Err(AddressError::NoLocalPart),
            None if is_dot_string(text) => text.to_owned(),
            None => return Err(AddressError::Syntax),
        };
        if value.chars().any(char::is_control) {
            return Err(AddressError::Syntax);
        }
        if value.len() > LOCAL_PART_OCTETS_MAX {
            return Err(AddressError::TooLong);
        }
        Ok(Self(value))
    }

    /// The local part without quoting.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it holds anything beyond ASCII, so that SMTPUTF8 is needed to carry it.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }
}

fn unquote(inner: &str) -> Result<String, AddressError> {
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().ok_or(AddressError::Syntax)?),
            '"' => return Err(AddressError::Syntax),
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.0) {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

impl fmt::Debug for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Host {
    /// Reads a domain name or an address literal in brackets.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::NoDomain);
        }
        match text.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or(AddressError::Literal)?;
                let ip = match inner.get(..5) {
                    Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => {
                        inner[5..].parse::<Ipv6Addr>().map(IpAddr::V6).ok()
                    }
                    _ => inner.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
                };
                ip.map(Host::Literal).ok_or(AddressError::Literal)
            }
            None => Ok(Host::Domain(Domain::parse(text)?)),
        }
    }

    /// The domain, unless the host is an address literal.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Host::Domain(d) => Some(d),
            Host::Literal(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Domain(d) => d.fmt(f),
            Host::Literal(IpAddr::V4(ip)) => write!(f, "[{ip}]"),
            Host::Literal(IpAddr::V6(ip)) => write!(f, "[IPv6:{ip}]"),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl EmailAddress {
    /// Reads `local@host` without angle brackets (RFC 5321 §4.1.2 `Mailbox`).
    ///
    /// # Errors
    /// When the text is not exactly one address; see [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        // The @ that divides is the last one outside the quotes; a host never holds one.
        let at = text.rfind('@').ok_or(AddressError::NoDomain)?;
        let local = LocalPart::parse(&text[..at])?;
        let host = Host::parse(&text[at + 1..])?;
        let address = Self { local, host };
        // RFC 5321 §4.5.3.1.3: a path is at most 256 octets with its brackets.
        if address.to_string().len() > PATH_OCTETS_MAX - 2 {
            return Err(AddressError::TooLong);
        }
        Ok(address)
    }

    /// From parts that are valid already.
    #[must_use]
    pub fn new(local: LocalPart, host: Host) -> Self {
        Self { local, host }
    }

    /// The part before the `@`.
    #[must_use]
    pub fn local(&self) -> &LocalPart {
        &self.local
    }

    /// What stands after the `@`.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The domain, unless the host is an address literal.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        self.host.domain()
    }

    /// The form under which our directory looks an address up: local part in lower case.
    ///
    /// Only the server that owns the domain may fold the case (RFC 5321 §2.4); that is us.
    #[must_use]
    pub fn folded(&self) -> String {
        format!("{}@{}", LocalPart(self.local.0.to_lowercase()), self.host)
    }

    /// Whether carrying this address needs SMTPUTF8 (RFC 6531).
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.host)
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

impl std::str::FromStr for EmailAddress {
    type Err = AddressError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::parse(s)
    }
}

impl TryFrom<String> for EmailAddress {
    type Error = AddressError;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        Self::parse(&s)
    }
}

impl From<EmailAddress> for String {
    fn from(a: EmailAddress) -> String {
        a.to_string()
    }
}

impl ReversePath {
    /// The address, unless this is the null path.
    #[must_use]
    pub fn address(&self) -> Option<&EmailAddress> {
        match self {
            ReversePath::Null => None,
            ReversePath::Address(a) => Some(a),
        }
    }

    /// Whether this is `<>`: such a message must never cause a report (RFC 5321 §6.1).
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, ReversePath::Null)
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReversePath::Null => f.write_str("<>"),
            ReversePath::Address(a) => write!(f, "<{a}>"),
        }
    }
}

impl Recipient {
    /// The full address; the bare postmaster is taken to be the one of `local_domain`.
    #[must_use]
    pub fn address_at(&self, local_domain: &Domain) -> EmailAddress {
        match self {
            Recipient::Postmaster => EmailAddress::new(
                LocalPart("postmaster".to_owned()),
                Host::Domain(local_domain.clone()),
            ),
            Recipient::Address(a) => a.clone(),
        }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recipient::Postmaster => f.write_str("<Postmaster>"),
            Recipient::Address(a) => write!(f, "<{a}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_and_bad() {
        for (text, shown) in [
            ("bob@example.com", "bob@example.com"),
            ("Bob@EXAMPLE.com", "Bob@example.com"),
            ("\"a b\"@example.com", "\"a b\"@example.com"),
            ("\"plain\"@example.com", "plain@example.com"),
            ("\"a@b\"@example.com", "\"a@b\"@example.com"),
            ("x@[192.0.2.1]", "x@[192.0.2.1]"),
            ("x@[IPv6:2001:db8::1]", "x@[IPv6:2001:db8::1]"),
            ("用户@例え.jp", "用户@xn--r8jz45g.jp"),
        ] {
            assert_eq!(EmailAddress::parse(text).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "bob",
            "@example.com",
            "a@",
            "a..b@c.d",
            ".a@b.c",
            "a b@c.d",
            "a\r\n@b.c",
            "a@b\rc",
            "\"a@b.c",
            "a@[1.2.3]",
            "a@[::1]",
            "<a@b.c>",
            "\"a\nb\"@c.d",
        ] {
            assert!(EmailAddress::parse(bad).is_err(), "{bad:?}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        assert_eq!(EmailAddress::parse(&long), Err(AddressError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(text in "\\PC{0,40}@[a-z]{1,8}\\.[a-z]{2,4}") {
            if let Ok(a) = EmailAddress::parse(&text) {
                prop_assert_eq!(EmailAddress::parse(&a.to_string()).unwrap(), a);
            }
        }

        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = EmailAddress::parse(&text);
        }
    }
}
