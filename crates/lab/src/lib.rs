//! An internet in a box, on loopback: DNS, a certificate authority, clients that can be watched.
//!
//! Promises: nothing leaves this machine, nothing needs root or settings; every line that a client
//! says or hears is reported to whoever watches, secrets blotted out.
//! Never: part of a server's own work. What is here serves the demo, the tests and the simulator.

pub mod ca;
pub mod client;
pub mod dns;
pub mod ports;
