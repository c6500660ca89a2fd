//! What a check found wrong: one value for every crate that checks what it stores.
//!
//! A finding names what is wrong, where, how bad it is and what to do; docs/AUDIT.md explains each
//! by its code. Never: a message's text, a repair.

use crate::blob::BlobId;
use crate::key::Key;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Worth knowing; nothing is wrong with anybody's mail.
    Note,
    /// Something is not as it should be; no mail is lost by it.
    Warning,
    /// Mail, or the account of it, is damaged.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// Where something was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Where {
    /// An entry, by the caller's key.
    Entry(Key),
    /// A counter, by the caller's key.
    Counter(Key),
    /// A row of the store's own, in words.
    Row(String),
    /// A blob, with its segment and offset when it stands in the log.
    Blob(BlobId, Option<(u64, u64)>),
    /// A place in the log: segment and offset.
    Log(u64, u64),
    /// A file below the store's folder.
    File(String),
    /// In the words of whoever checked.
    Named(String),
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Where::Entry(key) => write!(f, "entry {}", hex(key)),
            Where::Counter(key) => write!(f, "counter {}", hex(key)),
            Where::Blob(id, Some((segment, offset))) => {
                write!(f, "blob {id} (segment {segment:016x}, offset {offset})")
            }
            Where::Blob(id, None) => write!(f, "blob {id} (large/{id}.blob)"),
            Where::Log(segment, offset) => write!(f, "log/{segment:016x}.log at offset {offset}"),
            Where::File(name) => f.write_str(name),
            Where::Row(text) | Where::Named(text) => f.write_str(text),
        }
    }
}

fn hex(key: &Key) -> String {
    key.as_bytes()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect()
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// By which docs/AUDIT.md explains it; never renamed.
    pub code: &'static str,
    /// Where.
    pub place: Where,
    /// What is wrong, a sentence.
    pub what: String,
    /// What to do, a sentence.
    pub remedy: &'static str,
    /// Entries that suffer from it, the first few.
    pub concerns: Vec<Key>,
}

impl Finding {
    /// A finding that concerns nothing but its place.
    #[must_use]
    pub fn new(
        severity: Severity,
        code: &'static str,
        place: Where,
        what: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self {
            severity,
            code,
            place,
            what: what.into(),
            remedy,
            concerns: Vec::new(),
        }
    }
}

/// Takes findings as they are made.
pub type Tell<'a> = &'a mut (dyn FnMut(Finding) + Send);
