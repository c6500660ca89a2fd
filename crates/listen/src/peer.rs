//! Who is at the other end of a connection.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// The other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The client's address: behind a balancer the one that it told, and this machine's own loopback
    /// address for a program that came through a Unix socket.
    pub address: SocketAddr,
    /// The user of this machine whose program it is, when it came through a Unix socket.
    pub user: Option<u32>,
}

impl Peer {
    /// A program of this machine, which came through a Unix socket.
    #[must_use]
    pub fn local(user: u32) -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            user: Some(user),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { address, user: None }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            Some(user) => write!(f, "local:uid={user}"),
            None => self.address.fmt(f),
        }
    }
}
