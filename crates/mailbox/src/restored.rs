//! What a restored store must do before clients come back: give numbers that no client has seen.
//!
//! A backup is older than the loss. Between the two, clients may have seen UIDs and modseqs that
//! the restored store would give again, to other messages; a client that keeps a cache would then
//! show the wrong mail (RFC 3501 §2.3.1.1, RFC 7162 §3.1). So all counters leap ahead, under the
//! same UIDVALIDITY: messages of the backup keep their numbers, lost ones look expunged.
//! Never: a change to a message.

use crate::codec;
use crate::keys::{self, Counter};
use crate::{CONFLICT_RETRIES_MAX, Error, Mailboxes};
use mail::MailboxId;
use store::{Batch, CommitError, Key, KeyRange, Require};

/// How far UIDs, modseqs and mailbox ids leap. A mailbox would have to get this many messages
/// between backup and loss to give a number twice; UIDs (32 bits) allow some 4,000 leaps.
pub const LEAP: u32 = 1 << 20;

/// Mailboxes that leap in one batch.
const PAGE: usize = 500;

impl Mailboxes {
    /// Makes every counter of UIDs and modseqs leap ahead by [`LEAP`]. To be called once on a
    /// restored store, before anyone else uses it. Answers how many mailboxes there are.
    ///
    /// # Errors
    /// When the store fails; do not use the restored store then.
    pub async fn leap_ahead(&self) -> Result<u64, Error> {
        let leap = i64::from(LEAP);
        let mut batch = Batch::new();
        batch.add(keys::mailbox_ids(), leap);
        self.store.commit(batch).await?;
        let mut range = KeyRange {
            start: keys::mailboxes(),
            end: keys::mailboxes().prefix_range().end,
        };
        let mut mailboxes = 0;
        loop {
            let rows = self.store.snapshot().await?.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(mailboxes);
            };
            range = range.after(last);
            mailboxes += rows.len() as u64;
            let ids: Vec<MailboxId> = rows.iter().filter_map(|(key, _)| id_of(key)).collect();
            self.leap(&ids, leap).await?;
        }
    }

    async fn leap(&self, ids: &[MailboxId], leap: i64) -> Result<(), Error> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let mut batch = Batch::new();
            for id in ids {
                let modseq = snapshot.counter(&keys::counter(*id, Counter::ModSeq)).await?;
                batch.add(keys::counter(*id, Counter::Uid), leap);
                batch.add(keys::counter(*id, Counter::ModSeq), leap);
                // Of what was expunged in the lost time nothing is known: clients must compare.
                let key = keys::forgotten(*id);
                batch.require(match snapshot.get(&key).await? {
                    Some(stored) => Require::VersionIs(key.clone(), stored.version),
                    None => Require::KeyAbsent(key.clone()),
                });
                let until = u64::try_from(modseq + leap).unwrap_or(0);
                batch.put(key, codec::encode_u64(until));
            }
            match self.store.commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended)
    }
}

/// The mailbox of a mailbox record's key.
fn id_of(key: &Key) -> Option<MailboxId> {
    let mut parts = key.reader();
    parts.u64()?;
    parts.u64().map(MailboxId)
}
