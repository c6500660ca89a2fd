//! How much an account may keep.
//!
//! An account has a quota of its own, or the server's default. The few that have one of their own are
//! remembered, so that reception reads nothing for the others: while no quota is set anywhere, none is
//! looked for.

use crate::account::account_in;
use crate::{CONFLICT_RETRIES_MAX, Directory, Error, keys, value};
use mail::AccountId;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::{Batch, Require};

/// An account's own quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quota {
    /// It may keep any amount, whatever the default.
    Unlimited,
    /// It may keep this many octets.
    Octets(u64),
}

/// The accounts that have a quota of their own.
type Own = Arc<HashMap<AccountId, Quota>>;

/// What is remembered, and how often it was forgotten.
#[derive(Default)]
pub(crate) struct Quotas {
    state: Mutex<(u64, Option<Own>)>,
}

impl Quotas {
    fn known(&self) -> (u64, Option<Own>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers what was read, unless something changed since.
    fn remember(&self, turn: u64, own: &Own) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 == turn {
            state.1 = Some(own.clone());
        }
    }

    pub(crate) fn forget(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (state.0 + 1, None);
    }
}

impl Directory {
    /// How many octets an account may keep; `None` when nothing limits it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn quota(&self, id: AccountId) -> Result<Option<u64>, Error> {
        let own = self.own_quotas().await?;
        Ok(match own.get(&id) {
            Some(Quota::Unlimited) => None,
            Some(Quota::Octets(octets)) => Some(*octets),
            None => self.options.quota_default_octets,
        })
    }

    /// The quota that is the account's own.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn own_quota(&self, id: AccountId) -> Result<Option<Quota>, Error> {
        Ok(self.own_quotas().await?.get(&id).copied())
    }

    /// Gives an account a quota of its own, or with `None` the default. What is kept already stays.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`].
    pub async fn set_quota(&self, id: AccountId, quota: Option<Quota>) -> Result<(), Error> {
        let key = keys::own_quota(id);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let (account, version) = account_in(snapshot.as_ref(), id)
                .await?
                .ok_or(Error::NoSuchAccount)?;
            drop(snapshot);
            let mut batch = Batch::new();
            let account_key = keys::account(id);
            batch.require(Require::VersionIs(account_key.clone(), version));
            // Written again, so that a removal of the account that did not see the quota conflicts.
            let value = value::encode(&account_key, &account)?;
            batch.put(account_key, value);
            match quota {
                Some(quota) => {
                    let value = value::encode(&key, &quota)?;
                    batch.put(key.clone(), value);
                }
                None => batch.delete(key.clone()),
            }
            let done = self.commit_unless_conflict(batch).await;
            self.quotas.forget();
            if done? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    async fn own_quotas(&self) -> Result<Own, Error> {
        let (turn, known) = self.quotas.known();
        if let Some(own) = known {
            return Ok(own);
        }
        let snapshot = self.store.snapshot().await?;
        let rows = value::scan_all(snapshot.as_ref(), keys::own_quotas().prefix_range()).await?;
        let mut own = HashMap::with_capacity(rows.len());
        for (key, stored) in rows {
            let mut parts = key.reader();
            if let Some(id) = parts.u8().and_then(|_| parts.u64()) {
                own.insert(AccountId(id), value::decode(&key, &stored.value)?);
            }
        }
        let own = Arc::new(own);
        self.quotas.remember(turn, &own);
        Ok(own)
    }
}
