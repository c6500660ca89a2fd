//! What is under way and what comes next: room in all and per domain, and rounds through what is due.
//!
//! A round looks through everything that is due, the longest due first, and starts what has room. So
//! a domain with a million due errands does not stand before the others; and what of it has no room
//! is forgotten but for some (see `backlog`), until the next round. Between the rounds of a long
//! backlog the errands that came due last are looked at, since new ones stand there.

use crate::attempt::RECIPIENTS_MAX;
use crate::backlog::{Backlog, Room};
use crate::errand;
use crate::service::Context;
use crate::suspended;
use mail::Timestamp;
use queue::{Claim, Due};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Due errands that are read in one go.
const PAGE: usize = 1_000;
/// Pages after which the ends of attempts get their turn.
const PAGES_AT_ONCE: usize = 16;
/// From one round to the next for each [`PAUSE_ROWS`] that were looked at, so that looking through a
/// long backlog takes a small part of the time. Never more than [`PAUSE`].
const ROUND_PAUSE: Duration = Duration::from_millis(200);
const PAUSE_ROWS: usize = 10_000;
/// How much longer the pause is while what is remembered suffices.
const UNHURRIED: u32 = 5;
/// The longest wait before the queue is looked at again, against clocks that jump.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The wait after a failure of the store, and when due errands cannot be claimed.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);

/// What is under way, and what was seen to be due.
pub(crate) struct Work {
    pub(crate) running: JoinSet<()>,
    domains: HashMap<tokio::task::Id, String>,
    per_domain: HashMap<String, usize>,
    backlog: Backlog,
    round: Round,
    /// When the latest were looked at between rounds.
    latest_at: Instant,
}

/// A walk through all that is due.
struct Round {
    under_way: bool,
    /// The last one that was looked at.
    behind: Option<Due>,
    rows: usize,
    started: usize,
    ended_at: Instant,
}

impl Round {
    fn new(under_way: bool) -> Self {
        Self {
            under_way,
            behind: None,
            rows: 0,
            started: 0,
            ended_at: Instant::now(),
        }
    }
}

impl Work {
    pub(crate) fn new() -> Self {
        Self {
            running: JoinSet::new(),
            domains: HashMap::new(),
            per_domain: HashMap::new(),
            backlog: Backlog::default(),
            round: Round::new(false),
            latest_at: Instant::now(),
        }
    }

    /// Starts what is due and has room. Answers how long to wait at most before the next look.
    pub(crate) async fn fill(&mut self, ctx: &Arc<Context>) -> Result<Duration, queue::Error> {
        let now = ctx.clock.now();
        self.start_waiting(ctx, now).await?;
        if self.room(ctx).all == 0 {
            return Ok(WAIT_MAX);
        }
        if !self.round.under_way {
            let pause = self.pause(ctx);
            let rested = self.round.ended_at.elapsed();
            if rested < pause {
                self.start_latest(ctx, now).await?;
                return self.until_next(ctx, now, pause - rested).await;
            }
            self.backlog.clear();
            self.round = Round::new(true);
        }
        for _ in 0..PAGES_AT_ONCE {
            let behind = self.round.behind.as_ref();
            let page = ctx.queue.due_behind(behind, now, PAGE).await?;
            let all_seen = page.len() < PAGE;
            self.round.rows += page.len();
            self.round.behind = page.last().cloned();
            let page = suspended::put_back(ctx, page, now).await?;
            page.into_iter().for_each(|due| self.backlog.remember(due));
            self.round.started += self.start_waiting(ctx, now).await?;
            if all_seen {
                self.round.under_way = false;
                self.round.ended_at = Instant::now();
                let again = match self.round.rows {
                    0 => WAIT_MAX,
                    _ if self.round.started > 0 && self.backlog.is_partial() => self.pause(ctx),
                    // Due, but without room for its domain, or not to be claimed: an end or time helps.
                    _ => PAUSE,
                };
                return self.until_next(ctx, now, again).await;
            }
            if self.room(ctx).all == 0 {
                return Ok(WAIT_MAX);
            }
            tokio::task::yield_now().await;
        }
        Ok(Duration::ZERO)
    }

    fn room(&self, ctx: &Context) -> Room<'_> {
        Room {
            all: ctx.options.attempts_max.saturating_sub(self.running.len()),
            per_domain: ctx.options.attempts_per_domain_max,
            running: &self.per_domain,
        }
    }

    /// The pause behind the last round.
    fn pause(&self, ctx: &Context) -> Duration {
        if self.backlog.is_empty() {
            return Duration::ZERO;
        }
        let parts = u32::try_from(self.round.rows / PAUSE_ROWS).unwrap_or(u32::MAX);
        let pause = ROUND_PAUSE.saturating_mul(parts);
        if self.backlog.starves(&self.room(ctx)) {
            return pause.min(PAUSE);
        }
        pause.saturating_mul(UNHURRIED).clamp(ROUND_PAUSE, PAUSE)
    }

    /// A wait, cut to the moment when the next errand comes due.
    async fn until_next(
        &self,
        ctx: &Context,
        now: Timestamp,
        wait: Duration,
    ) -> Result<Duration, queue::Error> {
        let next = ctx.queue.next_due_after(now).await?;
        Ok(next.map_or(wait, |next| next.since(now).min(wait)))
    }

    async fn start_waiting(&mut self, ctx: &Arc<Context>, now: Timestamp) -> Result<usize, queue::Error> {
        let room = Room {
            all: ctx.options.attempts_max.saturating_sub(self.running.len()),
            per_domain: ctx.options.attempts_per_domain_max,
            running: &self.per_domain,
        };
        // Some of it was remembered before it was suspended.
        let chosen = suspended::put_back(ctx, self.backlog.choose(room), now).await?;
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

    /// Starts those of the latest whose domain has no backlog.
    async fn start_latest(&mut self, ctx: &Arc<Context>, now: Timestamp) -> Result<(), queue::Error> {
        if self.latest_at.elapsed() < ROUND_PAUSE {
            return Ok(());
        }
        self.latest_at = Instant::now();
        let latest = ctx.queue.due_latest(now, PAGE).await?;
        let room = self.room(ctx);
        let fit = |due: &Due| self.backlog.is_free(&due.domain) && room.at(&due.domain) > 0;
        let new: Vec<Due> = latest.into_iter().rev().filter(fit).collect();
        new.into_iter().for_each(|due| self.backlog.remember(due));
        self.start_waiting(ctx, now).await?;
        Ok(())
    }

    fn start(&mut self, ctx: &Arc<Context>, group: Vec<Claim>) {
        let Some(first) = group.first() else { return };
        let domain = first.errand.recipient.host().to_string();
        *self.per_domain.entry(domain.clone()).or_default() += 1;
        let handle = self.running.spawn(errand::deliver(Arc::clone(ctx), group));
        self.domains.insert(handle.id(), domain);
    }

    pub(crate) async fn one_ended(&mut self) {
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

    pub(crate) async fn all_ended(&mut self) {
        while !self.running.is_empty() {
            self.one_ended().await;
        }
    }
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
