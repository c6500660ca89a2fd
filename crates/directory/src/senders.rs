//! Senders of forwarded mail: the secret by which they are rewritten, kept in the store, and those that
//! are too long to be written out.

use crate::srs::{KeptSender, Original, Rewritten, SrsKey, VALID_DAYS, day_of};
use crate::{Directory, Error, Forward, Resolution, Spread, SrsError, keys, value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail::{Domain, EmailAddress, ReversePath, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Batch, CommitError, Require};

/// Octets of the secret.
const SECRET_OCTETS: usize = 32;
/// Kept senders whose time is over that one batch removes.
const REMOVED_AT_ONCE: usize = 16;

#[derive(Serialize, Deserialize)]
struct StoredSecret {
    secret: String,
}

/// Whose mail it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OriginalSender {
    /// This one's.
    Known(EmailAddress),
    /// Nobody's that we sent mail on for.
    Refused(SrsError),
}

impl Directory {
    /// The reverse-path under which a message is sent on for an address at `domain`. The null path
    /// stays what it is (RFC 5321 §4.5.5). What must be kept for bounces to come back is added to
    /// the batch.
    ///
    /// # Errors
    /// When the store cannot be read, or a secret cannot be made.
    pub async fn forward_sender(
        &self,
        batch: &mut Batch,
        sender: &ReversePath,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<ReversePath, Error> {
        let ReversePath::Address(sender) = sender else {
            return Ok(ReversePath::Null);
        };
        let key = self.srs_key().await?;
        match key.rewrite(sender, domain, now) {
            Rewritten::Whole(address) => Ok(ReversePath::Address(address)),
            Rewritten::Kept(address, kept) => {
                self.forget_kept(batch, now).await?;
                let row = keys::kept_sender(kept.day, kept.number);
                let value = value::encode(&row, sender)?;
                batch.put(row, value);
                Ok(ReversePath::Address(address))
            }
        }
    }

    /// Where an address leads, as [`Directory::resolve`] says; one under which we sent mail on leads
    /// where its original sender does, and a false one to nobody.
    ///
    /// # Errors
    /// As [`Directory::original_sender`].
    pub async fn resolve_sender(&self, address: &EmailAddress, now: Timestamp) -> Result<Resolution, Error> {
        let resolution = self.resolve(address).await?;
        if resolution != Resolution::Rewritten {
            return Ok(resolution);
        }
        let OriginalSender::Known(original) = self.original_sender(address, now).await? else {
            return Ok(Resolution::UnknownUser);
        };
        Ok(match self.resolve(&original).await? {
            Resolution::NotOurs | Resolution::Rewritten => {
                let forward = Forward {
                    to: original,
                    by: address.clone(),
                };
                Resolution::Spread(Box::new(Spread {
                    forwards: vec![forward],
                    ..Spread::default()
                }))
            }
            resolution => resolution,
        })
    }

    /// Whose mail it was that was sent on under this address, which [`Directory::resolve`] said to be
    /// [`Rewritten`](crate::Resolution::Rewritten).
    ///
    /// # Errors
    /// When the store cannot be read, or a secret cannot be made.
    pub async fn original_sender(
        &self,
        address: &EmailAddress,
        now: Timestamp,
    ) -> Result<OriginalSender, Error> {
        let key = self.srs_key().await?;
        let kept = match key.original(address.local(), now) {
            Ok(Original::Sender(sender)) => return Ok(OriginalSender::Known(sender)),
            Ok(Original::Kept(kept)) => kept,
            Err(error) => return Ok(OriginalSender::Refused(error)),
        };
        self.kept_sender(kept).await
    }

    async fn kept_sender(&self, kept: KeptSender) -> Result<OriginalSender, Error> {
        let snapshot = self.store.snapshot().await?;
        let row = keys::kept_sender(kept.day, kept.number);
        Ok(match snapshot.get(&row).await? {
            Some(stored) => OriginalSender::Known(value::decode(&row, &stored.value)?),
            None => OriginalSender::Refused(SrsError::TooOld),
        })
    }

    /// Removes a few senders whose time is over.
    async fn forget_kept(&self, batch: &mut Batch, now: Timestamp) -> Result<(), Error> {
        let snapshot = self.store.snapshot().await?;
        let mut range = keys::kept_senders().prefix_range();
        range.end = keys::kept_senders().u32(day_of(now).saturating_sub(VALID_DAYS + 1));
        for (row, _) in snapshot.scan(&range, REMOVED_AT_ONCE).await? {
            batch.delete(row);
        }
        Ok(())
    }

    /// The key, made when it is first needed.
    async fn srs_key(&self) -> Result<Arc<SrsKey>, Error> {
        if let Some(key) = self.srs.get() {
            return Ok(key.clone());
        }
        let row = keys::srs_secret();
        loop {
            let snapshot = self.store.snapshot().await?;
            if let Some(stored) = snapshot.get(&row).await? {
                let stored: StoredSecret = value::decode(&row, &stored.value)?;
                let secret = STANDARD.decode(&stored.secret).map_err(|e| Error::Damaged {
                    key: row.clone(),
                    what: e.to_string(),
                })?;
                let key = Arc::new(SrsKey::new(&secret));
                return Ok(self.srs.get_or_init(|| key).clone());
            }
            drop(snapshot);
            let mut secret = [0u8; SECRET_OCTETS];
            self.random.fill(&mut secret)?;
            let stored = StoredSecret {
                secret: STANDARD.encode(secret),
            };
            let mut batch = Batch::new();
            batch.require(Require::KeyAbsent(row.clone()));
            batch.put(row.clone(), value::encode(&row, &stored)?);
            match self.store.commit(batch).await {
                // Read back; whoever was quicker has made it.
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
