//! What is remembered of other domains' policies, durably: a restart must not forget that a domain
//! asked for verified TLS, or whoever can make the server restart could take the protection away.

use crate::cache::Entry;
use crate::keys;
use mail::{Domain, Timestamp};
use std::sync::Arc;
use store::{Batch, CommitError, Key, ReadError, Store};

/// Rows that are read at once.
const PAGE: usize = 500;

/// Why something could not be read or stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store did not commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What is to be stored has no stored form.
    #[error("the policy cannot be written: {0}")]
    Unwritten(String),
}

/// The table of policies. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    store: Arc<dyn Store>,
}

impl Memory {
    /// The memory in this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// What is remembered of a domain.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn entry(&self, domain: &Domain) -> Result<Option<Entry>, Error> {
        let key = keys::policy(domain);
        match self.store.snapshot().await?.get(&key).await? {
            Some(stored) => Ok(decode(&key, &stored.value)),
            None => Ok(None),
        }
    }

    /// Domains of which something is remembered, in order, behind `after`, `limit` at most.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn entries(&self, after: Option<&Domain>, limit: usize) -> Result<Vec<Entry>, Error> {
        let mut range = keys::policies().prefix_range();
        if let Some(after) = after {
            range = range.after(&keys::policy(after));
        }
        let rows = self.store.snapshot().await?.scan(&range, limit).await?;
        Ok(rows
            .iter()
            .filter_map(|(key, stored)| decode(key, &stored.value))
            .collect())
    }

    /// Remembers.
    ///
    /// # Errors
    /// When the store did not take it.
    pub async fn put(&self, entry: &Entry) -> Result<(), Error> {
        let key = keys::policy(&entry.domain);
        let value = serde_json::to_vec(entry).map_err(|e| Error::Unwritten(e.to_string()))?;
        let mut batch = Batch::new();
        batch.put(key, value);
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Forgets what is over and was not used for long. Answers how much that was.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn forget(&self, now: Timestamp) -> Result<usize, Error> {
        let (mut after, mut forgotten) = (None, 0);
        loop {
            let page = self.entries(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(forgotten);
            };
            after = Some(last.domain.clone());
            let mut batch = Batch::new();
            for entry in page.iter().filter(|entry| entry.is_over(now)) {
                batch.delete(keys::policy(&entry.domain));
                forgotten += 1;
            }
            if !batch.is_empty() {
                self.store.commit(batch).await?;
            }
        }
    }
}

/// A row that is none of ours is told and left out: the policy is fetched again.
fn decode(key: &Key, value: &[u8]) -> Option<Entry> {
    serde_json::from_slice(value)
        .inspect_err(|error| tracing::error!(?key, %error, "a stored MTA-STS policy cannot be understood"))
        .ok()
}
