//! The arguments of SEARCH (RFC 3501 §6.4.4).

use super::grammar::Cursor;
use super::{ParseError, Parsed};
use crate::command::Command;
use crate::flag::Flag;
use crate::search::{Date, Needle, SearchKey};
use crate::sequence::{MessageSet, SequenceSet};

/// How deep keys may nest (parentheses, NOT, OR).
pub const SEARCH_DEPTH_MAX: usize = 32;
/// Keys of one SEARCH at most.
pub const SEARCH_KEYS_MAX: usize = 1_000;

pub(super) fn command(c: &mut Cursor<'_>, uid: bool) -> Parsed<Command> {
    let mut walk = Walk { keys: 0 };
    let mut all = Vec::new();
    if c.eat_word("CHARSET") {
        c.space()?;
        let charset = c.utf8_astring()?;
        c.space()?;
        if !["US-ASCII", "UTF-8"]
            .iter()
            .any(|known| charset.eq_ignore_ascii_case(known))
        {
            c.skip_all();
            return Ok(Command::SearchBadCharset);
        }
    }
    loop {
        all.push(walk.key(c, 0)?);
        if c.is_at_end() {
            break;
        }
        c.space()?;
    }
    Ok(Command::Search {
        uid,
        key: SearchKey::And(all),
    })
}

struct Walk {
    keys: usize,
}

impl Walk {
    fn key(&mut self, c: &mut Cursor<'_>, depth: usize) -> Parsed<SearchKey> {
        self.keys += 1;
        if depth > SEARCH_DEPTH_MAX || self.keys > SEARCH_KEYS_MAX {
            return Err(ParseError::TooComplex);
        }
        match c.peek() {
            Some(b'(') => {
                let mut all = Vec::new();
                c.list(SEARCH_KEYS_MAX, |c| {
                    all.push(self.key(c, depth + 1)?);
                    Ok(())
                })?;
                if all.is_empty() {
                    return Err(ParseError::Expected("a search key"));
                }
                return Ok(SearchKey::And(all));
            }
            Some(b'0'..=b'9' | b'*') => {
                let set = SequenceSet::parse(c.set()).ok_or(ParseError::Expected("a set"))?;
                return Ok(SearchKey::Set(MessageSet::Seq(set)));
            }
            _ => {}
        }
        let word = c.word().ok_or(ParseError::Expected("a search key"))?;
        match word.as_str() {
            "NOT" => {
                c.space()?;
                Ok(SearchKey::Not(Box::new(self.key(c, depth + 1)?)))
            }
            "OR" => {
                c.space()?;
                let a = self.key(c, depth + 1)?;
                c.space()?;
                let b = self.key(c, depth + 1)?;
                Ok(SearchKey::Or(Box::new(a), Box::new(b)))
            }
            "UID" => {
                c.space()?;
                let set = SequenceSet::parse(c.set()).ok_or(ParseError::Expected("a set of UIDs"))?;
                Ok(SearchKey::Set(MessageSet::Uid(set)))
            }
            word => flag_key(word).map_or_else(|| argument_key(c, word), Ok),
        }
    }
}

/// Keys without an argument.
fn flag_key(word: &str) -> Option<SearchKey> {
    let (name, wanted) = match word.strip_prefix("UN") {
        Some(name) => (name, false),
        None => (word, true),
    };
    let flag = match name {
        "ANSWERED" => Flag::Answered,
        "DELETED" => Flag::Deleted,
        "DRAFT" => Flag::Draft,
        "FLAGGED" => Flag::Flagged,
        "SEEN" => Flag::Seen,
        _ => {
            return match word {
                "ALL" => Some(SearchKey::All),
                "NEW" => Some(SearchKey::And(vec![
                    SearchKey::Recent,
                    SearchKey::Not(Box::new(SearchKey::Flag(Flag::Seen))),
                ])),
                "OLD" => Some(SearchKey::Not(Box::new(SearchKey::Recent))),
                "RECENT" => Some(SearchKey::Recent),
                _ => None,
            };
        }
    };
    let key = SearchKey::Flag(flag);
    Some(if wanted {
        key
    } else {
        SearchKey::Not(Box::new(key))
    })
}

fn argument_key(c: &mut Cursor<'_>, word: &str) -> Parsed<SearchKey> {
    const TAKES_ARGUMENT: [&str; 18] = [
        "BCC",
        "BEFORE",
        "BODY",
        "CC",
        "FROM",
        "HEADER",
        "KEYWORD",
        "LARGER",
        "ON",
        "SENTBEFORE",
        "SENTON",
        "SENTSINCE",
        "SINCE",
        "SMALLER",
        "SUBJECT",
        "TEXT",
        "TO",
        "UNKEYWORD",
    ];
    if !TAKES_ARGUMENT.contains(&word) {
        return Err(ParseError::Expected("a search key of RFC 3501"));
    }
    c.space()?;
    Ok(match word {
        "BCC" | "CC" | "FROM" | "SUBJECT" | "TO" => SearchKey::Header(word.to_owned(), needle(c)?),
        "HEADER" => {
            let name = c.utf8_astring()?;
            c.space()?;
            SearchKey::Header(name, needle(c)?)
        }
        "BODY" => SearchKey::Body(needle(c)?),
        "TEXT" => SearchKey::Text(needle(c)?),
        "KEYWORD" => SearchKey::Flag(keyword(c)?),
        "UNKEYWORD" => SearchKey::Not(Box::new(SearchKey::Flag(keyword(c)?))),
        "LARGER" => SearchKey::Larger(c.number()?),
        "SMALLER" => SearchKey::Smaller(c.number()?),
        "BEFORE" => SearchKey::Before(date(c)?),
        "ON" => SearchKey::On(date(c)?),
        "SINCE" => SearchKey::Since(date(c)?),
        "SENTBEFORE" => SearchKey::SentBefore(date(c)?),
        "SENTON" => SearchKey::SentOn(date(c)?),
        _ => SearchKey::SentSince(date(c)?),
    })
}

fn keyword(c: &mut Cursor<'_>) -> Parsed<Flag> {
    let name = c.atom().ok_or(ParseError::Expected("a keyword"))?;
    Flag::keyword(name).ok_or(ParseError::Expected("a shorter keyword"))
}

fn needle(c: &mut Cursor<'_>) -> Parsed<Needle> {
    Ok(Needle::new(&String::from_utf8_lossy(&c.astring()?)))
}

/// `1-Feb-1994`, with or without quotes.
fn date(c: &mut Cursor<'_>) -> Parsed<Date> {
    let text = c.utf8_astring()?;
    Date::parse(&text).ok_or(ParseError::Expected("a date such as 1-Feb-1994"))
}
