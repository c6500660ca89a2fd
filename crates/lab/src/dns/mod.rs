//! An authoritative DNS server that lives in this process, for tests, the demo and the simulator.
//!
//! Promises: it answers only for its own zones (REFUSED for the rest), tells apart "no such name"
//! and "no such record", speaks UDP and TCP with the same answers, and reports every question
//! with its answer. Its records may be changed, and names made to fail, while it runs.
//! A zone may be signed: then who asks for it (DO) gets signatures and proofs of absence, right or wrong
//! as ordered.
//! Never: recursion, zone transfer, dynamic update over the wire.

mod answer;
mod server;
mod signing;
mod text;
mod zone;

pub use answer::{Asked, answer};
pub use server::{DnsObserver, DnsServer, TCP_CONNECTIONS_MAX, TCP_IDLE_SECS_MAX};
pub use signing::{SIGNED_DAYS, SignError};
pub use text::{ZoneError, ZoneErrorKind};
pub use zone::{Fault, Outcome, TTL_SECS_DEFAULT, Zones, address_name, list_name};
