//! A hook that sees the conversation: for the demonstration, for tests, for an operator who debugs.
//!
//! Never: a password. The drivers show login lines without their secrets.

use std::net::SocketAddr;

/// Who said it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The client.
    Client,
    /// We.
    Server,
}

/// Sees what is said on a connection. Called on the session's own path: be quick.
pub trait Tap: Send + Sync {
    /// Octets as they were read or are written, decrypted; not always whole lines.
    fn saw(&self, protocol: crate::Protocol, peer: SocketAddr, direction: Direction, octets: &[u8]);
}
