//! The selected mailbox: opening it, what others change in it, flags, copies and expunges.

use super::refuse::refusal;
use super::{Driver, fetch};
use ::imap::command::StoreMode;
use ::imap::session::{Copied, Opened, ask};
use ::imap::view::Targets;
use ::imap::{Flag, Refusal, Ticket};
use mail::{ModSeq, Uid, UidValidity};
use mailbox::{Change, Entry, Error, ExpungeWhich, FlagChange, FlagOp, Flags, Keyword, Mailboxes, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Waker};
use store::{CommitError, Watch};

/// Entries that are read at once.
pub(super) const ENTRIES_AT_ONCE: usize = 2_000;
/// Messages whose flags are changed in one commit.
const MESSAGES_PER_STORE: usize = 1_000;
/// Changes that are read at once.
const CHANGES_AT_ONCE: usize = 5_000;
/// Keywords that SELECT shows at most.
const KEYWORDS_SHOWN_MAX: usize = 200;

/// The mailbox that a session works in.
pub(super) struct Selected {
    pub(super) place: Place,
    pub(super) watch: Watch,
    pub(super) read_only: bool,
    /// This session deleted the mailbox: there is no more news.
    pub(super) deleted: bool,
    /// The large message that was fetched last.
    pub(super) remembered: Option<fetch::Remembered>,
    /// Something changed that the view was not told of.
    stale: bool,
    /// Changes up to here are in the view.
    known: ModSeq,
    /// Changes that this session made and needs not hear of again.
    own: BTreeMap<Uid, ModSeq>,
}

impl Selected {
    /// Whether anything was committed to the mailbox since the view was brought up to date. The
    /// store wakes its watchers before it answers, so what was acknowledged is never overlooked.
    fn has_news(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.stale |= pin!(self.watch.changed()).poll(&mut context).is_ready();
        self.stale
    }

    /// The watch has fired.
    pub(super) fn woke(&mut self) {
        self.stale = true;
    }

    /// This session changed the message and the client knows, or does not want to.
    pub(super) fn made(&mut self, entry: &Entry) {
        self.own.insert(entry.uid, entry.modseq);
    }
}

impl Driver {
    pub(super) async fn select(&mut self, ticket: Ticket<ask::Select>, name: &str, read_only: bool) {
        self.selected = None;
        match self.open(name, read_only).await {
            Ok((selected, opened)) => {
                self.selected = Some(selected);
                self.session.selected(ticket, opened);
            }
            Err(r) => self.session.refuse(ticket, r),
        }
    }

    async fn open(&self, name: &str, read_only: bool) -> Result<(Selected, Opened), Refusal> {
        let place = self.mailbox(name).await?.place();
        let read = self.read_mailbox(place, read_only);
        read.await.map_err(|e| refusal(&e))
    }

    async fn read_mailbox(&self, place: Place, read_only: bool) -> Result<(Selected, Opened), Error> {
        let mailboxes = &self.ctx.mailboxes;
        // The watch and the status first: what happens while we read is told again, never missed.
        let watch = mailboxes.watch(place);
        let status = mailboxes.status(place).await?;
        let unclaimed = status.first_recent..status.uid_next.max(status.first_recent);
        let recent = match read_only {
            true => unclaimed,
            false => claim_recent(mailboxes, place).await?.unwrap_or(unclaimed),
        };
        let mut opened = Opened {
            uids: Vec::with_capacity(usize::try_from(status.messages).unwrap_or(0).min(1_000_000)),
            recent,
            first_unseen: None,
            uid_validity: status.uid_validity,
            uid_next: status.uid_next,
            keywords: Vec::new(),
        };
        let mut keywords = BTreeSet::new();
        let mut from = Uid(1);
        loop {
            let entries = mailboxes.entries(place, from, ENTRIES_AT_ONCE).await?;
            for entry in &entries {
                opened.uids.push(entry.uid);
                if opened.first_unseen.is_none() && !entry.flags.has(Flags::SEEN) {
                    opened.first_unseen = Some(entry.uid);
                }
                for keyword in entry.keywords.iter().take(KEYWORDS_SHOWN_MAX - keywords.len()) {
                    keywords.insert(keyword.as_str().to_owned());
                }
            }
            match entries.last().and_then(|e| e.uid.0.checked_add(1)) {
                Some(next) if entries.len() == ENTRIES_AT_ONCE => from = Uid(next),
                _ => break,
            }
        }
        opened.keywords = keywords.into_iter().collect();
        if let Some(last) = opened.uids.last() {
            // Messages that came while we read are shown already.
            opened.uid_next = opened.uid_next.max(Uid(last.0.saturating_add(1)));
        }
        let selected = Selected {
            place,
            watch,
            read_only,
            deleted: false,
            remembered: None,
            stale: false,
            known: status.highest_modseq,
            own: BTreeMap::new(),
        };
        Ok((selected, opened))
    }

    /// Tells the session's view what changed in the mailbox. A failure to read is no reason to
    /// fail a command that has succeeded; the next one tries again.
    pub(super) async fn sync(&mut self) {
        if let Err(error) = self.try_sync().await {
            tracing::warn!(%error, "imap: news could not be read");
        }
    }

    async fn try_sync(&mut self) -> Result<(), Error> {
        let Some(selected) = &mut self.selected else {
            return Ok(());
        };
        if selected.deleted || !selected.has_news() {
            return Ok(());
        }
        let mailboxes = &self.ctx.mailboxes;
        let place = selected.place;
        let mut has_arrivals = false;
        loop {
            let news = mailboxes
                .changes_since(place, selected.known, CHANGES_AT_ONCE)
                .await?;
            let Some(view) = self.session.view_mut() else {
                return Ok(());
            };
            selected.known = news.highest_modseq;
            for change in news.changes {
                match change {
                    Change::Expunged(uid) => view.expunged(uid),
                    Change::Flags(entry) if selected.own.get(&entry.uid) == Some(&entry.modseq) => {}
                    Change::Flags(entry) => view.flags_changed(entry.uid, flags_of(&entry)),
                    Change::Arrived(entry) => {
                        has_arrivals = true;
                        view.arrived([entry.uid]);
                    }
                }
            }
            if !news.complete {
                let present = all_uids(mailboxes, place).await?;
                let gone: Vec<Uid> = view
                    .uids()
                    .iter()
                    .copied()
                    .filter(|u| !present.contains(u))
                    .collect();
                gone.into_iter().for_each(|uid| view.expunged(uid));
            }
            if !news.more {
                break;
            }
        }
        selected.own.clear();
        if has_arrivals && !selected.read_only {
            let recent = claim_recent(mailboxes, place).await?;
            if let (Some(recent), Some(view)) = (recent, self.session.view_mut()) {
                view.claimed(recent);
            }
        }
        if mailboxes.by_id(place.account, place.mailbox).await?.is_none() {
            self.session.mailbox_vanished();
        }
        if let Some(selected) = &mut self.selected {
            selected.stale = false;
        }
        Ok(())
    }

    pub(super) async fn store(
        &mut self,
        targets: Targets,
        mode: StoreMode,
        silent: bool,
        flags: &[Flag],
    ) -> Result<(), Refusal> {
        let Some(selected) = &mut self.selected else {
            return Ok(());
        };
        let change = flag_change(mode, flags).map_err(|e| refusal(&e))?;
        let uids = self.session.view().map(|v| targets.uids(v)).unwrap_or_default();
        for chunk in uids.chunks(MESSAGES_PER_STORE) {
            let stored = self
                .ctx
                .mailboxes
                .store_flags(selected.place, chunk, &change)
                .await;
            let entries = stored.map_err(|e| refusal(&e))?.entries;
            let Some(view) = self.session.view_mut() else {
                return Ok(());
            };
            for entry in &entries {
                selected.made(entry);
                match silent {
                    true => view.flags_told(entry.uid),
                    false => view.flags_changed(entry.uid, flags_of(entry)),
                }
            }
        }
        Ok(())
    }

    pub(super) async fn expunge(&mut self, targets: Targets) -> Result<(), Refusal> {
        let Some(selected) = &self.selected else {
            return Ok(());
        };
        let uids = self.session.view().map(|v| targets.uids(v)).unwrap_or_default();
        let removed = self
            .ctx
            .mailboxes
            .expunge(selected.place, &uids, ExpungeWhich::Deleted)
            .await;
        let removed = removed.map_err(|e| refusal(&e))?;
        if let Some(view) = self.session.view_mut() {
            removed.uids.into_iter().for_each(|uid| view.expunged(uid));
        }
        Ok(())
    }

    pub(super) async fn deselect(&mut self, expunge: bool) -> Result<(), Refusal> {
        if expunge && let Some(all) = self.session.view().map(::imap::View::all) {
            self.expunge(all).await?;
        }
        // No news any more: the client has closed this mailbox.
        self.selected = None;
        Ok(())
    }

    pub(super) async fn copy(
        &mut self,
        ticket: Ticket<ask::Copy>,
        targets: Targets,
        to: &str,
        is_move: bool,
    ) {
        match self.try_copy(targets, to, is_move).await {
            Ok(copied) => {
                self.sync().await;
                self.session.copied(ticket, copied);
            }
            Err(r) => self.session.refuse(ticket, r),
        }
    }

    async fn try_copy(&mut self, targets: Targets, to: &str, is_move: bool) -> Result<Copied, Refusal> {
        let nothing = Copied {
            uid_validity: UidValidity(0),
            uids: Vec::new(),
        };
        let Some(selected) = &self.selected else {
            return Ok(nothing);
        };
        let found = self.ctx.mailboxes.by_name(selected.place.account, to).await;
        let to = found
            .map_err(|e| refusal(&e))?
            .ok_or_else(Refusal::try_create)?
            .place();
        let uids = self.session.view().map(|v| targets.uids(v)).unwrap_or_default();
        if uids.is_empty() {
            return Ok(nothing);
        }
        let mailboxes = &self.ctx.mailboxes;
        let moved = match is_move {
            true => mailboxes.move_(selected.place, &uids, to).await,
            false => mailboxes.copy(selected.place, &uids, to).await,
        };
        let moved = moved.map_err(|e| refusal(&e))?;
        if is_move && let Some(view) = self.session.view_mut() {
            moved.uids.iter().for_each(|(old, _)| view.expunged(*old));
        }
        Ok(Copied {
            uid_validity: moved.uid_validity,
            uids: moved.uids,
        })
    }
}

/// Every UID of a mailbox.
async fn all_uids(mailboxes: &mailbox::Mailboxes, place: Place) -> Result<BTreeSet<Uid>, Error> {
    let mut all = BTreeSet::new();
    let mut from = Uid(1);
    loop {
        let entries = mailboxes.entries(place, from, ENTRIES_AT_ONCE).await?;
        all.extend(entries.iter().map(|e| e.uid));
        match entries.last().and_then(|e| e.uid.0.checked_add(1)) {
            Some(next) if entries.len() == ENTRIES_AT_ONCE => from = Uid(next),
            _ => return Ok(all),
        }
    }
}

const SYSTEM: [(Flags, Flag); 5] = [
    (Flags::ANSWERED, Flag::Answered),
    (Flags::FLAGGED, Flag::Flagged),
    (Flags::DELETED, Flag::Deleted),
    (Flags::SEEN, Flag::Seen),
    (Flags::DRAFT, Flag::Draft),
];

/// The flags of an entry in IMAP's words.
pub(super) fn flags_of(entry: &Entry) -> Vec<Flag> {
    let system = SYSTEM
        .into_iter()
        .filter(|(bit, _)| entry.flags.has(*bit))
        .map(|(_, flag)| flag);
    let keywords = entry
        .keywords
        .iter()
        .map(|k| Flag::Keyword(k.as_str().to_owned()));
    system.chain(keywords).collect()
}

/// System flags and keywords of a list.
pub(super) fn split_flags(flags: &[Flag]) -> Result<(Flags, Vec<Keyword>), Error> {
    let mut system = Flags::NONE;
    let mut keywords = Vec::new();
    for flag in flags {
        match flag {
            Flag::Keyword(name) => keywords.push(Keyword::parse(name)?),
            known => {
                let bit = SYSTEM
                    .iter()
                    .find(|(_, f)| f == known)
                    .map_or(Flags::NONE, |(bit, _)| *bit);
                system = system.with(bit);
            }
        }
    }
    Ok((system, keywords))
}

fn flag_change(mode: StoreMode, flags: &[Flag]) -> Result<FlagChange, Error> {
    let (flags, keywords) = split_flags(flags)?;
    Ok(FlagChange {
        op: match mode {
            StoreMode::Replace => FlagOp::Replace,
            StoreMode::Add => FlagOp::Add,
            StoreMode::Remove => FlagOp::Remove,
        },
        flags,
        keywords,
        unchanged_since: None,
    })
}

/// Takes `\Recent` of what is new. `None`: there is no room to note that, so that a later session is
/// told of the same; reading goes on when the disk is full.
async fn claim_recent(mailboxes: &Mailboxes, place: Place) -> Result<Option<Range<Uid>>, Error> {
    match mailboxes.claim_recent(place).await {
        Ok(recent) => Ok(Some(recent)),
        Err(Error::Commit(CommitError::Full)) => Ok(None),
        Err(error) => Err(error),
    }
}
