//! What a failure means: its class, whose move it is, and what would help, in words that a sender
//! understands. The reply's own words are shown beside it, never replaced.
//!
//! The knowledge is a file, `data/replies.toml`, before which an operator may put one of his own. Pure;
//! total over any text, in time linear in it for each pattern: no pattern can backtrack. Never: whether a
//! message is tried again, which the reply code alone decides (RFC 5321 §4.2.1).

mod listing;
mod page;
mod phrase;
mod rules;

pub use listing::Listing;
pub use page::page;
pub use rules::Error;

use crate::failure::{Failure, Source};
use phrase::Words;
use rules::{By, List, Rule};
use serde::Deserialize;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Octets of an operator's file at most.
pub const FILE_OCTETS_MAX: usize = 256 * 1024;
/// Octets of a server's words that are looked at.
const WORDS_OCTETS_MAX: usize = queue::REPLY_OCTETS_MAX;

/// Whose move it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The author's: the message itself, or whom it is addressed to.
    Message,
    /// This server's: its address, its DNS, its settings.
    Here,
    /// The receiver's.
    Receiver,
    /// The network's between.
    Network,
}

impl Side {
    /// In words, for a sentence.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Side::Message => "the message or its addresses",
            Side::Here => "the sending server",
            Side::Receiver => "the receiving server",
            Side::Network => "the network between",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// A kind of failure.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its name, which never changes: it is stored, counted, and read by scripts. Lower-case letters
    /// and hyphens, 32 at most.
    pub name: String,
    /// Whose move it is.
    pub side: Side,
    /// What is wrong.
    pub problem: String,
    /// What would help.
    pub remedy: String,
}

/// The class of the address that does not exist.
pub const UNKNOWN_USER: &str = "unknown-user";

/// A failure explained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Its class.
    pub class: Arc<Class>,
    /// The blocklist, where it is one and the reply names it.
    pub listing: Option<Listing>,
    /// The provider's own page about it.
    pub page: Option<String>,
}

impl Explanation {
    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.class.problem
    }

    /// What would help, with the blocklist's page or the provider's where one is known.
    #[must_use]
    pub fn remedy(&self) -> String {
        let mut text = self.class.remedy.clone();
        if let Some(listing) = &self.listing {
            text.push_str(&format!(" {listing}"));
        }
        if let Some(page) = &self.page {
            text.push_str(&format!(" The receiver's own page about it: {page}"));
        }
        text
    }
}

/// The patterns of replies, and the classes that they tell.
#[derive(Debug)]
pub struct Replies {
    classes: Vec<Arc<Class>>,
    lists: Vec<List>,
    rules: Vec<Rule>,
    refused: Arc<Class>,
    not_now: Arc<Class>,
}

static BUILT_IN: LazyLock<Arc<Replies>> = LazyLock::new(|| {
    let built = Replies::parse(&[rules::BUILT_IN]);
    Arc::new(built.expect("data/replies.toml is tested"))
});

impl Replies {
    /// Those that the program brings.
    #[must_use]
    pub fn built_in() -> Arc<Self> {
        BUILT_IN.clone()
    }

    /// The same behind an operator's own: his patterns are asked first, and may tell classes of his.
    ///
    /// # Errors
    /// [`Error`]: what is wrong with the text, and where.
    pub fn with(own: &str) -> Result<Self, Error> {
        Self::parse(&[own, rules::BUILT_IN])
    }

    /// Every class: an operator's own first.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter().map(Arc::as_ref)
    }

    /// Explains a failure.
    #[must_use]
    pub fn explain(&self, failure: &Failure) -> Explanation {
        let end = failure.words.floor_char_boundary(WORDS_OCTETS_MAX);
        let words = Words::new(&failure.words[..end]);
        let list = self.lists.iter().find(|list| words.says_any_in_links(&list.text));
        let rule = self.rules.iter().find(|r| fits(r, failure, &words, list));
        let class = match rule {
            Some(rule) => &self.classes[rule.class],
            None if failure.is_permanent() => &self.refused,
            None => &self.not_now,
        };
        let is_listed = class.name == rules::BLOCKLISTED;
        let listing = is_listed.then(|| listing::of(list, &words)).flatten();
        Explanation {
            class: class.clone(),
            page: rule
                .filter(|_| listing.as_ref().is_none_or(|listing| listing.page.is_none()))
                .and_then(|rule| rule.page.clone()),
            listing,
        }
    }
}

fn fits(rule: &Rule, failure: &Failure, words: &Words, list: Option<&List>) -> bool {
    let by = match rule.by {
        None => true,
        Some(By::Us) => failure.source == Source::Us,
        Some(By::Peer) => failure.source != Source::Us,
    };
    by && (!rule.list || list.is_some())
        && (rule.code.is_empty() || rule.code.iter().any(|code| code.fits(failure.code)))
        && (rule.status.is_empty() || rule.status.iter().any(|status| status.fits(failure.status)))
        && (rule.host.is_empty() || failure.host().is_some_and(|host| is_at(host, &rule.host)))
        && (rule.text.is_empty() || rule.text.iter().any(|phrase| words.says(phrase)))
}

/// Whether a server's name is one of these, or below it.
fn is_at(host: &str, suffixes: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    suffixes.iter().any(|suffix| {
        host.strip_suffix(suffix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::EnhancedStatus;

    #[test]
    fn the_common_issues_have_their_remedy() {
        for ((subject, detail), wanted) in [
            ((4, 1), "port 25"),
            ((1, 1), "spelling"),
            ((7, 26), "DMARC"),
            ((7, 1), "blocklist"),
            ((7, 8), "password"),
            ((2, 3), "attachment"),
        ] {
            let failure = Failure::ours(550, EnhancedStatus::new(5, subject, detail), "x");
            let remedy = Replies::built_in().explain(&failure).remedy();
            assert!(remedy.contains(wanted), "{subject}.{detail}: {remedy}");
        }
    }

    #[test]
    fn an_operators_own_patterns_come_first() {
        let own = r#"
            [[class]]
            name = "lunch"
            side = "receiver"
            problem = "They are at lunch."
            remedy = "Wait."
            [[list]]
            name = "Our partners' list"
            text = ["bl.partners.example"]
            page = "https://partners.example/remove"
            [[reply]]
            class = "lunch"
            host = ["Example.COM"]
            text = ["Back * at one"]
        "#;
        let replies = Replies::with(own).unwrap();
        let said = |host: &str, words: &str| {
            let failure = Failure::of_peer(host, 451, None, words);
            let explanation = replies.explain(&failure);
            (explanation.class.name.clone(), explanation.remedy())
        };
        assert_eq!(said("mx.example.com", "We are  BACK today\tat one").0, "lunch");
        assert_eq!(said("mx.example.org", "We are back today at one").0, "not-now");
        assert_eq!(said("notexample.com", "We are back today at one").0, "not-now");
        let (class, remedy) = said("x", "see bl.partners.example");
        assert_eq!(class, "blocklisted");
        assert!(remedy.contains("https://partners.example/remove"), "{remedy}");
    }

    #[test]
    fn what_an_operator_writes_wrongly_is_told() {
        for (own, wanted) in [
            ("[[reply]]\nclass = \"nonsense\"\n", "nonsense"),
            ("[[reply]]\nclass = \"loop\"\ntxt = []\n", "txt"),
            ("[[reply]]\nclass = \"loop\"\nstatus = [\"5.1.x\"]\n", "5.1.x"),
            ("[[reply]]\nclass = \"loop\"\ncode = [\"5x\"]\n", "5x"),
            ("[[reply]]\nclass = \"loop\"\ntext = [\" * \"]\n", "phrase"),
            ("[[reply]]\nclass = \"loop\"\n", "names nothing"),
            (
                "[[class]]\nname = \"A b\"\nside = \"here\"\nproblem = \"\"\nremedy = \"\"\n",
                "A b",
            ),
            (
                "[[class]]\nname = \"loop\"\nside = \"here\"\nproblem = \"x\"\nremedy = \"x\"\n",
                "twice",
            ),
            ("x", "expected"),
        ] {
            let error = Replies::with(own).unwrap_err().to_string();
            assert!(error.contains(wanted), "{own}: {error}");
        }
        let long = format!("# {}", "x".repeat(FILE_OCTETS_MAX));
        assert!(Replies::with(&long).is_err());
    }
}
