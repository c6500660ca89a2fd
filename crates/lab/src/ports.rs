//! Loopback addresses and free ports for the hosts of a lab.
//!
//! Promises: says before anything starts whether the addresses can be used, and what to do if not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// Ports tried until one is free on every address.
const PORT_TRIES_MAX: usize = 64;

/// An address of 127.0.0.0/8 that this machine does not let us use.
#[derive(Debug, thiserror::Error)]
#[error(
    "the loopback address {address} cannot be used ({source}). Linux has all of 127.0.0.0/8; \
     on macOS and the BSDs add it with: sudo ifconfig lo0 alias {address}"
)]
pub struct LoopbackError {
    /// The address.
    pub address: Ipv4Addr,
    /// What the system said.
    pub source: io::Error,
}

/// Whether each of these addresses can be bound here.
///
/// # Errors
/// The first that cannot, with the command that would add it.
pub fn check_loopback(addresses: &[Ipv4Addr]) -> Result<(), LoopbackError> {
    for &address in addresses {
        TcpListener::bind((address, 0)).map_err(|source| LoopbackError { address, source })?;
    }
    Ok(())
}

/// A port that is free at this moment on each of these addresses. Somebody may take it before it
/// is used; where one socket is enough, bind port 0 instead.
///
/// # Errors
/// When an address cannot be bound at all, or no common port was found.
pub fn free_port(addresses: &[IpAddr]) -> io::Result<u16> {
    let first = *addresses
        .first()
        .ok_or_else(|| io::Error::other("no address was given"))?;
    for _ in 0..PORT_TRIES_MAX {
        let listener = TcpListener::bind((first, 0))?;
        let port = listener.local_addr()?.port();
        let free = |ip: &IpAddr| TcpListener::bind(SocketAddr::new(*ip, port)).is_ok();
        if addresses[1..].iter().all(free) {
            return Ok(port);
        }
    }
    Err(io::Error::other("no port is free on all addresses"))
}

/// `wanted` when it is free on each of these addresses, else a port that is.
///
/// # Errors
/// As [`free_port`].
pub fn free_port_near(wanted: u16, addresses: &[IpAddr]) -> io::Result<u16> {
    let free = |ip: &IpAddr| TcpListener::bind(SocketAddr::new(*ip, wanted)).is_ok();
    match addresses.iter().all(free) {
        true => Ok(wanted),
        false => free_port(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_not_offered() {
        let ips = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 1])];
        // The same address twice can never be free the second time.
        assert!(free_port(&ips).is_err());
        let port = free_port(&ips[..1]).unwrap();
        let _taken = TcpListener::bind((ips[0], port)).unwrap();
        assert_ne!(free_port_near(port, &ips[..1]).unwrap(), port);
        assert!(free_port(&[]).is_err());
    }

    #[test]
    fn an_address_that_is_not_ours_is_explained() {
        check_loopback(&[Ipv4Addr::LOCALHOST]).unwrap();
        let error = check_loopback(&[Ipv4Addr::new(192, 0, 2, 1)]).unwrap_err();
        assert!(error.to_string().contains("ifconfig lo0 alias 192.0.2.1"));
    }
}
