//! Changes of messages: flags, copies, moves, expunges. Each is decided on a snapshot, committed
//! with the versions it saw as preconditions, and decided anew when another session was quicker.

use crate::{Entry, Error, Flags, Keyword, Mailboxes, Place};
use mail::{ModSeq, Uid, UidValidity};

/// Messages that one copy may take at most: a copy is all or nothing (RFC 3501 §6.4.7).
pub const MESSAGES_PER_COPY_MAX: usize = 20_000;

/// How flags are changed (RFC 3501 §6.4.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlagOp {
    /// `FLAGS`: these and no others.
    Replace,
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
}

/// A change of flags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlagChange {
    /// How.
    pub op: FlagOp,
    /// System flags.
    pub flags: Flags,
    /// Keywords.
    pub keywords: Vec<Keyword>,
    /// Leave alone messages that changed after this (RFC 7162 §3.1.3 UNCHANGEDSINCE).
    pub unchanged_since: Option<ModSeq>,
}

/// Which of the named messages are expunged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpungeWhich {
    /// Those with `\Deleted` (EXPUNGE, UID EXPUNGE).
    Deleted,
    /// All (POP3 DELE).
    All,
}

/// What an expunge did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expunged {
    /// The removed messages, rising.
    pub uids: Vec<Uid>,
    /// The modification sequence of the last removal, if there was one.
    pub modseq: Option<ModSeq>,
}

/// What a copy or a move did (RFC 4315 COPYUID).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved {
    /// UIDVALIDITY of the destination.
    pub uid_validity: UidValidity,
    /// Old and new UID of each message that was there, rising.
    pub uids: Vec<(Uid, Uid)>,
}

impl Mailboxes {
    /// Changes flags. Messages that are gone are passed over. Answers the entries as they are now
    /// (also those that the change left as they were), and the UIDs that `unchanged_since` spared.
    ///
    /// # Errors
    /// [`Error::Limit`] for keywords, [`Error::Contended`]; otherwise what the store says.
    pub async fn store_flags(
        &self,
        place: Place,
        uids: &[Uid],
        change: &FlagChange,
    ) -> Result<(Vec<Entry>, Vec<Uid>), Error> {
        let _ = (place, uids, change);
        todo!()
    }

    /// Copies messages, all or nothing; messages that are gone are passed over.
    ///
    /// # Errors
    /// [`Error::NoSuchMailbox`] for the destination, [`Error::Limit`] beyond
    /// [`MESSAGES_PER_COPY_MAX`], [`Error::Contended`]; otherwise what the store says.
    pub async fn copy(&self, from: Place, uids: &[Uid], to: Place) -> Result<Moved, Error> {
        let _ = (from, uids, to);
        todo!()
    }

    /// Moves messages, each exactly once (RFC 6851 §3.3): no moment shows it in both or neither.
    ///
    /// # Errors
    /// As [`Mailboxes::copy`] without the limit. Messages moved before an error stay moved.
    pub async fn move_(&self, from: Place, uids: &[Uid], to: Place) -> Result<Moved, Error> {
        let _ = (from, uids, to);
        todo!()
    }

    /// Removes messages for good.
    ///
    /// # Errors
    /// [`Error::Contended`]; otherwise what the store says. Messages removed before stay removed.
    pub async fn expunge(&self, place: Place, uids: &[Uid], which: ExpungeWhich) -> Result<Expunged, Error> {
        let _ = (place, uids, which);
        todo!()
    }
}
