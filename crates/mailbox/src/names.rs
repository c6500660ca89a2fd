//! A change of an account's mailbox names, put together as a value and added to a batch.
//!
//! It conflicts with every other change of the same account's names, so that no two cross.

use crate::codec::{self, MailboxRecord, NUMBER_OFFSET};
use crate::keys;
use crate::naming::{canonical, inferior_part, superiors};
use crate::{Error, Mailbox, Role};
use mail::{AccountId, MailboxId, Timestamp, UidValidity};
use std::collections::HashSet;
use store::{Batch, Patch, Require, Slot};

pub(crate) const INBOX: &str = "INBOX";

/// All names of an account at one moment.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) mailboxes: Vec<Mailbox>,
    /// Of the account's record; `None` before the first mailbox.
    pub(crate) version: Option<u64>,
    pub(crate) last_validity: u32,
}

impl Names {
    pub(crate) fn by_name(&self, name: &str) -> Option<&Mailbox> {
        self.mailboxes.iter().find(|m| m.name == name)
    }
}

/// A change of an account's names while it is put together.
pub(crate) struct NameChange {
    account: AccountId,
    version: Option<u64>,
    /// New mailboxes of this change share it; it is above every one that was given out before.
    uid_validity: UidValidity,
    made: Vec<(String, Option<Role>)>,
    rewritten: Vec<(Mailbox, String, Option<Role>)>,
    doomed: Vec<Mailbox>,
}

impl NameChange {
    pub(crate) fn begin(account: AccountId, names: &Names, now: Timestamp) -> Self {
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

    pub(crate) fn made(&self) -> usize {
        self.made.len()
    }

    pub(crate) fn make(&mut self, name: &str, role: Option<Role>) {
        self.made.push((name.to_owned(), role));
    }

    pub(crate) fn make_superiors(&mut self, names: &Names, name: &str) {
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

    pub(crate) fn rewrite(&mut self, mailbox: &Mailbox, name: &str, role: Option<Role>) {
        self.rewritten.push((mailbox.clone(), name.to_owned(), role));
    }

    pub(crate) fn doom(&mut self, mailbox: &Mailbox) {
        self.doomed.push(mailbox.clone());
    }

    pub(crate) fn add_to(&self, batch: &mut Batch) {
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

/// Renames a mailbox and everything below it, unless a new name is taken.
pub(crate) fn rename_tree(names: &Names, change: &mut NameChange, from: &str, to: &str) -> Result<(), Error> {
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
