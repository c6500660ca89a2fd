//! Checking the queue against itself: every errand its message, its due line, its lease; every
//! counter what it counts; nothing left lying.
//!
//! Pure over one snapshot, page by page; memory does not grow with the queue. Never: a repair.

use crate::codec::{decode_errand, decode_message};
use crate::due::{decode_due, decode_lease};
use crate::ledger::{self, Ledger};
use crate::{
    ERRANDS_PER_MESSAGE_MAX, Errand, ErrandState, Error, Message, Options, SUSPENSIONS_MAX, keys, suspend,
};
use mail::{QueueId, Timestamp};
use std::time::Duration;
use store::{Finding, Key, KeyRange, ReadError, Severity, Snapshot, Tell, Where};

/// Messages, lines or leases that are read at once.
const PAGE: usize = 500;
/// How much later than it was due an errand may be before it is called stuck: longer than a restart.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(3600);
/// How long after its lifetime a message may still be here: the last attempt has its lease.
pub const OVERSTAY: Duration = Duration::from_secs(24 * 3600);

const RETRY: &str =
    "try it again with: posthaste queue retry <id>; when it stays, look into the log for its id";
const LOST_LINE: &str = "bring it back with: posthaste queue retry <id>";
const RECOUNT: &str = "no mail is lost by it; report it, for it should not happen";
const RESTORE: &str = "check the disk, then restore what is named from a backup";
const DROP: &str = "take it out with: posthaste queue drop <id>";

/// What the audit of the queue counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Audited {
    /// Messages.
    pub messages: u64,
    /// Open errands.
    pub open: u64,
    /// Of these, held by the operator.
    pub held: u64,
}

/// Checks the queue of a snapshot at a time and tells what is wrong. What is overdue is judged by
/// the options that the server runs with.
///
/// # Errors
/// When the store cannot be read.
pub async fn audit(
    snapshot: &dyn Snapshot,
    options: &Options,
    now: Timestamp,
    tell: Tell<'_>,
) -> Result<Audited, Error> {
    let mut work = Work {
        snapshot,
        options,
        now,
        tell,
        audited: Audited::default(),
    };
    work.messages().await?;
    work.orphaned_errands().await?;
    work.lines().await?;
    work.leases().await?;
    work.counters().await?;
    work.suspensions().await?;
    Ok(work.audited)
}

/// The ledger of a snapshot.
///
/// # Errors
/// When the store cannot be read.
pub async fn ledger_of(snapshot: &dyn Snapshot) -> Result<Ledger, Error> {
    ledger::of(snapshot).await
}

/// The errands of a queued message as a snapshot has them, open and ended; none when it is not
/// queued. Damaged ones are left out: [`audit`] tells them.
///
/// # Errors
/// When the store cannot be read.
pub async fn errands_of(snapshot: &dyn Snapshot, id: QueueId) -> Result<Vec<Errand>, Error> {
    let range = keys::errands_of(id).prefix_range();
    let rows = snapshot.scan(&range, ERRANDS_PER_MESSAGE_MAX).await?;
    Ok(rows
        .iter()
        .filter_map(|(key, stored)| decode_errand(key, &stored.value).ok())
        .collect())
}

/// The ids of queued messages in a snapshot, from `from` on, in their order: at most `limit`, and
/// none at the end. To go on, ask again from the one behind the last.
///
/// # Errors
/// When the store cannot be read.
pub async fn queued_from(
    snapshot: &dyn Snapshot,
    from: QueueId,
    limit: usize,
) -> Result<Vec<QueueId>, Error> {
    let range = KeyRange {
        start: keys::message(from),
        end: keys::messages().prefix_range().end,
    };
    let rows = snapshot.scan(&range, limit).await?;
    let ids = rows.iter().filter_map(|(key, _)| key.reader().u64());
    Ok(ids.map(QueueId).collect())
}

struct Work<'a> {
    snapshot: &'a dyn Snapshot,
    options: &'a Options,
    now: Timestamp,
    tell: Tell<'a>,
    audited: Audited,
}

impl Work<'_> {
    fn tell(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: Where,
        what: impl Into<String>,
        remedy: &'static str,
    ) {
        (self.tell)(Finding::new(severity, code, place, what, remedy));
    }

    async fn messages(&mut self) -> Result<(), Error> {
        let mut range = keys::messages().prefix_range();
        loop {
            let rows = self.snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            for (key, stored) in rows {
                self.audited.messages += 1;
                let message = decode_message(&key, &stored.value);
                let id = key.reader().u64().map(QueueId).unwrap_or(QueueId(0));
                let message = match message {
                    Ok(message) if message.id == id => Some(message),
                    Ok(_) => {
                        let what = "it is stored under the id of another message";
                        self.tell(
                            Severity::Error,
                            "queued-message-damaged",
                            Where::Entry(key),
                            what,
                            RESTORE,
                        );
                        None
                    }
                    Err(error) => {
                        let what = error.to_string();
                        self.tell(
                            Severity::Error,
                            "queued-message-damaged",
                            Where::Entry(key),
                            what,
                            RESTORE,
                        );
                        None
                    }
                };
                self.errands(id, message.as_ref()).await?;
            }
        }
    }

    /// The errands of one message, and what belongs to each.
    async fn errands(&mut self, id: QueueId, message: Option<&Message>) -> Result<(), Error> {
        let range = keys::errands_of(id).prefix_range();
        let rows = self.snapshot.scan(&range, ERRANDS_PER_MESSAGE_MAX).await?;
        let (mut open, mut damaged) = (0i64, 0i64);
        for (key, stored) in rows {
            match decode_errand(&key, &stored.value) {
                Ok(errand) => {
                    if errand.state.is_open() {
                        open += 1;
                        self.audited.held += u64::from(errand.state.is_held());
                        self.open_errand(&errand, message).await?;
                    }
                }
                Err(error) => {
                    damaged += 1;
                    let what = error.to_string();
                    self.tell(
                        Severity::Error,
                        "errand-damaged",
                        Where::Entry(key),
                        what,
                        RESTORE,
                    );
                }
            }
        }
        self.audited.open += open.unsigned_abs();
        // A single errand has no counter.
        let counted = self
            .snapshot
            .counter(&keys::open(id))
            .await?
            .saturating_neg()
            .max(1);
        if open + damaged > 0 && !(open..=open + damaged).contains(&counted) {
            let what = format!("{open} errands of {id} are open, its counter says {counted}");
            let place = Where::Counter(keys::open(id));
            self.tell(Severity::Error, "open-count-wrong", place, what, RECOUNT);
        }
        if open + damaged == 0 {
            let what = format!("{id} is queued, but none of its errands is open");
            let place = Where::Entry(keys::message(id));
            self.tell(Severity::Error, "message-without-errand", place, what, DROP);
        }
        Ok(())
    }

    async fn open_errand(&mut self, errand: &Errand, message: Option<&Message>) -> Result<(), Error> {
        let (id, no) = (errand.message, errand.no);
        let ErrandState::Waiting { next_attempt } = errand.state else {
            return Ok(());
        };
        let place = || Where::Named(format!("errand {no} of {id} to {}", errand.recipient));
        let lease_key = keys::lease(id, no);
        let lease = match self.snapshot.get(&lease_key).await.map_err(Error::from) {
            Ok(Some(stored)) => match decode_lease(&lease_key, &stored.value) {
                Ok(lease) => Some(lease),
                Err(error) => {
                    let what = error.to_string();
                    self.tell(
                        Severity::Error,
                        "lease-damaged",
                        Where::Entry(lease_key),
                        what,
                        RESTORE,
                    );
                    return Ok(());
                }
            },
            Ok(None) => None,
            // The walk over all rows tells it.
            Err(Error::Damaged { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let due = lease.map_or(next_attempt, |lease| lease.until);
        if !self.is_there(&keys::due(due, id, no)).await? {
            let what = "it waits, but no line says when it is due: it would wait for ever";
            self.tell(Severity::Error, "due-line-missing", place(), what, LOST_LINE);
        }
        let late = self.now.since(due);
        if late > OVERDUE_AFTER {
            let what = match lease {
                Some(_) => format!("its lease lapsed {} ago and nobody took it up", span(late)),
                None => format!("it was due {} ago and nobody took it up", span(late)),
            };
            self.tell(Severity::Warning, "errand-overdue", place(), what, RETRY);
        }
        let expires = self.options.schedule.expires(errand.first_queued).plus(OVERSTAY);
        // What is suspended waits as long as the operator wants.
        if message.is_some() && self.now > expires && !errand.suspended {
            let what = format!(
                "it has been queued for {}, longer than mail is kept trying",
                span(self.now.since(errand.first_queued))
            );
            self.tell(Severity::Warning, "errand-too-old", place(), what, RETRY);
        }
        Ok(())
    }

    async fn is_there(&self, key: &Key) -> Result<bool, Error> {
        match self.snapshot.get(key).await {
            Ok(found) => Ok(found.is_some()),
            // There, and damaged, which the walk over all rows tells.
            Err(ReadError::Corrupt(_)) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Errands whose message is not there.
    async fn orphaned_errands(&mut self) -> Result<(), Error> {
        let mut range = keys::errands().prefix_range();
        let mut known = None;
        loop {
            let rows = self.snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            for (key, stored) in rows {
                let Some(id) = key.reader().u64().map(QueueId) else {
                    continue;
                };
                if known == Some(id) || self.is_there(&keys::message(id)).await? {
                    known = Some(id);
                    continue;
                }
                let errand = decode_errand(&key, &stored.value).ok();
                let open = errand.as_ref().is_none_or(|errand| errand.state.is_open());
                let to = errand.map_or_else(String::new, |errand| format!(" to {}", errand.recipient));
                let (severity, what) = match open {
                    true => (
                        Severity::Error,
                        format!("an open errand of {id}{to}, whose message is not in the queue"),
                    ),
                    false => (
                        Severity::Warning,
                        format!("an ended errand of {id}{to} was left behind"),
                    ),
                };
                self.tell(
                    severity,
                    "errand-without-message",
                    Where::Entry(key),
                    what,
                    RESTORE,
                );
            }
        }
    }

    /// Lines of the due index that name nothing, or another time than their errand's.
    async fn lines(&mut self) -> Result<(), Error> {
        let mut range = keys::due_all().prefix_range();
        loop {
            let rows = self.snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            for (key, stored) in rows {
                let Some(due) = decode_due(&key, &stored.value) else {
                    let what = "it is not a line of the due index";
                    self.tell(
                        Severity::Error,
                        "due-line-wrong",
                        Where::Entry(key),
                        what,
                        RESTORE,
                    );
                    continue;
                };
                let errand_key = keys::errand(due.message, due.no);
                let errand = match self.snapshot.get(&errand_key).await {
                    Ok(Some(stored)) => decode_errand(&errand_key, &stored.value).ok(),
                    Ok(None) => {
                        let what = format!(
                            "it names errand {} of {}, which is not there",
                            due.no, due.message
                        );
                        let remedy = "nothing: it goes when it comes due";
                        self.tell(
                            Severity::Warning,
                            "due-line-wrong",
                            Where::Entry(key),
                            what,
                            remedy,
                        );
                        continue;
                    }
                    Err(ReadError::Corrupt(_)) => None,
                    Err(error) => return Err(error.into()),
                };
                // A damaged errand has a line of its own time, so that the operator hears of it.
                let Some(Errand {
                    state: ErrandState::Waiting { next_attempt },
                    ..
                }) = errand
                else {
                    continue;
                };
                let lease_key = keys::lease(due.message, due.no);
                let lease = self.snapshot.get(&lease_key).await.ok().flatten();
                let lease = lease.and_then(|stored| decode_lease(&lease_key, &stored.value).ok());
                let right = lease.map_or(next_attempt, |lease| lease.until);
                if right != due.at {
                    let what = format!(
                        "errand {} of {} has a second line in the due index",
                        due.no, due.message
                    );
                    let remedy = "nothing: it goes when it comes due";
                    self.tell(
                        Severity::Warning,
                        "due-line-wrong",
                        Where::Entry(key),
                        what,
                        remedy,
                    );
                }
            }
        }
    }

    /// Leases on nothing.
    async fn leases(&mut self) -> Result<(), Error> {
        let mut range = keys::leases().prefix_range();
        loop {
            let rows = self.snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            for (key, _) in rows {
                let mut parts = key.reader();
                let (Some(id), Some(no)) = (parts.u64().map(QueueId), parts.u32()) else {
                    continue;
                };
                if !self.is_there(&keys::errand(id, no)).await? {
                    let what = format!("a lease on errand {no} of {id}, which is not there");
                    let remedy = "nothing: the next start of the server ends it";
                    self.tell(
                        Severity::Warning,
                        "lease-without-errand",
                        Where::Entry(key),
                        what,
                        remedy,
                    );
                }
            }
        }
    }

    async fn suspensions(&mut self) -> Result<(), Error> {
        let range = keys::suspensions().prefix_range();
        for (key, stored) in self.snapshot.scan(&range, SUSPENSIONS_MAX).await? {
            if let Err(error) = suspend::decode(&key, &stored.value) {
                let (what, remedy) = (error.to_string(), "suspend it anew: posthaste queue suspend");
                self.tell(
                    Severity::Warning,
                    "suspension-damaged",
                    Where::Entry(key),
                    what,
                    remedy,
                );
            }
        }
        Ok(())
    }

    async fn counters(&mut self) -> Result<(), Error> {
        let said = self.snapshot.counter(&keys::messages_queued()).await?;
        if said != i64::try_from(self.audited.messages).unwrap_or(i64::MAX) {
            let what = format!(
                "{} messages are queued, the counter says {said}",
                self.audited.messages
            );
            let place = Where::Counter(keys::messages_queued());
            self.tell(Severity::Error, "queue-count-wrong", place, what, RECOUNT);
        }
        let said = self.snapshot.counter(&keys::errands_open()).await?;
        if said != i64::try_from(self.audited.open).unwrap_or(i64::MAX) {
            let what = format!("{} errands are open, the counter says {said}", self.audited.open);
            let place = Where::Counter(keys::errands_open());
            self.tell(Severity::Error, "queue-count-wrong", place, what, RECOUNT);
        }
        let said = self.snapshot.counter(&keys::errands_held()).await?;
        if said != i64::try_from(self.audited.held).unwrap_or(i64::MAX) {
            let what = format!("{} errands are held, the counter says {said}", self.audited.held);
            let place = Where::Counter(keys::errands_held());
            self.tell(Severity::Warning, "queue-count-wrong", place, what, RECOUNT);
        }
        let mut range: KeyRange = keys::open_all().prefix_range();
        loop {
            let rows = self.snapshot.counters(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            for (key, count) in rows {
                let Some(id) = key.reader().u64().map(QueueId) else {
                    continue;
                };
                if !self.is_there(&keys::message(id)).await? {
                    let what = format!(
                        "it says {} open errands of {id}, which is not in the queue",
                        -count
                    );
                    self.tell(
                        Severity::Warning,
                        "open-count-wrong",
                        Where::Counter(key),
                        what,
                        RECOUNT,
                    );
                }
            }
        }
    }
}

/// A span of time as people say it.
fn span(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..7_200 => format!("{} minutes", secs / 60),
        7_200..172_800 => format!("{} hours", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}
