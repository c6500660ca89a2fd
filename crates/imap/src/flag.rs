//! Message flags (RFC 3501 §2.3.2).

use std::fmt;

/// Octets of a keyword at most.
pub const KEYWORD_OCTETS_MAX: usize = 100;
/// Flags in one list of a command at most.
pub const FLAGS_MAX: usize = 100;

/// A flag. `\Recent` belongs to sessions, not messages, and cannot be set; it is none of these.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Flag {
    /// `\Answered`
    Answered,
    /// `\Flagged`
    Flagged,
    /// `\Deleted`
    Deleted,
    /// `\Seen`
    Seen,
    /// `\Draft`
    Draft,
    /// A keyword, as first written; case does not tell keywords apart.
    Keyword(String),
}

impl Flag {
    /// The flags that every mailbox has, in the order in which they are shown.
    pub const SYSTEM: [Flag; 5] = [
        Flag::Answered,
        Flag::Flagged,
        Flag::Deleted,
        Flag::Seen,
        Flag::Draft,
    ];

    /// A system flag from its name behind the backslash.
    #[must_use]
    pub fn system(name: &str) -> Option<Self> {
        Self::SYSTEM
            .into_iter()
            .find(|f| f.system_name().is_some_and(|n| n[1..].eq_ignore_ascii_case(name)))
    }

    /// A keyword. `None` when it is no atom or too long.
    #[must_use]
    pub fn keyword(name: &str) -> Option<Self> {
        let is_atom = !name.is_empty() && name.bytes().all(crate::parse::is_atom_char);
        (is_atom && name.len() <= KEYWORD_OCTETS_MAX).then(|| Flag::Keyword(name.to_owned()))
    }

    /// Whether both are the same flag; the case of keywords does not matter.
    #[must_use]
    pub fn same(&self, other: &Flag) -> bool {
        match (self, other) {
            (Flag::Keyword(a), Flag::Keyword(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        }
    }

    fn system_name(&self) -> Option<&'static str> {
        Some(match self {
            Flag::Answered => "\\Answered",
            Flag::Flagged => "\\Flagged",
            Flag::Deleted => "\\Deleted",
            Flag::Seen => "\\Seen",
            Flag::Draft => "\\Draft",
            Flag::Keyword(_) => return None,
        })
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flag::Keyword(name) => f.write_str(name),
            system => f.write_str(system.system_name().unwrap_or_default()),
        }
    }
}
