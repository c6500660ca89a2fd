//! From a whole command (its literals in place) to a value. Total: any bytes give a value or an
//! error; time is linear and recursion bounded.

mod fetch;
pub(crate) mod grammar;
mod search;

pub use fetch::{FETCH_ITEMS_MAX, HEADER_FIELDS_MAX, SECTION_DEPTH_MAX};
pub use search::{SEARCH_DEPTH_MAX, SEARCH_KEYS_MAX};

use crate::command::{AppendHead, Command, StatusItem, StoreMode, TAG_OCTETS_MAX, Tag};
use crate::flag::{FLAGS_MAX, Flag};
use crate::list::Pattern;
use crate::name::{MailboxName, NameError};
use crate::sequence::{MessageSet, SequenceSet};
use grammar::Cursor;
pub(crate) use grammar::is_atom_char;
use mail::Secret;

/// Pairs in ID at most (RFC 2971 §3.3).
const ID_PAIRS_MAX: usize = 30;

/// Why a command could not be read. The texts are for people; both lead to BAD.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// No command of that name.
    #[error("Unknown command")]
    Unknown,
    /// The arguments don't fit; says what was expected.
    #[error("Expected {0}")]
    Expected(&'static str),
    /// Something nests too deep or has too many pieces.
    #[error("Too many or too deeply nested arguments")]
    TooComplex,
    /// A name that no mailbox can have.
    #[error("{0}")]
    Name(#[from] NameError),
}

type Parsed<T> = Result<T, ParseError>;

/// Splits the tag off a command. `None` when there is none (RFC 3501 §9 `tag`).
#[must_use]
pub fn split_tag(command: &[u8]) -> Option<(Tag, &[u8])> {
    let end = command.iter().position(|b| *b == b' ').unwrap_or(command.len());
    let (tag, rest) = command.split_at(end);
    let valid = !tag.is_empty()
        && tag.len() <= TAG_OCTETS_MAX
        && tag.iter().all(|b| grammar::is_astring_char(*b) && *b != b'+');
    let text = std::str::from_utf8(tag).ok().filter(|_| valid)?;
    Some((Tag(text.to_owned()), rest.strip_prefix(b" ").unwrap_or(rest)))
}

/// Reads a command behind its tag. APPEND is read by [`append_head`] before its message comes.
///
/// # Errors
/// When it is no command that we know; see [`ParseError`].
pub fn command(text: &[u8]) -> Parsed<Command> {
    let mut c = Cursor::new(text);
    let verb = c.word().ok_or(ParseError::Unknown)?;
    let command = match verb.as_str() {
        "CAPABILITY" => Command::Capability,
        "NOOP" => Command::Noop,
        "LOGOUT" => Command::Logout,
        "STARTTLS" => Command::StartTls,
        "AUTHENTICATE" => authenticate(&mut c)?,
        "LOGIN" => login(&mut c)?,
        "SELECT" => select(&mut c, false)?,
        "EXAMINE" => select(&mut c, true)?,
        "CREATE" => Command::Create(mailbox(&mut c)?),
        "DELETE" => Command::Delete(mailbox(&mut c)?),
        "RENAME" => Command::Rename {
            from: mailbox(&mut c)?,
            to: mailbox(&mut c)?,
        },
        "SUBSCRIBE" => Command::Subscribe(mailbox(&mut c)?),
        "UNSUBSCRIBE" => Command::Unsubscribe(mailbox(&mut c)?),
        "LIST" => list(&mut c)?,
        "LSUB" => Command::Lsub(pattern(&mut c)?.0),
        "STATUS" => status(&mut c)?,
        "CHECK" => Command::Check,
        "CLOSE" => Command::Close,
        "UNSELECT" => Command::Unselect,
        "EXPUNGE" => Command::Expunge(None),
        "UID" => uid_command(&mut c)?,
        "SEARCH" | "FETCH" | "STORE" | "COPY" | "MOVE" => message_command(&mut c, &verb, false)?,
        "IDLE" => Command::Idle,
        "NAMESPACE" => Command::Namespace,
        "ID" => id(&mut c)?,
        "ENABLE" => enable(&mut c)?,
        _ => return Err(ParseError::Unknown),
    };
    c.end()?;
    Ok(command)
}

/// Reads `mailbox [flags] [date]` of an APPEND whose line ended in a literal's announcement.
/// `Ok(None)` when that literal is the mailbox's name and not yet the message.
///
/// # Errors
/// When it is not the beginning of an APPEND.
pub fn append_head(text: &[u8]) -> Parsed<Option<AppendHead>> {
    let mut c = Cursor::new(text);
    if c.word().as_deref() != Some("APPEND") {
        return Err(ParseError::Unknown);
    }
    c.space()?;
    if c.at_announcement() {
        return Ok(None);
    }
    let mailbox = MailboxName::from_wire(&c.astring()?)?;
    c.space()?;
    let mut flags = Vec::new();
    if c.peek() == Some(b'(') {
        flags = flag_list(&mut c)?;
        c.space()?;
    }
    let mut internal_date = None;
    if c.peek() == Some(b'"') {
        let text = c.string()?;
        let text = String::from_utf8_lossy(&text);
        let date = mail::date::parse_imap_internal_date(&text).ok_or(ParseError::Expected("a date-time"))?;
        internal_date = Some(date);
        c.space()?;
    }
    if !c.at_announcement() {
        return Err(ParseError::Expected("the message as a literal"));
    }
    Ok(Some(AppendHead {
        mailbox,
        flags,
        internal_date,
    }))
}

/// Whether a command behind its tag begins an APPEND.
#[must_use]
pub fn is_append(text: &[u8]) -> bool {
    Cursor::new(text).word().as_deref() == Some("APPEND")
}

fn authenticate(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.space()?;
    let name = c.word().ok_or(ParseError::Expected("a mechanism"))?;
    let mechanism = sasl::Mechanism::parse(&name).ok_or(name);
    let mut initial = None;
    if !c.is_at_end() {
        c.space()?;
        initial = Some(Secret::new(c.rest_of_line()?));
    }
    Ok(Command::Authenticate { mechanism, initial })
}

fn login(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.space()?;
    let user = c.utf8_astring()?;
    c.space()?;
    let password = Secret::new(c.utf8_astring()?);
    Ok(Command::Login { user, password })
}

fn select(c: &mut Cursor<'_>, read_only: bool) -> Parsed<Command> {
    let mailbox = mailbox(c)?;
    Ok(Command::Select { mailbox, read_only })
}

fn mailbox(c: &mut Cursor<'_>) -> Parsed<MailboxName> {
    c.space()?;
    Ok(MailboxName::from_wire(&c.astring()?)?)
}

fn list(c: &mut Cursor<'_>) -> Parsed<Command> {
    let (pattern, is_empty) = pattern(c)?;
    Ok(Command::List((!is_empty).then_some(pattern)))
}

/// Reference and pattern, and whether the pattern itself was empty.
fn pattern(c: &mut Cursor<'_>) -> Parsed<(Pattern, bool)> {
    c.space()?;
    let reference = c.astring()?;
    c.space()?;
    let pattern = c.list_mailbox()?;
    let joined = Pattern::new(&reference, &pattern).ok_or(ParseError::TooComplex)?;
    Ok((joined, pattern.is_empty()))
}

fn status(c: &mut Cursor<'_>) -> Parsed<Command> {
    let mailbox = mailbox(c)?;
    c.space()?;
    let mut items = Vec::new();
    c.list(16, |c| {
        let item = match c.word().unwrap_or_default().as_str() {
            "MESSAGES" => StatusItem::Messages,
            "RECENT" => StatusItem::Recent,
            "UIDNEXT" => StatusItem::UidNext,
            "UIDVALIDITY" => StatusItem::UidValidity,
            "UNSEEN" => StatusItem::Unseen,
            _ => return Err(ParseError::Expected("a status item")),
        };
        items.push(item);
        Ok(())
    })?;
    if items.is_empty() {
        return Err(ParseError::Expected("a status item"));
    }
    Ok(Command::Status { mailbox, items })
}

fn uid_command(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.space()?;
    let verb = c.word().ok_or(ParseError::Unknown)?;
    match verb.as_str() {
        "EXPUNGE" => {
            c.space()?;
            let set = SequenceSet::parse(c.set()).ok_or(ParseError::Expected("a set of UIDs"))?;
            Ok(Command::Expunge(Some(set)))
        }
        _ => message_command(c, &verb, true),
    }
}

fn message_command(c: &mut Cursor<'_>, verb: &str, uid: bool) -> Parsed<Command> {
    c.space()?;
    if verb == "SEARCH" {
        return search::command(c, uid);
    }
    let text = c.set();
    let set = match uid {
        true => SequenceSet::parse(text).map(MessageSet::Uid),
        false => SequenceSet::parse(text).map(MessageSet::Seq),
    };
    let set = set.ok_or(ParseError::Expected("a set of message numbers"))?;
    match verb {
        "FETCH" => {
            c.space()?;
            let items = fetch::items(c, uid)?;
            Ok(Command::Fetch { set, items })
        }
        "STORE" => store(c, set),
        "COPY" => Ok(Command::Copy {
            set,
            mailbox: mailbox(c)?,
        }),
        "MOVE" => Ok(Command::Move {
            set,
            mailbox: mailbox(c)?,
        }),
        _ => Err(ParseError::Unknown),
    }
}

fn store(c: &mut Cursor<'_>, set: MessageSet) -> Parsed<Command> {
    c.space()?;
    let word = c.word().unwrap_or_default();
    let (name, silent) = match word.strip_suffix(".SILENT") {
        Some(name) => (name, true),
        None => (word.as_str(), false),
    };
    let mode = match name {
        "FLAGS" => StoreMode::Replace,
        "+FLAGS" => StoreMode::Add,
        "-FLAGS" => StoreMode::Remove,
        _ => return Err(ParseError::Expected("FLAGS, +FLAGS or -FLAGS")),
    };
    c.space()?;
    let flags = if c.peek() == Some(b'(') {
        flag_list(c)?
    } else {
        let mut flags = Vec::new();
        loop {
            flags.extend(flag(c)?);
            if flags.len() > FLAGS_MAX {
                return Err(ParseError::TooComplex);
            }
            if c.is_at_end() {
                break flags;
            }
            c.space()?;
        }
    };
    Ok(Command::Store {
        set,
        mode,
        silent,
        flags,
    })
}

fn flag_list(c: &mut Cursor<'_>) -> Parsed<Vec<Flag>> {
    let mut flags = Vec::new();
    c.list(FLAGS_MAX, |c| {
        flags.extend(flag(c)?);
        Ok(())
    })?;
    Ok(flags)
}

/// `\Recent` cannot be set; clients that copy a flag list send it back, so it is passed over.
fn flag(c: &mut Cursor<'_>) -> Parsed<Option<Flag>> {
    if c.eat(b'\\') {
        let name = c.atom().ok_or(ParseError::Expected("a flag"))?;
        if name.eq_ignore_ascii_case("Recent") {
            return Ok(None);
        }
        return Flag::system(name)
            .map(Some)
            .ok_or(ParseError::Expected("a flag of RFC 3501"));
    }
    let name = c.atom().ok_or(ParseError::Expected("a flag"))?;
    Flag::keyword(name)
        .map(Some)
        .ok_or(ParseError::Expected("a shorter keyword"))
}

fn id(c: &mut Cursor<'_>) -> Parsed<Command> {
    c.space()?;
    let mut pairs = Vec::new();
    if c.nil() {
        return Ok(Command::Id(pairs));
    }
    c.list(ID_PAIRS_MAX, |c| {
        let field = String::from_utf8_lossy(&c.string()?).into_owned();
        c.space()?;
        let value = if c.nil() { Vec::new() } else { c.string()? };
        pairs.push((field, String::from_utf8_lossy(&value).into_owned()));
        Ok(())
    })?;
    Ok(Command::Id(pairs))
}

fn enable(c: &mut Cursor<'_>) -> Parsed<Command> {
    while !c.is_at_end() {
        c.space()?;
        c.atom().ok_or(ParseError::Expected("a capability"))?;
    }
    Ok(Command::Enable)
}

#[cfg(test)]
mod tests;
