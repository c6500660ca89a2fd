//! What the operator asks and orders, answered in process or over the control socket.
//!
//! Promises: the command line and a running server do the same thing, because both call
//! [`Office::perform`]; what is ordered is durable when it is answered.
//!
//! Never: a decision about mail; a secret in an answer, but for one that was just made up.

pub mod addresses;
pub mod audit;
pub mod control;
pub mod export;
mod keys;
pub mod long;
pub mod office;
pub mod scrub;
pub mod tls_reports;
pub mod words;
pub mod zone;

pub use office::Office;
pub use words::{Refusal, RefusalKind, Request, Response};
