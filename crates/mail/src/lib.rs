//! The vocabulary of mail: what the RFCs name, as types that are parsed once at the border.
//!
//! Promises: no I/O, no clock, no async; every parser is total (any input gives a value or an
//! error, never a panic) and linear in its input. Never: a protocol session, a policy, a default
//! that belongs to an operator.

pub mod address;
pub mod date;
pub mod delivery;
pub mod domain;
pub mod header;
pub mod ids;
pub mod mime;
pub mod secret;
pub mod status;
pub mod time;
pub mod trace;

pub use address::{AddressError, EmailAddress, Host, LocalPart, Recipient, ReversePath};
pub use domain::{Domain, DomainError};
pub use ids::{AccountId, MailboxId, ModSeq, QueueId, Uid, UidValidity};
pub use secret::Secret;
pub use status::EnhancedStatus;
pub use time::{Clock, Timestamp};
