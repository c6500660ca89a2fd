//! What a server does for itself now and then: forgets old journeys and old expunges, finishes
//! deletions that a crash cut off, keeps MTA-STS policies fresh, renews its own certificate.

use admin::Office;
use admin::audit::JOURNEYS_KEPT;
use mail::{AccountId, ModSeq, Timestamp};
use mailbox::Place;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Journeys that are forgotten in one go.
const JOURNEYS_AT_ONCE: usize = 500;
/// Changes of a mailbox for which its expunges are remembered, so that a client that was away can
/// be told of them (RFC 7162 §3.2.5.1); one that was away longer compares the whole mailbox.
const CHANGES_REMEMBERED: u64 = 100_000;
/// Expunges that are forgotten in one go, and accounts that are read at once.
const AT_ONCE: usize = 500;
/// How often.
const EVERY: Duration = Duration::from_secs(3_600);
/// How many rounds between two walks over all mailboxes: a day.
const ROUNDS_PER_WALK: u32 = 24;

/// Works until it is told to stop.
pub async fn run(office: Office, certificates: Arc<tls::Certificates>, mut stopped: watch::Receiver<bool>) {
    let work = async {
        told(
            "deleted mailboxes could not be cleared",
            office.mailboxes.sweep().await,
        );
        let mut round = 0;
        loop {
            told(
                "old journeys could not be forgotten",
                forget_journeys(&office).await,
            );
            told(
                "old blocks and days could not be forgotten",
                office.limits.forget(office.clock.now()).await,
            );
            told(
                "old TLS reports could not be forgotten",
                tlsrpt::forget_received(office.store.as_ref(), office.clock.now()).await,
            );
            if round % ROUNDS_PER_WALK == 0 {
                told(
                    "old expunges could not be forgotten",
                    forget_expunges(&office).await,
                );
                told(
                    "the certificate stays the old one",
                    certificates.reload(office.clock.now()),
                );
            }
            round += 1;
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// Keeps the MTA-STS policies of other domains fresh until it is told to stop. By itself, because each
/// policy host may take a minute.
pub async fn keep_fresh(policies: mtasts::Policies, mut stopped: watch::Receiver<bool>) {
    let work = async {
        loop {
            tokio::time::sleep(EVERY).await;
            told(
                "MTA-STS policies could not be kept fresh",
                policies.upkeep().await,
            );
        }
    };
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

fn told(what: &str, done: Result<(), impl std::fmt::Display>) {
    if let Err(error) = done {
        tracing::warn!("{what}: {error}");
    }
}

async fn forget_journeys(office: &Office) -> Result<(), journey::Error> {
    let kept_secs = i64::try_from(JOURNEYS_KEPT.as_secs()).unwrap_or(i64::MAX);
    let before = Timestamp::from_secs(office.clock.now().secs().saturating_sub(kept_secs));
    while office.journey.prune(before, JOURNEYS_AT_ONCE).await? == JOURNEYS_AT_ONCE {}
    Ok(())
}

async fn forget_expunges(office: &Office) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut after: Option<AccountId> = None;
    loop {
        let accounts = office.directory.accounts(after, AT_ONCE).await?;
        let Some(last) = accounts.last() else {
            return Ok(());
        };
        after = Some(last.id);
        for account in &accounts {
            for mailbox in office.mailboxes.list(account.id).await? {
                // One mailbox that was just deleted, or is damaged, must not keep the others waiting.
                told(
                    "old expunges of a mailbox could not be forgotten",
                    forget_expunges_of(office, mailbox.place()).await,
                );
            }
        }
    }
}

async fn forget_expunges_of(office: &Office, place: Place) -> Result<(), mailbox::Error> {
    let highest = office.mailboxes.status(place).await?.highest_modseq;
    let Some(before) = highest.0.checked_sub(CHANGES_REMEMBERED) else {
        return Ok(());
    };
    let boxes = &office.mailboxes;
    while boxes.prune_expunged(place, ModSeq(before), AT_ONCE).await? == AT_ONCE {}
    Ok(())
}
