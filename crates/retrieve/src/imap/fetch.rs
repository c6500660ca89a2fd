//! FETCH: message by message, written as fast as the client reads.

use super::Driver;
use super::refuse::refusal;
use super::selected::flags_of;
use crate::connection::Connection;
use crate::fetched;
use ::imap::fetch::{FetchItem, MessageData, Needs, Piece, respond};
use ::imap::view::Targets;
use ::imap::{Refusal, SeqNum};
use bytes::Bytes;
use mail::Uid;
use mail::mime::Structure;
use mailbox::{Entry, Error, FlagChange, FlagOp, Flags, Place};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use store::{BlobError, CommitError};

/// Messages whose entries are in memory at once.
const MESSAGES_AT_ONCE: usize = 500;
/// Octets that are gathered before they are written.
const GATHERED_OCTETS: usize = 32 * 1024;
/// Octets of a large message that are in memory at once.
const PIECE_OCTETS: u64 = 256 * 1024;
/// Octets of a message whose structure is remembered for the next piece.
const REMEMBERED_FROM_OCTETS: u64 = 64 * 1024;
/// Octets that are read first when only the header is wanted; most headers are shorter.
pub(super) const HEADER_OCTETS: u64 = 16 * 1024;

/// How a fetch ended, from good to bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fetched {
    /// All messages were told.
    All,
    /// Some were expunged by others in the meantime.
    SomeGone,
    /// Some are damaged in the store.
    SomeUnreadable,
}

/// What was read of a message.
enum Content {
    /// Nothing was needed.
    None,
    /// Its octets, or at least its header.
    Octets(Bytes, Arc<Structure>),
    /// Only where what stands; octets are read when they are written.
    Places(Arc<Structure>),
}

/// The structure of the large message that was fetched last: clients fetch large ones in pieces,
/// and each piece must not cost a pass over the whole.
pub(super) struct Remembered {
    uid: Uid,
    structure: Arc<Structure>,
}

impl Driver {
    /// Writes the responses. The outer error is the connection's, the inner one the store's.
    pub(super) async fn fetch(
        &mut self,
        connection: &mut Connection,
        targets: Targets,
        items: Vec<FetchItem>,
        may_set_seen: bool,
    ) -> io::Result<Result<Fetched, Refusal>> {
        let mut out = Vec::new();
        let outcome = self
            .fetch_all(connection, &mut out, targets, &items, may_set_seen)
            .await?;
        // Also after an error: what is gathered can be the end of a response that has begun.
        connection.write(&out).await?;
        Ok(outcome)
    }

    async fn fetch_all(
        &mut self,
        connection: &mut Connection,
        out: &mut Vec<u8>,
        mut targets: Targets,
        items: &[FetchItem],
        may_set_seen: bool,
    ) -> io::Result<Result<Fetched, Refusal>> {
        let sets_seen = may_set_seen && items.iter().any(FetchItem::sets_seen);
        let needs = items.iter().map(FetchItem::needs).max().unwrap_or(Needs::Nothing);
        let hands_out_text = items.iter().any(FetchItem::hands_out_text);
        let places = items.iter().all(FetchItem::is_a_place);
        let mut outcome = Fetched::All;
        loop {
            let (Some(view), Some(selected)) = (self.session.view(), &self.selected) else {
                return Ok(Ok(outcome));
            };
            let batch = targets.next(view, MESSAGES_AT_ONCE);
            if batch.is_empty() {
                return Ok(Ok(outcome));
            }
            let place = selected.place;
            let mut entries = match self.entries(place, &batch).await {
                Ok(entries) => entries,
                Err(error) => return Ok(Err(refusal(&error))),
            };
            if sets_seen {
                match self.set_seen(place, &mut entries).await {
                    // They stay unseen: on a full disk, reading goes on.
                    Ok(()) | Err(Error::Commit(CommitError::Full)) => {}
                    Err(error) => return Ok(Err(refusal(&error))),
                }
            }
            for (seq, uid) in &batch {
                let Some((entry, newly_seen)) = entries.get(uid) else {
                    outcome = outcome.max(Fetched::SomeGone);
                    continue;
                };
                let content = match self.read(entry, needs, places).await {
                    Ok(content) => content,
                    // The rest stays served.
                    Err(Error::Blob(error @ (BlobError::Corrupt(_) | BlobError::NotFound(_)))) => {
                        tracing::error!(%error, ?place, %uid, "a message cannot be read");
                        outcome = Fetched::SomeUnreadable;
                        continue;
                    }
                    Err(error) => return Ok(Err(refusal(&error))),
                };
                let pieces = self.pieces(*seq, entry, *newly_seen, items, &content);
                self.write(connection, out, pieces, entry, &content).await?;
            }
            if hands_out_text && let Some(user) = &self.user {
                let handed_out: Vec<&Entry> = entries.values().map(|(e, _)| e).collect();
                fetched::note(&self.ctx, place, user.account, &user.address, "imap", &handed_out).await;
            }
        }
    }

    fn pieces(
        &self,
        seq: SeqNum,
        entry: &Entry,
        newly_seen: bool,
        items: &[FetchItem],
        content: &Content,
    ) -> Vec<Piece> {
        let flags = flags_of(entry);
        let data = MessageData {
            seq,
            uid: entry.uid,
            flags: &flags,
            recent: self.session.view().is_some_and(|v| v.is_recent(entry.uid)),
            internal_date: entry.internal_date,
            octets: entry.size(),
            content: match content {
                Content::None => None,
                Content::Octets(octets, structure) => Some((&octets[..], &**structure)),
                Content::Places(structure) => Some((&[], &**structure)),
            },
        };
        if newly_seen && !items.contains(&FetchItem::Flags) {
            // RFC 3501 §6.4.5: a flag that changed by this is told with it.
            let with_flags = [items, &[FetchItem::Flags]].concat();
            return respond(&with_flags, &data);
        }
        respond(items, &data)
    }

    /// The entries of a batch, by UID; those that are gone are left out.
    async fn entries(
        &self,
        place: Place,
        batch: &[(SeqNum, Uid)],
    ) -> Result<BTreeMap<Uid, (Entry, bool)>, Error> {
        let mut found = BTreeMap::new();
        // Runs of consecutive numbers are read in one go.
        for run in batch.chunk_by(|a, b| a.0.0 + 1 == b.0.0) {
            let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else {
                continue;
            };
            if run.len() == 1 {
                let entry = self.ctx.mailboxes.entry(place, *first).await?;
                found.extend(entry.map(|e| (e.uid, (e, false))));
                continue;
            }
            let entries = self.ctx.mailboxes.entries(place, *first, run.len()).await?;
            found.extend(
                entries
                    .into_iter()
                    .filter(|e| e.uid <= *last)
                    .map(|e| (e.uid, (e, false))),
            );
        }
        Ok(found)
    }

    /// Sets `\Seen` where it is not; those entries are marked as newly seen.
    async fn set_seen(
        &mut self,
        place: Place,
        entries: &mut BTreeMap<Uid, (Entry, bool)>,
    ) -> Result<(), Error> {
        let unseen: Vec<Uid> = entries
            .values()
            .filter(|(e, _)| !e.flags.has(Flags::SEEN))
            .map(|(e, _)| e.uid)
            .collect();
        if unseen.is_empty() {
            return Ok(());
        }
        let change = FlagChange {
            op: FlagOp::Add,
            flags: Flags::SEEN,
            keywords: Vec::new(),
            unchanged_since: None,
        };
        let changed = self
            .ctx
            .mailboxes
            .store_flags(place, &unseen, &change)
            .await?
            .entries;
        for entry in changed {
            if let Some(selected) = &mut self.selected {
                selected.made(&entry);
            }
            if let Some(view) = self.session.view_mut() {
                view.flags_told(entry.uid);
            }
            entries.insert(entry.uid, (entry, true));
        }
        Ok(())
    }

    /// As much of a message as is needed, with its structure.
    async fn read(&mut self, entry: &Entry, needs: Needs, places: bool) -> Result<Content, Error> {
        let mailboxes = &self.ctx.mailboxes;
        let with_structure = |octets: Bytes| {
            let structure = Arc::new(Structure::of(&octets));
            Content::Octets(octets, structure)
        };
        match needs {
            Needs::Nothing => return Ok(Content::None),
            Needs::Header if entry.size() > HEADER_OCTETS => {
                let start = mailboxes.read(entry, 0..HEADER_OCTETS).await?;
                if has_empty_line(&start) {
                    return Ok(with_structure(start));
                }
            }
            _ => {}
        }
        let Some(selected) = &mut self.selected else {
            return Ok(Content::None);
        };
        if places
            && let Some(known) = &selected.remembered
            && known.uid == entry.uid
        {
            return Ok(Content::Places(Arc::clone(&known.structure)));
        }
        let content = with_structure(mailboxes.read(entry, 0..entry.size()).await?);
        if entry.size() > REMEMBERED_FROM_OCTETS
            && let Content::Octets(_, structure) = &content
        {
            selected.remembered = Some(Remembered {
                uid: entry.uid,
                structure: Arc::clone(structure),
            });
        }
        Ok(content)
    }

    /// Gathers small pieces and writes large ones from where they are.
    async fn write(
        &self,
        connection: &mut Connection,
        out: &mut Vec<u8>,
        pieces: Vec<Piece>,
        entry: &Entry,
        content: &Content,
    ) -> io::Result<()> {
        for piece in pieces {
            let range = match piece {
                Piece::Text(text) => {
                    gather(connection, out, &text).await?;
                    continue;
                }
                Piece::Message(range) => range,
            };
            if let Content::Octets(octets, _) = content {
                gather(connection, out, octets.get(range).unwrap_or(&[])).await?;
                continue;
            }
            let mut at = range.start as u64;
            let end = range.end as u64;
            while at < end {
                let until = end.min(at + PIECE_OCTETS);
                // The length of the literal is told already: without its octets the connection
                // must end, so that the client does not take something else for them.
                let octets = self
                    .ctx
                    .mailboxes
                    .read(entry, at..until)
                    .await
                    .map_err(io::Error::other)?;
                if octets.len() as u64 != until - at {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
                gather(connection, out, &octets).await?;
                at = until;
            }
        }
        Ok(())
    }
}

/// Whether the header ends within these octets.
pub(super) fn has_empty_line(octets: &[u8]) -> bool {
    octets.windows(4).any(|w| w == b"\r\n\r\n")
}

async fn gather(connection: &mut Connection, out: &mut Vec<u8>, octets: &[u8]) -> io::Result<()> {
    if octets.len() <= GATHERED_OCTETS {
        out.extend_from_slice(octets);
        if out.len() <= GATHERED_OCTETS {
            return Ok(());
        }
        connection.write(out).await?;
        out.clear();
        return Ok(());
    }
    connection.write(out).await?;
    out.clear();
    connection.write(octets).await
}
