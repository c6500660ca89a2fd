//! The gate: connections in all and from one address, counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

/// Counts connections, in all and per address; one for the listeners of a service.
pub struct Gate {
    max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// Which limit refuses a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// The one for all connections.
    Total,
    /// The one for an address.
    Address,
}

/// A counted connection, until it is dropped.
#[must_use = "the seat is given back when this is dropped"]
pub struct Seat<'a> {
    gate: &'a Gate,
    network: IpAddr,
}

impl Gate {
    /// A gate for so many connections in all, and from one address (see [`network_of`]).
    #[must_use]
    pub fn new(max: usize, per_address_max: usize) -> Self {
        Self {
            max,
            per_address_max,
            open: Mutex::default(),
        }
    }

    /// Counts a connection from that address.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn enter(&self, ip: IpAddr) -> Result<Seat<'_>, Full> {
        let network = network_of(ip);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.by_network.get(&network).copied().unwrap_or(0);
        if open.total >= self.max {
            return Err(Full::Total);
        }
        if here >= self.per_address_max {
            return Err(Full::Address);
        }
        open.total += 1;
        open.by_network.insert(network, here + 1);
        Ok(Seat { gate: self, network })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut open = self.gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&self.network);
            }
        }
    }
}

/// What counts as one address: an IPv6 subscriber has a /64 at least; IPv4 inside IPv6 is IPv4.
#[must_use]
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn seats_are_counted_and_given_back() {
        let gate = Gate::new(3, 2);
        let first = gate.enter(ip("192.0.2.1")).unwrap();
        let _second = gate.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(gate.enter(ip("192.0.2.1")).err(), Some(Full::Address));
        let _third = gate.enter(ip("192.0.2.2")).unwrap();
        assert_eq!(gate.enter(ip("192.0.2.2")).err(), Some(Full::Total));
        drop(first);
        assert!(gate.enter(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn who_has_gone_leaves_nothing() {
        let gate = Gate::new(1, 1);
        for n in 0..100 {
            let _seat = gate.enter(IpAddr::from([192, 0, 2, n])).unwrap();
        }
        let open = gate.open.lock().unwrap();
        assert_eq!((open.total, open.by_network.len()), (0, 0));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        assert_eq!(network_of(ip("2001:db8::1")), network_of(ip("2001:db8::ffff")));
        assert_ne!(network_of(ip("2001:db8::1")), network_of(ip("2001:db8:0:1::1")));
    }
}
