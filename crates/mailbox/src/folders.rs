//! Mailboxes as such: making, listing, renaming, deleting, subscribing.
//!
//! Every change of an account's names is decided on a snapshot of them all and committed on the
//! condition that the account's record has not changed, so that no two changes cross.

use crate::codec::{self, MailboxRecord};
use crate::keys::{self, COUNTERS};
use crate::names::{INBOX, NameChange, Names, rename_tree};
use crate::naming::{canonical, inferior_part};
use crate::{CONFLICT_RETRIES_MAX, Error, Mailbox, Mailboxes, Role};
use mail::{AccountId, MailboxId, Timestamp};
use store::{Batch, CommitError, Key, Require, Snapshot};

/// Mailboxes of one account at most; also subscriptions.
pub const MAILBOXES_PER_ACCOUNT_MAX: usize = 5_000;

/// Rows that are removed in one commit.
const SWEEP_ROWS: usize = 1_000;

impl Mailboxes {
    /// Adds to a batch a new account's first mailboxes: INBOX and one of each role.
    /// The commit conflicts when the account has mailboxes already.
    pub fn create_defaults(&self, batch: &mut Batch, account: AccountId, now: Timestamp) {
        let mut change = NameChange::begin(account, &Names::default(), now);
        for role in Role::ALL {
            change.make(role.default_name(), Some(role));
            // Many clients show only what is subscribed.
            batch.put(keys::subscription(account, role.default_name()), vec![1]);
        }
        change.add_to(batch);
    }

    /// All mailboxes of an account, by name; INBOX first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, account: AccountId) -> Result<Vec<Mailbox>, Error> {
        let mut all = self.names(account).await?.mailboxes;
        all.sort_by(|a, b| (a.name != INBOX, &a.name).cmp(&(b.name != INBOX, &b.name)));
        Ok(all)
    }

    /// The mailbox of that name (INBOX in any case).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn by_name(&self, account: AccountId, name: &str) -> Result<Option<Mailbox>, Error> {
        let Ok(name) = canonical(name) else {
            return Ok(None);
        };
        self.by_index(account, keys::name(account, &name)).await
    }

    /// The mailbox of that id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn by_id(&self, account: AccountId, id: MailboxId) -> Result<Option<Mailbox>, Error> {
        let snapshot = self.store.snapshot().await?;
        mailbox_in(snapshot.as_ref(), account, id).await
    }

    /// The mailbox of that role.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(&self, account: AccountId, role: Role) -> Result<Option<Mailbox>, Error> {
        self.by_index(account, keys::role(account, role.code())).await
    }

    /// The mailbox of that role, made if it is missing. A mailbox that has the role's usual name
    /// and no role takes it.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find_or_create(
        &self,
        account: AccountId,
        role: Role,
        now: Timestamp,
    ) -> Result<Mailbox, Error> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            if let Some(found) = self.find(account, role).await? {
                return Ok(found);
            }
            let names = self.names(account).await?;
            let mut change = NameChange::begin(account, &names, now);
            match names.by_name(role.default_name()) {
                Some(m) if m.role.is_none() => change.rewrite(m, &m.name, Some(role)),
                // Its usual name serves another role: a name that nobody has.
                Some(_) => {
                    let free = (2..).map(|n| format!("{} {n}", role.default_name()));
                    let mut free = free.filter(|n| names.by_name(n).is_none());
                    change.make(&free.next().unwrap_or_default(), Some(role));
                }
                None => change.make(role.default_name(), Some(role)),
            }
            self.commit_names(change).await?;
        }
        Err(Error::Contended)
    }

    /// Makes a mailbox, and its superiors where they are missing (RFC 3501 §6.3.3).
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::BadName`], [`Error::Limit`]; otherwise what the store says.
    pub async fn create(&self, account: AccountId, name: &str, now: Timestamp) -> Result<Mailbox, Error> {
        let name = canonical(name)?;
        for _ in 0..CONFLICT_RETRIES_MAX {
            let names = self.names(account).await?;
            if names.by_name(&name).is_some() {
                return Err(Error::Exists);
            }
            let mut change = NameChange::begin(account, &names, now);
            change.make_superiors(&names, &name);
            change.make(&name, (name == INBOX).then_some(Role::Inbox));
            if names.mailboxes.len() + change.made() > MAILBOXES_PER_ACCOUNT_MAX {
                return Err(over_limit());
            }
            if self.commit_names(change).await? {
                return self.by_name(account, &name).await?.ok_or(Error::Contended);
            }
        }
        Err(Error::Contended)
    }

    /// Deletes a mailbox with its messages. Inferior mailboxes stay (RFC 3501 §6.3.4).
    ///
    /// # Errors
    /// [`Error::NoSuchMailbox`], [`Error::Forbidden`] for INBOX; otherwise what the store says.
    pub async fn delete(&self, account: AccountId, name: &str) -> Result<(), Error> {
        let name = canonical(name)?;
        if name == INBOX {
            return Err(Error::Forbidden("INBOX cannot be deleted"));
        }
        for _ in 0..CONFLICT_RETRIES_MAX {
            let names = self.names(account).await?;
            let mailbox = names.by_name(&name).ok_or(Error::NoSuchMailbox)?;
            let mut change = NameChange::begin(account, &names, Timestamp(0));
            change.doom(mailbox);
            if self.commit_names(change).await? {
                return self.sweep_one(account, mailbox.id).await;
            }
        }
        Err(Error::Contended)
    }

    /// Deletes all mailboxes, subscriptions and messages of an account.
    ///
    /// # Errors
    /// What the store says.
    pub async fn delete_all(&self, account: AccountId) -> Result<(), Error> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let names = self.names(account).await?;
            let mut batch = Batch::new();
            let mut change = NameChange::begin(account, &names, Timestamp(0));
            for mailbox in &names.mailboxes {
                change.doom(mailbox);
            }
            change.add_to(&mut batch);
            batch.delete(keys::account(account));
            for name in self.subscriptions(account).await? {
                batch.delete(keys::subscription(account, &name));
            }
            match self.store.commit(batch).await {
                Ok(_) => {
                    for mailbox in &names.mailboxes {
                        self.sweep_one(account, mailbox.id).await?;
                    }
                    return Ok(());
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::Contended)
    }

    /// Removes what is left of deleted mailboxes, e.g. after a crash in [`Mailboxes::delete`].
    /// Call it once at start; it costs nothing when there is nothing left.
    ///
    /// # Errors
    /// What the store says.
    pub async fn sweep(&self) -> Result<(), Error> {
        loop {
            let snapshot = self.store.snapshot().await?;
            let doomed = snapshot
                .scan(&keys::doomed_all().prefix_range(), SWEEP_ROWS)
                .await?;
            drop(snapshot);
            if doomed.is_empty() {
                return Ok(());
            }
            for (key, stored) in doomed {
                let account = AccountId(codec::decode_u64(&key, &stored.value)?);
                let id = key.reader().u64().ok_or(Error::Damaged {
                    key,
                    what: "the key holds no mailbox",
                })?;
                self.sweep_one(account, MailboxId(id)).await?;
            }
        }
    }

    /// Renames a mailbox and its inferiors. Renaming INBOX gives its messages to a mailbox of the
    /// new name and leaves an empty INBOX; its inferiors stay (RFC 3501 §6.3.5). Subscriptions
    /// are to names and stay as they are.
    ///
    /// # Errors
    /// [`Error::NoSuchMailbox`], [`Error::Exists`], [`Error::BadName`], [`Error::Forbidden`] for a
    /// new name below the old one; otherwise what the store says.
    pub async fn rename(
        &self,
        account: AccountId,
        from: &str,
        to: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (from, to) = (canonical(from)?, canonical(to)?);
        if from != INBOX && inferior_part(&to, &from).is_some() {
            return Err(Error::Forbidden("a mailbox cannot be renamed to below itself"));
        }
        for _ in 0..CONFLICT_RETRIES_MAX {
            let names = self.names(account).await?;
            if names.by_name(&to).is_some() {
                return Err(Error::Exists);
            }
            let mut change = NameChange::begin(account, &names, now);
            if from == INBOX {
                let inbox = names.by_name(INBOX).ok_or(Error::NoSuchMailbox)?;
                // The messages stay under their id, which gets the new name; a new INBOX is made.
                change.rewrite(inbox, &to, None);
                change.make(INBOX, Some(Role::Inbox));
            } else {
                rename_tree(&names, &mut change, &from, &to)?;
            }
            change.make_superiors(&names, &to);
            if names.mailboxes.len() + change.made() > MAILBOXES_PER_ACCOUNT_MAX {
                return Err(over_limit());
            }
            if self.commit_names(change).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// Subscribes to a name; there need not be a mailbox of that name (RFC 3501 §6.3.6).
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::Limit`]; otherwise what the store says.
    pub async fn subscribe(&self, account: AccountId, name: &str) -> Result<(), Error> {
        let name = canonical(name)?;
        if self.subscriptions(account).await?.len() >= MAILBOXES_PER_ACCOUNT_MAX {
            return Err(over_limit());
        }
        let mut batch = Batch::new();
        batch.put(keys::subscription(account, &name), vec![1]);
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Ends a subscription; no error when there was none.
    ///
    /// # Errors
    /// [`Error::BadName`]; otherwise what the store says.
    pub async fn unsubscribe(&self, account: AccountId, name: &str) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.delete(keys::subscription(account, &canonical(name)?));
        self.store.commit(batch).await?;
        Ok(())
    }

    /// The subscribed names, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn subscriptions(&self, account: AccountId) -> Result<Vec<String>, Error> {
        let snapshot = self.store.snapshot().await?;
        let range = keys::subscriptions_of(account).prefix_range();
        let rows = snapshot.scan(&range, MAILBOXES_PER_ACCOUNT_MAX).await?;
        rows.into_iter()
            .map(|(key, _)| {
                let mut parts = key.reader();
                let name = parts.u64().and_then(|_| parts.text());
                name.ok_or(Error::Damaged {
                    key,
                    what: "the key holds no name",
                })
            })
            .collect()
    }

    /// Octets of all messages of an account, for quotas.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn usage(&self, account: AccountId) -> Result<u64, Error> {
        let snapshot = self.store.snapshot().await?;
        let octets = snapshot.counter(&keys::usage(account)).await?;
        Ok(u64::try_from(octets).unwrap_or(0))
    }

    async fn by_index(&self, account: AccountId, index: Key) -> Result<Option<Mailbox>, Error> {
        let snapshot = self.store.snapshot().await?;
        let Some(stored) = snapshot.get(&index).await? else {
            return Ok(None);
        };
        let id = MailboxId(codec::decode_u64(&index, &stored.value)?);
        mailbox_in(snapshot.as_ref(), account, id).await
    }

    async fn names(&self, account: AccountId) -> Result<Names, Error> {
        let snapshot = self.store.snapshot().await?;
        let key = keys::account(account);
        let record = snapshot.get(&key).await?;
        let last_validity = match &record {
            Some(stored) => u32::try_from(codec::decode_u64(&key, &stored.value)?).unwrap_or(u32::MAX),
            None => 0,
        };
        let range = keys::mailboxes_of(account).prefix_range();
        // One more than can be made at once, so that the limit is seen to be passed.
        let rows = snapshot.scan(&range, MAILBOXES_PER_ACCOUNT_MAX + 64).await?;
        let mailboxes = rows
            .iter()
            .map(|(key, stored)| {
                codec::decode_mailbox(key, &stored.value).map(|(id, r)| with_record(account, id, r))
            })
            .collect::<Result<_, _>>()?;
        Ok(Names {
            mailboxes,
            version: record.map(|r| r.version),
            last_validity,
        })
    }

    /// Answers `false` when another change of names was quicker.
    async fn commit_names(&self, change: NameChange) -> Result<bool, Error> {
        let mut batch = Batch::new();
        change.add_to(&mut batch);
        match self.store.commit(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes the messages of a deleted mailbox, then everything else that is kept of it.
    async fn sweep_one(&self, account: AccountId, id: MailboxId) -> Result<(), Error> {
        let place = crate::Place { account, mailbox: id };
        loop {
            let snapshot = self.store.snapshot().await?;
            let rows = snapshot
                .scan(&keys::entries_of(id).prefix_range(), SWEEP_ROWS)
                .await?;
            drop(snapshot);
            if rows.is_empty() {
                break;
            }
            let mut batch = Batch::new();
            let mut tally = crate::delivery::Tally::default();
            for (key, stored) in rows {
                if let Some(entry) = crate::delivery::decoded_or_logged(&key, &stored) {
                    tally.went(&entry);
                }
                // A session that still has the mailbox open may be expunging: count each once.
                batch.require(Require::KeyPresent(key.clone()));
                batch.delete(key);
            }
            tally.add_to(&mut batch, place);
            match self.store.commit(batch).await {
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        loop {
            let snapshot = self.store.snapshot().await?;
            let rows = snapshot
                .scan(&keys::changes_of(id).prefix_range(), SWEEP_ROWS)
                .await?;
            drop(snapshot);
            let mut batch = Batch::new();
            let at_end = rows.len() < SWEEP_ROWS;
            for (key, _) in rows {
                batch.delete(key);
            }
            if at_end {
                for which in COUNTERS {
                    batch.delete(keys::counter(id, which));
                }
                for key in [keys::recent(id), keys::forgotten(id), keys::doomed(id)] {
                    batch.delete(key);
                }
            }
            self.store.commit(batch).await?;
            if at_end {
                return Ok(());
            }
        }
    }
}

fn with_record(account: AccountId, id: MailboxId, record: MailboxRecord) -> Mailbox {
    Mailbox {
        account,
        id,
        name: record.name,
        role: record.role,
        uid_validity: record.uid_validity,
    }
}

async fn mailbox_in(
    snapshot: &dyn Snapshot,
    account: AccountId,
    id: MailboxId,
) -> Result<Option<Mailbox>, Error> {
    let key = keys::mailbox(account, id);
    let Some(stored) = snapshot.get(&key).await? else {
        return Ok(None);
    };
    let (_, record) = codec::decode_mailbox(&key, &stored.value)?;
    Ok(Some(with_record(account, id, record)))
}

fn over_limit() -> Error {
    Error::Limit {
        what: "mailboxes of one account",
        max: MAILBOXES_PER_ACCOUNT_MAX,
    }
}
