//! What is under way and what comes next: rounds through what is due, claims ahead of need, lanes to sites.
//!
//! A round looks through everything that is due, the longest due first, and starts what has room. So
//! a site with a million due errands does not stand before the others; and what of it has no room
//! is forgotten but for some (see `lanes`), until the next round. Between the rounds of a long
//! backlog the errands that came due last are looked at, since new ones stand there.
//!
//! The loop never waits for the store to claim or for the DNS: claims are made beside it, one commit for all that
//! is wanted at the moment, and begin as soon as an attempt before them needs its connection no longer.

use crate::control::Heard;
use crate::errand::{self, Ended};
use crate::lanes::{Chosen, Lanes, Site};
use crate::service::Context;
use crate::sites::Sites;
use crate::suspended;
use mail::Timestamp;
use queue::{Claim, Due};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
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
/// The same however little is due: what comes within it is found together.
const ROUND_PAUSE_MIN: Duration = Duration::from_millis(2);
/// How much longer the pause is while what is remembered suffices.
const UNHURRIED: u32 = 5;
/// The longest wait before the queue is looked at again, against clocks that jump.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The wait after a failure of the store, and when due errands cannot be claimed.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);
/// Errands that are put off in one go.
const PUT_OFF_MAX: usize = 500;
/// What is left of a claim beyond the longest attempt, or it is given back instead of begun.
pub(crate) const CLAIM_MARGIN: Duration = Duration::from_secs(60);

/// What is under way, and what was seen to be due.
pub(crate) struct Work {
    pub(crate) running: JoinSet<()>,
    begun: HashMap<tokio::task::Id, Begun>,
    ends: (mpsc::UnboundedSender<Ended>, mpsc::UnboundedReceiver<Ended>),
    lanes: Lanes,
    sites: Sites,
    /// Claimed and not begun, by site.
    claimed: BTreeMap<Site, VecDeque<Vec<Claim>>>,
    claiming: JoinSet<Claimed>,
    /// The sites that it was asked for, once for each message.
    claiming_for: Vec<Site>,
    putting_off: JoinSet<()>,
    round: Round,
    /// When the latest were looked at between rounds.
    latest_at: Instant,
    /// Whether the queue changed since the last round began.
    news: bool,
    /// When the queue is to be looked at again, if nothing changes before.
    look_at: Instant,
    /// After a claim that failed, until when no other is made.
    claims_rest_until: Option<Instant>,
    /// How often the queue was asked for attempts at once when this was last looked at.
    asked_at_once: u64,
}

/// What was chosen, and what of it could be claimed.
type Claimed = (Vec<Chosen>, Result<Vec<Claim>, queue::Error>);

/// An attempt that was begun.
struct Begun {
    site: Site,
    at: Instant,
    /// Whether it still has its connection.
    under_way: bool,
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
            begun: HashMap::new(),
            ends: mpsc::unbounded_channel(),
            lanes: Lanes::default(),
            sites: Sites::default(),
            claimed: BTreeMap::new(),
            claiming: JoinSet::new(),
            claiming_for: Vec::new(),
            putting_off: JoinSet::new(),
            round: Round::new(false),
            latest_at: Instant::now(),
            news: true,
            look_at: Instant::now(),
            claims_rest_until: None,
            asked_at_once: 0,
        }
    }

    /// The queue changed, or its clock was moved.
    pub(crate) fn hear_news(&mut self) {
        self.news = true;
    }

    /// Starts what is due and has room. Answers how long to wait at most before the next look.
    pub(crate) async fn fill(&mut self, ctx: &Arc<Context>) -> Result<Duration, queue::Error> {
        let wait = self.look(ctx).await?;
        self.look_at = Instant::now() + wait;
        Ok(self.cut_to_tick(wait))
    }

    async fn look(&mut self, ctx: &Arc<Context>) -> Result<Duration, queue::Error> {
        let now = ctx.clock.now();
        self.heed_orders(ctx);
        self.tick(ctx);
        self.round.started += self.choose(ctx, now);
        self.put_off(ctx);
        if self.room(ctx) == 0 {
            // To be looked at when there is room.
            self.news = true;
            return Ok(WAIT_MAX);
        }
        if !self.round.under_way {
            let left = self.look_at.saturating_duration_since(Instant::now());
            if !self.news && !left.is_zero() && !self.starves() {
                return Ok(left);
            }
            let pause = self.pause().max(ROUND_PAUSE_MIN);
            let rested = self.round.ended_at.elapsed();
            if rested < pause {
                let seen = self.latest_at.elapsed();
                if pause == ROUND_PAUSE_MIN || seen < ROUND_PAUSE {
                    return Ok((pause - rested).min(ROUND_PAUSE.saturating_sub(seen).max(ROUND_PAUSE_MIN)));
                }
                self.look_at_latest(ctx, now).await?;
                return self.until_next(ctx, now, pause - rested).await;
            }
            self.lanes.clear(&|site| idle(ctx, site), Instant::now());
            self.sites.clear();
            self.round = Round::new(true);
            self.news = false;
        }
        for _ in 0..PAGES_AT_ONCE {
            let behind = self.round.behind.as_ref();
            let page = ctx.queue.due_behind(behind, now, PAGE).await?;
            let all_seen = page.len() < PAGE;
            self.round.rows += page.len();
            self.round.behind = page.last().cloned();
            let page = suspended::put_back(ctx, page, now).await?;
            self.remember(ctx, page);
            self.round.started += self.choose(ctx, now);
            if all_seen {
                self.round.under_way = false;
                self.round.ended_at = Instant::now();
                let again = match self.round.rows {
                    0 => WAIT_MAX,
                    _ if self.round.started > 0 && self.is_partial() => self.pause(),
                    // Due, but without room at its site, or not to be claimed: an end or time helps.
                    _ => PAUSE,
                };
                return self.until_next(ctx, now, again).await;
            }
            if self.room(ctx) == 0 {
                self.news = true;
                return Ok(WAIT_MAX);
            }
            tokio::task::yield_now().await;
        }
        self.news = true;
        Ok(Duration::ZERO)
    }

    /// An operator who wants attempts at once does not wait for the next probe.
    fn heed_orders(&mut self, ctx: &Context) {
        let asked = ctx.queue.asked_at_once();
        if std::mem::replace(&mut self.asked_at_once, asked) != asked {
            self.lanes.probe_now(&|site| idle(ctx, site), Instant::now());
            self.news = true;
        }
    }

    /// Attempts that may begin, those that are claimed ahead included.
    fn room(&self, ctx: &Context) -> usize {
        let ahead: usize = self.claimed.values().map(VecDeque::len).sum();
        ctx.options
            .attempts_max
            .saturating_sub(self.lanes.under_way() + ahead)
    }

    /// The pause behind the last round.
    fn pause(&self) -> Duration {
        if self.lanes.is_empty() && self.sites.is_empty() {
            return Duration::ZERO;
        }
        let parts = u32::try_from(self.round.rows / PAUSE_ROWS).unwrap_or(u32::MAX);
        let pause = ROUND_PAUSE.saturating_mul(parts);
        if self.starves() {
            return pause.min(PAUSE);
        }
        pause.saturating_mul(UNHURRIED).clamp(ROUND_PAUSE, PAUSE)
    }

    /// Whether something could go whose errands were left out.
    fn starves(&self) -> bool {
        self.lanes.starves(Instant::now()) || self.sites.starves()
    }

    fn is_partial(&self) -> bool {
        self.lanes.is_partial() || self.sites.is_partial()
    }

    /// A wait, cut to the moment when the next errand comes due or a site may be asked again.
    async fn until_next(
        &self,
        ctx: &Context,
        now: Timestamp,
        wait: Duration,
    ) -> Result<Duration, queue::Error> {
        let next = ctx.queue.next_due_after(now).await?;
        Ok(next.map_or(wait, |next| next.since(now).min(wait)))
    }

    fn cut_to_tick(&self, wait: Duration) -> Duration {
        let tick = self
            .lanes
            .next_tick()
            .map(|at| at.saturating_duration_since(Instant::now()));
        tick.map_or(wait, |tick| tick.min(wait))
    }

    fn remember(&mut self, ctx: &Arc<Context>, dues: Vec<Due>) {
        let now = Instant::now();
        for due in dues {
            match self.sites.of(&due.domain, now) {
                Some(site) if self.lanes.knows(site) => {
                    let site = site.clone();
                    self.lanes.remember(&site, due, idle(ctx, &site), now);
                }
                _ => self.sites.wait(due),
            }
        }
        self.sites.ask(ctx);
    }

    /// Has those claimed that may begin soon. Answers how many messages.
    fn choose(&mut self, ctx: &Arc<Context>, now: Timestamp) -> usize {
        let rests = self.claims_rest_until.is_some_and(|until| until > Instant::now());
        if rests || !self.claiming.is_empty() {
            return 0;
        }
        let room = self.room(ctx);
        let chosen = self.lanes.choose(room, &|site| idle(ctx, site), Instant::now());
        let count = chosen.len();
        if count > 0 {
            self.claiming_for = chosen.iter().map(|chosen| chosen.site.clone()).collect();
            let ctx = Arc::clone(ctx);
            self.claiming.spawn(async move {
                let dues: Vec<Due> = chosen.iter().flat_map(|c| c.dues.iter().cloned()).collect();
                // Some of it was remembered before it was suspended.
                let claims = match suspended::put_back(&ctx, dues, now).await {
                    Ok(dues) => ctx.queue.claim(&dues, now).await,
                    Err(error) => Err(error),
                };
                (chosen, claims)
            });
        }
        count
    }

    fn claimed(&mut self, ctx: &Arc<Context>, chosen: Vec<Chosen>, claims: Result<Vec<Claim>, queue::Error>) {
        let claims = claims.unwrap_or_else(|error| {
            tracing::error!(%error, "due errands could not be claimed");
            self.rest();
            Vec::new()
        });
        let mut by_errand: HashMap<_, _> = claims
            .into_iter()
            .map(|claim| ((claim.errand.message, claim.errand.no), claim))
            .collect();
        let now = Instant::now();
        let mut sites = Vec::new();
        for Chosen { site, dues } in chosen {
            let claims = dues
                .iter()
                .filter_map(|due| by_errand.remove(&(due.message, due.no)));
            let claims: Vec<Claim> = claims.collect();
            if claims.is_empty() {
                self.lanes.forgo(&site, idle(ctx, &site), now);
                continue;
            }
            self.claimed.entry(site.clone()).or_default().push_back(claims);
            if sites.last() != Some(&site) {
                sites.push(site);
            }
        }
        sites.iter().for_each(|site| self.begin(ctx, site));
    }

    fn rest(&mut self) {
        self.claims_rest_until = Some(Instant::now() + PAUSE);
        self.news = true;
    }

    /// Nothing of what was chosen begins: else its sites would wait for it for ever.
    fn claiming_broke(&mut self, ctx: &Arc<Context>) {
        self.rest();
        for site in std::mem::take(&mut self.claiming_for) {
            self.lanes.forgo(&site, idle(ctx, &site), Instant::now());
        }
    }

    /// Begins what is claimed for a site, as far as there is room.
    fn begin(&mut self, ctx: &Arc<Context>, site: &Site) {
        let now = Instant::now();
        while let Some(list) = self.claimed.get_mut(site) {
            let Some(claims) = list.pop_front() else {
                self.claimed.remove(site);
                return;
            };
            let lasts = ctx
                .clock
                .now()
                .plus(ctx.options.attempt.attempt_time_max + CLAIM_MARGIN);
            if claims.iter().any(|claim| claim.until < lasts) {
                self.give_back(ctx, site, claims);
                continue;
            }
            if !self.lanes.begin(site, idle(ctx, site), now) {
                if let Some(list) = self.claimed.get_mut(site) {
                    list.push_front(claims);
                }
                return;
            }
            let attempt = errand::deliver(Arc::clone(ctx), claims, site.clone(), self.ends.0.clone());
            let handle = self.running.spawn(attempt);
            let begun = Begun {
                site: site.clone(),
                at: now,
                under_way: true,
            };
            self.begun.insert(handle.id(), begun);
        }
    }

    fn give_back(&mut self, ctx: &Arc<Context>, site: &Site, claims: Vec<Claim>) {
        self.lanes.forgo(site, idle(ctx, site), Instant::now());
        self.putting_off.spawn(errand::give_back(Arc::clone(ctx), claims));
    }

    /// Gives back what is claimed for a site that is not well any more.
    fn give_back_all(&mut self, ctx: &Arc<Context>, site: &Site) {
        for claims in self.claimed.remove(site).unwrap_or_default() {
            self.give_back(ctx, site, claims);
        }
    }

    /// Remembers those of the latest whose site or sender has nothing waiting.
    async fn look_at_latest(&mut self, ctx: &Arc<Context>, now: Timestamp) -> Result<(), queue::Error> {
        self.latest_at = Instant::now();
        let latest = ctx.queue.due_latest(now, PAGE).await?;
        let latest = suspended::put_back(ctx, latest, now).await?;
        let fit = |due: &Due| match self.sites.of(&due.domain, Instant::now()) {
            Some(site) => self.lanes.is_free(site, due.sender),
            None => self.sites.is_free(&due.domain),
        };
        let new: Vec<Due> = latest.into_iter().rev().filter(fit).collect();
        self.remember(ctx, new);
        self.choose(ctx, now);
        Ok(())
    }

    /// Puts off what waits for sites that are down, some at a time.
    fn put_off(&mut self, ctx: &Arc<Context>) {
        if !self.putting_off.is_empty() {
            return;
        }
        if let Some((dues, why, since)) = self.lanes.put_off(PUT_OFF_MAX, Instant::now()) {
            self.putting_off
                .spawn(errand::put_off(Arc::clone(ctx), dues, why, since));
        }
    }

    fn tick(&mut self, ctx: &Arc<Context>) {
        let ticked = self.lanes.tick(&|site| idle(ctx, site), Instant::now());
        ticked.iter().for_each(|site| self.begin(ctx, site));
    }

    /// Waits for the next thing that happens by itself, and follows it. Pends while nothing is under way.
    pub(crate) async fn next(&mut self, ctx: &Arc<Context>) {
        tokio::select! {
            biased;
            Some(ended) = self.ends.1.recv() => {
                self.ended(ctx, ended);
                // What has come meanwhile is followed too, before the queue is looked at.
                while let Ok(ended) = self.ends.1.try_recv() {
                    self.ended(ctx, ended);
                }
            }
            Some(done) = self.running.join_next_with_id() => {
                self.recorded(ctx, done);
                while let Some(done) = self.running.try_join_next_with_id() {
                    self.recorded(ctx, done);
                }
            }
            Some(done) = self.claiming.join_next() => match done {
                Ok((chosen, claims)) => self.claimed(ctx, chosen, claims),
                Err(error) => {
                    tracing::error!(%error, "claiming ended by a panic; what it claimed comes back when the claim ends");
                    self.claiming_broke(ctx);
                }
            },
            Some(_) = self.putting_off.join_next() => {}
            Some(found) = self.sites.answered() => {
                let now = Instant::now();
                self.lanes.know(&found.site, found.limits, now);
                for due in self.sites.believe(&found, now) {
                    self.lanes.remember(&found.site, due, idle(ctx, &found.site), now);
                }
                self.sites.ask(ctx);
            }
        }
    }

    /// An attempt needs its connection no longer: the next one takes it.
    fn ended(&mut self, ctx: &Arc<Context>, ended: Ended) {
        let Some(begun) = self.begun.get_mut(&ended.task).filter(|begun| begun.under_way) else {
            return;
        };
        begun.under_way = false;
        let (site, at) = (begun.site.clone(), begun.at);
        self.lane_ended(ctx, &site, at, ended.opened, &ended.heard);
    }

    fn lane_ended(&mut self, ctx: &Arc<Context>, site: &Site, began: Instant, opened: usize, heard: &Heard) {
        let (idle, now) = (idle(ctx, site), Instant::now());
        self.lanes
            .ended(site, (began, opened), heard, idle, now, ctx.jitter());
        if self.lanes.is_well(site) {
            self.begin(ctx, site);
        } else {
            self.give_back_all(ctx, site);
        }
    }

    /// An attempt is over with all that belongs to it.
    fn recorded(&mut self, ctx: &Arc<Context>, done: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match done {
            Ok((id, ())) => id,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "an attempt ended by a panic; its errands come back when their claim ends");
                }
                error.id()
            }
        };
        // Its last word may wait behind its end.
        while let Ok(ended) = self.ends.1.try_recv() {
            self.ended(ctx, ended);
        }
        let Some(begun) = self.begun.remove(&id) else {
            return;
        };
        if begun.under_way {
            self.lane_ended(ctx, &begun.site, begun.at, 0, &Heard::Nothing);
        }
        self.lanes
            .recorded(&begun.site, idle(ctx, &begun.site), Instant::now());
        self.begin(ctx, &begun.site);
    }

    /// Begins nothing more, and lets what is under way come to its end.
    pub(crate) async fn all_ended(&mut self, ctx: &Arc<Context>) {
        while let Some(claimed) = self.claiming.join_next().await {
            if let Ok((_, Ok(claims))) = claimed {
                self.putting_off.spawn(errand::give_back(Arc::clone(ctx), claims));
            }
        }
        for (_, groups) in std::mem::take(&mut self.claimed) {
            for claims in groups {
                self.putting_off.spawn(errand::give_back(Arc::clone(ctx), claims));
            }
        }
        while self.running.join_next().await.is_some() {}
        while self.putting_off.join_next().await.is_some() {}
    }
}

/// Connections to a site that wait to be used.
fn idle(ctx: &Context, site: &str) -> usize {
    ctx.courier.pool.idle_to(site)
}
