//! SASL (RFC 4422): what a server asks a client who wants to log in, and what it makes of the
//! answers. One piece of code for SMTP, IMAP and POP3.
//!
//! PLAIN (RFC 4616), LOGIN, SCRAM-SHA-1 and SCRAM-SHA-256 with and without channel binding (RFC
//! 5802, RFC 7677; RFC 9266, RFC 5929), OAUTHBEARER (RFC 7628), XOAUTH2, EXTERNAL (RFC 4422
//! Appendix A).
//!
//! An [`Exchange`] takes a response and answers with a [`Step`]: a challenge to send, a [`Request`]
//! to put to whoever knows the accounts, or the end.
//!
//! Promises: every message parser is total and linear; a secret never prints; an exchange that was
//! bound to a channel fails on any other, and one that hides from binding what we offered fails too
//! (RFC 5802 §6). Never: a socket, a clock, randomness of its own, a look at an account.

mod bearer;
mod channel;
pub mod client;
mod exchange;
pub mod fuzz;
mod line;
mod mechanism;
mod plain;
pub mod scram;

pub use bearer::Bearer;
pub use channel::{Binding, Channel};
pub use exchange::{Answer, Asking, Exchange, Fault, Request, Step, Unseen, Why};
pub use line::{decode, encode};
pub use mechanism::{Mechanism, Mechanisms};
pub use plain::{Credentials, plain, plain_message, plain_name};
pub use scram::{Hash, Keys, Proof, Salted, ServerSignature};
