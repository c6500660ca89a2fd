//! Changes of messages: flags, copies, moves, expunges. Each is decided on a snapshot, committed
//! with the versions it saw as preconditions, and decided anew when another session was quicker.

use crate::codec::{self, ChangeKind, MODSEQ_OFFSET};
use crate::delivery::{MODSEQ_ABOVE, Tally, check_keywords, entry_in, modseq_patch, put_new, wake};
use crate::keys::{self, Counter};
use crate::{CONFLICT_RETRIES_MAX, Entry, Error, Flags, Keyword, Mailboxes, Place};
use mail::{ModSeq, Uid, UidValidity};
use store::{Batch, CommitError, Patch, Receipt, Require, Slot};

/// Messages that one copy may take at most: a copy is all or nothing (RFC 3501 §6.4.7).
pub const MESSAGES_PER_COPY_MAX: usize = 20_000;

/// Messages that are changed in one commit where more than one commit is allowed.
const CHUNK: usize = 1_000;

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

/// What a change of flags did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flagged {
    /// The named messages as they are now, rising, also those that the change left as they were.
    pub entries: Vec<Entry>,
    /// The messages that [`FlagChange::unchanged_since`] spared (RFC 7162 MODIFIED), rising.
    pub spared: Vec<Uid>,
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

impl FlagChange {
    fn apply(&self, flags: Flags, keywords: &[Keyword]) -> (Flags, Vec<Keyword>) {
        let named = |k: &&Keyword| self.keywords.contains(k);
        let mut new: Vec<Keyword> = match self.op {
            FlagOp::Replace => keywords.iter().filter(named).cloned().collect(),
            FlagOp::Add => keywords.to_vec(),
            FlagOp::Remove => return self.removed(flags, keywords),
        };
        for k in &self.keywords {
            if !new.contains(k) {
                new.push(k.clone());
            }
        }
        let flags = match self.op {
            FlagOp::Replace => self.flags,
            _ => flags.with(self.flags),
        };
        (flags, new)
    }

    fn removed(&self, flags: Flags, keywords: &[Keyword]) -> (Flags, Vec<Keyword>) {
        let kept = keywords
            .iter()
            .filter(|k| !self.keywords.contains(k))
            .cloned()
            .collect();
        (flags.without(self.flags), kept)
    }
}

impl Mailboxes {
    /// Changes flags. Messages that are gone are passed over. A change that alters nothing of a
    /// message leaves its modification sequence.
    ///
    /// # Errors
    /// [`Error::Limit`] for keywords, [`Error::Contended`]; otherwise what the store says. Messages
    /// changed before the error stay changed.
    pub async fn store_flags(
        &self,
        place: Place,
        uids: &[Uid],
        change: &FlagChange,
    ) -> Result<Flagged, Error> {
        check_keywords(&change.keywords)?;
        let mut done = Flagged::default();
        for chunk in rising(uids).chunks(CHUNK) {
            let of_chunk = self.store_chunk(place, chunk, change).await?;
            done.entries.extend(of_chunk.entries);
            done.spared.extend(of_chunk.spared);
        }
        Ok(done)
    }

    /// Copies messages, all or nothing; messages that are gone are passed over.
    ///
    /// # Errors
    /// [`Error::NoSuchMailbox`] for the destination, [`Error::Limit`] beyond
    /// [`MESSAGES_PER_COPY_MAX`], [`Error::Contended`]; otherwise what the store says.
    pub async fn copy(&self, from: Place, uids: &[Uid], to: Place) -> Result<Moved, Error> {
        let uids = rising(uids);
        if uids.len() > MESSAGES_PER_COPY_MAX {
            return Err(Error::Limit {
                what: "messages of one copy",
                max: MESSAGES_PER_COPY_MAX,
            });
        }
        let uid_validity = self.validity(to).await?;
        let uids = self.transfer(from, &uids, to, Source::Stays).await?;
        Ok(Moved { uid_validity, uids })
    }

    /// Moves messages, each exactly once (RFC 6851 §3.3): no moment shows it in both or neither.
    ///
    /// # Errors
    /// As [`Mailboxes::copy`] without the limit. Messages moved before an error stay moved.
    pub async fn move_(&self, from: Place, uids: &[Uid], to: Place) -> Result<Moved, Error> {
        let uid_validity = self.validity(to).await?;
        let mut moved = Vec::new();
        for chunk in rising(uids).chunks(CHUNK) {
            moved.extend(self.transfer(from, chunk, to, Source::Goes).await?);
        }
        Ok(Moved {
            uid_validity,
            uids: moved,
        })
    }

    /// Removes messages for good.
    ///
    /// # Errors
    /// [`Error::Contended`]; otherwise what the store says. Messages removed before stay removed.
    pub async fn expunge(&self, place: Place, uids: &[Uid], which: ExpungeWhich) -> Result<Expunged, Error> {
        let mut done = Expunged::default();
        for chunk in rising(uids).chunks(CHUNK) {
            let of_chunk = self.expunge_chunk(place, chunk, which).await?;
            done.uids.extend(of_chunk.uids);
            done.modseq = of_chunk.modseq.or(done.modseq);
        }
        Ok(done)
    }

    async fn store_chunk(&self, place: Place, uids: &[Uid], change: &FlagChange) -> Result<Flagged, Error> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let mut done = Flagged::default();
            let mut changed = Vec::new();
            let mut batch = Batch::new();
            let mut tally = Tally::default();
            let slot = batch.alloc(keys::counter(place.mailbox, Counter::ModSeq), 1);
            for entry in self.present(place, uids).await? {
                if change.unchanged_since.is_some_and(|since| entry.modseq > since) {
                    done.spared.push(entry.uid);
                    continue;
                }
                let (flags, keywords) = change.apply(entry.flags, &entry.keywords);
                if flags != entry.flags || keywords != entry.keywords {
                    check_keywords(&keywords)?;
                    let new = Entry {
                        flags,
                        keywords,
                        ..entry.clone()
                    };
                    put_changed(&mut batch, place, &entry, &new, slot);
                    tally.unseen += unseen(&new) - unseen(&entry);
                    changed.push(done.entries.len());
                    done.entries.push(new);
                } else {
                    done.entries.push(entry);
                }
            }
            if changed.is_empty() {
                return Ok(done);
            }
            tally.add_to(&mut batch, place);
            wake(&mut batch, place);
            if let Some(receipt) = self.commit_unless_conflict(batch).await? {
                for i in changed {
                    if let Some(entry) = done.entries.get_mut(i) {
                        entry.modseq = modseq(&receipt, slot);
                        entry.version = receipt.seq.0;
                    }
                }
                return Ok(done);
            }
        }
        Err(Error::Contended)
    }

    async fn expunge_chunk(
        &self,
        place: Place,
        uids: &[Uid],
        which: ExpungeWhich,
    ) -> Result<Expunged, Error> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let mut batch = Batch::new();
            let mut tally = Tally::default();
            let slot = batch.alloc(keys::counter(place.mailbox, Counter::ModSeq), 1);
            let mut removed = Vec::new();
            for entry in self.present(place, uids).await? {
                if which == ExpungeWhich::All || entry.flags.has(Flags::DELETED) {
                    remove(&mut batch, place, &entry, slot);
                    tally.went(&entry);
                    removed.push(entry.uid);
                }
            }
            if removed.is_empty() {
                return Ok(Expunged::default());
            }
            tally.add_to(&mut batch, place);
            wake(&mut batch, place);
            if let Some(receipt) = self.commit_unless_conflict(batch).await? {
                return Ok(Expunged {
                    uids: removed,
                    modseq: Some(modseq(&receipt, slot)),
                });
            }
        }
        Err(Error::Contended)
    }

    /// Copies or moves in one commit.
    async fn transfer(
        &self,
        from: Place,
        uids: &[Uid],
        to: Place,
        source: Source,
    ) -> Result<Vec<(Uid, Uid)>, Error> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let entries = self.present(from, uids).await?;
            if entries.is_empty() {
                return Ok(Vec::new());
            }
            let mut batch = Batch::new();
            batch.require(Require::KeyPresent(keys::mailbox(to.account, to.mailbox)));
            let new_uid = batch.alloc(keys::counter(to.mailbox, Counter::Uid), entries.len() as u64);
            let arrived = batch.alloc(keys::counter(to.mailbox, Counter::ModSeq), 1);
            let (mut coming, mut going) = (Tally::default(), Tally::default());
            let gone = (source == Source::Goes)
                .then(|| batch.alloc(keys::counter(from.mailbox, Counter::ModSeq), 1));
            for (plus, entry) in entries.iter().enumerate() {
                put_new(&mut batch, to, entry, new_uid, plus as u64, arrived);
                coming.came(entry);
                match gone {
                    Some(slot) => {
                        remove(&mut batch, from, entry, slot);
                        going.went(entry);
                    }
                    // Its blob is there as long as the entry is.
                    None => batch.require(Require::KeyPresent(keys::entry(from.mailbox, entry.uid))),
                }
            }
            coming.add_to(&mut batch, to);
            going.add_to(&mut batch, from);
            wake(&mut batch, to);
            if source == Source::Goes {
                wake(&mut batch, from);
            }
            match self.store.commit(batch).await {
                Ok(receipt) => {
                    let first = receipt.value(new_uid);
                    let news = (first..).map(|n| Uid(u32::try_from(n).unwrap_or(u32::MAX)));
                    return Ok(entries.iter().map(|e| e.uid).zip(news).collect());
                }
                Err(CommitError::Conflict { index: 0 }) => return Err(Error::NoSuchMailbox),
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Contended)
    }

    /// Those of the named messages that are there, from one snapshot; damaged ones are passed over.
    async fn present(&self, place: Place, uids: &[Uid]) -> Result<Vec<Entry>, Error> {
        let snapshot = self.store.snapshot().await?;
        let mut entries = Vec::with_capacity(uids.len());
        for uid in uids {
            match entry_in(snapshot.as_ref(), place, *uid).await {
                Ok(entry) => entries.extend(entry),
                Err(error @ Error::Damaged { .. }) => tracing::error!(%error, "a message is passed over"),
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    async fn validity(&self, place: Place) -> Result<UidValidity, Error> {
        let mailbox = self.by_id(place.account, place.mailbox).await?;
        Ok(mailbox.ok_or(Error::NoSuchMailbox)?.uid_validity)
    }

    async fn commit_unless_conflict(&self, batch: Batch) -> Result<Option<Receipt>, Error> {
        match self.store.commit(batch).await {
            Ok(receipt) => Ok(Some(receipt)),
            Err(CommitError::Conflict { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Stays,
    Goes,
}

fn put_changed(batch: &mut Batch, place: Place, old: &Entry, new: &Entry, slot: Slot) {
    let key = keys::entry(place.mailbox, old.uid);
    batch.require(Require::VersionIs(key.clone(), old.version));
    let patches = vec![modseq_patch(slot, MODSEQ_OFFSET)];
    batch.put_with(key, codec::encode_entry(new), Vec::new(), patches, vec![new.blob]);
    log(batch, place, old, slot, ChangeKind::Flags);
}

fn remove(batch: &mut Batch, place: Place, entry: &Entry, slot: Slot) {
    let key = keys::entry(place.mailbox, entry.uid);
    batch.require(Require::VersionIs(key.clone(), entry.version));
    batch.delete(key);
    log(batch, place, entry, slot, ChangeKind::Expunged);
}

/// One line per message: the new one replaces the old one, if there was one.
fn log(batch: &mut Batch, place: Place, old: &Entry, slot: Slot, kind: ChangeKind) {
    if old.modseq != old.arrived_modseq {
        batch.delete(keys::change(place.mailbox, old.modseq, old.uid));
    }
    let patch: Patch = modseq_patch(slot, keys::CHANGE_MODSEQ_OFFSET);
    batch.put_with(
        keys::change(place.mailbox, ModSeq(0), old.uid),
        codec::encode_change(kind),
        vec![patch],
        Vec::new(),
        Vec::new(),
    );
}

fn modseq(receipt: &Receipt, slot: Slot) -> ModSeq {
    ModSeq(receipt.value(slot) + MODSEQ_ABOVE)
}

fn unseen(entry: &Entry) -> i64 {
    i64::from(!entry.flags.has(Flags::SEEN))
}

fn rising(uids: &[Uid]) -> Vec<Uid> {
    let mut uids = uids.to_vec();
    uids.sort_unstable();
    uids.dedup();
    uids
}
