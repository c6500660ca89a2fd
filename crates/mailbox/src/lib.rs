//! Mailboxes and their messages: names, flags, UIDs, modification sequences, and what changed.
//!
//! Promises: a delivery is a blind addition to a batch (nothing is read first); UIDs only rise and a
//! mailbox's modification sequence never falls (RFC 3501 §2.3.1.1, RFC 7162 §3.1); the counters of
//! a mailbox equal what stands in it after every commit; message bytes are never copied.
//!
//! Never: a word of IMAP or POP3, a socket, the wall clock, a decision about where a message goes.

mod audit;
mod change;
mod codec;
mod delivery;
mod error;
mod folders;
mod history;
mod keys;
mod names;
mod naming;
mod restored;
mod types;

pub use audit::{Audited, audit, names_of};
pub use change::{ExpungeWhich, Expunged, FlagChange, FlagOp, Flagged, MESSAGES_PER_COPY_MAX, Moved};
pub use delivery::{Appended, Delivered, Delivery, PREFIX_OCTETS_MAX};
pub use error::Error;
pub use folders::MAILBOXES_PER_ACCOUNT_MAX;
pub use history::{Change, Changes};
pub use naming::{NAME_OCTETS_MAX, SEPARATOR};
pub use restored::LEAP;
pub use types::{
    Entry, Flags, KEYWORD_OCTETS_MAX, KEYWORDS_PER_MESSAGE_MAX, Keyword, Mailbox, Place, Role, Status,
};

use std::sync::Arc;

/// How often an operation is decided anew after another session changed the same messages.
pub const CONFLICT_RETRIES_MAX: usize = 32;

/// All mailboxes of a store. Cheap to clone.
#[derive(Clone)]
pub struct Mailboxes {
    store: Arc<dyn store::Store>,
}

impl Mailboxes {
    /// The mailboxes that live in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn store::Store>) -> Self {
        Self { store }
    }
}
