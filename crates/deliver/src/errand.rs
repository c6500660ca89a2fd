//! The errands of one message to one domain: where they lead, the attempt, and one batch for each end.

use crate::attempt::{Fate, Letter};
use crate::failure::Failure;
use crate::service::Context;
use crate::settle::{self, Decision};
use crate::{report, way};
use directory::Resolution;
use journey::Event;
use letterbox::{Errands, To};
use mail::{AccountId, EnhancedStatus};
use queue::{Claim, Outcome};
use std::sync::Arc;
use std::time::Duration;
use store::{Batch, CommitError};

/// How often settling is tried anew when another errand of the message was quicker.
const CONFLICT_RETRIES_MAX: usize = 64;
/// The longest wait between two tries when the store refuses.
const STORE_RETRY_WAIT_MAX: Duration = Duration::from_secs(30);

/// Why something could not be settled: the store, as one of its users met it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Queue(#[from] queue::Error),
    #[error(transparent)]
    Mailbox(#[from] mailbox::Error),
    #[error(transparent)]
    Directory(#[from] directory::Error),
    #[error(transparent)]
    Blob(#[from] store::BlobError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<letterbox::Error> for Trouble {
    fn from(error: letterbox::Error) -> Self {
        match error {
            letterbox::Error::Mailbox(error) => Self::Mailbox(error),
            letterbox::Error::Queue(error) => Self::Queue(error),
        }
    }
}

/// Where an errand turned out to lead.
enum Destination {
    Here(Vec<AccountId>),
    Away,
    Nowhere(Failure),
}

/// Delivers one message to its recipients at one domain.
pub(crate) async fn deliver(ctx: Arc<Context>, claims: Vec<Claim>) {
    let mut away = Vec::new();
    for claim in claims {
        match destination(&ctx, &claim).await {
            Destination::Here(accounts) => settle_here(&ctx, &claim, &accounts).await,
            Destination::Away => away.push(claim),
            Destination::Nowhere(failure) => settle_fate(&ctx, &claim, &Err(failure), &mut Vec::new()).await,
        }
    }
    carry(&ctx, &away).await;
}

async fn destination(ctx: &Context, claim: &Claim) -> Destination {
    let recipient = &claim.errand.recipient;
    match ctx.directory.resolve(recipient).await {
        Ok(Resolution::Local(accounts)) => Destination::Here(accounts),
        Ok(Resolution::NotOurs) => Destination::Away,
        Ok(Resolution::UnknownUser) => Destination::Nowhere(Failure::ours(
            550,
            EnhancedStatus::new(5, 1, 1),
            format!("{recipient} is nobody here"),
        )),
        Err(error) => Destination::Nowhere(Failure::ours(
            451,
            EnhancedStatus::new(4, 3, 0),
            format!("the directory could not be read: {error}"),
        )),
    }
}

/// Finds the way and makes the attempt. Each fate is settled as soon as it is known.
async fn carry(ctx: &Context, claims: &[Claim]) {
    let Some(first) = claims.first() else {
        return;
    };
    let host = first.errand.recipient.host();
    let mut random = |n: usize| ctx.below(n);
    let found = way::find(ctx.resolver.as_ref(), &ctx.routes(), &ctx.own, host, &mut random).await;
    let mut events = vec![way::event(host, &found)];
    let plan = match found {
        Ok(plan) => plan,
        Err(failure) => {
            let fate = Err(failure);
            for claim in claims {
                settle_fate(ctx, claim, &fate, &mut events).await;
            }
            return;
        }
    };
    let message = &first.message;
    let letter = Letter {
        name: message.id.to_string(),
        sender: message.reverse_path.clone(),
        recipients: claims.iter().map(|c| c.errand.recipient.clone()).collect(),
        prefix: message.prefix.clone(),
        blob: message.blob,
        blob_len: message.blob_len,
        eight_bit: message.body != queue::Body::SevenBit,
        smtputf8: message.smtputf8,
    };
    let mut under_way = ctx.courier.begin(&plan, &letter);
    while let Some(decided) = under_way.next().await {
        events.extend(under_way.take_events());
        for (i, fate) in decided {
            settle_fate(ctx, &claims[i], &fate, &mut events).await;
        }
    }
}

async fn settle_fate(ctx: &Context, claim: &Claim, fate: &Fate, events: &mut Vec<Event>) {
    let now = ctx.clock.now();
    let decision = settle::decide(
        fate,
        &claim.errand,
        &claim.message.reverse_path,
        ctx.queue.schedule(),
        now,
        ctx.jitter(),
    );
    tell_log(claim, &decision);
    let what = What::Decided {
        decision: &decision,
        events,
    };
    if commit(ctx, claim, &what).await {
        // Told with the first errand of the group; the others' stories need not repeat it.
        events.clear();
    }
}

async fn settle_here(ctx: &Context, claim: &Claim, accounts: &[AccountId]) {
    commit(ctx, claim, &What::Here { accounts }).await;
}

fn tell_log(claim: &Claim, decision: &Decision) {
    let (id, to) = (claim.message.id, &claim.errand.recipient);
    match &decision.outcome {
        Outcome::Relayed(last) => {
            tracing::info!(%id, %to, host = last.host.as_deref(), reply = %last.reply, "relayed");
        }
        Outcome::Deferred { next, last, .. } => {
            let next = mail::date::iso8601(*next);
            tracing::info!(%id, %to, host = last.host.as_deref(), reply = %last.reply, next, "deferred");
        }
        Outcome::Bounced(last) | Outcome::Expired(last) | Outcome::Delivered(last) => {
            tracing::info!(%id, %to, host = last.host.as_deref(), reply = %last.reply, "ended");
        }
    }
}

/// What a batch is to make true.
enum What<'a> {
    Decided {
        decision: &'a Decision,
        events: &'a [Event],
    },
    Here {
        accounts: &'a [AccountId],
    },
}

/// Commits an errand's end or postponement with all that belongs to it. While the claim holds it is
/// tried again: what a server took already is sent twice if this is not recorded. Answers whether it
/// is. (While the store refuses commits nothing can be claimed either, so no attempt is repeated.)
async fn commit(ctx: &Context, claim: &Claim, what: &What<'_>) -> bool {
    let (id, to) = (claim.message.id, &claim.errand.recipient);
    let mut conflicts = 0;
    let mut wait = Duration::from_secs(1);
    loop {
        let error = match try_commit(ctx, claim, what).await {
            Ok(()) => return true,
            Err(Trouble::Queue(queue::Error::ClaimLost)) => {
                tracing::warn!(%id, %to, "the claim was lost; whoever holds it now settles the errand");
                return false;
            }
            Err(Trouble::Commit(CommitError::Conflict { .. })) if conflicts < CONFLICT_RETRIES_MAX => {
                conflicts += 1;
                continue;
            }
            Err(error) => error,
        };
        let fatal = matches!(error, Trouble::Commit(CommitError::Fatal(_)));
        if fatal || ctx.clock.now().plus(wait) >= claim.until {
            tracing::error!(%id, %to, %error, "the outcome could not be recorded; the errand is tried again when its claim ends");
            return false;
        }
        tracing::warn!(%id, %to, %error, "the outcome could not be recorded yet");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(STORE_RETRY_WAIT_MAX);
    }
}

async fn try_commit(ctx: &Context, claim: &Claim, what: &What<'_>) -> Result<(), Trouble> {
    let now = ctx.clock.now();
    let id = claim.message.id;
    let mut batch = Batch::new();
    match what {
        What::Decided { decision, events } => {
            ctx.queue.settle(&mut batch, claim, &decision.outcome).await?;
            for event in events.iter().chain([&decision.event]) {
                ctx.journey.record(&mut batch, id, now, event);
            }
            if let Some((kind, failure)) = &decision.report {
                report::add(ctx, &mut batch, claim, *kind, failure, now).await?;
            }
        }
        What::Here { accounts } => {
            let message = &claim.message;
            let letter = letterbox::Letter {
                id,
                reverse_path: &message.reverse_path,
                prefix: &message.prefix,
                blob: message.blob,
                blob_len: message.blob_len,
                junk: None,
            };
            let recipient = &claim.errand.recipient;
            let to: Vec<To<'_>> = accounts
                .iter()
                .map(|account| To {
                    recipient,
                    account: *account,
                })
                .collect();
            let errands = Errands::Claimed(claim);
            ctx.letterbox()
                .put(&mut batch, &letter, &to, errands, now)
                .await?;
        }
    }
    ctx.store.commit(batch).await?;
    Ok(())
}
