//! LIST and LSUB: which names a pattern matches (RFC 3501 §6.3.8), and what is said about them.

use crate::name::{MailboxName, SEPARATOR, decode, with_inbox_in_capitals};
use std::collections::BTreeMap;

/// Octets of a reference and pattern together at most.
pub const PATTERN_OCTETS_MAX: usize = 1_024;

/// What a mailbox is for (RFC 6154).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SpecialUse {
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
}

impl SpecialUse {
    /// The attribute as LIST shows it.
    #[must_use]
    pub fn attribute(self) -> &'static str {
        match self {
            SpecialUse::Archive => "\\Archive",
            SpecialUse::Drafts => "\\Drafts",
            SpecialUse::Junk => "\\Junk",
            SpecialUse::Sent => "\\Sent",
            SpecialUse::Trash => "\\Trash",
        }
    }
}

/// A mailbox that an account has, or a name that it subscribed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The name.
    pub name: MailboxName,
    /// What it is for.
    pub special_use: Option<SpecialUse>,
    /// Whether the account subscribed to the name.
    pub subscribed: bool,
    /// Whether there is a mailbox of this name; a subscription can outlive it.
    pub exists: bool,
}

/// One line of the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Name attributes, for example `\HasChildren`.
    pub attributes: Vec<&'static str>,
    /// The name.
    pub name: String,
}

/// A reference and a pattern, joined and decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(Vec<char>);

impl Pattern {
    /// Joins reference and pattern (RFC 3501 §6.3.8); `None` when they are longer than
    /// [`PATTERN_OCTETS_MAX`].
    #[must_use]
    pub fn new(reference: &[u8], pattern: &[u8]) -> Option<Self> {
        let joined = [reference, pattern].concat();
        if joined.len() > PATTERN_OCTETS_MAX {
            return None;
        }
        // A pattern may cut an encoded piece in two; then only its plain text can match.
        let text = decode(&joined).unwrap_or_else(|| String::from_utf8_lossy(&joined).into_owned());
        Some(Self(with_inbox_in_capitals(&text).chars().collect()))
    }

    /// Whether the pattern matches the name: `*` anything, `%` anything but the separator.
    /// Takes time in proportion to the product of both lengths.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        // `reached[i]`: the pattern up to i matches the name so far.
        let mut reached = vec![false; self.0.len() + 1];
        reached[0] = true;
        self.spread(&mut reached);
        for c in name.chars() {
            let mut next = vec![false; reached.len()];
            for (i, p) in self.0.iter().enumerate().filter(|(i, _)| reached[*i]) {
                match p {
                    '*' => next[i] = true,
                    '%' => next[i] = next[i] || c != SEPARATOR,
                    p if *p == c => next[i + 1] = true,
                    _ => {}
                }
            }
            self.spread(&mut next);
            reached = next;
        }
        reached[self.0.len()]
    }

    /// A wildcard may match nothing.
    fn spread(&self, reached: &mut [bool]) {
        for (i, p) in self.0.iter().enumerate() {
            if reached[i] && matches!(p, '*' | '%') {
                reached[i + 1] = true;
            }
        }
    }
}

/// The answer to LIST: every level that matches, with what is known of it.
#[must_use]
pub fn list(entries: &[Entry], pattern: &Pattern) -> Vec<Listed> {
    let mut levels: BTreeMap<&str, (Option<&Entry>, bool)> = BTreeMap::new();
    for entry in entries.iter().filter(|e| e.exists) {
        levels.entry(entry.name.as_str()).or_default().0 = Some(entry);
        for parent in parents(entry.name.as_str()) {
            levels.entry(parent).or_default().1 = true;
        }
    }
    let matching = levels.into_iter().filter(|(name, _)| pattern.matches(name));
    let mut out: Vec<Listed> = matching
        .map(|(name, (entry, has_children))| {
            let mut attributes = Vec::new();
            if entry.is_none() {
                attributes.push("\\Noselect");
            }
            attributes.push(if has_children {
                "\\HasChildren"
            } else {
                "\\HasNoChildren"
            });
            if let Some(special_use) = entry.and_then(|e| e.special_use) {
                attributes.push(special_use.attribute());
            }
            Listed {
                attributes,
                name: name.to_owned(),
            }
        })
        .collect();
    inbox_first(&mut out);
    out
}

/// The answer to LSUB: the subscribed names that match; with `%`, also a level above one that
/// does not match itself, marked `\Noselect` (RFC 3501 §6.3.9).
#[must_use]
pub fn lsub(entries: &[Entry], pattern: &Pattern) -> Vec<Listed> {
    let mut names: BTreeMap<&str, bool> = BTreeMap::new();
    for entry in entries.iter().filter(|e| e.subscribed) {
        let name = entry.name.as_str();
        if pattern.matches(name) {
            names.insert(name, true);
        } else if let Some(parent) = parents(name).find(|p| pattern.matches(p)) {
            names.entry(parent).or_insert(false);
        }
    }
    let mut out: Vec<Listed> = names
        .into_iter()
        .map(|(name, subscribed)| Listed {
            attributes: if subscribed {
                Vec::new()
            } else {
                vec!["\\Noselect"]
            },
            name: name.to_owned(),
        })
        .collect();
    inbox_first(&mut out);
    out
}

fn inbox_first(listed: &mut [Listed]) {
    listed.sort_by_key(|l| l.name != "INBOX");
}

/// The levels above a name, nearest first.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.rmatch_indices(SEPARATOR).map(|(i, _)| &name[..i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(b"", pattern.as_bytes()).unwrap().matches(name)
    }

    #[test]
    fn patterns() {
        for (pattern, name) in [
            ("*", "a/b/c"),
            ("%", "abc"),
            ("a/%", "a/b"),
            ("%/%", "a/b"),
            ("inbox", "INBOX"),
            ("a*c", "a/b/c"),
            ("*%", "a/b"),
            ("", ""),
            ("&U,BTFw-*", "台北/x"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("%", "a/b"),
            ("a", "b"),
            ("a/%", "a/b/c"),
            ("abc", "ab"),
            ("ab", "abc"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(Pattern::new(b"Work/", b"%").unwrap().matches("Work/a"));
        assert!(Pattern::new(b"", &[b'*'; 2000]).is_none());
        assert!(
            matches(&"*a".repeat(100), &"a".repeat(200)),
            "no exponential time"
        );
    }

    fn entry(name: &str, subscribed: bool) -> Entry {
        Entry {
            name: MailboxName::new(name).unwrap(),
            special_use: (name == "Sent").then_some(SpecialUse::Sent),
            subscribed,
            exists: name != "gone",
        }
    }

    #[test]
    fn answers() {
        let entries = [
            entry("Archive/2025/Q1", true),
            entry("INBOX", true),
            entry("Sent", false),
            entry("gone", true),
        ];
        let shown = |listed: Vec<Listed>| -> Vec<String> {
            listed
                .iter()
                .map(|l| format!("{} {}", l.attributes.join(","), l.name))
                .collect()
        };
        let percent = Pattern::new(b"", b"%").unwrap();
        assert_eq!(
            shown(list(&entries, &percent)),
            [
                "\\HasNoChildren INBOX",
                "\\Noselect,\\HasChildren Archive",
                "\\HasNoChildren,\\Sent Sent"
            ]
        );
        assert_eq!(
            shown(lsub(&entries, &percent)),
            [" INBOX", "\\Noselect Archive", " gone"]
        );
        let all = Pattern::new(b"", b"*").unwrap();
        assert_eq!(list(&entries, &all).len(), 5);
        assert_eq!(
            shown(lsub(&entries, &all)),
            [" INBOX", " Archive/2025/Q1", " gone"]
        );
    }
}
