//! Which blocklist a reply speaks of.

use super::phrase::Words;
use super::rules::List;
use std::fmt;

/// Octets of a name that a reply gives at most; a longer one is not taken for a name.
const NAME_OCTETS_MAX: usize = 200;

/// A blocklist that a reply names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Its name: a known list's, else the domain or link that the reply names.
    pub name: String,
    /// Where to look an address up and to ask for removal, for a known list.
    pub page: Option<String>,
    /// What else is known of it.
    pub note: Option<String>,
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.page, &self.note) {
            (Some(page), _) => write!(f, "The list: {}, {page}", self.name),
            (None, Some(note)) => write!(f, "The list: {}. {note}", self.name),
            (None, None) => write!(f, "The list, as the receiver names it: {}", self.name),
        }
    }
}

/// The list: a known one, else what the words name.
pub(super) fn of(known: Option<&List>, words: &Words) -> Option<Listing> {
    if let Some(list) = known {
        return Some(Listing {
            name: list.name.clone(),
            page: list.page.clone(),
            note: list.note.clone(),
        });
    }
    let name = domain(words.whole()).or_else(|| link(words.raw()))?;
    Some(Listing {
        name,
        page: None,
        note: None,
    })
}

/// The domain behind a word that leads to one, such as `blocked using bl.example.org;`.
fn domain(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split(' ').collect();
    let leads = |word: &str| matches!(word, "using" | "by" | "at" | "in" | "on" | "see");
    let behind = words.windows(2).filter(|pair| leads(pair[0]));
    behind
        .map(|pair| pair[1].trim_matches(|c: char| !c.is_ascii_alphanumeric()))
        .find(|word| is_domain(word))
        .map(str::to_owned)
}

fn is_domain(word: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let last = word.rsplit('.').next().unwrap_or("");
    word.len() <= NAME_OCTETS_MAX
        && word.contains('.')
        && word.bytes().all(is_part)
        && last.len() >= 2
        && last.bytes().all(|b| b.is_ascii_alphabetic())
}

/// The first link.
fn link(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '(' | ')' | '"'));
    words
        .filter(|word| word.starts_with("http://") || word.starts_with("https://"))
        .map(|word| word.trim_end_matches([',', ';', '.', ')']))
        .find(|word| word.len() <= NAME_OCTETS_MAX && word.bytes().all(|b| b.is_ascii_graphic()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_words_name() {
        for (text, wanted) in [
            (
                "Client host [192.0.2.1] blocked using bl.example.org; x",
                Some("bl.example.org"),
            ),
            ("listed at (rbl.example)", Some("rbl.example")),
            (
                "you are on our RBL, see <https://example.org/Why?ip=1>.",
                Some("https://example.org/Why?ip=1"),
            ),
            ("blocked by 192.0.2.1", None),
            ("blacklisted", None),
        ] {
            let listing = of(None, &Words::new(text));
            assert_eq!(listing.map(|l| l.name).as_deref(), wanted, "{text}");
        }
    }
}
