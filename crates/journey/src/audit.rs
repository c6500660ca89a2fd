//! Checking the journeys: of every accepted message, each recipient has exactly one end, or is
//! still on its way.
//!
//! Pure over one snapshot, message by message; memory is a few octets for each recipient of one
//! message. Old journeys are forgotten whole, so what is there is checked and what is not is not
//! missed. Never: a repair; a decision about what the queue holds (it is asked).

use crate::keys;
use crate::record::{events_in, id_of};
use crate::{Error, Event};
use mail::{AccountId, QueueId};
use std::collections::BTreeMap;
use store::{BoxFuture, Finding, ReadError, Severity, Snapshot, Tell, Where};

/// Events that are read at once.
const PAGE: usize = 2_000;

const LOST: &str =
    "ask the sender to send it again; keep the log of that time and report it, for this must not happen";
const TWICE: &str = "somebody has it twice; keep the log of that time and report it";
const RECORD: &str = "look at it with: posthaste trace <id>; report it";

/// What is asked of the queue.
pub trait Open: Send + Sync {
    /// The recipients of a message's open errands, folded; a recipient stands once for each.
    fn recipients<'a>(&'a self, id: QueueId) -> BoxFuture<'a, Result<Vec<String>, ReadError>>;
}

/// What the journeys tell in sum. Errands as the ledger counts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Audited {
    /// Accepted messages whose journeys are known.
    pub messages: u64,
    /// Their errands that went into mailboxes at once.
    pub at_once: u64,
    /// Their errands that were queued.
    pub queued: u64,
    /// Of these: put into a mailbox here.
    pub delivered: u64,
    /// Taken by another server.
    pub relayed: u64,
    /// Failed for good.
    pub bounced: u64,
    /// Given up.
    pub expired: u64,
    /// Dropped.
    pub dropped: u64,
    /// Still on their way.
    pub open: u64,
    /// Messages with ends, but whose acceptance is not recorded: they could not be checked.
    pub unchecked: u64,
}

/// Checks the journeys of a snapshot and tells what is wrong. What `count` answers `false` for is
/// checked, and left out of the sums.
///
/// # Errors
/// When the store cannot be read.
pub async fn audit(
    snapshot: &dyn Snapshot,
    open: &dyn Open,
    count: &(dyn Fn(QueueId) -> bool + Send + Sync),
    tell: Tell<'_>,
) -> Result<Audited, Error> {
    let mut audited = Audited::default();
    let mut current: Option<Way> = None;
    let mut range = keys::events().prefix_range();
    loop {
        let rows = snapshot.scan(&range, PAGE).await?;
        if let Some((last, _)) = rows.last() {
            range = range.after(last);
        }
        let at_end = rows.is_empty();
        for (key, stored) in rows {
            let Some(id) = id_of(&key) else { continue };
            if current.as_ref().is_none_or(|way| way.id != id)
                && let Some(way) = current.replace(Way::new(id))
            {
                way.judge(open, count(way.id), &mut audited, tell).await?;
            }
            let Some(way) = &mut current else { continue };
            let (events, damaged) = events_in(&stored);
            events.iter().for_each(|event| way.add(event));
            if damaged {
                way.damaged = true;
                tell(Finding::new(
                    Severity::Warning,
                    "event-damaged",
                    Where::Entry(key),
                    format!("a step of the journey of {id} can't be read"),
                    "the message itself is not touched by it; check the disk",
                ));
            }
        }
        if at_end {
            if let Some(way) = current.take() {
                way.judge(open, count(way.id), &mut audited, tell).await?;
            }
            return Ok(audited);
        }
    }
}

/// Whether anything is known of a message's journey. What was begun after the time up to which
/// journeys are forgotten must be known.
///
/// # Errors
/// When the store cannot be read.
pub async fn is_known(snapshot: &dyn Snapshot, id: QueueId) -> Result<bool, Error> {
    let range = keys::events_of(id).prefix_range();
    Ok(!snapshot.scan(&range, 1).await?.is_empty())
}

/// What happened to one recipient.
#[derive(Default)]
struct Fate {
    queued: u64,
    /// Deliveries by account: one errand may lead to several accounts.
    delivered: BTreeMap<AccountId, u64>,
    relayed: u64,
    bounced: u64,
    expired: u64,
    dropped: u64,
}

impl Fate {
    /// Deliveries, each to all accounts of the address.
    fn delivered_to_each(&self) -> u64 {
        self.delivered.values().copied().max().unwrap_or(0)
    }

    fn ends(&self) -> u64 {
        self.delivered_to_each() + self.relayed + self.bounced + self.expired + self.dropped
    }
}

/// One message's way, as far as it matters here.
struct Way {
    id: QueueId,
    /// Local and queued errands, as the acceptance says.
    accepted: Option<(u64, u64)>,
    /// We made it: a report.
    ours: bool,
    fates: BTreeMap<String, Fate>,
    damaged: bool,
}

impl Way {
    fn new(id: QueueId) -> Self {
        Self {
            id,
            accepted: None,
            ours: false,
            fates: BTreeMap::new(),
            damaged: false,
        }
    }

    fn add(&mut self, event: &Event) {
        match event {
            Event::Received { service, .. } if service == "local" => self.ours = true,
            Event::Accepted { local, queued } => {
                self.accepted = Some((u64::from(*local), u64::from(*queued)));
            }
            Event::DeliveredLocal {
                recipient, account, ..
            } => *self.fate(recipient).delivered.entry(*account).or_default() += 1,
            Event::Queued { recipient, .. } => self.fate(recipient).queued += 1,
            Event::Relayed { recipient, .. } => self.fate(recipient).relayed += 1,
            Event::Bounced { recipient, .. } => self.fate(recipient).bounced += 1,
            Event::Expired { recipient, .. } => self.fate(recipient).expired += 1,
            Event::Dropped {
                recipient: Some(recipient),
                ..
            } => self.fate(recipient).dropped += 1,
            _ => {}
        }
    }

    fn fate(&mut self, recipient: &mail::EmailAddress) -> &mut Fate {
        self.fates.entry(recipient.folded()).or_default()
    }

    async fn judge(
        &self,
        open: &dyn Open,
        counts: bool,
        audited: &mut Audited,
        tell: Tell<'_>,
    ) -> Result<(), Error> {
        let at_once = self.fates.values().filter(|fate| fate.queued == 0);
        let at_once: u64 = at_once.flat_map(|fate| fate.delivered.values()).sum();
        let queued: u64 = self.fates.values().map(|fate| fate.queued).sum();
        let (said_local, said_queued) = match self.accepted {
            Some(said) => said,
            None if self.ours && at_once + queued > 0 => (at_once, queued),
            None => {
                audited.unchecked += u64::from(!self.fates.is_empty());
                return Ok(());
            }
        };
        let mut sum = Audited {
            messages: 1,
            at_once: said_local,
            queued: said_queued,
            ..Audited::default()
        };
        if !self.damaged && (at_once, queued) != (said_local, said_queued) {
            let what = format!(
                "it was accepted for {said_local} mailboxes here and {said_queued} recipients elsewhere; {at_once} and {queued} are on record"
            );
            let severity = match at_once < said_local || queued < said_queued {
                true => Severity::Error,
                false => Severity::Warning,
            };
            tell(self.finding(severity, "errands-not-all-recorded", None, what, RECORD));
        }
        let on_their_way = match self.fates.values().any(|fate| fate.queued > fate.ends()) {
            true => open.recipients(self.id).await?,
            false => Vec::new(),
        };
        for (recipient, fate) in &self.fates {
            let waiting = on_their_way.iter().filter(|open| *open == recipient).count() as u64;
            sum.open += waiting;
            sum.relayed += fate.relayed;
            sum.bounced += fate.bounced;
            sum.expired += fate.expired;
            sum.dropped += fate.dropped;
            if fate.queued > 0 {
                sum.delivered += fate.delivered_to_each();
            }
            if let Some(finding) = self.judge_one(recipient, fate, waiting) {
                tell(finding);
            }
        }
        if counts {
            audited.take(&sum);
        }
        Ok(())
    }

    fn judge_one(&self, recipient: &str, fate: &Fate, waiting: u64) -> Option<Finding> {
        let to = Some(recipient);
        if fate.queued == 0 {
            // Settled when it was accepted: one copy for each account, and nothing else.
            let others = fate.ends() - fate.delivered_to_each();
            if fate.delivered_to_each() > 1 || others > 0 {
                let what = "it ended more than once".to_owned();
                return Some(self.finding(Severity::Error, "errand-ended-twice", to, what, TWICE));
            }
            return None;
        }
        let (ends, errands) = (fate.ends(), fate.queued);
        if ends + waiting > errands {
            let what = match waiting {
                0 => format!("{errands} errands ended {ends} times"),
                _ => "it ended, and is in the queue all the same".to_owned(),
            };
            return Some(self.finding(Severity::Error, "errand-ended-twice", to, what, TWICE));
        }
        if ends + waiting < errands {
            let what = "it was accepted, it has no end, and it is not in the queue".to_owned();
            let (severity, remedy) = match self.damaged {
                true => (
                    Severity::Warning,
                    "a step of its journey is damaged, which may have told the end",
                ),
                false => (Severity::Error, LOST),
            };
            return Some(self.finding(severity, "errand-lost", to, what, remedy));
        }
        None
    }

    fn finding(
        &self,
        severity: Severity,
        code: &'static str,
        recipient: Option<&str>,
        what: String,
        remedy: &'static str,
    ) -> Finding {
        let place = match recipient {
            Some(recipient) => format!("message {} to {recipient}", self.id),
            None => format!("message {}", self.id),
        };
        Finding::new(severity, code, Where::Named(place), what, remedy)
    }
}

impl Audited {
    fn take(&mut self, other: &Audited) {
        self.messages += other.messages;
        self.at_once += other.at_once;
        self.queued += other.queued;
        self.delivered += other.delivered;
        self.relayed += other.relayed;
        self.bounced += other.bounced;
        self.expired += other.expired;
        self.dropped += other.dropped;
        self.open += other.open;
    }
}
