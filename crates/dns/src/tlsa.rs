//! TLSA records (RFC 6698 §2): what a service's certificate must be, as its owner published it.
//!
//! Promises: carries every record as it stands, whatever its numbers; whether it can be used is for
//! whoever verifies to say (RFC 7671 §4).

use crate::Name;
use mail::Domain;
use std::fmt;

/// One TLSA record (RFC 6698 §2.1), its numbers those of the registries (RFC 7218).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct Tlsa {
    /// 0 PKIX-TA, 1 PKIX-EE, 2 DANE-TA, 3 DANE-EE.
    pub usage: u8,
    /// 0: the whole certificate; 1: its public key (SubjectPublicKeyInfo).
    pub selector: u8,
    /// 0: the octets themselves; 1: their SHA-256; 2: their SHA-512.
    pub matching: u8,
    /// What must match. At most as long as a DNS record, 65,532 octets.
    pub data: Vec<u8>,
}

impl fmt::Display for Tlsa {
    /// As in a zone file (RFC 6698 §2.2): `3 1 1 0d6f…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// The name of a TCP service's TLSA records (RFC 6698 §3): `_25._tcp.mx.example.com`. `None`: the
/// host's name is too long for it.
#[must_use]
pub fn tlsa_name(port: u16, host: &Domain) -> Option<Name> {
    Name::parse(&format!("_{port}._tcp.{host}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_names() {
        let record = Tlsa {
            usage: 3,
            selector: 1,
            matching: 1,
            data: vec![0x0d, 0xff, 0],
        };
        assert_eq!(record.to_string(), "3 1 1 0dff00");
        let host = Domain::parse("MX.example.com").unwrap();
        let name = tlsa_name(25, &host).unwrap();
        assert_eq!(name.as_str(), "_25._tcp.mx.example.com");
    }
}
