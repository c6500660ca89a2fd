//! A network of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network; IPv4 addresses inside IPv6 count as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, ip.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                first.to_bits() == ip.to_bits() & mask
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => first.to_bits() == ip.to_bits() & mask_v6(self.bits),
            _ => false,
        }
    }
}

fn mask_v6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// Why a text is no network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotANetwork(String);

impl fmt::Display for NotANetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let not = |why: &str| NotANetwork(format!("\"{text}\" {why}"));
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let ip: IpAddr = address
            .parse()
            .map_err(|_| not("is no network; write it so: 10.0.0.0/8, 2001:db8::/32, or one address"))?;
        let ip = ip.to_canonical();
        let most: u8 = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|n| *n <= most)
                .ok_or_else(|| not("has a length that no network has"))?,
        };
        let network = Network { first: ip, bits };
        if network.contains(ip) {
            return Ok(network);
        }
        let first = match ip {
            IpAddr::V4(ip) => {
                IpAddr::from((ip.to_bits() & (u32::MAX << (32 - u32::from(bits)).min(31))).to_be_bytes())
            }
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask_v6(bits))),
        };
        Err(not(&format!(
            "has bits set behind its length; did you mean {first}/{bits}?"
        )))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_it() {
        for (network, ip, is) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1/32", "192.0.2.2", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("::/0", "2001:db8::", true),
            ("::1", "::1", true),
            ("::1", "::2", false),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(ip.parse().unwrap()), is, "{network} {ip}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "localhost",
            "10.0.0/8",
            "::/129",
            "1.2.3.4/-1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let told = "10.1.2.3/8".parse::<Network>().unwrap_err().to_string();
        assert!(told.contains("did you mean 10.0.0.0/8"), "{told}");
        assert_eq!("10.0.0.0/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
    }
}
