//! The language of IMAP4rev1 (RFC 3501): parser, encoder and server session as pure state machines.
//!
//! Extensions: IDLE (RFC 2177), MOVE (6851), UIDPLUS (4315), SPECIAL-USE (6154), UNSELECT (3691),
//! ENABLE (5161), NAMESPACE (2342), ID (2971), LITERAL+ (7888), CHILDREN (3348), SASL-IR (4959).
//!
//! Promises: no I/O, no clock, no tasks; any bytes give an answer; memory is bounded by
//! [`Options`]; message bytes are never copied into a response and the literal of APPEND is never
//! held. Never: a decision about who may log in or what a mailbox holds; those are questions that
//! the driver answers (see [`session::Session`]).

pub mod command;
pub mod fetch;
pub mod flag;
pub mod framer;
pub mod fuzz;
pub mod list;
pub mod name;
pub mod options;
pub mod parse;
pub mod response;
pub mod search;
pub mod sequence;
pub mod session;
pub mod view;

pub use flag::Flag;
pub use name::MailboxName;
pub use options::Options;
pub use response::{Code, Refusal};
pub use sequence::{MessageSet, SeqNum, SequenceSet};
pub use session::{Event, Session, Ticket};
pub use view::View;
