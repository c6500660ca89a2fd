//! The login log on its way to the store: off the path of logins, merged, and no faster than a limit,
//! so that guessing cannot fill a disk.

use directory::{Directory, LoginEntry, LoginEvent, LoginRing};
use mail::{AccountId, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::Batch;

/// Entries that wait at most; what comes beyond that is counted and told in the log of the program.
const WAITING_MAX: usize = 256;
/// How long entries wait, so that what repeats becomes one and the store is not asked more often.
const GATHER: Duration = Duration::from_secs(1);
/// Logins that went alike within this time are one entry.
const MERGE_WITHIN: Duration = Duration::from_secs(3_600);
/// Accounts whose newest entry is remembered.
const RINGS_MAX: usize = 10_000;
/// Octets of a name that are kept.
const USER_OCTETS_MAX: usize = 256;

/// Gathers entries and writes them.
pub(super) struct LoginLog {
    directory: Directory,
    waiting: Mutex<Waiting>,
    rings: tokio::sync::Mutex<HashMap<Option<AccountId>, LoginRing>>,
}

#[derive(Default)]
struct Waiting {
    entries: HashMap<LoginEvent, LoginEntry>,
    missed: u64,
    /// Somebody will write them.
    is_due: bool,
}

impl LoginLog {
    pub(super) fn new(directory: Directory) -> Arc<Self> {
        Arc::new(Self {
            directory,
            waiting: Mutex::default(),
            rings: tokio::sync::Mutex::default(),
        })
    }

    /// Takes an entry; it is written about a second later.
    pub(super) fn note(self: &Arc<Self>, now: Timestamp, mut what: LoginEvent) {
        what.user.truncate(what.user.floor_char_boundary(USER_OCTETS_MAX));
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = waiting.entries.get_mut(&what) {
            entry.count = entry.count.saturating_add(1);
            entry.last = now;
        } else if waiting.entries.len() < WAITING_MAX {
            let entry = LoginEntry {
                number: 0,
                first: now,
                last: now,
                count: 1,
                what: what.clone(),
            };
            waiting.entries.insert(what, entry);
        } else {
            waiting.missed = waiting.missed.saturating_add(1);
        }
        if !std::mem::replace(&mut waiting.is_due, true) {
            let log = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(GATHER).await;
                log.write().await;
            });
        }
    }

    /// Writes what waits.
    pub(super) async fn write(&self) {
        let (mut entries, missed) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.is_due = false;
            let entries: Vec<LoginEntry> = waiting.entries.drain().map(|(_, entry)| entry).collect();
            (entries, std::mem::take(&mut waiting.missed))
        };
        if missed > 0 {
            tracing::warn!(missed, "logins came too fast: some are not in the login log");
        }
        if entries.is_empty() {
            return;
        }
        entries.sort_by_key(|entry| entry.first);
        if let Err(error) = self.put(entries).await {
            tracing::warn!(%error, "the login log could not be written");
        }
    }

    async fn put(&self, entries: Vec<LoginEntry>) -> Result<(), directory::Error> {
        let mut rings = self.rings.lock().await;
        if rings.len() > RINGS_MAX {
            rings.clear();
        }
        let mut batch = Batch::new();
        for entry in entries {
            let account = self.directory.account_of_login(&entry.what.user).await?;
            let ring = match rings.entry(account) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => {
                    new.insert(self.directory.login_ring(account).await?)
                }
            };
            ring.put(&mut batch, entry, MERGE_WITHIN)?;
        }
        let written = self.directory.write_login_log(batch).await;
        if written.is_err() {
            // What the rings remember was not written.
            rings.clear();
        }
        written
    }
}
