//! What a login opens: the messages as they were at that moment, and which of them are marked deleted.

use crate::reply::Reply;
use mail::{Uid, UidValidity};

/// One message of a maildrop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The message's UID in its mailbox.
    pub uid: Uid,
    /// Its size in octets, every line ending counted as two.
    pub octets: u64,
}

/// What a login opens: the messages as they are at that moment, oldest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Maildrop {
    /// Makes UIDL unique over mailboxes that were made anew.
    pub uid_validity: UidValidity,
    /// The messages.
    pub entries: Vec<Entry>,
}

/// Which multi-line listing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Listing {
    Sizes,
    UniqueIds,
}

/// The maildrop with its deletion marks.
#[derive(Debug)]
pub(crate) struct OpenDrop {
    pub(crate) maildrop: Maildrop,
    pub(crate) deleted: Vec<bool>,
}

impl OpenDrop {
    pub(crate) fn new(maildrop: Maildrop) -> Self {
        let deleted = vec![false; maildrop.entries.len()];
        Self { maildrop, deleted }
    }

    fn remaining(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.maildrop.entries.iter();
        entries
            .zip(&self.deleted)
            .filter(|(_, deleted)| !**deleted)
            .map(|(entry, _)| entry)
    }

    pub(crate) fn totals(&self) -> (usize, u64) {
        self.remaining().fold((0, 0u64), |(n, octets), e| {
            (n + 1, octets.saturating_add(e.octets))
        })
    }

    /// The index of a message number, unless it is none or deleted.
    pub(crate) fn find(&self, message: u32) -> Result<usize, Reply> {
        let index = (message as usize).checked_sub(1).ok_or(Reply::NoSuchMessage)?;
        match self.deleted.get(index) {
            None => Err(Reply::NoSuchMessage),
            Some(true) => Err(Reply::MessageDeleted),
            Some(false) => Ok(index),
        }
    }

    pub(crate) fn listed(&self, kind: Listing, index: usize) -> String {
        let entry = &self.maildrop.entries[index];
        match kind {
            Listing::Sizes => entry.octets.to_string(),
            Listing::UniqueIds => format!("{}.{}", self.maildrop.uid_validity, entry.uid),
        }
    }
}
