//! Checking all mailboxes against themselves: counters against what stands in them, UIDs and modseqs
//! against their rules, the change log against the entries, and whether anything is left of a
//! mailbox that is not there.
//!
//! Pure over one snapshot, page by page; memory is a few octets for each mailbox and account, and
//! nothing for each message. Never: a repair, a message's text.

use crate::codec::{self, ChangeKind};
use crate::delivery::{MODSEQ_ABOVE, Tally};
use crate::keys::{self, Counter};
use crate::{Entry, Error, Mailbox};
use mail::{AccountId, MailboxId, ModSeq, Uid};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use store::{Finding, Key, KeyRange, ReadError, Severity, Snapshot, Tell, Where};

/// Rows that are read at once.
const PAGE: usize = 1_000;

const RESTORE: &str = "check the disk, then restore what is named from a backup";
const RECOUNT: &str = "if no other finding and no word of damage in the log explains it, no message is lost by it; restore the mailbox from a backup, or move its messages to a new one";
const LEFT_OVER: &str = "no message in use is lost by it; it takes room until the account is removed";

/// What the audit of the mailboxes counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audited {
    /// Accounts that have mailboxes.
    pub accounts: BTreeSet<AccountId>,
    /// Mailboxes.
    pub mailboxes: u64,
    /// Messages in them.
    pub messages: u64,
    /// Octets of these.
    pub octets: u64,
}

/// Checks the mailboxes of a snapshot and tells what is wrong. `name_of` says how an account is
/// called.
///
/// # Errors
/// When the store cannot be read.
pub async fn audit(
    snapshot: &dyn Snapshot,
    name_of: &(dyn Fn(AccountId) -> String + Send + Sync),
    tell: Tell<'_>,
) -> Result<Audited, Error> {
    let mut work = Work {
        snapshot,
        name_of,
        tell,
        audited: Audited::default(),
        known: HashSet::new(),
        usage: HashMap::new(),
        id_max: 0,
    };
    work.mailboxes().await?;
    work.doomed().await?;
    work.names_and_roles().await?;
    work.left_over().await?;
    work.usage().await?;
    Ok(work.audited)
}

/// Whose the mailboxes of these ids are and how they are called, as far as they are there: for
/// telling findings that name mailboxes by number. Reads the records of all mailboxes.
///
/// # Errors
/// When the store cannot be read.
pub async fn names_of(
    snapshot: &dyn Snapshot,
    wanted: &BTreeSet<MailboxId>,
) -> Result<BTreeMap<MailboxId, (AccountId, String)>, Error> {
    let mut names = BTreeMap::new();
    let mut range = keys::mailboxes().prefix_range();
    while names.len() < wanted.len() {
        let rows = snapshot.scan(&range, PAGE).await?;
        let Some((last, _)) = rows.last() else { break };
        range = range.after(last);
        for (key, stored) in rows {
            let account = key.reader().u64().map(AccountId);
            if let (Some(account), Ok((id, record))) = (account, codec::decode_mailbox(&key, &stored.value))
                && wanted.contains(&id)
            {
                names.insert(id, (account, record.name));
            }
        }
    }
    Ok(names)
}

struct Work<'a> {
    snapshot: &'a dyn Snapshot,
    name_of: &'a (dyn Fn(AccountId) -> String + Send + Sync),
    tell: Tell<'a>,
    audited: Audited,
    /// Mailboxes that are there or on their way out.
    known: HashSet<MailboxId>,
    usage: HashMap<AccountId, i64>,
    id_max: u64,
}

/// What the entries of a mailbox come to.
#[derive(Default)]
struct Found {
    tally: Tally,
    uid_max: u32,
    arrived_max: u64,
    damaged: bool,
}

impl Work<'_> {
    fn tell(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: Where,
        what: impl Into<String>,
        remedy: &'static str,
    ) {
        (self.tell)(Finding::new(severity, code, place, what, remedy));
    }

    fn place_of(&self, mailbox: &Mailbox) -> String {
        format!("mailbox {} of {}", mailbox.name, (self.name_of)(mailbox.account))
    }

    async fn number(&self, mailbox: MailboxId, which: Counter) -> Result<i64, Error> {
        Ok(self.snapshot.counter(&keys::counter(mailbox, which)).await?)
    }

    /// What stands under a key; a damaged row counts as there, for the walk over all rows tells it.
    async fn stands(&self, key: &Key) -> Result<Option<Option<store::Versioned>>, Error> {
        match self.snapshot.get(key).await {
            Ok(found) => Ok(found.map(Some)),
            Err(ReadError::Corrupt(_)) => Ok(Some(None)),
            Err(error) => Err(error.into()),
        }
    }

    async fn mailboxes(&mut self) -> Result<(), Error> {
        let mut range = keys::mailboxes().prefix_range();
        loop {
            let rows = self.snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            for (key, stored) in rows {
                let mut parts = key.reader();
                let (Some(account), Some(id)) = (parts.u64().map(AccountId), parts.u64().map(MailboxId))
                else {
                    continue;
                };
                self.audited.accounts.insert(account);
                self.audited.mailboxes += 1;
                self.known.insert(id);
                self.id_max = self.id_max.max(id.0);
                match codec::decode_mailbox(&key, &stored.value) {
                    Ok((id, record)) => {
                        let mailbox = Mailbox {
                            account,
                            id,
                            name: record.name,
                            role: record.role,
                            uid_validity: record.uid_validity,
                        };
                        self.mailbox(&mailbox).await?;
                    }
                    Err(error) => {
                        let what = error.to_string();
                        self.tell(
                            Severity::Error,
                            "mailbox-damaged",
                            Where::Entry(key),
                            what,
                            RESTORE,
                        );
                    }
                }
            }
        }
    }

    async fn mailbox(&mut self, mailbox: &Mailbox) -> Result<(), Error> {
        let mut indexes = vec![(keys::name(mailbox.account, &mailbox.name), "name")];
        if let Some(role) = mailbox.role {
            indexes.push((keys::role(mailbox.account, role.code()), "role"));
        }
        for (key, by) in indexes {
            let leads = match self.stands(&key).await? {
                Some(Some(stored)) => codec::decode_u64(&key, &stored.value).ok() == Some(mailbox.id.0),
                Some(None) => true,
                None => false,
            };
            if !leads {
                let place = Where::Named(self.place_of(mailbox));
                let what = format!("it can't be found by its {by}");
                let remedy = "rename it, and rename it back";
                self.tell(Severity::Error, "mailbox-not-found", place, what, remedy);
            }
        }
        let place = self.place_of(mailbox);
        let uid_last = self.number(mailbox.id, Counter::Uid).await?;
        let highest = self.number(mailbox.id, Counter::ModSeq).await? + MODSEQ_ABOVE as i64;
        let found = self.entries(mailbox.id, &place, uid_last, highest).await?;
        self.changes(mailbox.id, &place, highest).await?;
        self.audited.messages += found.tally.messages.unsigned_abs();
        self.audited.octets += found.tally.octets.unsigned_abs();
        *self.usage.entry(mailbox.account).or_default() += found.tally.octets;
        if found.damaged {
            // What can't be read can't be counted.
            return Ok(());
        }
        let counted = [
            (Counter::Messages, "messages", found.tally.messages),
            (Counter::Unseen, "unseen messages", found.tally.unseen),
            (Counter::Octets, "octets", found.tally.octets),
        ];
        for (which, what, is) in counted {
            let said = self.number(mailbox.id, which).await?;
            if said != is {
                let what = format!("{is} {what} stand in {place}, its counter says {said}");
                let counter = Where::Counter(keys::counter(mailbox.id, which));
                self.tell(Severity::Error, "mailbox-count-wrong", counter, what, RECOUNT);
            }
        }
        Ok(())
    }

    async fn entries(
        &mut self,
        mailbox: MailboxId,
        place: &str,
        uid_last: i64,
        highest: i64,
    ) -> Result<Found, Error> {
        let mut found = Found::default();
        let mut range = keys::entries_of(mailbox).prefix_range();
        loop {
            let rows = self.snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(found);
            };
            range = range.after(last);
            for (key, stored) in rows {
                match codec::decode_entry(&key, &stored) {
                    Ok(entry) => {
                        found.tally.came(&entry);
                        self.entry(mailbox, place, &entry, uid_last, highest, &mut found)
                            .await?;
                    }
                    Err(error) => {
                        found.damaged = true;
                        let what = format!("a message in {place} can't be read: {error}");
                        self.tell(
                            Severity::Error,
                            "message-damaged",
                            Where::Entry(key),
                            what,
                            RESTORE,
                        );
                    }
                }
            }
        }
    }

    async fn entry(
        &mut self,
        mailbox: MailboxId,
        place: &str,
        entry: &Entry,
        uid_last: i64,
        highest: i64,
        found: &mut Found,
    ) -> Result<(), Error> {
        let here = || Where::Named(format!("message UID {} in {place}", entry.uid.0));
        found.uid_max = entry.uid.0;
        if entry.uid.0 == 0 || i64::from(entry.uid.0) > uid_last {
            let what = format!(
                "its UID is not below the next one, {}",
                uid_last.saturating_add(1)
            );
            self.tell(Severity::Error, "uid-wrong", here(), what, RECOUNT);
        }
        let (modseq, arrived) = (entry.modseq.0, entry.arrived_modseq.0);
        let beyond = i64::try_from(modseq).map_or(true, |modseq| modseq > highest);
        if beyond || arrived > modseq || arrived < found.arrived_max {
            let what = format!(
                "it came with modseq {arrived} and changed with {modseq}; those before it came with up to {}, the mailbox stands at {highest}",
                found.arrived_max
            );
            self.tell(Severity::Error, "modseq-wrong", here(), what, RECOUNT);
        }
        found.arrived_max = found.arrived_max.max(arrived);
        if modseq != arrived {
            let key = keys::change(mailbox, entry.modseq, entry.uid);
            let told = match self.stands(&key).await? {
                Some(Some(stored)) => codec::decode_change(&key, &stored.value)
                    .is_ok_and(|(_, _, kind)| kind == ChangeKind::Flags),
                Some(None) => true,
                None => false,
            };
            if !told {
                let what =
                    "its last change is not in the change log: a client that was away does not hear of it";
                let remedy = "change a flag of the message, and change it back";
                self.tell(Severity::Warning, "change-missing", here(), what, remedy);
            }
        }
        Ok(())
    }

    async fn changes(&mut self, mailbox: MailboxId, place: &str, highest: i64) -> Result<(), Error> {
        let mut range = keys::changes_of(mailbox).prefix_range();
        loop {
            let rows = self.snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            for (key, stored) in rows {
                let what = match codec::decode_change(&key, &stored.value) {
                    Ok((modseq, uid, kind)) => self.change(mailbox, modseq, uid, kind, highest).await?,
                    Err(error) => Some(error.to_string()),
                };
                if let Some(what) = what {
                    let what = format!("in the change log of {place}: {what}");
                    let remedy = "nothing: clients that compare the whole mailbox see it right";
                    self.tell(Severity::Warning, "change-wrong", Where::Entry(key), what, remedy);
                }
            }
        }
    }

    async fn change(
        &self,
        mailbox: MailboxId,
        modseq: ModSeq,
        uid: Uid,
        kind: ChangeKind,
        highest: i64,
    ) -> Result<Option<String>, Error> {
        if i64::try_from(modseq.0).map_or(true, |modseq| modseq > highest) {
            return Ok(Some(format!(
                "modseq {} is beyond the mailbox's {highest}",
                modseq.0
            )));
        }
        let key = keys::entry(mailbox, uid);
        let stands = self.stands(&key).await?;
        Ok(match (kind, stands) {
            (ChangeKind::Expunged, Some(_)) => Some(format!("UID {} is said to be gone and is there", uid.0)),
            (ChangeKind::Flags, None) => Some(format!("UID {} is said to be changed and is gone", uid.0)),
            (ChangeKind::Flags, Some(Some(stored))) => match codec::decode_entry(&key, &stored) {
                Ok(entry) if entry.modseq != modseq => Some(format!(
                    "UID {} changed with modseq {}, not {}",
                    uid.0, entry.modseq.0, modseq.0
                )),
                _ => None,
            },
            (ChangeKind::Expunged, None) | (ChangeKind::Flags, Some(None)) => None,
        })
    }

    /// Mailboxes whose deletion is not finished: what is left of them still counts.
    async fn doomed(&mut self) -> Result<(), Error> {
        let mut range = keys::doomed_all().prefix_range();
        loop {
            let rows = self.snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            for (key, stored) in rows {
                let (Some(id), Ok(account)) = (
                    key.reader().u64().map(MailboxId),
                    codec::decode_u64(&key, &stored.value).map(AccountId),
                ) else {
                    continue;
                };
                self.known.insert(id);
                self.id_max = self.id_max.max(id.0);
                let found = self.entries(id, "a deleted mailbox", i64::MAX, i64::MAX).await?;
                *self.usage.entry(account).or_default() += found.tally.octets;
                let place = Where::Named(format!("a deleted mailbox of {}", (self.name_of)(account)));
                let what = format!("{} messages of it are still to be removed", found.tally.messages);
                let remedy = "nothing: the server goes on with it, at the latest at its next start";
                self.tell(Severity::Note, "deletion-unfinished", place, what, remedy);
            }
        }
    }

    /// Names and roles that lead to a mailbox that is not there.
    async fn names_and_roles(&mut self) -> Result<(), Error> {
        for table in [keys::names(), keys::roles()] {
            let mut range = table.prefix_range();
            loop {
                let rows = self.snapshot.scan(&range, PAGE).await?;
                let Some((last, _)) = rows.last() else { break };
                range = range.after(last);
                for (key, stored) in rows {
                    let account = AccountId(key.reader().u64().unwrap_or(0));
                    let id = codec::decode_u64(&key, &stored.value).map(MailboxId);
                    let there = match &id {
                        Ok(id) => self.stands(&keys::mailbox(account, *id)).await?.is_some(),
                        Err(_) => false,
                    };
                    if !there {
                        let what = format!(
                            "it leads to a mailbox of {} that is not there",
                            (self.name_of)(account)
                        );
                        self.tell(
                            Severity::Error,
                            "name-without-mailbox",
                            Where::Entry(key),
                            what,
                            RESTORE,
                        );
                    }
                }
            }
        }
        let given = self.snapshot.counter(&keys::mailbox_ids()).await?;
        if i64::try_from(self.id_max).map_or(true, |most| most > given) {
            let what = format!(
                "mailbox {} is there, the counter of mailbox ids stands at {given}",
                self.id_max
            );
            let place = Where::Counter(keys::mailbox_ids());
            self.tell(Severity::Error, "mailbox-ids-wrong", place, what, RESTORE);
        }
        Ok(())
    }

    /// Messages, changes and counters of mailboxes that are not there.
    async fn left_over(&mut self) -> Result<(), Error> {
        for (table, what) in [(keys::entries(), "messages"), (keys::changes(), "changes")] {
            let mut range: KeyRange = table.prefix_range();
            loop {
                let rows = self.snapshot.scan(&range, 1).await?;
                let Some((key, _)) = rows.into_iter().next() else {
                    break;
                };
                let Some(id) = key.reader().u64().map(MailboxId) else {
                    break;
                };
                range.start = table.clone().u64(id.0).prefix_range().end;
                if !self.known.contains(&id) {
                    let severity = match what {
                        "messages" => Severity::Error,
                        _ => Severity::Warning,
                    };
                    let what = format!("{what} of mailbox {}, which is not there", id.0);
                    self.tell(severity, "mailbox-left-over", Where::Entry(key), what, LEFT_OVER);
                }
                if range.start.is_empty() {
                    break;
                }
            }
        }
        let mut range = keys::counters().prefix_range();
        loop {
            let rows = self.snapshot.counters(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            for (key, count) in rows {
                let Some(id) = key.reader().u64().map(MailboxId) else {
                    continue;
                };
                if !self.known.contains(&id) {
                    let what = format!("a counter at {count} of mailbox {}, which is not there", id.0);
                    self.tell(
                        Severity::Warning,
                        "mailbox-left-over",
                        Where::Counter(key),
                        what,
                        LEFT_OVER,
                    );
                }
            }
        }
    }

    async fn usage(&mut self) -> Result<(), Error> {
        let mut range = keys::usages().prefix_range();
        let mut said = HashMap::new();
        loop {
            let rows = self.snapshot.counters(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else { break };
            range = range.after(last);
            for (key, count) in rows {
                if let Some(account) = key.reader().u64().map(AccountId) {
                    said.insert(account, count);
                }
            }
        }
        let mut accounts: Vec<AccountId> = self.usage.keys().chain(said.keys()).copied().collect();
        accounts.sort_unstable();
        accounts.dedup();
        for account in accounts {
            let is = self.usage.get(&account).copied().unwrap_or(0);
            let says = said.get(&account).copied().unwrap_or(0);
            if is != says {
                let name = (self.name_of)(account);
                let what = format!("{name} has {is} octets of mail, the counter for its quota says {says}");
                let place = Where::Counter(keys::usage(account));
                self.tell(Severity::Error, "usage-wrong", place, what, RECOUNT);
            }
        }
        Ok(())
    }
}
