//! Phrases, and the words in which they are looked for. Linear: a phrase is a row of pieces, each looked
//! for behind the one before.

/// Octets of a phrase at most.
pub(super) const PHRASE_OCTETS_MAX: usize = 200;
/// Pieces of a phrase at most.
pub(super) const PIECES_MAX: usize = 8;

/// What is looked for: pieces in this order, with anything between.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Phrase {
    pieces: Vec<String>,
    /// Whether it speaks of addresses or links.
    in_links: bool,
}

impl Phrase {
    /// Reads one, `*` between its pieces; none where there is nothing to look for, or too much.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let pieces: Vec<String> = text
            .split('*')
            .map(folded)
            .filter(|piece| !piece.is_empty())
            .collect();
        let fits = !pieces.is_empty() && pieces.len() <= PIECES_MAX && text.len() <= PHRASE_OCTETS_MAX;
        fits.then(|| Self {
            in_links: text.contains(['@', '/']),
            pieces,
        })
    }

    fn is_in(&self, text: &str) -> bool {
        let mut at = 0;
        self.pieces.iter().all(|piece| match found(text, piece, at) {
            Some(place) => {
                at = place + piece.len();
                true
            }
            None => false,
        })
    }
}

/// The first place of a piece from there on at which a word begins.
fn found(text: &str, piece: &str, from: usize) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric();
    let begins_word = piece.chars().next().is_some_and(is_word);
    let mut at = from;
    loop {
        let place = at + text.get(at..)?.find(piece)?;
        let is_inside = text[..place].chars().next_back().is_some_and(is_word);
        if !(begins_word && is_inside) {
            return Some(place);
        }
        at = place + text[place..].chars().next().map_or(1, char::len_utf8);
    }
}

/// A server's words, made ready.
pub(super) struct Words {
    /// As they were said.
    raw: String,
    /// Without upper case, and with single spaces.
    whole: String,
    /// The same without addresses and URLs: what these are called means nothing.
    plain: String,
}

impl Words {
    pub(super) fn new(text: &str) -> Self {
        let whole = folded(text);
        let words = whole.split(' ').filter(|word| !word.contains("://"));
        let words: Vec<String> = words.map(without_address).collect();
        Self {
            raw: text.to_owned(),
            plain: folded(&words.join(" ")),
            whole,
        }
    }

    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    pub(super) fn whole(&self) -> &str {
        &self.whole
    }

    pub(super) fn says(&self, phrase: &Phrase) -> bool {
        phrase.is_in(if phrase.in_links { &self.whole } else { &self.plain })
    }

    /// Whether one of them stands anywhere, in addresses and links too.
    pub(super) fn says_any_in_links(&self, phrases: &[Phrase]) -> bool {
        phrases.iter().any(|phrase| phrase.is_in(&self.whole))
    }
}

fn folded(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").to_ascii_lowercase()
}

/// A word without the address that is in it, such as `(bob@example.com:blocked)`.
fn without_address(word: &str) -> String {
    let Some((before, behind)) = word.split_once('@') else {
        return word.to_owned();
    };
    let belongs = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '=' | '@');
    format!(
        "{} {}",
        before.trim_end_matches(belongs),
        behind.trim_start_matches(belongs)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases() {
        for (phrase, text, wanted) in [
            ("mailbox full", "The Mailbox  full.", true),
            ("full", "it was successful", false),
            ("full", "successful but full", true),
            ("mailbox * full", "mailbox of bob is full", true),
            ("mailbox * full", "full mailbox", false),
            ("spam", "<spam@example.com>: user unknown", false),
            ("spam", "see https://example.com/spam", false),
            ("example.com/spam", "see https://example.com/spam", true),
            ("tosa@rx", "write to tosa@rx.example", true),
            ("blocked", "(bob@example.com:blocked)", true),
            ("[ts", "a[TS03]", true),
            ("é", "caféé", false),
            ("a a", "xa a a", true),
        ] {
            let phrase = Phrase::parse(phrase).unwrap();
            assert_eq!(Words::new(text).says(&phrase), wanted, "{phrase:?} in {text}");
        }
        assert_eq!(Phrase::parse(" * "), None);
        assert_eq!(Phrase::parse(&"x".repeat(PHRASE_OCTETS_MAX + 1)), None);
    }
}
