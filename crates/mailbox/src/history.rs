//! What changed in a mailbox since a modification sequence (RFC 7162): for open sessions that
//! others' changes must reach, and for clients that come back.
//!
//! Flag changes and expunges stand in a log by modseq, one line per message. Arrivals need no log:
//! UIDs and modseqs of arrival rise together, so the first new one is found by its UID.

use crate::codec::{self, ChangeKind};
use crate::delivery::{MODSEQ_ABOVE, after_uid, decoded_or_logged, entry_in};
use crate::keys::{self, Counter};
use crate::{CONFLICT_RETRIES_MAX, Entry, Error, Mailboxes, Place};
use mail::{ModSeq, Uid};
use store::{Batch, CommitError, KeyRange, Require, Snapshot};

/// Arrivals that are looked for from the end before the first one is searched for.
const RECENT_PAGE: usize = 64;

/// Records that are read at once while forgetting.
const PRUNE_PAGE: usize = 500;

/// One thing that changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A message that came since then, as it is now.
    Arrived(Entry),
    /// A message that was there then and whose flags changed, as it is now.
    Flags(Entry),
    /// A message that is gone. It may have come and gone since then: pass over unknown UIDs.
    Expunged(Uid),
}

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes {
    /// Expunges first, then flags, then arrivals; each by rising UID.
    pub changes: Vec<Change>,
    /// Up to where this tells; ask from here the next time.
    pub highest_modseq: ModSeq,
    /// Whether there was more than the limit: ask again from `highest_modseq`.
    pub more: bool,
    /// Whether every expunge since then is told. When not (the record of expunges was pruned),
    /// what is not in the mailbox any more must be found by comparing.
    pub complete: bool,
}

impl Mailboxes {
    /// What changed since `since`, in cost proportional to the number of changes and not to the
    /// mailbox. About `limit` changes are told at once; those of one commit are never divided.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn changes_since(&self, place: Place, since: ModSeq, limit: usize) -> Result<Changes, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let limit = limit.max(1);
        let last = snapshot
            .counter(&keys::counter(place.mailbox, Counter::ModSeq))
            .await?;
        let highest = ModSeq(u64::try_from(last).unwrap_or(0) + MODSEQ_ABOVE);
        let complete = since >= forgotten(snapshot, place).await?;
        let (logged, logged_to) = logged_since(snapshot, place, since, limit).await?;
        let (arrived, arrived_to) = arrived_since(snapshot, place, since, limit).await?;
        // What one page cut off, the other must not run ahead of.
        let to = [logged_to, arrived_to]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(highest);
        let mut expunged = Vec::new();
        let mut flags = Vec::new();
        for (_, uid, kind) in logged.into_iter().filter(|(m, ..)| *m <= to) {
            match kind {
                ChangeKind::Expunged => expunged.push(uid),
                ChangeKind::Flags => match entry_in(snapshot, place, uid).await {
                    // A message that is new since then is told as an arrival.
                    Ok(Some(e)) if e.arrived_modseq <= since => flags.push(e),
                    Ok(_) => {}
                    Err(error @ Error::Damaged { .. }) => tracing::error!(%error, "a change is left out"),
                    Err(error) => return Err(error),
                },
            }
        }
        expunged.sort_unstable();
        flags.sort_unstable_by_key(|e| e.uid);
        let arrived = arrived.into_iter().filter(|e| e.arrived_modseq <= to);
        let changes = expunged
            .into_iter()
            .map(Change::Expunged)
            .chain(flags.into_iter().map(Change::Flags))
            .chain(arrived.map(Change::Arrived))
            .collect();
        Ok(Changes {
            changes,
            highest_modseq: to.max(since),
            more: to < highest,
            complete,
        })
    }

    /// Forgets expunges up to and including `before`, the oldest `limit` of them at most. Answers
    /// how many were forgotten; fewer than `limit` only when no more are left.
    ///
    /// # Errors
    /// [`Error::Contended`]; otherwise what the store says.
    pub async fn prune_expunged(&self, place: Place, before: ModSeq, limit: usize) -> Result<usize, Error> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let mut range = KeyRange {
                start: keys::changes_of(place.mailbox),
                end: keys::change(place.mailbox, ModSeq(before.0.saturating_add(1)), Uid(0)),
            };
            let mut batch = Batch::new();
            let key = keys::forgotten(place.mailbox);
            let known = snapshot.get(&key).await?;
            batch.require(match &known {
                Some(stored) => Require::VersionIs(key, stored.version),
                None => Require::KeyAbsent(key),
            });
            let mut highest = forgotten(snapshot.as_ref(), place).await?;
            let mut pruned = 0;
            // The newest change of a message that is still there stays, however old: walk past it.
            while pruned < limit {
                let rows = snapshot.scan(&range, PRUNE_PAGE).await?;
                let Some((last, _)) = rows.last() else { break };
                range = range.after(last);
                for (key, stored) in rows {
                    let (modseq, _, kind) = codec::decode_change(&key, &stored.value)?;
                    if kind == ChangeKind::Expunged && pruned < limit {
                        highest = highest.max(modseq);
                        batch.delete(key);
                        pruned += 1;
                    }
                }
            }
            drop(snapshot);
            if pruned == 0 {
                return Ok(0);
            }
            batch.require(Require::KeyPresent(keys::mailbox(place.account, place.mailbox)));
            batch.put(keys::forgotten(place.mailbox), codec::encode_u64(highest.0));
            match self.store.commit(batch).await {
                Ok(_) => return Ok(pruned),
                Err(CommitError::Conflict { index: 0 }) => {}
                Err(CommitError::Conflict { .. }) => return Err(Error::NoSuchMailbox),
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Contended)
    }
}

async fn forgotten(snapshot: &dyn Snapshot, place: Place) -> Result<ModSeq, Error> {
    let key = keys::forgotten(place.mailbox);
    match snapshot.get(&key).await? {
        Some(stored) => Ok(ModSeq(codec::decode_u64(&key, &stored.value)?)),
        None => Ok(ModSeq(0)),
    }
}

type Logged = (ModSeq, Uid, ChangeKind);

/// The log behind `since`: about `limit` lines, and where it was cut, if it was.
async fn logged_since(
    snapshot: &dyn Snapshot,
    place: Place,
    since: ModSeq,
    limit: usize,
) -> Result<(Vec<Logged>, Option<ModSeq>), Error> {
    let mut range = KeyRange {
        start: keys::change(place.mailbox, ModSeq(since.0.saturating_add(1)), Uid(0)),
        end: keys::changes_of(place.mailbox).prefix_range().end,
    };
    let mut lines: Vec<Logged> = Vec::new();
    loop {
        let rows = snapshot.scan(&range, limit).await?;
        let at_end = rows.len() < limit;
        for (key, stored) in rows {
            range = range.after(&key);
            let line = codec::decode_change(&key, &stored.value)?;
            if let Some(last) = lines.last().map(|l| l.0)
                && lines.len() >= limit
                && line.0 > last
            {
                return Ok((lines, Some(last)));
            }
            lines.push(line);
        }
        if at_end {
            return Ok((lines, None));
        }
    }
}

/// The messages that came behind `since`, by UID: about `limit`, and where it was cut, if it was.
async fn arrived_since(
    snapshot: &dyn Snapshot,
    place: Place,
    since: ModSeq,
    limit: usize,
) -> Result<(Vec<Entry>, Option<ModSeq>), Error> {
    let Some(from) = first_arrival(snapshot, place, since).await? else {
        return Ok((Vec::new(), None));
    };
    let mut range = KeyRange {
        start: keys::entry(place.mailbox, from),
        end: keys::entries_of(place.mailbox).prefix_range().end,
    };
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let rows = snapshot.scan(&range, limit).await?;
        let at_end = rows.len() < limit;
        for (key, stored) in rows {
            range = range.after(&key);
            let Some(entry) = decoded_or_logged(&key, &stored) else {
                continue;
            };
            if let Some(last) = entries.last().map(|e| e.arrived_modseq)
                && entries.len() >= limit
                && entry.arrived_modseq > last
            {
                return Ok((entries, Some(last)));
            }
            entries.push(entry);
        }
        if at_end {
            return Ok((entries, None));
        }
    }
}

/// The lowest UID from which on every message came behind `since`; `None` when none did.
async fn first_arrival(snapshot: &dyn Snapshot, place: Place, since: ModSeq) -> Result<Option<Uid>, Error> {
    // Nearly always the new ones are few: look from the end.
    let all = keys::entries_of(place.mailbox).prefix_range();
    let rows = snapshot.scan_back(&all, RECENT_PAGE).await?;
    let mut found = None;
    let mut reached_old = rows.len() < RECENT_PAGE;
    for entry in rows.iter().filter_map(|(k, v)| decoded_or_logged(k, v)) {
        if entry.arrived_modseq <= since {
            reached_old = true;
            break;
        }
        found = Some(entry.uid);
    }
    let Some(known_new) = found.filter(|_| !reached_old) else {
        return Ok(found);
    };
    // Binary search: UIDs below `old` came before, those from `new` on behind.
    let (mut old, mut new) = (0u32, known_new.0);
    while old < new {
        let middle = old + (new - old) / 2;
        let range = KeyRange {
            start: keys::entry(place.mailbox, Uid(middle)),
            end: keys::entry(place.mailbox, Uid(new)),
        };
        let first = snapshot.scan(&range, 1).await?;
        match first.first().map(|(k, v)| codec::decode_entry(k, v)) {
            Some(Ok(e)) if e.arrived_modseq <= since => old = after_uid(u64::from(e.uid.0)).0,
            // A damaged entry counts as old: the ones behind it decide.
            Some(Err(_)) => {
                let uid = first.first().and_then(|(k, _)| {
                    let mut parts = k.reader();
                    parts.u64().and_then(|_| parts.u32())
                });
                old = uid.map_or(new, |u| u.saturating_add(1));
            }
            Some(Ok(_)) | None => new = middle,
        }
    }
    Ok(Some(Uid(new)))
}
