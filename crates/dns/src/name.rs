//! A name as the DNS itself sees it: labels of any octets, compared without case.
//!
//! Promises: within the lengths of RFC 1035 §2.3.4, lower case, at least one label, no trailing
//! dot. Never: a promise that it is a host name; that is [`mail::Domain`]. Sender Policy Framework
//! macros can put anything into a label (RFC 7208 §7), and it must be asked as it stands.

use mail::Domain;
use std::fmt;

/// Octets of a name at most in its dotted form (RFC 1035 §2.3.4, without the root's dot).
pub const NAME_OCTETS_MAX: usize = 253;
/// Octets of one label at most (RFC 1035 §2.3.4).
pub const LABEL_OCTETS_MAX: usize = 63;

/// A name that can be asked of the DNS, in lower case. Labels hold any characters but dots.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Name(String);

/// The text cannot be a name: it is empty or too long, or one of its labels is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a DNS name: empty, over 253 octets, or with a label that is empty or over 63 octets")]
pub struct NotAName;

impl Name {
    /// Reads a dotted name; one trailing dot is dropped, ASCII letters become lower case.
    ///
    /// # Errors
    /// When the name or one of its labels is empty or too long.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > NAME_OCTETS_MAX {
            return Err(NotAName);
        }
        let fits = |label: &str| (1..=LABEL_OCTETS_MAX).contains(&label.len());
        if !text.split('.').all(fits) {
            return Err(NotAName);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The dotted form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many labels it has.
    #[must_use]
    pub fn label_count(&self) -> usize {
        self.0.split('.').count()
    }

    /// The same name as a domain name, when it can be one.
    #[must_use]
    pub fn to_domain(&self) -> Option<Domain> {
        Domain::parse(&self.0).ok().filter(|d| d.as_str() == self.0)
    }
}

impl From<&Domain> for Name {
    fn from(domain: &Domain) -> Self {
        Self(domain.as_str().to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_labels() {
        assert_eq!(Name::parse("A.b.").unwrap().as_str(), "a.b");
        assert_eq!(Name::parse("a b%.c").unwrap().label_count(), 2);
        assert!(Name::parse("a b.c").unwrap().to_domain().is_none());
        assert!(Name::parse("_x.c").unwrap().to_domain().is_some());
        for bad in ["", ".", "a..b", ".a"] {
            assert_eq!(Name::parse(bad), Err(NotAName), "{bad:?}");
        }
        assert!(Name::parse(&"a".repeat(63)).is_ok());
        assert!(Name::parse(&"a".repeat(64)).is_err());
        assert!(Name::parse(&format!("{}aa", "a.".repeat(126))).is_err());
    }
}
