//! Evidence about a message (SPF, DKIM, DMARC, ARC, blocklists) and the judgement made of it.
//!
//! Two halves that never mix. [`evidence::gather`] asks the DNS and checks signatures; every
//! outcome keeps the steps that led to it. [`judgement::judge`] is a pure function from evidence
//! and policy to what happens with the message, and says why and what would change it.
//!
//! Promises: DNS trouble never becomes a final "no"; memory and the number of questions are
//! bounded whatever a stranger's records or message say. Never: a socket, a clock, a mailbox.

pub mod arc;
pub mod dkim;
pub mod dmarc;
pub mod dnsbl;
pub mod evidence;
pub mod headers;
pub mod iprev;
pub mod judgement;
pub mod spf;
mod tags;
mod words;

pub use evidence::{Evidence, Inputs, gather};
pub use judgement::{Disposition, Judgement, Policy, judge};
