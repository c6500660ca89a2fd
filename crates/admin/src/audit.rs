//! The audit: one state of the store, checked by everyone who keeps something in it, and put
//! together into one answer.
//!
//! Promises: everything is read from one snapshot; a running server is not disturbed (the reader
//! rests half of the time and holds no lock); every finding says what to do; what could not be
//! checked is said. Never: a repair, a change, a message's text.

mod paced;
mod rows;

pub use paced::{Pace, STAGES, Standing};
pub(crate) use rows::Names;

use crate::Office;
use crate::scrub::Scrub;
use crate::words::Refusal;
use directory::Accounts;
use journey::audit::Open;
use mail::{MailboxId, QueueId, Timestamp};
use paced::Paced;
use queue::Ledger;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{BoxFuture, Finding, ReadError, Severity, Snapshot, Still, VerifyError, VerifyOptions, Where};

/// Findings that one audit tells at most; more are counted.
pub const FINDINGS_MAX: usize = 1_000;
/// How long journeys are kept: within this time the ledger and the journeys must agree.
pub const JOURNEYS_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Queued messages that are looked at at once.
const PAGE: usize = 500;

const REPORT: &str =
    "no mail is lost by the count alone: look at the other findings; report it, for this must not happen";

/// What an audit came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditReport {
    /// When it began.
    pub at: Timestamp,
    /// The commit that it looked at.
    pub commit: u64,
    /// Whether every blob was read.
    pub deep: bool,
    /// Whether the sums are right and nothing worse than a note was found.
    pub balanced: bool,
    /// The ledger of errands.
    pub ledger: Ledger,
    /// All that was accepted, as the ledger says.
    pub accepted: i64,
    /// All ends and what is in flight, as the ledger says; the same number when it balances.
    pub accounted_for: i64,
    /// What there was to check.
    pub counted: Counted,
    /// What is wrong, the worst first.
    pub findings: Vec<FindingRow>,
    /// How many more there are.
    pub findings_left_out: u64,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
    /// What the background scrub found in its last round, when it runs.
    pub scrub: Option<Scrub>,
}

/// What there was to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say what is counted")]
pub struct Counted {
    pub accounts: u64,
    pub mailboxes: u64,
    pub messages: u64,
    pub message_octets: u64,
    pub queued_messages: u64,
    pub open_errands: u64,
    /// Accepted messages whose journeys were followed, recipient by recipient.
    pub journeys: u64,
    pub entries: u64,
    pub blobs: u64,
    pub blob_octets: u64,
    /// Blobs of which every octet was read.
    pub blobs_read: u64,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FindingRow {
    /// `error`, `warning` or `note`.
    pub severity: String,
    /// By which docs/AUDIT.md explains it.
    pub code: String,
    /// Whose table: `store`, `queue`, `mailbox`, `directory`, `journey`.
    pub area: String,
    /// Where.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// Who suffers from it, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concerns: Vec<String>,
}

impl Office {
    /// Audits the store as it is now. It takes as long as reading all rows (and with `deep` all
    /// blobs) takes, twice as long when `pace` is gentle. One at a time.
    ///
    /// # Errors
    /// When the store cannot be read to the end, another audit runs, or it was stopped.
    pub async fn audit(&self, deep: bool, pace: Arc<Pace>) -> Result<AuditReport, Refusal> {
        let one_at_a_time = self.auditing.clone().try_lock_owned();
        let Ok(guard) = one_at_a_time else {
            return Err(Refusal::invalid("another audit is running: wait for its end"));
        };
        let scrub = crate::scrub::read(self.store.as_ref())
            .await
            .map_err(Refusal::failed)?;
        let office = self.clone();
        let runtime = tokio::runtime::Handle::current();
        let done = tokio::task::spawn_blocking(move || {
            let _guard = guard;
            runtime.block_on(office.audit_now(deep, &pace, scrub))
        });
        done.await
            .unwrap_or_else(|error| Err(Refusal::failed(format!("the audit broke: {error}"))))
    }

    async fn audit_now(&self, deep: bool, pace: &Pace, scrub: Option<Scrub>) -> Result<AuditReport, Refusal> {
        let now = self.clock.now();
        let still = self.store.still();
        let found = Found::default();
        let mut counted = Counted::default();
        verify(&still, deep, pace, &found, &mut counted)?;
        let snapshot = still.snapshot();
        let paced = Paced {
            inner: snapshot.as_ref(),
            pace,
            since: Mutex::new(Instant::now()),
        };
        let entries = counted.entries;
        pace.at(2, 0, 0);
        let accounts = directory::audit(&paced, &mut |f| found.tell(f)).await?;
        counted.accounts = accounts.len() as u64;
        pace.at(3, 0, entries);
        self.mailboxes_of(&paced, &accounts, &found, &mut counted).await?;
        pace.at(4, 0, 0);
        let options = self.queue.options();
        let queued = queue::audit(&paced, options, now, &mut |f| found.tell(f)).await?;
        (counted.queued_messages, counted.open_errands) = (queued.messages, queued.open);
        pace.at(5, 0, entries);
        let ledger = queue::ledger_of(&paced).await?;
        let mut unchecked = Vec::new();
        journeys(&paced, &ledger, now, &found, &mut counted, &mut unchecked).await?;
        // Later than the picture, so that nothing in it was forgotten after this time.
        unknown_to_journeys(&paced, self.clock.now(), &found).await?;
        if let Some(finding) = unbalanced(&ledger) {
            found.tell(finding);
        }
        let mailboxes = mailbox::names_of(&paced, &found.mailboxes()).await?;
        let names = Names { accounts, mailboxes };
        let (findings, findings_left_out, worst) = found.into_rows(&names);
        Ok(AuditReport {
            at: now,
            commit: still.seq().0,
            deep,
            balanced: worst.is_none_or(|worst| worst < Severity::Warning),
            accepted: ledger.accepted(),
            accounted_for: ledger.accounted_for(),
            ledger,
            counted,
            findings,
            findings_left_out,
            unchecked,
            scrub,
        })
    }

    async fn mailboxes_of(
        &self,
        snapshot: &dyn Snapshot,
        accounts: &Accounts,
        found: &Found,
        counted: &mut Counted,
    ) -> Result<(), Refusal> {
        let name_of = |id| rows::account(id, accounts);
        let audited = mailbox::audit(snapshot, &name_of, &mut |f| found.tell(f)).await?;
        counted.mailboxes = audited.mailboxes;
        counted.messages = audited.messages;
        counted.message_octets = audited.octets;
        for id in audited.accounts.iter().filter(|id| !accounts.contains_key(id)) {
            found.tell(Finding::new(
                Severity::Error,
                "mailboxes-without-account",
                Where::Named(format!("the mailboxes of account {}", id.0)),
                "there is no such account: nobody can read them",
                "restore the account from a backup",
            ));
        }
        Ok(())
    }
}

fn verify(
    still: &Still,
    deep: bool,
    pace: &Pace,
    found: &Found,
    counted: &mut Counted,
) -> Result<(), Refusal> {
    let mut since = Instant::now();
    let verified = still.verify(VerifyOptions { deep }, &mut |f| found.tell(f), &mut |progress| {
        match progress.octets {
            0 => pace.at(0, progress.rows, progress.rows_in_all),
            octets => pace.at(1, octets, progress.octets_in_all),
        }
        pace.rest(&mut since);
        match pace.is_stopped() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let verified = verified.map_err(|error| match error {
        VerifyError::Stopped => Refusal::invalid("the audit was stopped"),
        VerifyError::Read(error) => Refusal::failed(error),
    })?;
    counted.entries = verified.entries;
    counted.blobs = verified.blobs;
    counted.blob_octets = verified.blob_octets;
    counted.blobs_read = verified.blobs_read;
    Ok(())
}

/// The journeys against the queue, message by message, and in sum against the ledger.
async fn journeys(
    snapshot: &dyn Snapshot,
    ledger: &Ledger,
    now: Timestamp,
    found: &Found,
    counted: &mut Counted,
    unchecked: &mut Vec<String>,
) -> Result<(), Refusal> {
    let since = ledger.since.unwrap_or(Timestamp(i64::MAX));
    let first = QueueId::from_parts(since.micros(), 0);
    let open = InQueue(snapshot);
    let all = journey::audit::audit(snapshot, &open, &|id| id >= first, &mut |f| found.tell(f)).await?;
    counted.journeys = all.messages;
    if all.unchecked > 0 {
        unchecked.push(format!(
            "{} messages whose acceptance is not on record (any more): their ends could not be compared",
            all.unchecked
        ));
    }
    match ledger.since {
        None => unchecked.push(
            "the ledger's sums: it has not begun yet; it begins with the next start of the server".to_owned(),
        ),
        Some(since) if now.since(since) >= JOURNEYS_KEPT => unchecked.push(format!(
            "recipient by recipient, messages whose journeys were forgotten (after {} days); the ledger's sums hold them",
            JOURNEYS_KEPT.as_secs() / 86_400
        )),
        Some(_) => {}
    }
    if let Some(finding) = short(ledger, &all) {
        found.tell(finding);
    }
    Ok(())
}

/// Queued messages of which no journey tells, though none of their age was forgotten yet.
async fn unknown_to_journeys(snapshot: &dyn Snapshot, now: Timestamp, found: &Found) -> Result<(), Refusal> {
    let kept = u64::try_from(JOURNEYS_KEPT.as_micros()).unwrap_or(u64::MAX);
    let mut from = QueueId::from_parts(now.micros().saturating_sub(kept), 0);
    loop {
        let ids = queue::queued_from(snapshot, from, PAGE).await?;
        let Some(last) = ids.last() else {
            return Ok(());
        };
        let next = last.0.checked_add(1).map(QueueId);
        for id in ids {
            if journey::audit::is_known(snapshot, id).await? {
                continue;
            }
            let open = InQueue(snapshot).recipients(id).await.map_err(Refusal::failed)?;
            // Without an open errand the queue's own audit names it.
            if !open.is_empty() {
                found.tell(without_journey(id, &open));
            }
        }
        match next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

fn without_journey(id: QueueId, open: &[String]) -> Finding {
    let (first, others) = (
        open.first().map_or("", String::as_str),
        open.len().saturating_sub(1),
    );
    let to = match others {
        0 => first.to_owned(),
        _ => format!("{first} and {others} more"),
    };
    Finding::new(
        Severity::Warning,
        "journey-missing",
        Where::Named(format!("message {id}")),
        format!("it waits in the queue for {to}, and no journey tells how it was accepted"),
        "it is delivered all the same; look for it with: posthaste queue show <id>; report it",
    )
}

/// The queue of a snapshot, as the journeys ask it.
struct InQueue<'a>(&'a dyn Snapshot);

impl Open for InQueue<'_> {
    fn recipients<'a>(&'a self, id: QueueId) -> BoxFuture<'a, Result<Vec<String>, ReadError>> {
        Box::pin(async move {
            let errands = queue::errands_of(self.0, id).await.map_err(|error| match error {
                queue::Error::Read(error) => error,
                other => ReadError::Io(other.to_string()),
            })?;
            let open = errands.iter().filter(|errand| errand.state.is_open());
            Ok(open.map(|errand| errand.recipient.folded()).collect())
        })
    }
}

/// Whether the ledger balances.
fn unbalanced(ledger: &Ledger) -> Option<Finding> {
    let (accepted, accounted_for) = (ledger.accepted(), ledger.accounted_for());
    if ledger.since.is_none() || accepted == accounted_for {
        return None;
    }
    let what = format!("{accepted} errands were accepted, {accounted_for} ended or are in flight");
    let place = Where::Named("the ledger".to_owned());
    Some(Finding::new(
        Severity::Error,
        "ledger-unbalanced",
        place,
        what,
        REPORT,
    ))
}

/// Whether the ledger has at least what the journeys since its beginning tell.
fn short(ledger: &Ledger, told: &journey::audit::Audited) -> Option<Finding> {
    ledger.since?;
    let pairs = [
        ("put into mailboxes at once", told.at_once, ledger.at_once),
        ("queued", told.queued, ledger.queued),
        ("delivered from the queue", told.delivered, ledger.delivered),
        ("relayed", told.relayed, ledger.relayed),
        ("bounced", told.bounced, ledger.bounced),
        ("expired", told.expired, ledger.expired),
        ("dropped", told.dropped, ledger.dropped_in_all()),
    ];
    let less = |(_, told, kept): &(&str, u64, i64)| i64::try_from(*told).is_ok_and(|told| told > *kept);
    let wrong: Vec<String> = pairs
        .iter()
        .filter(|pair| less(pair))
        .map(|(what, told, kept)| format!("{told} {what}, of which it has {kept}"))
        .collect();
    if wrong.is_empty() {
        return None;
    }
    let what = format!("the journeys since it began tell of {}", wrong.join("; "));
    let place = Where::Named("the ledger".to_owned());
    Some(Finding::new(Severity::Error, "ledger-short", place, what, REPORT))
}

/// Findings as they come, up to the limit.
#[derive(Default)]
struct Found(Mutex<(Vec<Finding>, u64)>);

impl Found {
    fn tell(&self, finding: Finding) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.0.len() < FINDINGS_MAX {
            all.0.push(finding);
        } else {
            all.1 += 1;
            // A note gives way to what is worse.
            if let Some(mild) = all.0.iter().position(|kept| kept.severity < finding.severity) {
                all.0[mild] = finding;
            }
        }
    }

    /// The mailboxes that are known by number so far.
    fn mailboxes(&self) -> BTreeSet<MailboxId> {
        rows::mailboxes_in(&self.0.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// The rows, how many were left out, and how bad the worst is.
    fn into_rows(self, names: &Names) -> (Vec<FindingRow>, u64, Option<Severity>) {
        let (mut all, left_out) = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let worst = all.first().map(|finding| finding.severity);
        let rows = all.iter().map(|finding| FindingRow::of(finding, names)).collect();
        (rows, left_out, worst)
    }
}

impl FindingRow {
    pub(crate) fn of(finding: &Finding, names: &Names) -> Self {
        let concerns = finding.concerns.iter();
        Self {
            severity: finding.severity.to_string(),
            code: finding.code.to_owned(),
            area: rows::area(finding).to_owned(),
            place: rows::place(&finding.place, names),
            what: finding.what.clone(),
            remedy: finding.remedy.to_owned(),
            concerns: concerns.map(|key| rows::key_in_words(key, names)).collect(),
        }
    }
}
