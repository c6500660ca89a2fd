//! The rows of the store in words: which table a key belongs to, and what its parts mean.
//!
//! Promises: every table of docs/STORE-FORMAT.md has its words; a key that does not fit them is
//! shown octet by octet. Never: a value.

use directory::Accounts;
use mail::{AccountId, MailboxId, QueueId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use store::{Finding, Key, KeyReader, Where};

/// A table: its number, whose it is, and its key in words. `{a}` is an account, `{m}` a mailbox,
/// `{q}` a queue id,
/// `{@}` a time, `{8}`, `{4}` and `{1}` numbers of so many octets, `{t}` a text.
const TABLES: &[(u8, &str, &str)] = &[
    (0x10, "directory", "domain {t}"),
    (0x11, "directory", "account {a}"),
    (0x12, "directory", "address {t}"),
    (0x13, "directory", "app password {8} of {a}"),
    (0x14, "directory", "last login of {a}"),
    (0x15, "directory", "ids given, counter {1}"),
    (0x16, "directory", "place in the list of {t}, account {a}"),
    (0x17, "directory", "second factor's last step of {a}"),
    (0x18, "directory", "login log of {a}, place {8}"),
    (0x19, "directory", "keys of SCRAM of {a}, password {8}"),
    (0x1a, "directory", "what directory keeps of the server, kind {1}"),
    (0x1b, "directory", "what {a} may send as: {t}"),
    (0x1c, "directory", "route for {t}"),
    (0x20, "mailbox", "mailbox of {a}, number {8}"),
    (0x21, "mailbox", "mailbox name of {a}: {t}"),
    (0x22, "mailbox", "mailbox role of {a}: {1}"),
    (0x23, "mailbox", "mailbox names of {a}"),
    (0x24, "mailbox", "subscription of {a}: {t}"),
    (0x25, "mailbox", "mailbox ids given"),
    (0x26, "mailbox", "count {1} of {m}"),
    (0x27, "mailbox", "octets of all mail of {a}"),
    (0x28, "mailbox", "message in {m}, UID {4}"),
    (0x29, "mailbox", "change in {m}, modseq {8}, UID {4}"),
    (0x2a, "mailbox", "recent messages of {m}"),
    (0x2b, "mailbox", "deletion of {m}"),
    (0x2c, "mailbox", "forgotten expunges of {m}"),
    (0x30, "queue", "queued message {q}"),
    (0x31, "queue", "errand of {q}, number {4}"),
    (0x32, "queue", "due line for {@} of {q}, errand {4}"),
    (0x33, "queue", "lease on an errand of {q}, number {4}"),
    (0x34, "queue", "count of open errands of {q}"),
    (0x35, "queue", "count of the queue: {1}"),
    (0x36, "queue", "ledger, count {1}"),
    (0x37, "queue", "suspension, kind {1}, of {t}"),
    (0x40, "journey", "step of the journey of {q} at {@}"),
    (0x41, "journey", "address by which a journey is found: {t}"),
    (0x42, "journey", "hash of the Message-ID of {q}"),
    (0x50, "limits", "block of {t}"),
    (0x51, "limits", "recipients of day {4} of {a}, count {1}"),
    (0x52, "limits", "first letter of {a} to {t}"),
    (0x53, "limits", "daily limits of {a}"),
    (0x54, "limits", "suppression for {t} of {t}"),
    (0x60, "admin", "state of the scrub"),
    (0x90, "mtasts", "MTA-STS policy of {t}"),
    (0xa0, "tlsrpt", "results of TLS of day {4} with {t}"),
    (0xa1, "tlsrpt", "TLS report about {t} of day {4}, number {8}"),
    (0xb0, "webhook", "event for the webhook {t}, of {@}"),
    (0xb1, "webhook", "count {1} of the webhook {t}"),
];

/// How things that keys know by number are called.
#[derive(Default)]
pub(crate) struct Names {
    /// Accounts by address.
    pub(crate) accounts: Accounts,
    /// Mailboxes: whose, and the name.
    pub(crate) mailboxes: BTreeMap<MailboxId, (AccountId, String)>,
}

impl Names {
    fn mailbox(&self, id: MailboxId) -> String {
        match self.mailboxes.get(&id) {
            Some((owner, name)) => format!("{name} of {}", account(*owner, &self.accounts)),
            None => format!("mailbox {}", id.0),
        }
    }
}

/// The mailboxes that findings know by number.
pub(super) fn mailboxes_in(findings: &[Finding]) -> BTreeSet<MailboxId> {
    let keys = findings.iter().flat_map(|finding| {
        let place = match &finding.place {
            Where::Entry(key) | Where::Counter(key) => Some(key),
            _ => None,
        };
        place.into_iter().chain(&finding.concerns)
    });
    let mailbox = |key: &Key| {
        let (_, _, words) = words_of(key)?;
        words.contains("{m}").then(|| key.clone())
    };
    let keys = keys.filter_map(mailbox);
    // Where a mailbox stands, it is the key's first part.
    keys.filter_map(|key| key.reader().u64().map(MailboxId)).collect()
}

/// Whose table a finding is about: a crate's name, or `store`.
pub(super) fn area(finding: &Finding) -> &'static str {
    match &finding.place {
        Where::Entry(key) | Where::Counter(key) => words_of(key).map_or("store", |(_, area, _)| *area),
        _ => "store",
    }
}

/// A place in words.
pub(super) fn place(place: &Where, names: &Names) -> String {
    match place {
        Where::Entry(key) | Where::Counter(key) => key_in_words(key, names),
        other => other.to_string(),
    }
}

/// An account by its address, or by its number when it has none.
pub(super) fn account(id: AccountId, accounts: &Accounts) -> String {
    match accounts.get(&id) {
        Some(address) => address.to_string(),
        None => format!("account {}", id.0),
    }
}

fn words_of(key: &Key) -> Option<&'static (u8, &'static str, &'static str)> {
    let number = key.as_bytes().first()?;
    TABLES.iter().find(|(table, ..)| table == number)
}

/// A key in words.
pub(super) fn key_in_words(key: &Key, names: &Names) -> String {
    let told = words_of(key).and_then(|(_, _, words)| filled(words, &mut key.reader(), names));
    told.unwrap_or_else(|| {
        let octets: String = key
            .as_bytes()
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        format!("row {octets}")
    })
}

fn filled(words: &str, parts: &mut KeyReader<'_>, names: &Names) -> Option<String> {
    let mut out = String::new();
    let mut rest = words;
    while let Some((before, behind)) = rest.split_once('{') {
        let (what, after) = behind.split_once('}')?;
        out.push_str(before);
        out.push_str(&match what {
            "a" => account(AccountId(parts.u64()?), &names.accounts),
            "m" => names.mailbox(MailboxId(parts.u64()?)),
            "q" => QueueId(parts.u64()?).to_string(),
            "@" => mail::date::iso8601(Timestamp(i64::try_from(parts.u64()?).ok()?)),
            "8" => parts.u64()?.to_string(),
            "4" => parts.u32()?.to_string(),
            "1" => parts.u8()?.to_string(),
            "t" => parts.text()?,
            _ => return None,
        });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::EmailAddress;

    #[test]
    fn keys_are_told_in_words() {
        let mia = EmailAddress::parse("mia@example.org").unwrap();
        let names = Names {
            accounts: Accounts::from([(AccountId(3), mia)]),
            mailboxes: BTreeMap::from([(MailboxId(8), (AccountId(3), "INBOX".to_owned()))]),
        };
        let told = |key: Key| key_in_words(&key, &names);
        assert_eq!(
            told(Key::table(0x28).u64(8).u32(12)),
            "message in INBOX of mia@example.org, UID 12"
        );
        assert_eq!(
            told(Key::table(0x28).u64(7).u32(12)),
            "message in mailbox 7, UID 12"
        );
        assert_eq!(
            told(Key::table(0x27).u64(3)),
            "octets of all mail of mia@example.org"
        );
        assert_eq!(told(Key::table(0x27).u64(4)), "octets of all mail of account 4");
        assert_eq!(told(Key::table(0x12).text("a@b.c")), "address a@b.c");
        assert_eq!(told(Key::table(0x28).u8(7)), "row 2807", "cut off");
        assert_eq!(told(Key::table(0x99).u8(7)), "row 9907", "unknown");
    }

    #[test]
    fn every_table_of_the_format_has_its_words() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/STORE-FORMAT.md"))
                .unwrap();
        let documented = page.lines().filter_map(|line| {
            let (number, rest) = line.strip_prefix("| 0x")?.split_once(' ')?;
            (!rest.starts_with('–')).then(|| u8::from_str_radix(number, 16).ok())?
        });
        let mut count = 0;
        for table in documented {
            assert!(
                TABLES.iter().any(|(known, ..)| *known == table),
                "{table:#x} has no words"
            );
            count += 1;
        }
        assert!(count > 20);
    }
}
