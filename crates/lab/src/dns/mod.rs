//! An authoritative DNS server that lives in this process, for tests, the demo and the simulator.
//!
//! Promises: it answers only for its own zones (REFUSED for the rest), tells apart "no such name"
//! and "no such record", speaks UDP and TCP with the same answers, and reports every question
//! with its answer. Its records may be changed, and names made to fail, while it runs.
//! Never: recursion, zone transfer, dynamic update over the wire, DNSSEC.

mod answer;
mod server;
mod text;
mod zone;

pub use answer::{Asked, answer};
pub use server::{DnsObserver, DnsServer, TCP_CONNECTIONS_MAX, TCP_IDLE_SECS_MAX};
pub use text::{ZoneError, ZoneErrorKind};
pub use zone::{Fault, Outcome, TTL_SECS_DEFAULT, Zones, address_name, list_name};
