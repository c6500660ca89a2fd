//! The service: finds due errands, claims them, attempts them, settles them.
//!
//! Strategies: the longest due goes first; errands of one message to one domain share a transaction;
//! a destination has at most so many connections at a time, so that one slow domain never holds all;
//! a claim is a lease, so that what a dead process held comes back by itself.

use crate::attempt::{self, Courier, Fate, Letter, RECIPIENTS_MAX};
use crate::dial::Dialer;
use crate::failure::Failure;
use crate::local::{self, Local};
use crate::plan::{AddressOrder, Own};
use crate::route::Route;
use crate::settle::{self, Decision};
use crate::{report, way};
use directory::{Directory, Random, Resolution};
use dns::Resolver;
use journey::{Event, Journey};
use mail::{AccountId, Clock, Domain, EnhancedStatus, Timestamp};
use mailbox::Mailboxes;
use queue::{Claim, Due, IdSource, LastOutcome, Outcome, Queue};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::{Batch, CommitError, Store};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Due errands that are looked at in one go.
const SCAN: usize = 1_000;
/// The same while all that was seen waits for room at its domain: what is behind gets its turn.
const SCAN_MAX: usize = 64_000;
/// From one look to the next while errands wait for room at their domain; longer for longer looks.
const SCAN_PAUSE: Duration = Duration::from_millis(200);
/// The longest wait before the queue is looked at again, against clocks that jump.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The wait after a failure of the store, and when due errands cannot be claimed.
const PAUSE: Duration = Duration::from_secs(5);
/// How often settling is tried anew when another errand of the message was quicker.
const CONFLICT_RETRIES_MAX: usize = 64;
/// How often settling is tried again, each time after twice the wait, when the store refuses.
const STORE_RETRIES_MAX: u32 = 8;

/// How the service behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our name: in EHLO, in reports, and as an MX host that is us.
    pub host_name: Domain,
    /// Further names by which MX records may call this server.
    pub own_names: Vec<Domain>,
    /// The port of servers found by MX. Default 25.
    pub port: u16,
    /// Which addresses are tried first. Default IPv4.
    pub order: AddressOrder,
    /// How attempts are made.
    pub attempt: attempt::Options,
    /// Attempts at the same time. Default 200.
    pub attempts_max: usize,
    /// Attempts at the same time to one domain. Default 20.
    pub attempts_per_domain_max: usize,
    /// How long attempts may go on at shutdown. Default 30 seconds; what is cut off then is tried
    /// again at the next start.
    pub shutdown_grace: Duration,
    /// Whether no other process delivers from this store; then leases that an earlier run left
    /// are ended at the start. Default true.
    pub sole_worker: bool,
}

impl Options {
    /// The defaults, for a host of that name.
    #[must_use]
    pub fn new(host_name: Domain) -> Self {
        Self {
            attempt: attempt::Options::new(host_name.as_str()),
            host_name,
            own_names: Vec::new(),
            port: crate::route::SMTP_PORT,
            order: AddressOrder::default(),
            attempts_max: 200,
            attempts_per_domain_max: 20,
            shutdown_grace: Duration::from_secs(30),
            sole_worker: true,
        }
    }
}

/// What the service works with, handed in.
pub struct Parts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The spool.
    pub queue: Queue,
    /// The record.
    pub journey: Journey,
    /// Where reports to local senders go.
    pub mailboxes: Mailboxes,
    /// Who is local.
    pub directory: Directory,
    /// The DNS.
    pub resolver: Arc<dyn Resolver>,
    /// Connections.
    pub dialer: Arc<dyn Dialer>,
    /// TLS towards others.
    pub tls: tls::Client,
    /// Names for our reports; the process's one source.
    pub ids: Arc<IdSource>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For shuffling and jitter.
    pub random: Arc<dyn Random>,
    /// Hears the conversations.
    pub tap: Option<Arc<dyn smtp::Tap>>,
}

/// The service's state, shared by its tasks.
pub struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) queue: Queue,
    pub(crate) journey: Journey,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) directory: Directory,
    pub(crate) ids: Arc<IdSource>,
    pub(crate) options: Options,
    resolver: Arc<dyn Resolver>,
    courier: Courier,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    own: Own,
    routes: RwLock<Arc<[Route]>>,
    wake: Notify,
}

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

impl Context {
    /// The service over these parts.
    #[must_use]
    pub fn new(parts: Parts, options: Options, routes: Vec<Route>) -> Self {
        let mut names = vec![options.host_name.clone()];
        names.extend(options.own_names.iter().cloned());
        Self {
            own: Own {
                names,
                port: options.port,
                order: options.order,
            },
            courier: Courier {
                dialer: parts.dialer,
                tls: parts.tls,
                store: Arc::clone(&parts.store),
                tap: parts.tap,
                options: options.attempt.clone(),
            },
            store: parts.store,
            queue: parts.queue,
            journey: parts.journey,
            mailboxes: parts.mailboxes,
            directory: parts.directory,
            ids: parts.ids,
            resolver: parts.resolver,
            clock: parts.clock,
            random: parts.random,
            options,
            routes: RwLock::new(routes.into()),
            wake: Notify::new(),
        }
    }

    /// Takes other routes; attempts that begin after this use them.
    pub fn set_routes(&self, routes: Vec<Route>) {
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes.into();
        self.wake();
    }

    /// Looks at the queue now. For those who move the clock.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    fn routes(&self) -> Arc<[Route]> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number below `n`. Nothing secret hangs on it, so a source that fails gives 0.
    fn below(&self, n: usize) -> usize {
        let mut octets = [0u8; 8];
        match self.random.fill(&mut octets) {
            Ok(()) if n > 0 => (u64::from_le_bytes(octets) % n as u64) as usize,
            _ => 0,
        }
    }

    /// A number from 0 to 1.
    fn jitter(&self) -> f64 {
        self.below(1 << 20) as f64 / f64::from(1 << 20)
    }
}

/// Delivers until `shutdown` turns true; then lets running attempts end.
pub async fn run(ctx: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    if ctx.options.sole_worker
        && let Err(error) = ctx.queue.recover(ctx.clock.now()).await
    {
        tracing::error!(%error, "leases of an earlier run could not be ended; they end by themselves");
    }
    let mut changed = ctx.queue.watch();
    let mut work = Work::new();
    loop {
        let wait = match work.fill(&ctx).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::error!(%error, "the queue could not be read");
                PAUSE
            }
        };
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            () = work.one_ended(), if !work.running.is_empty() => {}
            open = changed.changed() => if !open { break },
            () = ctx.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    let ended = tokio::time::timeout(ctx.options.shutdown_grace, work.all_ended()).await;
    if ended.is_err() {
        tracing::warn!(
            attempts = work.running.len(),
            "attempts were cut off at shutdown; they are made again at the next start"
        );
        work.running.shutdown().await;
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone can never say stop otherwise.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// What is under way, and what was seen to be due.
struct Work {
    running: JoinSet<()>,
    domains: HashMap<tokio::task::Id, String>,
    per_domain: HashMap<String, usize>,
    /// Due errands that had no room yet. Old news at worst: a claim tells.
    backlog: Vec<Due>,
    scan: usize,
    scanned_at: Instant,
}

impl Work {
    fn new() -> Self {
        Self {
            running: JoinSet::new(),
            domains: HashMap::new(),
            per_domain: HashMap::new(),
            backlog: Vec::new(),
            scan: SCAN,
            scanned_at: Instant::now(),
        }
    }

    /// Starts what is due and has room. Answers how long to wait at most before the next look.
    async fn fill(&mut self, ctx: &Arc<Context>) -> Result<Duration, queue::Error> {
        let now = ctx.clock.now();
        let mut started = self.start_from_backlog(ctx, now).await?;
        if self.running.len() >= ctx.options.attempts_max {
            return Ok(WAIT_MAX);
        }
        let pause = SCAN_PAUSE * u32::try_from(self.scan / SCAN).unwrap_or(1);
        if !self.backlog.is_empty() && self.scanned_at.elapsed() < pause {
            // An end makes room for what is known; only newcomers to other domains wait this long.
            return Ok(pause);
        }
        self.backlog = ctx.queue.due(now, self.scan).await?;
        self.scanned_at = Instant::now();
        let all_seen = self.backlog.len() < self.scan;
        let more = self.start_from_backlog(ctx, now).await?;
        self.scan = match (more, all_seen) {
            (0, false) => (self.scan * 4).min(SCAN_MAX),
            _ => SCAN,
        };
        started += more;
        Ok(match ctx.queue.next_due().await? {
            Some(next) if next > now => next.since(now).min(WAIT_MAX),
            Some(_) if started > 0 || !all_seen => SCAN_PAUSE,
            // Due, but without room for its domain, or not to be claimed: an end or time helps.
            Some(_) => PAUSE,
            None => WAIT_MAX,
        })
    }

    async fn start_from_backlog(
        &mut self,
        ctx: &Arc<Context>,
        now: Timestamp,
    ) -> Result<usize, queue::Error> {
        let room = ctx.options.attempts_max.saturating_sub(self.running.len());
        if room == 0 || self.backlog.is_empty() {
            return Ok(0);
        }
        let per_domain_max = ctx.options.attempts_per_domain_max;
        let chosen = choose(&mut self.backlog, room, per_domain_max, &self.per_domain);
        if chosen.is_empty() {
            return Ok(0);
        }
        let groups = grouped(ctx.queue.claim(&chosen, now).await?);
        let started = groups.len();
        for group in groups {
            self.start(ctx, group);
        }
        Ok(started)
    }

    fn start(&mut self, ctx: &Arc<Context>, group: Vec<Claim>) {
        let Some(first) = group.first() else { return };
        let domain = first.errand.recipient.host().to_string();
        *self.per_domain.entry(domain.clone()).or_default() += 1;
        let handle = self.running.spawn(deliver(Arc::clone(ctx), group));
        self.domains.insert(handle.id(), domain);
    }

    async fn one_ended(&mut self) {
        let (id, failed) = match self.running.join_next_with_id().await {
            None => return,
            Some(Ok((id, ()))) => (id, None),
            Some(Err(e)) => (e.id(), Some(e)),
        };
        if let Some(error) = failed.filter(tokio::task::JoinError::is_panic) {
            tracing::error!(%error, "an attempt ended by a panic; its errands come back when their claim ends");
        }
        if let Some(domain) = self.domains.remove(&id)
            && let Some(count) = self.per_domain.get_mut(&domain)
        {
            *count -= 1;
            if *count == 0 {
                self.per_domain.remove(&domain);
            }
        }
    }

    async fn all_ended(&mut self) {
        while !self.running.is_empty() {
            self.one_ended().await;
        }
    }
}

/// Takes the errands for which there is room, counted in groups (one connection each).
fn choose(
    backlog: &mut Vec<Due>,
    room: usize,
    per_domain_max: usize,
    running: &HashMap<String, usize>,
) -> Vec<Due> {
    let mut groups: HashMap<(mail::QueueId, String), usize> = HashMap::new();
    let mut per_domain = running.clone();
    let mut connections = 0;
    let mut chosen = Vec::new();
    backlog.retain(|d| {
        let key = (d.message, d.domain.clone());
        let members = groups.get(&key).copied().unwrap_or(0);
        if members % RECIPIENTS_MAX == 0 {
            if connections >= room {
                return true;
            }
            let here = per_domain.entry(d.domain.clone()).or_default();
            if *here >= per_domain_max {
                return true;
            }
            *here += 1;
            connections += 1;
        }
        groups.insert(key, members + 1);
        chosen.push(d.clone());
        false
    });
    chosen
}

/// Claims by message and domain, [`RECIPIENTS_MAX`] at most in a group.
fn grouped(claims: Vec<Claim>) -> Vec<Vec<Claim>> {
    let mut groups: Vec<Vec<Claim>> = Vec::new();
    let mut open: HashMap<(mail::QueueId, String), usize> = HashMap::new();
    for claim in claims {
        let key = (claim.message.id, claim.errand.recipient.host().to_string());
        match open.get(&key) {
            Some(i) if groups[*i].len() < RECIPIENTS_MAX => groups[*i].push(claim),
            _ => {
                open.insert(key, groups.len());
                groups.push(vec![claim]);
            }
        }
    }
    groups
}

/// Where an errand turned out to lead.
enum Destination {
    Here(Vec<AccountId>),
    Away,
    Nowhere(Failure),
}

/// Delivers one message to its recipients at one domain.
async fn deliver(ctx: Arc<Context>, claims: Vec<Claim>) {
    let mut away = Vec::new();
    for claim in claims {
        match destination(&ctx, &claim).await {
            Destination::Here(accounts) => settle_here(&ctx, &claim, &accounts).await,
            Destination::Away => away.push(claim),
            Destination::Nowhere(failure) => settle_fate(&ctx, &claim, &Err(failure), &mut Vec::new()).await,
        }
    }
    if away.is_empty() {
        return;
    }
    let (fates, mut events) = carry(&ctx, &away).await;
    for (claim, fate) in away.iter().zip(&fates) {
        settle_fate(&ctx, claim, fate, &mut events).await;
    }
}

async fn destination(ctx: &Context, claim: &Claim) -> Destination {
    let recipient = &claim.errand.recipient;
    match local::resolve(ctx, recipient).await {
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

/// Finds the way and makes the attempt; fates in the order of the claims, and what to tell of it.
async fn carry(ctx: &Context, claims: &[Claim]) -> (Vec<Fate>, Vec<Event>) {
    let Some(first) = claims.first() else {
        return (Vec::new(), Vec::new());
    };
    let host = first.errand.recipient.host();
    let mut random = |n: usize| ctx.below(n);
    let found = way::find(ctx.resolver.as_ref(), &ctx.routes(), &ctx.own, host, &mut random).await;
    let mut events = vec![way::event(host, &found)];
    let plan = match found {
        Ok(plan) => plan,
        Err(failure) => return (claims.iter().map(|_| Err(failure.clone())).collect(), events),
    };
    let message = &first.message;
    let letter = Letter {
        name: message.id.to_string(),
        sender: message.reverse_path.clone(),
        recipients: claims.iter().map(|c| c.errand.recipient.clone()).collect(),
        prefix: message.prefix.clone(),
        blob: message.blob,
        blob_len: message.blob_len,
        eight_bit: message.body == queue::Body::EightBit,
        smtputf8: message.smtputf8,
    };
    let attempted = ctx.courier.attempt(&plan, &letter).await;
    events.extend(attempted.events);
    (attempted.fates, events)
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

/// Commits an errand's end or postponement with all that belongs to it. Tries again while that can
/// help: what a server took already is sent twice if this is not recorded. Answers whether it is.
async fn commit(ctx: &Context, claim: &Claim, what: &What<'_>) -> bool {
    let (id, to) = (claim.message.id, &claim.errand.recipient);
    let (mut conflicts, mut refusals) = (0, 0);
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
        if refusals >= STORE_RETRIES_MAX || matches!(error, Trouble::Commit(CommitError::Fatal(_))) {
            tracing::error!(%id, %to, %error, "the outcome could not be recorded; the errand is tried again when its claim ends");
            return false;
        }
        tracing::warn!(%id, %to, %error, "the outcome could not be recorded yet");
        tokio::time::sleep(Duration::from_secs(1 << refusals)).await;
        refusals += 1;
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
            let inboxes = local::inboxes(ctx, accounts, now).await?;
            let message = &claim.message;
            let outcome = Outcome::Delivered(LastOutcome {
                at: now,
                host: None,
                reply: "250 2.0.0 in the mailbox".to_owned(),
                status: Some(EnhancedStatus::new(2, 0, 0)),
            });
            ctx.queue.settle(&mut batch, claim, &outcome).await?;
            let letter = Local {
                id,
                reverse_path: &message.reverse_path,
                recipient: &claim.errand.recipient,
                prefix: &message.prefix,
                blob: message.blob,
                blob_len: message.blob_len,
                why: None,
            };
            local::deliver(ctx, &mut batch, &inboxes, &letter, now)?;
        }
    }
    ctx.store.commit(batch).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::QueueId;

    fn due(message: u64, no: u32, domain: &str) -> Due {
        Due {
            at: Timestamp(0),
            message: QueueId(message),
            no,
            domain: domain.to_owned(),
        }
    }

    #[test]
    fn room_is_shared_between_domains() {
        let mut list: Vec<Due> = (0..10).map(|m| due(m, 0, "slow.example")).collect();
        list.push(due(20, 0, "other.example"));
        list.push(due(20, 1, "other.example"));
        let running = HashMap::from([("slow.example".to_owned(), 1)]);
        let mut backlog = list.clone();
        let chosen = choose(&mut backlog, 100, 3, &running);
        let of = |domain| chosen.iter().filter(|d| d.domain == domain).count();
        assert_eq!((of("slow.example"), of("other.example")), (2, 2));
        assert_eq!(backlog.len(), 8, "the rest waits");
        assert_eq!(
            choose(&mut list, 1, 3, &HashMap::new()).len(),
            1,
            "one connection in all"
        );
    }

    #[test]
    fn many_recipients_of_one_message_take_more_connections() {
        let list: Vec<Due> = (0..250).map(|n| due(1, n, "a.example")).collect();
        let count = |room| choose(&mut list.clone(), room, 100, &HashMap::new()).len();
        assert_eq!(count(100), 250);
        assert_eq!(count(2), 2 * RECIPIENTS_MAX);
    }
}
