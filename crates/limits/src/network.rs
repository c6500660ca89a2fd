//! Networks: an address and how many of its bits count; and whom a block can be about.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bits of an IPv6 address that stand for one subscriber.
const SUBSCRIBER_BITS_IPV6: u8 = 64;

/// An address and the number of its leading bits that count. IPv4 inside IPv6 is IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    ip: IpAddr,
    prefix: u8,
}

/// Why a text is no [`Network`] and no [`Subject`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{0}` is no address, no network and no login; write 192.0.2.1, 192.0.2.0/24, 2001:db8::/64 or user@example.com"
)]
pub struct NotASubject(String);

impl Network {
    /// The network of that address; what does not count is zeroed, a prefix that is too long is cut.
    #[must_use]
    pub fn new(ip: IpAddr, prefix: u8) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Self {
                    ip: IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask)),
                    prefix,
                }
            }
            IpAddr::V6(v6) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Self {
                    ip: IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask)),
                    prefix,
                }
            }
        }
    }

    /// What counts as one address: an IPv6 subscriber has a /64 at least.
    #[must_use]
    pub fn one_address(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(_) => Self::new(ip, 32),
            IpAddr::V6(_) => Self::new(ip, SUBSCRIBER_BITS_IPV6),
        }
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.ip.is_ipv4() && Self::new(ip, self.prefix).ip == self.ip
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.ip.is_ipv4()
    }

    /// Its first address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// How many leading bits count.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.ip.is_ipv4() { 32 } else { 128 };
        if self.prefix == whole {
            return write!(f, "{}", self.ip);
        }
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl FromStr for Network {
    type Err = NotASubject;

    fn from_str(text: &str) -> Result<Self, NotASubject> {
        let wrong = || NotASubject(text.to_owned());
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let whole = if ip.to_canonical().is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) => digits.parse().ok().filter(|p| *p <= whole).ok_or_else(wrong)?,
            None => whole,
        };
        Ok(Self::new(ip, prefix))
    }
}

impl TryFrom<String> for Network {
    type Error = NotASubject;
    fn try_from(text: String) -> Result<Self, NotASubject> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

/// Whom a block is about.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// An address or a network.
    Network(Network),
    /// A login, from wherever it comes; in small letters.
    Login(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Network(network) => network.fmt(f),
            Subject::Login(login) => f.write_str(login),
        }
    }
}

impl FromStr for Subject {
    type Err = NotASubject;

    fn from_str(text: &str) -> Result<Self, NotASubject> {
        if text.contains('@') {
            return Ok(Self::Login(text.trim().to_lowercase()));
        }
        text.trim().parse().map(Self::Network)
    }
}

impl TryFrom<String> for Subject {
    type Error = NotASubject;
    fn try_from(text: String) -> Result<Self, NotASubject> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn what_does_not_count_is_zeroed() {
        for (given, shown) in [
            ("192.0.2.77", "192.0.2.77"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.77"),
            ("2001:db8:1:2:3::4/64", "2001:db8:1:2::/64"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(given).to_string(), shown);
        }
        for wrong in [
            "",
            "192.0.2.0/33",
            "192.0.2/24",
            "::1/129",
            "mail.example",
            "1.2.3.4/-1",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_holds_its_own_family_only() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(network("192.0.2.0/24").contains(ip("192.0.2.255")));
        assert!(network("192.0.2.0/24").contains(ip("::ffff:192.0.2.1")));
        assert!(!network("192.0.2.0/24").contains(ip("192.0.3.0")));
        assert!(!network("0.0.0.0/0").contains(ip("2001:db8::1")));
        assert!(!network("::/0").contains(ip("192.0.2.1")));
        assert_eq!(
            Network::one_address(ip("2001:db8::1")),
            Network::one_address(ip("2001:db8::2"))
        );
    }

    #[test]
    fn a_subject_is_a_login_or_a_network() {
        let login: Subject = "Mia@Example.com".parse().unwrap();
        assert_eq!(login, Subject::Login("mia@example.com".to_owned()));
        let net: Subject = "192.0.2.1/24".parse().unwrap();
        assert_eq!(net.to_string(), "192.0.2.0/24");
        assert!("mia".parse::<Subject>().is_err());
    }
}
