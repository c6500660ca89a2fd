//! The mechanisms by name, and sets of them.

use crate::{Channel, Hash};
use std::fmt;

/// A mechanism that the server side speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mechanism {
    /// RFC 7677 inside a channel that both sides name.
    ScramSha256Plus,
    /// RFC 5802 inside a channel that both sides name.
    ScramSha1Plus,
    /// RFC 7677.
    ScramSha256,
    /// RFC 5802.
    ScramSha1,
    /// RFC 4616.
    Plain,
    /// The older exchange of name and password that some clients still need.
    Login,
    /// RFC 7628.
    OAuthBearer,
    /// The older form of the same, of a large provider.
    XOAuth2,
    /// RFC 4422 Appendix A: by the certificate that the client showed in TLS.
    External,
}

impl Mechanism {
    /// Every mechanism, in the order in which they are offered: what shows least comes first.
    pub const ALL: [Mechanism; 9] = [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha1Plus,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::OAuthBearer,
        Mechanism::XOAuth2,
        Mechanism::External,
    ];

    /// Its registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::OAuthBearer => "OAUTHBEARER",
            Mechanism::XOAuth2 => "XOAUTH2",
            Mechanism::External => "EXTERNAL",
        }
    }

    /// The mechanism of that name, in any case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|m| m.name().eq_ignore_ascii_case(name))
    }

    /// The hash function and whether the channel is bound, of the mechanisms of RFC 5802.
    #[must_use]
    pub const fn scram(self) -> Option<(Hash, bool)> {
        match self {
            Mechanism::ScramSha256Plus => Some((Hash::Sha256, true)),
            Mechanism::ScramSha1Plus => Some((Hash::Sha1, true)),
            Mechanism::ScramSha256 => Some((Hash::Sha256, false)),
            Mechanism::ScramSha1 => Some((Hash::Sha1, false)),
            _ => None,
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of mechanisms. The default has those that need nothing but an account: PLAIN, LOGIN and
/// all of SCRAM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mechanisms(u16);

impl Mechanisms {
    /// No mechanism.
    pub const NONE: Mechanisms = Mechanisms(0);
    /// PLAIN and LOGIN.
    pub const PASSWORD: Mechanisms = Mechanisms(Mechanism::Plain.bit() | Mechanism::Login.bit());

    /// The set with this one added.
    #[must_use]
    pub const fn with(self, mechanism: Mechanism) -> Self {
        Self(self.0 | mechanism.bit())
    }

    /// The set without this one.
    #[must_use]
    pub const fn without(self, mechanism: Mechanism) -> Self {
        Self(self.0 & !mechanism.bit())
    }

    /// Whether this one is in it.
    #[must_use]
    pub const fn has(self, mechanism: Mechanism) -> bool {
        self.0 & mechanism.bit() != 0
    }

    /// Its members, in the order of [`Mechanism::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Mechanism> {
        Mechanism::ALL.into_iter().filter(move |m| self.has(*m))
    }

    /// What of it can be used on this channel: bound mechanisms need a channel that can be named,
    /// EXTERNAL needs a certificate that was verified.
    #[must_use]
    pub fn on(self, channel: &Channel) -> Self {
        let mut usable = self;
        if !channel.can_bind() {
            usable = usable
                .without(Mechanism::ScramSha256Plus)
                .without(Mechanism::ScramSha1Plus);
        }
        if !channel.has_certificate {
            usable = usable.without(Mechanism::External);
        }
        usable
    }
}

impl Default for Mechanisms {
    fn default() -> Self {
        Self::PASSWORD
            .with(Mechanism::ScramSha1)
            .with(Mechanism::ScramSha256)
            .with(Mechanism::ScramSha1Plus)
            .with(Mechanism::ScramSha256Plus)
    }
}

impl FromIterator<Mechanism> for Mechanisms {
    fn from_iter<T: IntoIterator<Item = Mechanism>>(all: T) -> Self {
        all.into_iter().fold(Self::NONE, Self::with)
    }
}

/// The names with spaces between, as EHLO offers them.
impl fmt::Display for Mechanisms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mechanism) in self.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}{mechanism}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mechanisms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mechanisms({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_channel_allows() {
        let all: Mechanisms = Mechanism::ALL.into_iter().collect();
        assert_eq!(
            all.on(&Channel::default()).to_string(),
            "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN OAUTHBEARER XOAUTH2"
        );
        let bound = Channel {
            exporter: Some([7; 32]),
            ..Channel::default()
        };
        assert_eq!(
            Mechanisms::default().on(&bound).to_string(),
            "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN"
        );
        for mechanism in Mechanism::ALL {
            assert_eq!(
                Mechanism::parse(&mechanism.name().to_lowercase()),
                Some(mechanism)
            );
        }
        assert_eq!(Mechanism::parse("CRAM-MD5"), None);
    }
}
