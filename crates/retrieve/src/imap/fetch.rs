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

/// Messages whose entries are in memory at once.
const MESSAGES_AT_ONCE: usize = 500;
/// Octets that are gathered before they are written.
const GATHERED_OCTETS: usize = 32 * 1024;
/// Octets that are read first when only the header is wanted; most headers are shorter.
const HEADER_OCTETS: u64 = 16 * 1024;

/// How a fetch ended.
pub(super) enum Fetched {
    /// All messages were told.
    All,
    /// Some were expunged by others in the meantime.
    SomeGone,
}

impl Driver {
    /// Writes the responses. The outer error is the connection's, the inner one the store's.
    pub(super) async fn fetch(
        &mut self,
        connection: &mut Connection,
        mut targets: Targets,
        items: Vec<FetchItem>,
        may_set_seen: bool,
    ) -> io::Result<Result<Fetched, Refusal>> {
        let sets_seen = may_set_seen && items.iter().any(FetchItem::sets_seen);
        let needs = items.iter().map(FetchItem::needs).max().unwrap_or(Needs::Nothing);
        let hands_out_text = items.iter().any(FetchItem::hands_out_text);
        let mut outcome = Fetched::All;
        let mut out = Vec::new();
        loop {
            let (Some(view), Some(selected)) = (self.session.view(), &self.selected) else {
                return Ok(Ok(outcome));
            };
            let batch = targets.next(view, MESSAGES_AT_ONCE);
            if batch.is_empty() {
                connection.write(&out).await?;
                return Ok(Ok(outcome));
            }
            let place = selected.place;
            let mut entries = match self.entries(place, &batch).await {
                Ok(entries) => entries,
                Err(error) => return Ok(Err(refusal(&error))),
            };
            if sets_seen && let Err(error) = self.set_seen(place, &mut entries).await {
                return Ok(Err(refusal(&error)));
            }
            for (seq, uid) in &batch {
                let Some((entry, newly_seen)) = entries.get(uid) else {
                    outcome = Fetched::SomeGone;
                    continue;
                };
                let message = match self.read(entry, needs).await {
                    Ok(message) => message,
                    Err(error) => return Ok(Err(refusal(&error))),
                };
                let pieces = self.pieces(*seq, entry, *newly_seen, &items, message.as_ref());
                write(connection, &mut out, pieces, message.as_ref()).await?;
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
        message: Option<&(Bytes, Structure)>,
    ) -> Vec<Piece> {
        let flags = flags_of(entry);
        let data = MessageData {
            seq,
            uid: entry.uid,
            flags: &flags,
            recent: self.session.view().is_some_and(|v| v.is_recent(entry.uid)),
            internal_date: entry.internal_date,
            octets: entry.size(),
            content: message.map(|(bytes, structure)| (&bytes[..], structure)),
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
    async fn read(&self, entry: &Entry, needs: Needs) -> Result<Option<(Bytes, Structure)>, Error> {
        let mailboxes = &self.ctx.mailboxes;
        let with_structure = |bytes: Bytes| {
            let structure = Structure::of(&bytes);
            Some((bytes, structure))
        };
        match needs {
            Needs::Nothing => return Ok(None),
            Needs::Header if entry.size() > HEADER_OCTETS => {
                let start = mailboxes.read(entry, 0..HEADER_OCTETS).await?;
                if memchr_empty_line(&start) {
                    return Ok(with_structure(start));
                }
            }
            _ => {}
        }
        Ok(with_structure(mailboxes.read(entry, 0..entry.size()).await?))
    }
}

/// Whether the header ends within these octets.
fn memchr_empty_line(octets: &[u8]) -> bool {
    octets.windows(4).any(|w| w == b"\r\n\r\n")
}

/// Gathers small pieces and writes large ones from where they are.
async fn write(
    connection: &mut Connection,
    out: &mut Vec<u8>,
    pieces: Vec<Piece>,
    message: Option<&(Bytes, Structure)>,
) -> io::Result<()> {
    for piece in pieces {
        let octets = match &piece {
            Piece::Text(text) => text.as_slice(),
            Piece::Message(range) => message
                .and_then(|(bytes, _)| bytes.get(range.clone()))
                .unwrap_or(&[]),
        };
        if octets.len() > GATHERED_OCTETS {
            connection.write(out).await?;
            out.clear();
            connection.write(octets).await?;
            continue;
        }
        out.extend_from_slice(octets);
        if out.len() > GATHERED_OCTETS {
            connection.write(out).await?;
            out.clear();
        }
    }
    Ok(())
}
