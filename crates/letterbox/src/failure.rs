//! A failure of one recipient's delivery, as a value: who said so, what, and whether time can help.

use mail::EnhancedStatus;
use std::fmt;

/// Who came to the decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// We did: the DNS, the connection, or a policy of ours.
    Us,
    /// The server of that name did, in its reply.
    Peer(String),
}

/// Why a message was not taken for one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Who says so.
    pub source: Source,
    /// The reply code: the peer's, or the one that we would have given.
    pub code: u16,
    /// The enhanced status: the peer's when it gave one, else what the code stands for.
    pub status: EnhancedStatus,
    /// The words: the peer's exactly, or ours.
    pub words: String,
}

impl Failure {
    /// A failure that we found ourselves.
    #[must_use]
    pub fn ours(code: u16, status: EnhancedStatus, words: impl Into<String>) -> Self {
        Self {
            source: Source::Us,
            code,
            status,
            words: words.into(),
        }
    }

    /// What a server said. The class of the enhanced status gives way to the code when they differ:
    /// the code is what RFC 5321 §4.3.2 binds us to.
    #[must_use]
    pub fn of_peer(host: impl Into<String>, code: u16, status: Option<EnhancedStatus>, words: &str) -> Self {
        let class = if code / 100 == 5 { 5 } else { 4 };
        let status = match status {
            Some(s) => EnhancedStatus::new(class, s.subject, s.detail),
            None => status_of_code(class, code),
        };
        Self {
            source: Source::Peer(host.into()),
            code,
            status,
            words: words.to_owned(),
        }
    }

    /// Whether trying again cannot help.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.status.is_permanent()
    }

    /// The server that said so.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.source {
            Source::Us => None,
            Source::Peer(host) => Some(host),
        }
    }

    /// The whole reply on one line, as it is kept and shown.
    #[must_use]
    pub fn reply(&self) -> String {
        match &self.source {
            Source::Us => format!("{} {} {}", self.code, self.status, self.words),
            Source::Peer(_) => format!("{} {}", self.code, self.words),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host() {
            Some(host) => write!(f, "{host} said: {}", self.reply()),
            None => f.write_str(&self.reply()),
        }
    }
}

/// What a code without an enhanced status stands for (RFC 3463, RFC 5248).
fn status_of_code(class: u8, code: u16) -> EnhancedStatus {
    let (subject, detail) = match code {
        421 => (3, 2),
        450 | 550 => (2, 0),
        451 => (3, 0),
        452 => (3, 1),
        500..=504 => (5, 0),
        530 | 535 | 538 => (7, 0),
        551 => (1, 6),
        552 => (2, 2),
        553 => (1, 3),
        554 => (0, 0),
        555 => (5, 4),
        556 => (1, 10),
        _ => (0, 0),
    };
    EnhancedStatus::new(class, subject, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_decides_over_the_status() {
        let f = Failure::of_peer("mx", 450, Some(EnhancedStatus::new(5, 1, 1)), "5.1.1 no");
        assert!(!f.is_permanent());
        assert_eq!(f.status.to_string(), "4.1.1");
        let f = Failure::of_peer("mx", 552, None, "full");
        assert_eq!(
            (f.is_permanent(), f.status.to_string()),
            (true, "5.2.2".to_owned())
        );
        assert_eq!(f.to_string(), "mx said: 552 full");
    }
}
