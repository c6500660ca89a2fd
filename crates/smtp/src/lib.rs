//! The language of SMTP (RFC 5321): framing, commands, replies, and both ends of a session as
//! values that are fed with bytes.
//!
//! Promises: every limit is a named option; memory of a session is bounded by its options whatever
//! the peer sends; any split of the input gives the same events. Never: a socket, a clock, a task,
//! a directory, a decision about who may send to whom. Those questions go to the driver.

pub mod client;
pub mod command;
pub mod dialogue;
pub mod framer;
pub mod fuzz;
pub mod replies;
pub mod reply;
pub mod server;
pub mod tap;
pub mod xclient;

pub use reply::Reply;
pub use sasl;
pub use server::{Options, Question, Role, Server, Step};
pub use tap::Tap;
