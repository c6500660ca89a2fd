//! What changed in a mailbox since a modification sequence (RFC 7162): for open sessions that
//! others' changes must reach, and for clients that come back.

use crate::{Entry, Error, Mailboxes, Place};
use mail::{ModSeq, Uid};

/// One thing that changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A message that came since then, as it is now.
    Arrived(Entry),
    /// A message that was there then and whose flags changed, as it is now.
    Flags(Entry),
    /// A message that is gone.
    Expunged(Uid),
}

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes {
    /// Expunges first, then flags, then arrivals; each by rising UID.
    pub changes: Vec<Change>,
    /// Up to where this tells; ask from here the next time.
    pub highest_modseq: ModSeq,
    /// Whether every expunge since then is told. When not (the record of expunges was pruned),
    /// what is not in the mailbox any more must be found by comparing.
    pub complete: bool,
}

impl Mailboxes {
    /// What changed since `since`, in cost proportional to the number of changes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn changes_since(&self, place: Place, since: ModSeq) -> Result<Changes, Error> {
        let _ = (place, since);
        todo!()
    }

    /// Forgets expunges up to `before`, at most `limit` records. Answers how many.
    ///
    /// # Errors
    /// What the store says.
    pub async fn prune_expunged(&self, place: Place, before: ModSeq, limit: usize) -> Result<usize, Error> {
        let _ = (place, before, limit);
        todo!()
    }
}
