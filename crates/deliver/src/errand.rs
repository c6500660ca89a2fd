//! The errands of one message to one domain: where they lead, the attempt, and one batch for each end.

use crate::attempt::{Fate, Letter};
use crate::control::Heard;
use crate::dsn::{Kind, Reported, Said};
use crate::failure::Failure;
use crate::lanes::Site;
use crate::route::Route;
use crate::service::Context;
use crate::settle::{self, Decision};
use crate::sts;
use crate::suspended;
use crate::way;
use crate::work::CLAIM_MARGIN;
use directory::{Flaw, Forward, Resolution, Spread};
use journey::Event;
use letterbox::{Errands, Onward, Original, To};
use mail::delivery::{DeliverBy, Notify};
use mail::{AccountId, EnhancedStatus, Timestamp};
use queue::{Body, Claim, Message, Outcome};
use smtp::client::{RecipientWishes, Wishes};
use std::sync::Arc;
use std::time::Duration;
use store::{Batch, CommitError};
use tokio::sync::mpsc;

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
    Limits(#[from] limits::Error),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<letterbox::Error> for Trouble {
    fn from(error: letterbox::Error) -> Self {
        match error {
            letterbox::Error::Mailbox(error) => Self::Mailbox(error),
            letterbox::Error::Queue(error) => Self::Queue(error),
            letterbox::Error::Directory(error) => Self::Directory(error),
            letterbox::Error::Blob(error) => Self::Blob(error),
        }
    }
}

/// Where an errand turned out to lead.
enum Destination {
    Here(Places),
    Away,
    Nowhere(Failure),
}

/// Where an address here leads, when it can go at least somewhere now.
struct Places {
    /// Into mailboxes with room, and on to addresses elsewhere.
    now: Spread,
    /// Members without room, by their own address: each waits by itself, and the others do not.
    full: Vec<Forward>,
}

impl Places {
    fn len(&self) -> usize {
        self.now.len() + self.full.len()
    }
}

/// What an attempt tells when it needs its connection no longer, though it is still being recorded.
pub(crate) struct Ended {
    pub(crate) task: tokio::task::Id,
    /// Connections that it opened.
    pub(crate) opened: usize,
    /// What it says of the site.
    pub(crate) heard: Heard,
}

/// Delivers one message to its recipients at one domain, as a task of its own.
pub(crate) async fn deliver(
    ctx: Arc<Context>,
    claims: Vec<Claim>,
    site: Site,
    ends: mpsc::UnboundedSender<Ended>,
) {
    let mut away = Vec::new();
    let mut fates = Vec::new();
    for claim in claims {
        if let Some(fate) = settle::overdue(&claim.message, ctx.clock.now()) {
            fates.push((claim, fate));
            continue;
        }
        match destination(&ctx, &claim).await {
            Destination::Here(places) => {
                commit(&ctx, &claim, &What::Here { places: &places }).await;
            }
            Destination::Away => away.push(claim),
            Destination::Nowhere(failure) => fates.push((claim, Err(failure))),
        }
    }
    let nowhere: Vec<(&Claim, &Fate)> = fates.iter().map(|(claim, fate)| (claim, fate)).collect();
    settle_fates(&ctx, &nowhere, &mut Vec::new()).await;
    let task = tokio::task::id();
    // What the operator sends another way goes by itself.
    away.sort_by(|a, b| a.errand.via.cmp(&b.errand.via));
    let mut left = away.len();
    for together in away.chunk_by(|a, b| a.errand.via == b.errand.via) {
        left -= together.len();
        let end = |heard, opened| {
            if left == 0 {
                // Nobody listens any more while the service stops.
                let _ = ends.send(Ended { task, opened, heard });
            }
        };
        carry(&ctx, together, &site, &end).await;
    }
}

async fn destination(ctx: &Context, claim: &Claim) -> Destination {
    match resolved(ctx, claim).await {
        Ok(destination) => destination,
        Err(error) => Destination::Nowhere(Failure::ours(
            451,
            EnhancedStatus::new(4, 3, 0),
            format!("the store could not be read: {error}"),
        )),
    }
}

async fn resolved(ctx: &Context, claim: &Claim) -> Result<Destination, Trouble> {
    let recipient = &claim.errand.recipient;
    let nowhere = |code, status: (u8, u16, u16), words| {
        let status = EnhancedStatus::new(status.0, status.1, status.2);
        Ok(Destination::Nowhere(Failure::ours(code, status, words)))
    };
    let spread = match ctx.directory.resolve_sender(recipient, ctx.clock.now()).await? {
        Resolution::NotOurs => return Ok(Destination::Away),
        Resolution::Local(accounts) => Spread {
            accounts,
            ..Spread::default()
        },
        Resolution::Spread(spread) => *spread,
        Resolution::Disabled(disabled) => {
            let words = format!("mail for {recipient} is not taken: {}", disabled.words);
            return match disabled.temporary {
                true => nowhere(450, (4, 2, 1), words),
                false => nowhere(550, (5, 2, 1), words),
            };
        }
        Resolution::Flawed(flaw) if flaw != Flaw::Nobody => {
            return nowhere(451, (4, 4, 6), format!("where {recipient} leads is not in order"));
        }
        Resolution::UnknownUser | Resolution::Rewritten | Resolution::Flawed(_) => {
            return nowhere(550, (5, 1, 1), format!("{recipient} is nobody here"));
        }
    };
    let places = places(ctx, claim, spread).await?;
    if places.now.is_empty() {
        let words = format!("the mailbox of {recipient} is full");
        return nowhere(452, (4, 2, 2), words);
    }
    Ok(Destination::Here(places))
}

/// Parts the accounts with room from those without.
async fn places(ctx: &Context, claim: &Claim, mut spread: Spread) -> Result<Places, Trouble> {
    let mut full = Vec::new();
    for id in std::mem::take(&mut spread.accounts) {
        let is_full = !has_room(ctx, claim, id).await?;
        if !is_full {
            spread.accounts.push(id);
            continue;
        }
        match ctx.directory.account(id).await? {
            Some(account) => full.push(Forward {
                to: account.address,
                by: claim.errand.recipient.clone(),
            }),
            None => spread.accounts.push(id),
        }
    }
    Ok(Places { now: spread, full })
}

/// Whether the message fits into an account. (What comes in at the same time is not reckoned with:
/// the errand is here already, and must end.)
async fn has_room(ctx: &Context, claim: &Claim, id: AccountId) -> Result<bool, Trouble> {
    let Some(quota) = ctx.directory.quota(id).await? else {
        return Ok(true);
    };
    let used = ctx.mailboxes.usage(id).await?;
    Ok(used.saturating_add(claim.message.size()) <= quota)
}

/// Finds the way and makes the attempt. Each fate is settled as soon as it is known.
async fn carry(ctx: &Context, claims: &[Claim], site: &Site, end: &(dyn Fn(Heard, usize) + Send + Sync)) {
    let Some(first) = claims.first() else {
        return;
    };
    let host = first.errand.recipient.host();
    let routes = ctx.routes();
    // An order for this very errand goes before routes.
    if first.errand.via.is_none()
        && let Some(route) = way::discarding(&routes, host)
    {
        return discard(ctx, claims, route).await;
    }
    let mut random = |n: usize| ctx.below(n);
    let found = match &first.errand.via {
        Some(via) => way::find_by_order(ctx.resolver.as_ref(), via, &ctx.own).await,
        None => way::find(ctx.resolver.as_ref(), &routes, &ctx.own, host, &mut random).await,
    };
    let found = match (found, &ctx.mta_sts) {
        (Ok(mut plan), Some(policies)) => sts::look_up(policies, &mut plan, host).await.map(|()| plan),
        (found, _) => found,
    };
    let sender = first.message.reverse_path.address().and_then(|a| a.domain());
    let found = found.and_then(|plan| ctx.options.sources.depart(plan, sender, &mut random));
    let mut events = vec![way::event(host, &found)];
    let plan = match found {
        Ok(plan) => plan,
        Err(failure) => {
            end(unfound(&failure).filter(first.errand.via.is_none()), 0);
            let fate = Err(failure);
            let fates: Vec<(&Claim, &Fate)> = claims.iter().map(|claim| (claim, &fate)).collect();
            settle_fates(ctx, &fates, &mut events).await;
            return;
        }
    };
    let now = ctx.clock.now();
    let Some(time) = time_left(claims, now) else {
        end(Heard::Nothing, 0);
        return release(ctx, claims).await;
    };
    let letter = letter(claims, &first.message, now);
    let under_way = ctx.courier.begin(&plan, &letter).at(site.clone());
    let mut under_way = under_way.within(time);
    let tls_tally = ctx.tls_tally(&plan, host, &first.message);
    tls_tally.count_fault(&plan, now);
    while let Some(decided) = under_way.next().await {
        if under_way.is_over() {
            let (heard, opened) = under_way.heard();
            // Another way says nothing of the site.
            end(heard.filter(first.errand.via.is_none()), opened);
        }
        events.extend(under_way.take_events());
        tls_tally.count(under_way.take_tls_results(), ctx.clock.now());
        let fates: Vec<(&Claim, &Fate)> = decided.iter().map(|(i, fate)| (&claims[*i], fate)).collect();
        settle_fates(ctx, &fates, &mut events).await;
    }
}

/// A domain for which there is no way now is as good as down; one that takes no mail is not.
fn unfound(failure: &Failure) -> Heard {
    match failure.is_permanent() {
        true => Heard::Nothing,
        false => Heard::Unreachable(failure.clone()),
    }
}

/// How long an attempt may take: until little is left of the claims. Finding the way takes time, and so does what
/// was tried before for others of the same message; an attempt that outlives its claim meets the next one,
/// and the message goes twice. `None`: no time is left.
fn time_left(claims: &[Claim], now: Timestamp) -> Option<Duration> {
    let until = claims.iter().map(|claim| claim.until).min()?;
    let time = until.since(now).saturating_sub(CLAIM_MARGIN);
    (!time.is_zero()).then_some(time)
}

/// Gives claims back that were not needed: the errands are due as before.
pub(crate) async fn give_back(ctx: Arc<Context>, claims: Vec<Claim>) {
    release(&ctx, &claims).await;
}

async fn release(ctx: &Context, claims: &[Claim]) {
    let now = ctx.clock.now();
    for claim in claims {
        if let Err(error) = ctx.queue.release(claim, now).await {
            let (id, to) = (claim.message.id, &claim.errand.recipient);
            tracing::warn!(%id, %to, %error, "a claim could not be given back; it ends by itself");
        }
    }
}

/// Puts errands off whose site is known to be down: as a failed attempt does, without one, and all that nobody
/// is to be told of in one batch.
pub(crate) async fn put_off(ctx: Arc<Context>, dues: Vec<queue::Due>, why: Failure, since: Duration) {
    let now = ctx.clock.now();
    let claimed = match suspended::put_back(&ctx, dues, now).await {
        Ok(dues) => ctx.queue.claim(&dues, now).await,
        Err(error) => Err(error),
    };
    let claims = match claimed {
        Ok(claims) => claims,
        Err(error) => {
            tracing::error!(%error, "errands for a site that is down could not be put off");
            return;
        }
    };
    let words = format!(
        "not tried: the servers have not been reached for {}, and one message at a time finds out whether \
         they are back; the last one met: {}",
        in_words(since),
        why.words
    );
    let fate: Fate = Err(Failure { words, ..why });
    let now = ctx.clock.now();
    let mut batch = Batch::new();
    let (mut together, mut apart) = (Vec::new(), Vec::new());
    // What the operator sends another way does not wait for this site.
    let (elsewhere, claims): (Vec<Claim>, Vec<Claim>) =
        claims.into_iter().partition(|claim| claim.errand.via.is_some());
    for claim in &claims {
        let fate = settle::overdue(&claim.message, now).unwrap_or_else(|| fate.clone());
        let decision = decide(&ctx, claim, &fate, now);
        let is_quiet = matches!(decision.outcome, Outcome::Deferred { .. }) && decision.report.is_none();
        // Several errands of one message may be postponed in one batch; only ends count them.
        let added = is_quiet
            && ctx
                .queue
                .settle(&mut batch, claim, &decision.outcome)
                .await
                .is_ok();
        if added {
            ctx.journey
                .record(&mut batch, claim.message.id, now, &decision.event);
            together.push((claim, fate));
        } else {
            apart.push((claim, fate));
        }
    }
    tracing::info!(errands = claims.len(), reply = %why_of(&fate), "put off: the site is down");
    if !together.is_empty()
        && let Err(error) = ctx.store.commit(batch).await
    {
        tracing::warn!(%error, "errands could not be put off together; each is put off by itself");
        apart.append(&mut together);
    }
    for (claim, fate) in &apart {
        settle_fates(&ctx, &[(*claim, fate)], &mut Vec::new()).await;
    }
    for claim in &elsewhere {
        carry(&ctx, std::slice::from_ref(claim), &"elsewhere".into(), &|_, _| {}).await;
    }
}

fn why_of(fate: &Fate) -> String {
    fate.as_ref().err().map(Failure::reply).unwrap_or_default()
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..120 => format!("{secs} seconds"),
        secs @ 120..7200 => format!("{} minutes", secs / 60),
        secs => format!("{} hours", secs / 3600),
    }
}

/// Throws errands away, as a route orders.
async fn discard(ctx: &Context, claims: &[Claim], route: &Route) {
    for claim in claims {
        let decision = settle::discarded(&claim.errand, route, ctx.clock.now());
        tell_log(claim, &decision);
        let what = What::Decided {
            decision: &decision,
            events: &[],
            kind: None,
            together: &[],
        };
        commit(ctx, claim, &what).await;
    }
}

fn letter(claims: &[Claim], message: &Message, now: Timestamp) -> Letter {
    let wishes = |claim: &Claim| RecipientWishes {
        notify: claim.errand.notify,
        original_recipient: claim.errand.original_recipient.clone(),
    };
    let seconds_left = |at: Timestamp| at.secs().saturating_sub(now.secs());
    Letter {
        name: message.id.to_string(),
        sender: message.reverse_path.clone(),
        recipients: claims.iter().map(|c| c.errand.recipient.clone()).collect(),
        prefix: message.prefix.clone(),
        blob: message.blob,
        blob_len: message.blob_len,
        eight_bit: message.body != Body::SevenBit,
        binary: message.body == Body::Binary,
        smtputf8: message.smtputf8,
        wishes: Wishes {
            envid: message.envid.clone(),
            ret: message.ret,
            recipients: claims.iter().map(wishes).collect(),
            require_tls: message.require_tls,
            deliver_by: message.deliver_by.map(|by| DeliverBy {
                seconds: seconds_left(by.at),
                mode: by.mode,
                trace: by.trace,
            }),
            priority: message.priority,
        },
    }
}

fn decide(ctx: &Context, claim: &Claim, fate: &Fate, now: Timestamp) -> Decision {
    let (errand, message, replies) = (&claim.errand, &claim.message, &ctx.options.replies);
    let failed = fate.as_ref().err().map(|failure| replies.explain(failure));
    let class = failed.as_ref().map(|explanation| explanation.class.name.as_str());
    let schedule = ctx.queue.schedule_for(message, class);
    settle::decide(fate, errand, message, &schedule, replies, (now, ctx.jitter()))
}

/// Settles what is known of errands of one message, each in a batch of its own. What the sender is to
/// be told of several stands in one report, which goes with the first of them: should the others not
/// be settled, they are tried and told again, but nothing is left untold.
async fn settle_fates(ctx: &Context, fates: &[(&Claim, &Fate)], events: &mut Vec<Event>) {
    let now = ctx.clock.now();
    let decided = fates
        .iter()
        .map(|(claim, fate)| (*claim, decide(ctx, claim, fate, now)));
    let decided: Vec<(&Claim, Decision)> = decided.collect();
    let mut told: Vec<Kind> = Vec::new();
    for (i, (claim, decision)) in decided.iter().enumerate() {
        tell_log(claim, decision);
        let kind = decision.report.as_ref().map(|report| report.kind);
        let kind = kind.filter(|kind| !told.contains(kind));
        let same = |(_, d): &&(&Claim, Decision)| d.report.as_ref().map(|report| report.kind) == kind;
        let together: Vec<_> = match kind {
            Some(_) => decided[i..].iter().filter(same).collect(),
            None => Vec::new(),
        };
        let what = What::Decided {
            decision,
            events,
            kind,
            together: &together,
        };
        if commit(ctx, claim, &what).await {
            // Told with the first errand of the group; the others' stories need not repeat it.
            events.clear();
            told.extend(kind);
        }
    }
}

fn tell_log(claim: &Claim, decision: &Decision) {
    let (id, to) = (claim.message.id, &claim.errand.recipient);
    match &decision.outcome {
        Outcome::Relayed(last) => {
            tracing::info!(%id, %to, host = last.host.as_deref(), reply = %last.reply, "relayed");
        }
        Outcome::Deferred { next, last, .. } => {
            let next = mail::date::iso8601(*next);
            let class = last.class.as_deref();
            tracing::info!(%id, %to, host = last.host.as_deref(), reply = %last.reply, class, next, "deferred");
        }
        Outcome::Bounced(last)
        | Outcome::Expired(last)
        | Outcome::Delivered(last)
        | Outcome::Dropped { last, .. } => {
            let class = last.class.as_deref();
            tracing::info!(%id, %to, host = last.host.as_deref(), reply = %last.reply, class, "ended");
        }
    }
}

/// What a batch is to make true.
enum What<'a> {
    Decided {
        decision: &'a Decision,
        events: &'a [Event],
        /// The report that goes with it, and what it tells of.
        kind: Option<Kind>,
        together: &'a [&'a (&'a Claim, Decision)],
    },
    Here {
        places: &'a Places,
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
        What::Decided {
            decision,
            events,
            kind,
            together,
        } => {
            ctx.queue.settle(&mut batch, claim, &decision.outcome).await?;
            suppress(ctx, &mut batch, claim, &decision.outcome, now)?;
            for event in events.iter().chain([&decision.event]) {
                ctx.journey.record(&mut batch, id, now, event);
            }
            if let Some(kind) = kind {
                let reported: Vec<_> = together.iter().filter_map(|(c, d)| reported(c, d)).collect();
                let original = Original::of(&claim.message);
                ctx.reporter()
                    .add(&mut batch, &original, *kind, &reported, now)
                    .await?;
            }
        }
        What::Here { places } => {
            let spread = &places.now;
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
            let to: Vec<To<'_>> = spread
                .accounts
                .iter()
                .map(|account| To {
                    recipient,
                    account: *account,
                })
                .collect();
            if to.is_empty() {
                send_on_only(ctx, &mut batch, claim, now).await?;
            } else {
                let errands = Errands::Claimed(claim);
                ctx.letterbox()
                    .put(&mut batch, &letter, &to, errands, now)
                    .await?;
            }
            send_on(ctx, &mut batch, claim, places, now).await?;
            // One that leads to one address elsewhere takes the sender's wishes along (RFC 3461 §5.2.7.2).
            let is_passed_on = places.len() == 1 && spread.forwards.len() == 1;
            if claim.errand.notify.is_some_and(|notify| notify.success) && !is_passed_on {
                let kind = if places.len() > 1 {
                    Kind::Expanded
                } else {
                    Kind::Delivered
                };
                let reported = [reported_with(claim, Said::HERE, now)];
                ctx.reporter()
                    .add(&mut batch, &Original::of(message), kind, &reported, now)
                    .await?;
            }
        }
    }
    ctx.store.commit(batch).await?;
    Ok(())
}

/// An address that its server does not know is not tried again for a sender that wants it so.
fn suppress(
    ctx: &Context,
    batch: &mut Batch,
    claim: &Claim,
    outcome: &Outcome,
    now: Timestamp,
) -> Result<(), Trouble> {
    let (Some(limits), Some(login), Outcome::Bounced(last)) = (&ctx.limits, &claim.message.login, outcome)
    else {
        return Ok(());
    };
    let is_unknown = last.class.as_deref() == Some(crate::explain::UNKNOWN_USER);
    match &last.host {
        Some(host) if is_unknown => {
            let recipient = &claim.errand.recipient;
            let said = (host.as_str(), last.reply.as_str());
            let suppressed = limits.suppress(batch, login, recipient, said, now);
            suppressed.map_err(Trouble::Limits)
        }
        _ => Ok(()),
    }
}

/// What a report tells of an errand.
fn reported<'a>(claim: &'a Claim, decision: &'a Decision) -> Option<Reported<'a>> {
    let told = decision.report.as_ref()?;
    let (Outcome::Relayed(last)
    | Outcome::Delivered(last)
    | Outcome::Deferred { last, .. }
    | Outcome::Bounced(last)
    | Outcome::Expired(last)
    | Outcome::Dropped { last, .. }) = &decision.outcome;
    let said = match &told.failure {
        Some((failure, explanation)) => Said::Failure { failure, explanation },
        None => Said::Success {
            host: last.host.as_deref(),
            reply: &last.reply,
            status: last.status,
        },
    };
    Some(reported_with(claim, said, last.at))
}

fn reported_with<'a>(claim: &'a Claim, said: Said<'a>, last_attempt: Timestamp) -> Reported<'a> {
    Reported {
        recipient: &claim.errand.recipient,
        original_recipient: claim.errand.original_recipient.as_ref(),
        said,
        last_attempt,
        attempts: claim.errand.attempts.saturating_add(1),
    }
}

/// Ends an errand that leads only to addresses elsewhere: what is sent on is a message of its own.
async fn send_on_only(
    ctx: &Context,
    batch: &mut Batch,
    claim: &Claim,
    now: Timestamp,
) -> Result<(), Trouble> {
    let host = ctx.options.host_name.to_string();
    let status = EnhancedStatus::new(2, 0, 0);
    let words = "it is sent on as a message of its own";
    let outcome = Outcome::Relayed(queue::LastOutcome {
        at: now,
        host: Some(host.clone()),
        reply: format!("250 2.0.0 {words}"),
        status: Some(status),
        class: None,
    });
    ctx.queue.settle(batch, claim, &outcome).await?;
    let event = Event::Relayed {
        recipient: claim.errand.recipient.clone(),
        host,
        reply: journey::Reply {
            code: 250,
            status: Some(status),
            text: words.to_owned(),
        },
    };
    ctx.journey.record(batch, claim.message.id, now, &event);
    Ok(())
}

async fn send_on(
    ctx: &Context,
    batch: &mut Batch,
    claim: &Claim,
    places: &Places,
    now: Timestamp,
) -> Result<(), Trouble> {
    // Of several the sender heard that they are several, and hears of failures only (RFC 3461 §5.2.7.3).
    let notify = claim.errand.notify.map(|notify| Notify {
        success: notify.success && places.len() == 1,
        ..notify
    });
    let original_recipient = claim.errand.original_recipient.as_ref();
    let message = queue::Message {
        received_at: now,
        ..queue::Message::clone(&claim.message)
    };
    let keeps = letterbox::keeps_sender(message.login.is_some(), &message.reverse_path);
    let next_id = || ctx.ids.next_id();
    let letterbox = ctx.letterbox();
    for (forwards, keeps) in [(&places.now.forwards, keeps), (&places.full, true)] {
        let one = |forward| Onward {
            forward,
            notify,
            original_recipient,
        };
        let onward: Vec<Onward<'_>> = forwards.iter().map(one).collect();
        letterbox
            .send_on(batch, &message, &onward, keeps, &next_id, now)
            .await?;
    }
    Ok(())
}
