//! The keys of this crate's tables, 0x20 to 0x2f.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0x20 | account, mailbox id | mailbox record |
//! | 0x21 | account, folded name | mailbox id |
//! | 0x22 | account, role code | mailbox id |
//! | 0x23 | account | account record: last UIDVALIDITY; its version orders all changes of names |
//! | 0x24 | account, name | subscription, empty |
//! | 0x25 | – | counter of mailbox ids |
//! | 0x26 | mailbox id, counter code | a counter of the mailbox |
//! | 0x27 | account | counter: octets of all messages |
//! | 0x28 | mailbox id, UID | entry |
//! | 0x29 | mailbox id, modseq, UID | change: flags or expunged |
//! | 0x2a | mailbox id | first UID that is still recent |
//! | 0x2b | mailbox id | account of a deleted mailbox whose messages are still to be removed |
//! | 0x2c | mailbox id | modseq before which expunges are forgotten |

use mail::{AccountId, MailboxId, ModSeq, Uid};
use store::{Key, Topic};

/// The counters of a mailbox.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    Uid = 1,
    ModSeq = 2,
    Messages = 3,
    Unseen = 4,
    Octets = 5,
}

pub(crate) const COUNTERS: [Counter; 5] = [
    Counter::Uid,
    Counter::ModSeq,
    Counter::Messages,
    Counter::Unseen,
    Counter::Octets,
];

pub(crate) fn mailboxes() -> Key {
    Key::table(0x20)
}

pub(crate) fn mailboxes_of(account: AccountId) -> Key {
    mailboxes().u64(account.0)
}

pub(crate) fn mailbox(account: AccountId, id: MailboxId) -> Key {
    mailboxes_of(account).u64(id.0)
}

pub(crate) fn names() -> Key {
    Key::table(0x21)
}

pub(crate) fn name(account: AccountId, folded: &str) -> Key {
    names().u64(account.0).text(folded)
}

pub(crate) fn roles() -> Key {
    Key::table(0x22)
}

pub(crate) fn role(account: AccountId, code: u8) -> Key {
    roles().u64(account.0).u8(code)
}

pub(crate) fn account(account: AccountId) -> Key {
    Key::table(0x23).u64(account.0)
}

pub(crate) fn subscriptions_of(account: AccountId) -> Key {
    Key::table(0x24).u64(account.0)
}

pub(crate) fn subscription(account: AccountId, name: &str) -> Key {
    subscriptions_of(account).text(name)
}

pub(crate) fn mailbox_ids() -> Key {
    Key::table(0x25)
}

pub(crate) fn counters() -> Key {
    Key::table(0x26)
}

pub(crate) fn counter(mailbox: MailboxId, which: Counter) -> Key {
    counters().u64(mailbox.0).u8(which as u8)
}

pub(crate) fn usages() -> Key {
    Key::table(0x27)
}

pub(crate) fn usage(account: AccountId) -> Key {
    usages().u64(account.0)
}

pub(crate) fn entries() -> Key {
    Key::table(0x28)
}

pub(crate) fn entries_of(mailbox: MailboxId) -> Key {
    entries().u64(mailbox.0)
}

/// Offset of the UID in an entry's key.
pub(crate) const ENTRY_UID_OFFSET: usize = 9;

pub(crate) fn entry(mailbox: MailboxId, uid: Uid) -> Key {
    entries_of(mailbox).u32(uid.0)
}

pub(crate) fn changes() -> Key {
    Key::table(0x29)
}

pub(crate) fn changes_of(mailbox: MailboxId) -> Key {
    changes().u64(mailbox.0)
}

/// Offset of the modseq in a change's key.
pub(crate) const CHANGE_MODSEQ_OFFSET: usize = 9;

pub(crate) fn change(mailbox: MailboxId, modseq: ModSeq, uid: Uid) -> Key {
    changes_of(mailbox).u64(modseq.0).u32(uid.0)
}

pub(crate) fn recent(mailbox: MailboxId) -> Key {
    Key::table(0x2a).u64(mailbox.0)
}

pub(crate) fn doomed_all() -> Key {
    Key::table(0x2b)
}

pub(crate) fn doomed(mailbox: MailboxId) -> Key {
    doomed_all().u64(mailbox.0)
}

pub(crate) fn forgotten(mailbox: MailboxId) -> Key {
    Key::table(0x2c).u64(mailbox.0)
}

pub(crate) fn mailbox_topic(mailbox: MailboxId) -> Topic {
    topic(0x28, mailbox.0)
}

pub(crate) fn account_topic(account: AccountId) -> Topic {
    topic(0x20, account.0)
}

fn topic(table: u8, id: u64) -> Topic {
    let mut name = vec![table];
    name.extend_from_slice(&id.to_be_bytes());
    Topic(name)
}
