//! The gate: connections in all, from one address and from one network, counted.

use limits::Network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Counts connections, in all, per address and per network; one for the listeners of a service.
pub struct Gate {
    max: usize,
    per_address_max: usize,
    networks: Option<Networks>,
    open: Mutex<Open>,
}

/// How connections are counted by network.
#[derive(Clone, Copy, Debug)]
pub struct Networks {
    /// Connections from one network at most.
    pub connections_max: usize,
    /// Leading bits that make a network of IPv4 addresses.
    pub ipv4_prefix: u8,
    /// The same for IPv6.
    pub ipv6_prefix: u8,
}

#[derive(Default)]
struct Open {
    total: usize,
    /// By address, and by network where they are counted; the two never share an entry.
    counts: HashMap<(bool, Network), usize>,
}

/// Which limit refuses a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// The one for all connections.
    Total,
    /// The one for an address.
    Address,
    /// The one for a network.
    Network,
}

/// A counted connection, until it is dropped.
#[must_use = "the seat is given back when this is dropped"]
pub struct Seat<'a> {
    gate: &'a Gate,
    address: Network,
    network: Option<Network>,
}

impl Gate {
    /// A gate for so many connections in all, and from one address (one /64 of IPv6).
    #[must_use]
    pub fn new(max: usize, per_address_max: usize) -> Self {
        Self {
            max,
            per_address_max,
            networks: None,
            open: Mutex::default(),
        }
    }

    /// Counts by network too.
    #[must_use]
    pub fn with_networks(mut self, networks: Option<Networks>) -> Self {
        self.networks = networks;
        self
    }

    /// Counts a connection from that address.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn enter(&self, ip: IpAddr) -> Result<Seat<'_>, Full> {
        let address = Network::one_address(ip);
        let network = self.networks.map(|n| n.of(ip));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |key| open.counts.get(&key).copied().unwrap_or(0);
        if open.total >= self.max {
            return Err(Full::Total);
        }
        if count((false, address)) >= self.per_address_max {
            return Err(Full::Address);
        }
        if let (Some(limit), Some(network)) = (self.networks, network)
            && count((true, network)) >= limit.connections_max
        {
            return Err(Full::Network);
        }
        open.total += 1;
        *open.counts.entry((false, address)).or_default() += 1;
        if let Some(network) = network {
            *open.counts.entry((true, network)).or_default() += 1;
        }
        Ok(Seat {
            gate: self,
            address,
            network,
        })
    }
}

impl Networks {
    fn of(&self, ip: IpAddr) -> Network {
        let ip = ip.to_canonical();
        Network::new(
            ip,
            if ip.is_ipv4() {
                self.ipv4_prefix
            } else {
                self.ipv6_prefix
            },
        )
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut open = self.gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        let keys = [Some((false, self.address)), self.network.map(|n| (true, n))];
        for key in keys.into_iter().flatten() {
            if let Some(count) = open.counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    open.counts.remove(&key);
                }
            }
        }
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
        assert_eq!((open.total, open.counts.len()), (0, 0));
    }

    #[test]
    fn a_network_has_its_own_limit() {
        let gate = Gate::new(10, 2).with_networks(Some(Networks {
            connections_max: 3,
            ipv4_prefix: 24,
            ipv6_prefix: 48,
        }));
        let seats = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(|from| gate.enter(ip(from)).unwrap());
        assert_eq!(gate.enter(ip("192.0.2.3")).err(), Some(Full::Network));
        let elsewhere = gate.enter(ip("192.0.3.1")).unwrap();
        drop(seats);
        assert!(gate.enter(ip("192.0.2.3")).is_ok());
        drop(elsewhere);
        let open = gate.open.lock().unwrap();
        assert_eq!((open.total, open.counts.len()), (0, 0));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let gate = Gate::new(10, 1);
        let _first = gate.enter(ip("2001:db8::1")).unwrap();
        assert_eq!(gate.enter(ip("2001:db8::ffff")).err(), Some(Full::Address));
        assert!(gate.enter(ip("2001:db8:0:1::1")).is_ok());
    }
}
