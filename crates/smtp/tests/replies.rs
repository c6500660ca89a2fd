//! Every reply of the table is said in some dialogue, so that "a dialogue for every refusal" is a fact.
//! The few that no dialogue can bring about stand in a list, each with where it is proven instead.
#![allow(clippy::unwrap_used)]

use smtp::dialogue::{MachinePeer, Peer, matches, run};
use std::path::Path;

/// Replies that no dialogue of the machine brings about, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("message_too_large", "the same words as size_declared_too_large"),
    ("INTERNAL_ERROR", "needs a fault of ours"),
    ("EARLY_TALKER", "the driver's: crates/receive/tests/patience.rs"),
    (
        "TOO_MANY_CONNECTIONS",
        "the driver's: crates/receive/tests/patience.rs",
    ),
    (
        "TOO_MANY_CONNECTIONS_FROM_YOU",
        "the driver's: crates/receive/tests/refused.rs",
    ),
    ("LOGIN_OVER", "the driver's: crates/receive/tests/submission.rs"),
    ("AUTH_UNAVAILABLE", "needs a directory that cannot be read"),
    ("LOOKUP_FAILED", "needs a directory that cannot be read"),
    (
        "STORE_FAILED",
        "needs a store that fails: crates/smtp/src/fuzz.rs says it",
    ),
    ("BUSY", "needs other sessions: crates/receive/tests/reception.rs"),
    (
        "author_not_yours",
        "the driver's: crates/receive/tests/submission.rs",
    ),
    (
        "AUTHOR_MISSING",
        "the driver's: crates/receive/tests/submission.rs",
    ),
    ("MAIL_LOOP", "the driver's: crates/receive/tests/reception.rs"),
    (
        "TOO_MANY_FIELDS",
        "the driver's: crates/receive/tests/reception.rs",
    ),
    (
        "judged",
        "the words are the judgement's: crates/receive/tests/reception.rs",
    ),
    ("policy_refused", "the words are the judgement's"),
    ("mailbox_full", "the driver's: crates/receive/tests/addresses.rs"),
    (
        "MAILBOXES_FULL",
        "the driver's: crates/receive/tests/addresses.rs",
    ),
    (
        "domain_disabled",
        "the driver's: crates/receive/tests/addresses.rs",
    ),
    (
        "address_flawed",
        "the driver's: crates/receive/tests/addresses.rs",
    ),
    ("may_not_post", "the driver's: crates/receive/tests/addresses.rs"),
    (
        "rewritten_sender_refused",
        "the driver's: crates/receive/tests/addresses.rs",
    ),
    ("forward_loop", "the driver's: crates/receive/tests/addresses.rs"),
    ("blocked", "the driver's: crates/receive/tests/limits.rs"),
    (
        "connections_too_often",
        "the driver's: crates/receive/tests/limits.rs",
    ),
    (
        "TOO_MANY_CONNECTIONS_FROM_YOUR_NETWORK",
        "the driver's: crates/receive/tests/limits.rs",
    ),
    (
        "messages_too_often",
        "the driver's: crates/receive/tests/limits.rs",
    ),
    (
        "recipients_too_often",
        "the driver's: crates/receive/tests/limits.rs",
    ),
    (
        "account_messages_per_day",
        "the driver's: crates/receive/tests/limits.rs",
    ),
    (
        "account_first_recipients_per_day",
        "the driver's: crates/receive/tests/limits.rs",
    ),
    ("suppressed", "the driver's: crates/receive/tests/limits.rs"),
    (
        "message_too_slow",
        "the driver's: crates/receive/tests/patience.rs",
    ),
    (
        "FILTER_UNAVAILABLE",
        "the driver's: crates/receive/tests/filters.rs",
    ),
    (
        "FILTER_UNAVAILABLE_REFUSED",
        "the driver's: crates/receive/tests/filters.rs",
    ),
    ("FILTER_REFUSED", "the driver's: crates/receive/tests/filters.rs"),
    ("FILTER_DEFERRED", "the driver's: crates/receive/tests/filters.rs"),
    ("FILTER_SHUTDOWN", "the driver's: crates/receive/tests/filters.rs"),
    (
        "FILTER_QUARANTINES",
        "the driver's: crates/receive/tests/filters.rs",
    ),
    (
        "FIELD_TOO_LONG_FOR_FILTER",
        "the driver's: crates/receive/tests/filters.rs",
    ),
    (
        "filter_said",
        "the words are the filter's: crates/receive/tests/filters.rs",
    ),
    ("NO_LOCAL_SENDER", "the driver's: e2e/test_doors.py"),
    ("XCLIENT_NO_ACCOUNT", "the driver's: e2e/test_doors.py"),
    (
        "dns_unavailable",
        "needs a DNS that is silent: crates/receive/tests/reception.rs",
    ),
];

/// Hears what the server says.
struct Hearing {
    peer: MachinePeer,
    said: Vec<String>,
}

impl Peer for Hearing {
    fn given(&mut self, fact: &str) -> Result<(), String> {
        self.peer.given(fact)
    }
    fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        self.peer.send(octets)
    }
    fn line(&mut self) -> Result<Option<String>, String> {
        let line = self.peer.line()?;
        self.said.extend(line.clone());
        Ok(line)
    }
    fn tls(&mut self) -> Result<(), String> {
        self.peer.tls()
    }
    fn channel(&self) -> smtp::sasl::Channel {
        self.peer.channel()
    }
    fn meanwhile(&mut self, event: &str) -> Result<(), String> {
        self.peer.meanwhile(event)
    }
    fn then(&mut self, fact: &str) -> Result<(), String> {
        self.peer.then(fact)
    }
}

/// All that is said in all dialogues.
fn said() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues");
    let mut said = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut hearing = Hearing {
            peer: MachinePeer::new(65_536),
            said: Vec::new(),
        };
        run(&text, &mut hearing).unwrap();
        said.append(&mut hearing.said);
    }
    said
}

/// The table: each reply's name, and a pattern of its first line as it is written on the wire.
fn table() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![folder.join("replies.rs")];
    let parts = std::fs::read_dir(folder.join("replies")).into_iter().flatten();
    files.extend(parts.map(|part| part.unwrap().path()));
    let mut table = Vec::new();
    for file in files {
        let source = std::fs::read_to_string(file).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        let starts: Vec<usize> = source.match_indices("\npub ").map(|(at, _)| at).collect();
        let ends = starts.iter().skip(1).copied().chain([source.len()]);
        let items = starts.iter().zip(ends).map(|(start, end)| &source[*start..end]);
        table.extend(items.filter_map(|item| Some((name(item)?, pattern(item)))));
    }
    table
}

/// The name of a constant or a function.
fn name(item: &str) -> Option<String> {
    let behind = item.strip_prefix("\npub ")?;
    let behind = behind.strip_prefix("const ").or(behind.strip_prefix("fn "))?;
    behind.split(['(', ':', '<']).next().map(str::to_owned)
}

/// The code, anything, and the first literal with `*` for what is filled in.
fn pattern(item: &str) -> String {
    let words = || item.split(|c: char| !c.is_ascii_alphanumeric());
    let is_code = |word: &&str| word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit());
    let code = words().find(is_code).unwrap_or("none");
    let Some((_, literal)) = item.split_once('"') else {
        return format!("{code}*");
    };
    let literal = literal.split('"').next().unwrap();
    let first = literal.split("\\n").next().unwrap();
    // A literal may go on in the next line of the source.
    let first: String = first.split("\\\n").map(str::trim_start).collect();
    let mut pattern = String::new();
    let mut rest = first.as_str();
    while let Some((before, behind)) = rest.split_once('{') {
        pattern.push_str(before);
        pattern.push('*');
        rest = behind.split_once('}').unwrap().1;
    }
    format!("{code}*{pattern}{rest}")
}

#[test]
fn each_is_said_in_a_dialogue() {
    let said = said();
    let mut unsaid = Vec::new();
    for (name, pattern) in table() {
        let is_said = said.iter().any(|line| matches(&pattern, line));
        let is_elsewhere = ELSEWHERE.iter().any(|(known, _)| *known == name);
        match (is_said, is_elsewhere) {
            (false, false) => unsaid.push(format!("{name}: {pattern}")),
            // One without words of its own is like any of its code.
            (true, true) if pattern.contains(char::is_alphabetic) && name != "message_too_large" => {
                panic!("{name} is said in a dialogue: take it off the list")
            }
            _ => {}
        }
    }
    assert!(unsaid.is_empty(), "no dialogue says {unsaid:#?}");
}

#[test]
fn the_list_is_of_the_table() {
    let table = table();
    assert!(table.len() > 90, "{} replies were found", table.len());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (name, why) in ELSEWHERE {
        assert!(table.iter().any(|(known, _)| known == name), "{name} is no reply");
        for file in why.split(' ').filter(|word| word.contains('/')) {
            assert!(root.join(file).exists(), "{name}: there is no {file}");
        }
    }
}
