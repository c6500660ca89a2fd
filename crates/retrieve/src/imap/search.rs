//! SEARCH: over what is known of each message first, over its text only where that decides.

use super::fetch::{HEADER_OCTETS, has_empty_line};
use super::refuse::refusal;
use super::selected::ENTRIES_AT_ONCE;
use super::{Driver, TURN};
use ::imap::search::{Date, MessageView, Needle, SearchKey};
use ::imap::session::ask;
use ::imap::{Flag, Refusal, SeqNum, Ticket};
use mail::header::body_offset;
use mail::mime::header_fields;
use mail::{Timestamp, Uid};
use mail_parser::parsers::MessageStream;
use mail_parser::{Message, MessageParser, PartType};
use mailbox::{Entry, Error, Flags};
use std::sync::Arc;
use store::BlobError;
use tokio::time::Instant;

/// How deep messages inside messages are searched.
const DEPTH_MAX: usize = 5;

impl Driver {
    pub(super) async fn search(&mut self, ticket: Ticket<ask::Search>, key: SearchKey) {
        match self.find(Arc::new(key)).await {
            Ok(uids) => {
                self.sync().await;
                self.session.found(ticket, &uids);
            }
            Err(r) => self.session.refuse(ticket, r),
        }
    }

    async fn find(&self, key: Arc<SearchKey>) -> Result<Vec<Uid>, Refusal> {
        let (Some(selected), Some(view)) = (&self.selected, self.session.view()) else {
            return Ok(Vec::new());
        };
        let mailboxes = &self.ctx.mailboxes;
        let needs_body = key.needs_body();
        let mut found = Vec::new();
        let mut from = Uid(1);
        let mut turn_ends = Instant::now() + TURN;
        loop {
            let entries = mailboxes
                .entries(selected.place, from, ENTRIES_AT_ONCE)
                .await
                .map_err(|e| refusal(&e))?;
            let next = entries.last().map(|e| Uid(e.uid.0.saturating_add(1)));
            let is_last = entries.len() < ENTRIES_AT_ONCE;
            for entry in entries {
                let Some(seq) = view.seq(entry.uid) else { continue };
                let uid = entry.uid;
                let known = Known {
                    seq,
                    largest: view.largest(),
                    recent: view.is_recent(uid),
                    entry,
                    text: None,
                };
                let matches = match key.matches(&known) {
                    Some(matches) => matches,
                    None => match self.decide(&key, needs_body, known).await {
                        Ok(matches) => matches,
                        // The rest stays served.
                        Err(Error::Blob(error @ (BlobError::Corrupt(_) | BlobError::NotFound(_)))) => {
                            tracing::error!(%error, %uid, "a message cannot be searched");
                            false
                        }
                        Err(error) => return Err(refusal(&error)),
                    },
                };
                if matches {
                    found.push(uid);
                }
                if Instant::now() > turn_ends {
                    tokio::task::yield_now().await;
                    turn_ends = Instant::now() + TURN;
                }
            }
            match next {
                Some(next) if !is_last => from = next,
                _ => return Ok(found),
            }
        }
    }
}

impl Driver {
    /// Reads as much of a message as the key needs, and decides.
    async fn decide(&self, key: &Arc<SearchKey>, needs_body: bool, mut known: Known) -> Result<bool, Error> {
        let mailboxes = &self.ctx.mailboxes;
        let size = known.entry.size();
        if !needs_body {
            let mut octets = mailboxes.read(&known.entry, 0..size.min(HEADER_OCTETS)).await?;
            if size > HEADER_OCTETS && !has_empty_line(&octets) {
                octets = mailboxes.read(&known.entry, 0..size).await?;
            }
            known.text = Some(Text::of_header(&octets));
            return Ok(key.matches(&known).unwrap_or(false));
        }
        let octets = mailboxes.read(&known.entry, 0..size).await?;
        let key = Arc::clone(key);
        // Decoding takes milliseconds per megabyte: not on a network thread.
        let decide = move || {
            known.text = Some(Text::of(&octets));
            key.matches(&known).unwrap_or(false)
        };
        Ok(tokio::task::spawn_blocking(decide).await.unwrap_or(false))
    }
}

/// A message as far as it is known.
struct Known {
    seq: SeqNum,
    largest: (SeqNum, Uid),
    recent: bool,
    entry: Entry,
    text: Option<Text>,
}

/// The decoded text of a message, in lower case.
struct Text {
    /// Names and values of the header fields.
    header: Vec<(String, String)>,
    body: String,
    sent: Option<Date>,
}

impl Text {
    fn of(octets: &[u8]) -> Self {
        let mut text = Self::of_header(octets);
        if let Some(message) = MessageParser::default().parse(octets) {
            add_body(&mut text.body, &message, 0);
        }
        text
    }

    fn of_header(octets: &[u8]) -> Self {
        let mut header = Vec::new();
        let mut sent = None;
        for field in header_fields(octets, 0..body_offset(octets)) {
            if sent.is_none() && field.is("Date") {
                sent = Date::of_header(&field.value());
            }
            let name = String::from_utf8_lossy(field.name).to_lowercase();
            header.push((name, decoded(field.raw_value).to_lowercase()));
        }
        Self {
            header,
            body: String::new(),
            sent,
        }
    }
}

/// A field's value with its encoded-words decoded (RFC 2047).
fn decoded(raw_value: &[u8]) -> String {
    // The decoder ends at a line ending that no fold follows.
    let line = [raw_value, b"\r\n"].concat();
    match MessageStream::new(&line).parse_unstructured().into_text() {
        Some(text) => text.into_owned(),
        None => String::from_utf8_lossy(raw_value).into_owned(),
    }
}

fn add_body(body: &mut String, message: &Message<'_>, depth: usize) {
    for part in &message.parts {
        match &part.body {
            PartType::Text(text) | PartType::Html(text) => {
                body.push_str(&text.to_lowercase());
                body.push('\n');
            }
            PartType::Message(inner) if depth < DEPTH_MAX => add_body(body, inner, depth + 1),
            _ => {}
        }
    }
}

impl MessageView for Known {
    fn seq(&self) -> SeqNum {
        self.seq
    }

    fn uid(&self) -> Uid {
        self.entry.uid
    }

    fn largest(&self) -> (SeqNum, Uid) {
        self.largest
    }

    fn has_flag(&self, flag: &Flag) -> bool {
        let bit = match flag {
            Flag::Answered => Flags::ANSWERED,
            Flag::Flagged => Flags::FLAGGED,
            Flag::Deleted => Flags::DELETED,
            Flag::Seen => Flags::SEEN,
            Flag::Draft => Flags::DRAFT,
            Flag::Keyword(name) => {
                return self
                    .entry
                    .keywords
                    .iter()
                    .any(|k| k.as_str().eq_ignore_ascii_case(name));
            }
        };
        self.entry.flags.has(bit)
    }

    fn is_recent(&self) -> bool {
        self.recent
    }

    fn octets(&self) -> u64 {
        self.entry.size()
    }

    fn internal_date(&self) -> Timestamp {
        self.entry.internal_date
    }

    fn sent_date(&self) -> Option<Option<Date>> {
        self.text.as_ref().map(|t| t.sent)
    }

    fn header_has(&self, name: &str, needle: &Needle) -> Option<bool> {
        let name = name.to_lowercase();
        let header = &self.text.as_ref()?.header;
        Some(
            header
                .iter()
                .any(|(n, value)| *n == name && needle.is_in_lowercase(value)),
        )
    }

    fn body_has(&self, needle: &Needle) -> Option<bool> {
        self.text.as_ref().map(|t| needle.is_in_lowercase(&t.body))
    }

    fn text_has(&self, needle: &Needle) -> Option<bool> {
        let text = self.text.as_ref()?;
        // The names of the fields are text of the header too (RFC 3501 §6.4.4).
        let in_header = text
            .header
            .iter()
            .any(|(name, value)| needle.is_in_lowercase(&format!("{name}: {value}")));
        Some(in_header || needle.is_in_lowercase(&text.body))
    }
}
