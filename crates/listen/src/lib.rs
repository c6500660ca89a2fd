//! What every listener shares: sockets and balancers, the gate, the guard against guessing, whether a login still holds,
//! TLS, the end.
//!
//! Promises: connections, password checks and the memory of failed logins are bounded; a panic ends
//! its own connection only; an order to stop is heard at once. Never: a word of a protocol. What a
//! refused client is told is its own protocol's affair.

mod accept;
mod gate;
mod listener;
mod login;
mod peer;
pub mod proxy;
mod standing;
mod stream;

pub use accept::{serve, stopped};
pub use gate::{Full, Gate, Networks, Seat};
pub use listener::{Listener, PROXY_HEADER_TIMEOUT};
pub use login::{Asked, Asker, Attempt, FailureDelay, Login, LoginLimits, Logins, Proof};
pub use peer::Peer;
pub use standing::{Standing, unsettled};
pub use stream::{Io, LoginChannel, close, handshake, handshake_for_logins, is_this_machine, refuse};
