//! Domain names as mail uses them: ASCII (A-label) form, lower case, compared byte for byte.

use std::fmt;

/// Octets of a domain name at most (RFC 1035 §2.3.4, without the root's dot).
pub const DOMAIN_OCTETS_MAX: usize = 253;
/// Octets of one label at most (RFC 1035 §2.3.4).
pub const LABEL_OCTETS_MAX: usize = 63;

/// A domain name in ASCII form: lower case, A-labels (RFC 5890), no trailing dot.
///
/// Underscores are allowed, because `_dmarc.example.com` is asked of the same DNS.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

/// Why a text is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing stands where the name should be.
    #[error("the domain name is empty")]
    Empty,
    /// Longer than 253 octets, or a label longer than 63.
    #[error("the domain name or one of its labels is too long (253 and 63 octets at most)")]
    TooLong,
    /// A label is empty, starts or ends with a hyphen, or holds a character that no name may hold.
    #[error("the domain name holds an empty label or a character that is not allowed")]
    Syntax,
}

impl Domain {
    /// Reads a name in ASCII or Unicode form; one trailing dot is dropped.
    ///
    /// # Errors
    /// When the text is no domain name (RFC 5321 §4.1.2, RFC 5891).
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            // RFC 6531 §3.2: a U-label is looked up by its A-label.
            idna::domain_to_ascii(text).map_err(|_| DomainError::Syntax)?
        };
        if ascii.is_empty() {
            return Err(DomainError::Empty);
        }
        if ascii.len() > DOMAIN_OCTETS_MAX {
            return Err(DomainError::TooLong);
        }
        for label in ascii.split('.') {
            check_label(label)?;
        }
        Ok(Self(ascii))
    }

    /// The name in ASCII form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in the form that people read: A-labels decoded where that is possible.
    #[must_use]
    pub fn to_unicode(&self) -> String {
        let (text, result) = idna::domain_to_unicode(&self.0);
        if result.is_ok() { text } else { self.0.clone() }
    }

    /// The name one label up, if there is one: `example.com` of `mail.example.com`.
    #[must_use]
    pub fn parent(&self) -> Option<Domain> {
        self.0.split_once('.').map(|(_, rest)| Domain(rest.to_owned()))
    }

    /// Whether this name is `ancestor` or stands below it.
    #[must_use]
    pub fn is_at_or_below(&self, ancestor: &Domain) -> bool {
        match self.0.strip_suffix(&ancestor.0) {
            Some(front) => front.is_empty() || front.ends_with('.'),
            None => false,
        }
    }

    /// `label.self`, for names such as `_dmarc.example.com`.
    ///
    /// # Errors
    /// When the label is not one or the whole grows too long.
    pub fn prefixed(&self, labels: &str) -> Result<Domain, DomainError> {
        Domain::parse(&format!("{labels}.{}", self.0))
    }
}

fn check_label(label: &str) -> Result<(), DomainError> {
    if label.len() > LABEL_OCTETS_MAX {
        return Err(DomainError::TooLong);
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if label.is_empty() || label.starts_with('-') || label.ends_with('-') || !label.bytes().all(allowed) {
        return Err(DomainError::Syntax);
    }
    Ok(())
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.0)
    }
}

impl std::str::FromStr for Domain {
    type Err = DomainError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::parse(s)
    }
}

impl TryFrom<String> for Domain {
    type Error = DomainError;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        Self::parse(&s)
    }
}

impl From<Domain> for String {
    fn from(d: Domain) -> String {
        d.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(Domain::parse("Example.COM.").unwrap().as_str(), "example.com");
        assert_eq!(
            Domain::parse("bücher.example").unwrap().as_str(),
            "xn--bcher-kva.example"
        );
        assert_eq!(
            Domain::parse("xn--bcher-kva.example").unwrap().to_unicode(),
            "bücher.example"
        );
        for bad in ["", ".", "a..b", "-a.b", "a-.b", "a b", "a\r\n.b", "a\0b"] {
            assert!(Domain::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Domain::parse(&"a.".repeat(130)), Err(DomainError::TooLong));
    }

    #[test]
    fn ancestry() {
        let d = Domain::parse("mail.example.com").unwrap();
        assert!(d.is_at_or_below(&Domain::parse("example.com").unwrap()));
        assert!(d.is_at_or_below(&d));
        assert!(
            !Domain::parse("badexample.com")
                .unwrap()
                .is_at_or_below(&Domain::parse("example.com").unwrap())
        );
        assert_eq!(d.parent().unwrap().as_str(), "example.com");
    }
}
