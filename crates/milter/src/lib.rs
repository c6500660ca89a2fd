//! The language of content filters: the milter protocol, versions 2 to 6, from the side of the mail
//! server that asks them; and what their changes make of a message.
//!
//! There is no RFC. The protocol is what sendmail, Postfix and the filters of the last twenty years
//! speak to each other; `docs/MILTERS.md` says what of it is served.
//!
//! Promises: whatever a filter sends, memory is bounded by [`Limits`], nothing panics, and a change
//! that is taken can neither smuggle a header field into another nor break the message's form.
//! Never: a socket, a clock, a decision about what a failure of a filter means.
#![forbid(unsafe_code)]

pub mod answer;
mod apply;
mod change;
mod client;
pub mod command;
mod fault;
pub mod flags;
pub mod fuzz;
mod macros;
pub mod packet;
mod reply;

pub use answer::Answer;
pub use apply::{Letter, apply, parts};
pub use change::{Change, clean_body, clean_value};
pub use client::{Asked, Client, Limits, Step, Verdict};
pub use command::{Command, Family, Kind};
pub use fault::Fault;
pub use macros::{Macros, Stage};
pub use reply::FilterReply;
