//! The policy (RFC 8461 §3.2): which hosts take a domain's mail, whether TLS with a certificate that
//! verifies is a must, and for how long that holds.
//!
//! Read from the body that the domain's policy host serves, and written for our own domains. Every
//! input is answered; time and memory are linear in its length, which is bounded.

use crate::record::trim;
use mail::Domain;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Octets of a policy's body at most (RFC 8461 §3.3 suggests it).
pub const BODY_OCTETS_MAX: usize = 64 * 1024;
/// Patterns of a policy at most. The largest known has some dozens.
pub const PATTERNS_MAX: usize = 500;
/// `max_age` at most, in seconds: about a year (RFC 8461 §3.2). A larger one counts as this.
pub const MAX_AGE_SECS_MAX: u64 = 31_557_600;
/// Digits of `max_age` at most (RFC 8461 §3.2).
const MAX_AGE_DIGITS_MAX: usize = 10;

/// What a policy asks of those who send.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Mail goes only to hosts that match, over TLS with a certificate that verifies for the host.
    Enforce,
    /// Mail goes as without a policy; what would have failed is reported (RFC 8460).
    Testing,
    /// There is no policy any more (RFC 8461 §8.3).
    None,
}

impl Mode {
    /// The word in a policy.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Mode::Enforce, Mode::Testing, Mode::None]
            .into_iter()
            .find(|mode| mode.as_str() == text)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A host name, or `*.` and what stands behind the host's first label.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    is_wildcard: bool,
    domain: Domain,
}

impl Pattern {
    /// Exactly this host.
    #[must_use]
    pub fn host(domain: Domain) -> Self {
        Self {
            is_wildcard: false,
            domain,
        }
    }

    /// Reads `mail.example.com` or `*.example.com`.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, mail::DomainError> {
        let (is_wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        Ok(Self {
            is_wildcard,
            domain: Domain::parse(name)?,
        })
    }

    /// Whether a host is meant. `*.` stands for exactly one label (RFC 8461 §4.1).
    #[must_use]
    pub fn matches(&self, host: &Domain) -> bool {
        match self.is_wildcard {
            false => *host == self.domain,
            true => host.parent().as_ref() == Some(&self.domain),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.is_wildcard { "*." } else { "" };
        write!(f, "{star}{}", self.domain)
    }
}

impl TryFrom<String> for Pattern {
    type Error = mail::DomainError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.to_string()
    }
}

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// What it asks.
    pub mode: Mode,
    /// The hosts that may take the domain's mail; at least one unless the mode is `none`.
    pub mx: Vec<Pattern>,
    /// For how many seconds after it was fetched it holds; [`MAX_AGE_SECS_MAX`] at most.
    pub max_age_secs: u64,
}

/// Why a body is no policy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyFault {
    /// Longer than [`BODY_OCTETS_MAX`].
    #[error("it is longer than {BODY_OCTETS_MAX} octets")]
    TooLong,
    /// A line has no colon.
    #[error("line {0} is not of the form \"key: value\"")]
    Line(usize),
    /// Not the version that we know.
    #[error("it has no line \"version: STSv1\"")]
    Version,
    /// No mode, or one that nobody knows.
    #[error("it has no line \"mode:\" with enforce, testing or none")]
    Mode,
    /// No age, or no number of seconds.
    #[error("it has no line \"max_age:\" with a number of seconds")]
    MaxAge,
    /// A pattern is no host name.
    #[error("in line {0} stands no host name behind \"mx:\"")]
    Mx(usize),
    /// No host is named.
    #[error("it has no line \"mx:\"")]
    NoMx,
    /// More than [`PATTERNS_MAX`].
    #[error("it has more than {PATTERNS_MAX} lines \"mx:\"")]
    TooManyMx,
}

impl Policy {
    /// Reads the body of a policy. Lines end with LF or CRLF; fields that nobody knows are left out;
    /// of a field that stands twice, but for `mx`, the first counts (RFC 8461 §3.2).
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(body: &[u8]) -> Result<Self, PolicyFault> {
        if body.len() > BODY_OCTETS_MAX {
            return Err(PolicyFault::TooLong);
        }
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let mut mx = Vec::new();
        for (i, line) in body.split(|b| *b == b'\n').enumerate() {
            let line = trim(line.strip_suffix(b"\r").unwrap_or(line));
            // The grammar knows no empty lines; many policies end with one.
            if line.is_empty() {
                continue;
            }
            let at = line.iter().position(|b| *b == b':');
            let at = at.ok_or(PolicyFault::Line(i + 1))?;
            let value = trim(&line[at + 1..]);
            match trim(&line[..at]) {
                b"version" => {
                    version.get_or_insert(value);
                }
                b"mode" => {
                    mode.get_or_insert(value);
                }
                b"max_age" => {
                    max_age.get_or_insert(value);
                }
                b"mx" => {
                    if mx.len() == PATTERNS_MAX {
                        return Err(PolicyFault::TooManyMx);
                    }
                    let text = std::str::from_utf8(value).map_err(|_| PolicyFault::Mx(i + 1))?;
                    mx.push(Pattern::parse(text).map_err(|_| PolicyFault::Mx(i + 1))?);
                }
                _ => {}
            }
        }
        if version != Some(&b"STSv1"[..]) {
            return Err(PolicyFault::Version);
        }
        let mode = mode.and_then(|text| Mode::parse(std::str::from_utf8(text).ok()?));
        let mode = mode.ok_or(PolicyFault::Mode)?;
        let max_age_secs = max_age.and_then(seconds).ok_or(PolicyFault::MaxAge)?;
        if mx.is_empty() && mode != Mode::None {
            return Err(PolicyFault::NoMx);
        }
        Ok(Self {
            mode,
            mx,
            max_age_secs,
        })
    }

    /// Whether a host may take the domain's mail.
    #[must_use]
    pub fn matches(&self, host: &Domain) -> bool {
        self.mx.iter().any(|pattern| pattern.matches(host))
    }

    /// For how long it holds after it was fetched.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(self.max_age_secs)
    }

    /// The body, as a policy host serves it: lines end with CRLF.
    #[must_use]
    pub fn to_body(&self) -> String {
        let mut text = String::new();
        for line in self.lines() {
            let _ = write!(text, "{line}\r\n");
        }
        text
    }

    /// The lines of the body without their ends; what RFC 8460 §4.4 calls `policy-string`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {}", self.mode)];
        lines.extend(self.mx.iter().map(|pattern| format!("mx: {pattern}")));
        lines.push(format!("max_age: {}", self.max_age_secs));
        lines
    }
}

fn seconds(text: &[u8]) -> Option<u64> {
    let fits = (1..=MAX_AGE_DIGITS_MAX).contains(&text.len());
    if !fits || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let secs: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(secs.min(MAX_AGE_SECS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    #[test]
    fn the_policy_of_the_rfc() {
        let body = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\n\
                    mx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n";
        let policy = Policy::parse(body.as_bytes()).unwrap();
        assert_eq!(policy.mode, Mode::Enforce);
        assert_eq!(policy.max_age_secs, 604_800);
        assert_eq!(policy.to_body(), body);
        for (host, matches) in [
            ("mail.example.com", true),
            ("MAIL.example.com.", true),
            ("a.example.net", true),
            ("example.net", false),
            ("a.b.example.net", false),
            ("a.mail.example.com", false),
            ("mail.example.com.evil.example", false),
        ] {
            assert_eq!(policy.matches(&domain(host)), matches, "{host}");
        }
    }

    #[test]
    fn bodies_good_and_bad() {
        let good = "version: STSv1\nmode: testing\nmx: a.example\nmax_age: 1";
        let with = |more: &str| format!("{good}\n{more}");
        for (body, fault) in [
            (good.to_owned(), None),
            (with("\r\n\n"), None),
            (with("future: \u{fc}ber:all"), None),
            (with("mode: enforce"), None),
            (with("version: STSv2"), None),
            ("version:STSv1\nmode:none\nmax_age:0".to_owned(), None),
            (with("nonsense"), Some(PolicyFault::Line(5))),
            (with("mx: a b"), Some(PolicyFault::Mx(5))),
            (with("mx: *.*.example"), Some(PolicyFault::Mx(5))),
            (with("mx: *"), Some(PolicyFault::Mx(5))),
            (with("mx:"), Some(PolicyFault::Mx(5))),
            (good.replace("STSv1", "STSv2"), Some(PolicyFault::Version)),
            (good.replace("version", "Version"), Some(PolicyFault::Version)),
            (good.replace("testing", "Testing"), Some(PolicyFault::Mode)),
            (
                good.replace("max_age: 1", "max_age: -1"),
                Some(PolicyFault::MaxAge),
            ),
            (
                good.replace("max_age: 1", "max_age: 12345678901"),
                Some(PolicyFault::MaxAge),
            ),
            (good.replace("max_age: 1", ""), Some(PolicyFault::MaxAge)),
            (good.replace("mx: a.example\n", ""), Some(PolicyFault::NoMx)),
            ("<html>404".to_owned(), Some(PolicyFault::Line(1))),
            (String::new(), Some(PolicyFault::Version)),
            (
                with(&"mx: a.example\n".repeat(PATTERNS_MAX)),
                Some(PolicyFault::TooManyMx),
            ),
            (with(&"x".repeat(BODY_OCTETS_MAX)), Some(PolicyFault::TooLong)),
        ] {
            assert_eq!(Policy::parse(body.as_bytes()).err(), fault, "{:.80}", body);
        }
    }

    #[test]
    fn an_age_is_bounded() {
        let body = b"version: STSv1\nmode: none\nmax_age: 9999999999";
        assert_eq!(Policy::parse(body).unwrap().max_age_secs, MAX_AGE_SECS_MAX);
    }
}
