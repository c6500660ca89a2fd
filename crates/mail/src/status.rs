//! Enhanced status codes (RFC 3463) and the names of the ones we use.

use std::fmt;

/// An enhanced mail system status code: class.subject.detail (RFC 3463 §2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnhancedStatus {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// What the status is about: address, mailbox, system, network, protocol, content, security.
    pub subject: u16,
    /// The detail within the subject.
    pub detail: u16,
}

impl EnhancedStatus {
    /// A code from its three numbers.
    #[must_use]
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self {
            class,
            subject,
            detail,
        }
    }

    /// Reads `5.1.1` at the start of `text`; gives the code and what follows it.
    #[must_use]
    pub fn parse_prefix(text: &str) -> Option<(Self, &str)> {
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let mut parts = text[..end].split('.');
        let class: u8 = parts.next()?.parse().ok()?;
        let number = |p: &str| if p.len() <= 3 { p.parse::<u16>().ok() } else { None };
        let subject = number(parts.next()?)?;
        let detail = number(parts.next()?)?;
        if parts.next().is_some() || !matches!(class, 2 | 4 | 5) {
            return None;
        }
        Some((
            Self {
                class,
                subject,
                detail,
            },
            text[end..].trim_start(),
        ))
    }

    /// Whether this tells of success.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.class == 2
    }

    /// Whether trying again later can help.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        self.class == 4
    }

    /// Whether trying again cannot help.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        self.class == 5
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl fmt::Debug for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for EnhancedStatus {
    type Error = &'static str;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        match Self::parse_prefix(&s) {
            Some((status, "")) => Ok(status),
            _ => Err("not an enhanced status code such as 5.1.1"),
        }
    }
}

impl From<EnhancedStatus> for String {
    fn from(s: EnhancedStatus) -> String {
        s.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix() {
        let (s, rest) = EnhancedStatus::parse_prefix("5.7.26 SPF failed").unwrap();
        assert_eq!((s, rest), (EnhancedStatus::new(5, 7, 26), "SPF failed"));
        for bad in ["", "5", "5.1", "3.1.1 x", "5.1.1.1", "5..1", "5.1.1000"] {
            assert!(EnhancedStatus::parse_prefix(bad).is_none(), "{bad}");
        }
    }
}
