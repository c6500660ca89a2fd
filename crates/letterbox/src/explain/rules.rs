//! The file of patterns as it is written, and as it is asked.

use super::phrase::{PHRASE_OCTETS_MAX, PIECES_MAX, Phrase};
use super::{Class, FILE_OCTETS_MAX, Replies};
use mail::EnhancedStatus;
use serde::Deserialize;
use std::sync::Arc;

/// The program's own.
pub(super) const BUILT_IN: &str = include_str!("../../data/replies.toml");
/// The class whose lists are named.
pub(super) const BLOCKLISTED: &str = "blocklisted";
/// Octets of a class's name at most.
const NAME_OCTETS_MAX: usize = 32;

/// Why a file of patterns cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// It is no TOML of this form.
    #[error("{0}")]
    Form(String),
    /// It is longer than [`FILE_OCTETS_MAX`].
    #[error("it is longer than {max} octets", max = FILE_OCTETS_MAX)]
    TooLong,
    /// A class's name is none.
    #[error("\"{0}\" is no name of a class: lower-case letters, digits and hyphens, {max} at most", max = NAME_OCTETS_MAX)]
    Name(String),
    /// Two classes have one name.
    #[error("the class \"{0}\" is there twice")]
    Twice(String),
    /// A pattern tells a class that is not there.
    #[error("there is no class \"{0}\"")]
    NoClass(String),
    /// A reply code is none.
    #[error("\"{0}\" is no reply code, nor how one begins")]
    Code(String),
    /// A status is none.
    #[error("\"{0}\" is no status: write subject.detail such as \"1.1\", \"7.606-649\", or a subject alone")]
    Status(String),
    /// A phrase is empty or too long.
    #[error("\"{0}\" is no phrase: 1 to {octets} octets, {pieces} pieces at most", octets = PHRASE_OCTETS_MAX, pieces = PIECES_MAX)]
    Phrase(String),
    /// A pattern fits everything.
    #[error("a pattern for \"{0}\" names nothing that must fit")]
    Empty(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    class: Vec<Class>,
    #[serde(default)]
    list: Vec<ListWritten>,
    #[serde(default)]
    reply: Vec<ReplyWritten>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListWritten {
    name: String,
    text: Vec<String>,
    page: Option<String>,
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyWritten {
    class: String,
    by: Option<By>,
    #[serde(default)]
    host: Vec<String>,
    #[serde(default)]
    code: Vec<String>,
    #[serde(default)]
    status: Vec<String>,
    #[serde(default)]
    list: bool,
    #[serde(default)]
    text: Vec<String>,
    page: Option<String>,
}

/// Who said it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum By {
    /// We found it.
    Us,
    /// A server said it.
    Peer,
}

/// A blocklist.
#[derive(Debug)]
pub(super) struct List {
    pub(super) name: String,
    pub(super) text: Vec<Phrase>,
    pub(super) page: Option<String>,
    pub(super) note: Option<String>,
}

/// A pattern.
#[derive(Debug)]
pub(super) struct Rule {
    /// Which of the classes.
    pub(super) class: usize,
    pub(super) by: Option<By>,
    pub(super) host: Vec<String>,
    pub(super) code: Vec<Code>,
    pub(super) status: Vec<Status>,
    pub(super) list: bool,
    pub(super) text: Vec<Phrase>,
    pub(super) page: Option<String>,
    /// As it is written, for the page: statuses and phrases.
    pub(super) written: Vec<String>,
}

/// How a reply code begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code {
    first: u16,
    last: u16,
}

impl Code {
    fn parse(text: &str) -> Option<Self> {
        let is_code = matches!(text.len(), 1..=3) && text.bytes().all(|b| b.is_ascii_digit());
        let number: u16 = text.parse().ok().filter(|_| is_code)?;
        let span = 10u16.pow(3 - u32::try_from(text.len()).ok()?);
        Some(Self {
            first: number * span,
            last: number * span + span - 1,
        })
    }

    pub(super) fn fits(self, code: u16) -> bool {
        (self.first..=self.last).contains(&code)
    }
}

/// A subject, and the details from one to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    subject: u16,
    first: u16,
    last: u16,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.parse::<u16>().ok();
        let Some((subject, details)) = text.split_once('.') else {
            return Some(Self {
                subject: number(text)?,
                first: 0,
                last: u16::MAX,
            });
        };
        let (first, last) = details.split_once('-').unwrap_or((details, details));
        Some(Self {
            subject: number(subject)?,
            first: number(first)?,
            last: number(last)?,
        })
    }

    pub(super) fn fits(self, status: EnhancedStatus) -> bool {
        status.subject == self.subject && (self.first..=self.last).contains(&status.detail)
    }
}

impl Replies {
    /// Reads files of patterns; what stands first is asked first.
    pub(super) fn parse(texts: &[&str]) -> Result<Self, Error> {
        let mut classes: Vec<Arc<Class>> = Vec::new();
        let (mut lists, mut written) = (Vec::new(), Vec::new());
        for text in texts {
            if text.len() > FILE_OCTETS_MAX {
                return Err(Error::TooLong);
            }
            let file: File = toml::from_str(text).map_err(|e| Error::Form(e.to_string()))?;
            for class in file.class {
                if classes.iter().any(|known| known.name == class.name) {
                    return Err(Error::Twice(class.name));
                }
                if !is_name(&class.name) {
                    return Err(Error::Name(class.name));
                }
                classes.push(Arc::new(class));
            }
            for list in file.list {
                lists.push(List {
                    text: all(&list.text, Phrase::parse, Error::Phrase)?,
                    name: list.name,
                    page: list.page,
                    note: list.note,
                });
            }
            written.extend(file.reply);
        }
        let named = |name: &str| {
            let place = classes.iter().position(|class| class.name == name);
            place.ok_or_else(|| Error::NoClass(name.to_owned()))
        };
        let (refused, not_now) = (named("refused")?, named("not-now")?);
        let rules = written
            .into_iter()
            .map(|reply| rule(named(&reply.class)?, reply))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            refused: classes[refused].clone(),
            not_now: classes[not_now].clone(),
            classes,
            lists,
            rules,
        })
    }
}

fn rule(class: usize, reply: ReplyWritten) -> Result<Rule, Error> {
    let lists = [&reply.host, &reply.code, &reply.status, &reply.text];
    if !reply.list && lists.iter().all(|list| list.is_empty()) {
        return Err(Error::Empty(reply.class));
    }
    Ok(Rule {
        class,
        by: reply.by,
        code: all(&reply.code, Code::parse, Error::Code)?,
        status: all(&reply.status, Status::parse, Error::Status)?,
        text: all(&reply.text, Phrase::parse, Error::Phrase)?,
        host: reply.host.iter().map(|host| host.to_ascii_lowercase()).collect(),
        list: reply.list,
        page: reply.page,
        written: match reply.text.is_empty() {
            true => reply.status.iter().map(|status| format!("x.{status}")).collect(),
            false => reply.text,
        },
    })
}

fn all<T>(
    texts: &[String],
    parse: impl Fn(&str) -> Option<T>,
    wrong: impl Fn(String) -> Error,
) -> Result<Vec<T>, Error> {
    let read = |text: &String| parse(text).ok_or_else(|| wrong(text.clone()));
    texts.iter().map(read).collect()
}

fn is_name(name: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_OCTETS_MAX).contains(&name.len()) && name.bytes().all(is_part)
}
