//! Delivery events for other programs: what happens to a message is told to web addresses of the
//! operator's choice, by signed requests.
//!
//! Promises: an event's line in the outbox is in the very batch that makes the event true, so that no
//! crash loses it; events of one message reach an address in their order; an address that is down holds
//! up no other, and no mail; what waits is bounded in number and age, and what is thrown away is counted
//! and logged. An event may be told twice (after a crash between the answer and its record), with the
//! same id.
//!
//! Never: a socket, the wall clock, the text or subject of a message.

mod endpoint;
mod entry;
mod keys;
mod outbox;
mod send;

pub use endpoint::{ENDPOINTS_MAX, Endpoint, Kind, NAME_OCTETS_MAX, Url};
pub use entry::{RECIPIENTS_TOLD_MAX, test_body};
pub use outbox::{Outbox, Waiting};
pub use send::{
    BATCH_EVENTS, Options, Post, Sender, SignedRequest, Standing, WAIT_FIRST, WAIT_MAX, signature, signed,
};
