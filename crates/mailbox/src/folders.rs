//! Mailboxes as such: making, listing, renaming, deleting, subscribing.
//!
//! Every change of an account's names is decided on a snapshot of them all and committed on the
//! condition that the account's record has not changed, so that no two changes cross.

use crate::codec::{self, MailboxRecord, NUMBER_OFFSET};
use crate::keys::{self, COUNTERS};
use crate::naming::{canonical, inferior_part, superiors};
use crate::{CONFLICT_RETRIES_MAX, Error, Mailbox, Mailboxes, Role};
use mail::{AccountId, MailboxId, Timestamp, UidValidity};
use std::collections::HashSet;
use store::{Batch, CommitError, Key, Patch, Require, Slot, Snapshot};

/// Mailboxes of one account at most; also subscriptions.
pub const MAILBOXES_PER_ACCOUNT_MAX: usize = 5_000;

/// Rows that are removed in one commit.
const SWEEP_ROWS: usize = 1_000;
const INBOX: &str = "INBOX";

impl Mailboxes {
    /// Adds to a batch a new account's first mailboxes: INBOX and one of each role.
    /// The commit conflicts when the account has mailboxes already.
    pub fn create_defaults(&self, batch: &mut Batch, account: AccountId, now: Timestamp) {
        let mut change = NameChange::begin(account, &Names::default(), now);
        for role in Role::ALL {
            change.make(role.default_name(), Some(role));
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

/// All names of an account at one moment.
#[derive(Default)]
struct Names {
    mailboxes: Vec<Mailbox>,
    /// Of the account's record; `None` before the first mailbox.
    version: Option<u64>,
    last_validity: u32,
}

impl Names {
    fn by_name(&self, name: &str) -> Option<&Mailbox> {
        self.mailboxes.iter().find(|m| m.name == name)
    }
}

/// A change of an account's names while it is put together.
struct NameChange {
    account: AccountId,
    version: Option<u64>,
    /// New mailboxes of this change share it; it is above every one that was given out before.
    uid_validity: UidValidity,
    made: Vec<(String, Option<Role>)>,
    rewritten: Vec<(Mailbox, String, Option<Role>)>,
    doomed: Vec<Mailbox>,
}

impl NameChange {
    fn begin(account: AccountId, names: &Names, now: Timestamp) -> Self {
        let from_clock = u32::try_from(now.secs()).unwrap_or(if now.secs() < 0 { 0 } else { u32::MAX });
        Self {
            account,
            version: names.version,
            uid_validity: UidValidity(from_clock.max(names.last_validity.saturating_add(1))),
            made: Vec::new(),
            rewritten: Vec::new(),
            doomed: Vec::new(),
        }
    }

    fn made(&self) -> usize {
        self.made.len()
    }

    fn make(&mut self, name: &str, role: Option<Role>) {
        self.made.push((name.to_owned(), role));
    }

    fn make_superiors(&mut self, names: &Names, name: &str) {
        for superior in superiors(name) {
            let renamed_to = self.rewritten.iter().any(|(_, to, _)| to == superior);
            let renamed_away = self.rewritten.iter().any(|(m, ..)| m.name == superior);
            let made = self.made.iter().any(|(n, _)| n == superior);
            let exists = (names.by_name(superior).is_some() && !renamed_away) || renamed_to || made;
            if !exists {
                self.make(superior, (superior == INBOX).then_some(Role::Inbox));
            }
        }
    }

    fn rewrite(&mut self, mailbox: &Mailbox, name: &str, role: Option<Role>) {
        self.rewritten.push((mailbox.clone(), name.to_owned(), role));
    }

    fn doom(&mut self, mailbox: &Mailbox) {
        self.doomed.push(mailbox.clone());
    }

    fn add_to(&self, batch: &mut Batch) {
        let account = self.account;
        let guard = keys::account(account);
        batch.require(match self.version {
            Some(version) => Require::VersionIs(guard.clone(), version),
            None => Require::KeyAbsent(guard.clone()),
        });
        batch.put(guard, codec::encode_u64(u64::from(self.uid_validity.0)));
        for mailbox in &self.doomed {
            batch.delete(keys::mailbox(account, mailbox.id));
            remove_indexes(batch, mailbox);
            batch.put(keys::doomed(mailbox.id), codec::encode_u64(account.0));
            batch.notify(keys::mailbox_topic(mailbox.id));
        }
        // All old names go before any new one comes: a name may pass from one to the other.
        for (mailbox, ..) in &self.rewritten {
            remove_indexes(batch, mailbox);
        }
        for (mailbox, name, role) in &self.rewritten {
            let id = codec::encode_u64(mailbox.id.0);
            let record = record(name, *role, mailbox.uid_validity);
            batch.put(keys::mailbox(account, mailbox.id), codec::encode_mailbox(&record));
            batch.put(keys::name(account, name), id.clone());
            if let Some(role) = role {
                batch.put(keys::role(account, role.code()), id);
            }
        }
        if !self.made.is_empty() {
            let slot = batch.alloc(keys::mailbox_ids(), self.made.len() as u64);
            for (plus, (name, role)) in self.made.iter().enumerate() {
                self.put_made(batch, slot, plus as u64, name, *role);
            }
        }
        batch.notify(keys::account_topic(account));
    }

    fn put_made(&self, batch: &mut Batch, slot: Slot, plus: u64, name: &str, role: Option<Role>) {
        let patch = |offset| {
            vec![Patch {
                slot,
                plus,
                offset,
                width: 8,
            }]
        };
        let id_offset = keys::mailboxes_of(self.account).len();
        batch.put_with(
            keys::mailbox(self.account, MailboxId(0)),
            codec::encode_mailbox(&record(name, role, self.uid_validity)),
            patch(id_offset),
            Vec::new(),
            Vec::new(),
        );
        let indexes = [
            Some(keys::name(self.account, name)),
            role.map(|r| keys::role(self.account, r.code())),
        ];
        for index in indexes.into_iter().flatten() {
            batch.put_with(
                index,
                codec::encode_u64(0),
                Vec::new(),
                patch(NUMBER_OFFSET),
                Vec::new(),
            );
        }
    }
}

fn rename_tree(names: &Names, change: &mut NameChange, from: &str, to: &str) -> Result<(), Error> {
    for mailbox in &names.mailboxes {
        if mailbox.name == from {
            change.rewrite(mailbox, to, mailbox.role);
        } else if let Some(rest) = inferior_part(&mailbox.name, from) {
            change.rewrite(mailbox, &canonical(&format!("{to}{rest}"))?, mailbox.role);
        }
    }
    if change.rewritten.is_empty() {
        return Err(Error::NoSuchMailbox);
    }
    let moving: HashSet<MailboxId> = change.rewritten.iter().map(|(m, ..)| m.id).collect();
    let staying: HashSet<&str> = names
        .mailboxes
        .iter()
        .filter(|m| !moving.contains(&m.id))
        .map(|m| m.name.as_str())
        .collect();
    if change
        .rewritten
        .iter()
        .any(|(_, name, _)| staying.contains(name.as_str()))
    {
        return Err(Error::Exists);
    }
    Ok(())
}

fn remove_indexes(batch: &mut Batch, mailbox: &Mailbox) {
    batch.delete(keys::name(mailbox.account, &mailbox.name));
    if let Some(role) = mailbox.role {
        batch.delete(keys::role(mailbox.account, role.code()));
    }
}

fn record(name: &str, role: Option<Role>, uid_validity: UidValidity) -> MailboxRecord {
    MailboxRecord {
        role,
        uid_validity,
        name: name.to_owned(),
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
