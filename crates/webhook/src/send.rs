//! Sending: each endpoint by itself, the oldest events first, as many as fit into a request.
//!
//! Strategies: one request at a time to an endpoint, so that it hears events in their order; a wait that
//! doubles after each failure; when an endpoint says that it cannot take the request as it is (400, 413,
//! 422), events are sent one by one, and one that is refused so again and again is thrown away, so that
//! it does not stand before the others for days.

use crate::entry::{body, complete, decode};
use crate::outbox::{Outbox, place};
use crate::{Endpoint, Url, keys};
use aws_lc_rs::hmac;
use journey::{Event, Journey};
use mail::{Clock, Domain, QueueId, ReversePath, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{Batch, BoxFuture, CommitError, Key, KeyRange, ReadError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Events of one request at most.
pub const BATCH_EVENTS: usize = 100;
/// From a first failure to the next try.
pub const WAIT_FIRST: Duration = Duration::from_secs(5);
/// The longest wait between two tries.
pub const WAIT_MAX: Duration = Duration::from_secs(10 * 60);
/// How often an endpoint may refuse a single event as malformed before it is thrown away.
const REFUSALS_MAX: u32 = 5;
/// How often what waits is looked through for what is too old or too much, also while an endpoint is
/// down.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// The wait when nothing is known to come, and after a failure of the store.
const IDLE: Duration = Duration::from_secs(60);
/// Events that are thrown away in one commit.
const THROWN_AT_ONCE: usize = 1_000;
/// Octets of an error that are kept.
const ERROR_OCTETS_MAX: usize = 300;

/// How events are kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Events that wait for one endpoint at most; beyond, the oldest are thrown away. Default 20,000.
    pub waiting_max: usize,
    /// How long an event waits at most. Default 3 days.
    pub age_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            waiting_max: 20_000,
            age_max: Duration::from_secs(3 * 86_400),
        }
    }
}

/// A request, ready to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedRequest {
    /// Where to.
    pub url: Url,
    /// Header fields beside Host and Content-Length.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
}

/// Sends requests; handed in.
pub trait Post: Send + Sync {
    /// Sends a request and answers its status; or why there is none, in words. Has its own limit of
    /// time, and follows no redirect.
    fn post<'a>(&'a self, request: &'a SignedRequest) -> BoxFuture<'a, Result<u16, String>>;
}

/// How an endpoint stands, in memory since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Standing {
    /// When it last took events.
    pub last_success: Option<Timestamp>,
    /// Failures since then.
    pub failures: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// When it is tried again.
    pub next_try: Option<Timestamp>,
}

/// Tells endpoints what waits for them. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    outbox: Outbox,
    journey: Journey,
    post: Arc<dyn Post>,
    clock: Arc<dyn Clock>,
    options: Options,
    standings: Arc<Mutex<BTreeMap<String, Standing>>>,
    kicks: Arc<HashMap<String, Notify>>,
}

/// Why a step failed: the store, as it was met.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What a request came to.
enum Said {
    Taken,
    /// The endpoint cannot take it as it is.
    Refused(String),
    Failed(String),
}

/// The events of one request.
#[derive(Default)]
struct Bundle {
    keys: Vec<Key>,
    /// Of these, events that the endpoint hears of.
    events: Vec<Value>,
}

/// How one endpoint fares.
#[derive(Default)]
struct Course {
    failures: u32,
    /// Refusals of the one event that is sent alone.
    refusals: u32,
    /// Events that still go one by one, since a request with several was refused.
    alone: usize,
    /// When what waits was looked through last.
    swept: Option<Instant>,
    /// The last event of which it is known that the endpoint hears of all before it that still wait.
    heard: Option<Key>,
}

impl Course {
    /// The events of a request are done with.
    fn past(&mut self, events: usize) {
        self.alone = self.alone.saturating_sub(events);
        self.refusals = 0;
    }
}

/// The signature of a body: HMAC-SHA256 over the seconds since 1970, a dot, and the body; in hexadecimal
/// digits.
#[must_use]
pub fn signature(secret: &mail::Secret, secs: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{secs}.").as_bytes());
    context.update(body);
    let tag = context.sign();
    tag.as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A body as a request to an endpoint.
#[must_use]
pub fn signed(endpoint: &Endpoint, body: Vec<u8>, now: Timestamp) -> SignedRequest {
    let tag = signature(&endpoint.secret, now.secs(), &body);
    SignedRequest {
        url: endpoint.url.clone(),
        headers: vec![
            ("Content-Type", "application/json".to_owned()),
            ("Posthaste-Webhook", endpoint.name.clone()),
            ("Posthaste-Signature", format!("t={},v1={tag}", now.secs())),
        ],
        body,
    }
}

impl Sender {
    /// A sender of what is in this outbox.
    #[must_use]
    pub fn new(
        outbox: Outbox,
        journey: Journey,
        post: Arc<dyn Post>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Self {
        let names = outbox.endpoints().iter().map(|endpoint| endpoint.name.clone());
        Self {
            kicks: Arc::new(names.map(|name| (name, Notify::new())).collect()),
            outbox,
            journey,
            post,
            clock,
            options,
            standings: Arc::default(),
        }
    }

    /// How an endpoint stands.
    #[must_use]
    pub fn standing(&self, endpoint: &str) -> Standing {
        let standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        standings.get(endpoint).cloned().unwrap_or_default()
    }

    /// Tries an endpoint now, whatever the wait. Answers whether there is one of that name.
    pub fn retry(&self, endpoint: &str) -> bool {
        let kick = self.kicks.get(endpoint);
        kick.inspect(|kick| kick.notify_one()).is_some()
    }

    /// Works until `stop` turns true. What is cut off then is sent again at the next start.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        self.clear_others().await;
        let mut endpoints = JoinSet::new();
        for endpoint in self.outbox.endpoints().to_vec() {
            endpoints.spawn(self.clone().serve(endpoint));
        }
        // A sender that is gone can never say stop otherwise.
        let _ = stop.wait_for(|stop| *stop).await;
        endpoints.shutdown().await;
    }

    async fn serve(self, endpoint: Endpoint) {
        let mut changed = self.outbox.store.watch(&keys::topic(&endpoint.name));
        let mut course = Course::default();
        loop {
            let wait = match self.step(&endpoint, &mut course).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(webhook = endpoint.name, %error, "the outbox could not be worked on");
                    Some(IDLE)
                }
            };
            let Some(wait) = wait else { continue };
            let kick = self.kicks.get(&endpoint.name);
            let kicked = async {
                match kick {
                    Some(kick) => kick.notified().await,
                    None => std::future::pending().await,
                }
            };
            if course.failures == 0 {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = kicked => {}
                    open = changed.changed() => if !open { return },
                }
            } else {
                tokio::select! {
                    () = self.wait_and_sweep(&endpoint, &mut course, wait) => {}
                    () = kicked => {}
                }
            }
        }
    }

    /// Waits for an endpoint that is down; what comes in meanwhile stays within its bounds.
    async fn wait_and_sweep(&self, endpoint: &Endpoint, course: &mut Course, wait: Duration) {
        let end = Instant::now() + wait;
        loop {
            let part = end.saturating_duration_since(Instant::now()).min(SWEEP_EVERY);
            if part.is_zero() {
                return;
            }
            tokio::time::sleep(part).await;
            if let Err(error) = self.sweep(endpoint, course).await {
                tracing::error!(webhook = endpoint.name, %error, "the outbox could not be looked through");
            }
        }
    }

    /// Sends one request, if there is something to tell. Answers how long to wait before the next.
    async fn step(&self, endpoint: &Endpoint, course: &mut Course) -> Result<Option<Duration>, Trouble> {
        self.sweep(endpoint, course).await?;
        let limit = if course.alone > 0 { 1 } else { BATCH_EVENTS };
        let bundle = self.bundle(endpoint, limit).await?;
        if bundle.keys.is_empty() {
            return Ok(Some(IDLE));
        }
        if bundle.events.is_empty() {
            self.forget(endpoint, &bundle, None).await?;
            course.past(bundle.keys.len());
            return Ok(None);
        }
        let now = self.clock.now();
        let request = signed(endpoint, body(&endpoint.name, &bundle.events, now), now);
        match said(self.post.post(&request).await) {
            Said::Taken => {
                self.forget(endpoint, &bundle, Some(keys::told(&endpoint.name)))
                    .await?;
                course.past(bundle.keys.len());
                course.failures = 0;
                self.note(endpoint, |standing| {
                    *standing = Standing {
                        last_success: Some(now),
                        ..Standing::default()
                    };
                });
                Ok(None)
            }
            Said::Refused(why) if bundle.keys.len() == 1 && course.refusals + 1 >= REFUSALS_MAX => {
                tracing::warn!(
                    webhook = endpoint.name,
                    why,
                    "an event that is refused again and again is thrown away"
                );
                self.forget(endpoint, &bundle, Some(keys::thrown_away(&endpoint.name)))
                    .await?;
                course.past(1);
                Ok(None)
            }
            Said::Refused(why) => {
                match bundle.keys.len() {
                    1 => course.refusals += 1,
                    several => (course.alone, course.refusals) = (several, 0),
                }
                Ok(Some(self.failed(endpoint, course, why)))
            }
            Said::Failed(why) => Ok(Some(self.failed(endpoint, course, why))),
        }
    }

    fn failed(&self, endpoint: &Endpoint, course: &mut Course, mut why: String) -> Duration {
        why.truncate(why.floor_char_boundary(ERROR_OCTETS_MAX));
        let wait = WAIT_FIRST
            .saturating_mul(1 << course.failures.min(10))
            .min(WAIT_MAX);
        course.failures = course.failures.saturating_add(1);
        if course.failures == 1 {
            tracing::warn!(webhook = endpoint.name, url = %endpoint.url, why, "a webhook could not be told; it is tried again");
        }
        let next = self.clock.now().plus(wait);
        self.note(endpoint, |standing| {
            standing.failures = course.failures;
            standing.last_error = Some(why);
            standing.next_try = Some(next);
        });
        wait
    }

    fn note(&self, endpoint: &Endpoint, change: impl FnOnce(&mut Standing)) {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        change(standings.entry(endpoint.name.clone()).or_default());
    }

    /// The oldest events that wait for an endpoint.
    async fn bundle(&self, endpoint: &Endpoint, limit: usize) -> Result<Bundle, Trouble> {
        let snapshot = self.outbox.store.snapshot().await?;
        let rows = snapshot.scan(&Outbox::range(&endpoint.name), limit).await?;
        drop(snapshot);
        let mut births: HashMap<QueueId, Option<Event>> = HashMap::new();
        let mut bundle = Bundle::default();
        for (key, stored) in rows {
            let (place, said) = (place(&key), decode(&stored.value));
            let (Some((at, id, tiebreak)), Some(said)) = (place, said) else {
                tracing::error!(?key, "an event in the outbox cannot be read and is passed over");
                bundle.keys.push(key);
                continue;
            };
            if let std::collections::hash_map::Entry::Vacant(vacant) = births.entry(id) {
                vacant.insert(self.birth(id).await?);
            }
            let birth = births.get(&id).and_then(Option::as_ref);
            if endpoint.hears_from(sender_domain(birth)) {
                bundle.events.push(complete(said, (id, at, tiebreak), birth));
            }
            bundle.keys.push(key);
        }
        Ok(bundle)
    }

    /// How a message came in. A journey that cannot be read does not hold up the event.
    async fn birth(&self, id: QueueId) -> Result<Option<Event>, Trouble> {
        match self.journey.birth(id).await {
            Ok(birth) => Ok(birth),
            Err(error) => {
                tracing::error!(%id, %error, "the journey of a message cannot be read");
                Ok(None)
            }
        }
    }

    /// Takes events out of the outbox and counts them.
    async fn forget(&self, endpoint: &Endpoint, bundle: &Bundle, count: Option<Key>) -> Result<(), Trouble> {
        let mut batch = Batch::new();
        bundle.keys.iter().for_each(|key| batch.delete(key.clone()));
        if let Some(count) = count {
            batch.add(count, i64::try_from(bundle.events.len()).unwrap_or(i64::MAX));
        }
        self.outbox.store.commit(batch).await?;
        tracing::debug!(
            webhook = endpoint.name,
            events = bundle.events.len(),
            "events are done with"
        );
        Ok(())
    }

    /// Throws away what is too old, and the oldest of what is too much; not more often than every
    /// [`SWEEP_EVERY`].
    async fn sweep(&self, endpoint: &Endpoint, course: &mut Course) -> Result<(), Trouble> {
        if course.swept.is_some_and(|at| at.elapsed() < SWEEP_EVERY) {
            return Ok(());
        }
        course.swept = Some(Instant::now());
        let now = self.clock.now();
        let age = i64::try_from(self.options.age_max.as_micros()).unwrap_or(i64::MAX);
        let too_old = KeyRange {
            start: keys::outbox_of(&endpoint.name),
            end: keys::events_from(&endpoint.name, Timestamp(now.0.saturating_sub(age).max(0))),
        };
        self.throw_away(endpoint, &too_old, usize::MAX, "too old").await?;
        let mut over = self.over(endpoint).await?;
        if over > 0 && !endpoint.from_domains.is_empty() {
            // What it need not hear must not push out what it must.
            self.forget_unheard(endpoint, course).await?;
            over = self.over(endpoint).await?;
        }
        let all = Outbox::range(&endpoint.name);
        self.throw_away(endpoint, &all, over, "too many").await
    }

    /// By how many the waiting events are too many.
    async fn over(&self, endpoint: &Endpoint) -> Result<usize, Trouble> {
        let mut range = Outbox::range(&endpoint.name);
        let snapshot = self.outbox.store.snapshot().await?;
        let mut waiting = 0;
        loop {
            let rows = snapshot.scan(&range, THROWN_AT_ONCE).await?;
            waiting += rows.len();
            match rows.last() {
                Some((last, _)) if rows.len() == THROWN_AT_ONCE => range = range.after(last),
                _ => return Ok(waiting.saturating_sub(self.options.waiting_max)),
            }
        }
    }

    /// Takes out events of messages that the endpoint does not hear of, uncounted.
    async fn forget_unheard(&self, endpoint: &Endpoint, course: &mut Course) -> Result<(), Trouble> {
        let mut range = Outbox::range(&endpoint.name);
        if let Some(heard) = &course.heard {
            range = range.after(heard);
        }
        loop {
            let snapshot = self.outbox.store.snapshot().await?;
            let rows = snapshot.scan(&range, THROWN_AT_ONCE).await?;
            drop(snapshot);
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = range.after(last);
            course.heard = Some(last.clone());
            let mut hears: HashMap<QueueId, bool> = HashMap::new();
            let mut batch = Batch::new();
            for (key, _) in &rows {
                let Some((_, id, _)) = place(key) else { continue };
                let heard = match hears.get(&id) {
                    Some(known) => *known,
                    None => {
                        // What cannot be read stays: it is told or thrown away, and counted.
                        let birth = self.journey.birth(id).await;
                        birth.map_or(true, |birth| endpoint.hears_from(sender_domain(birth.as_ref())))
                    }
                };
                hears.insert(id, heard);
                if !heard {
                    batch.delete(key.clone());
                }
            }
            if !batch.is_empty() {
                self.outbox.store.commit(batch).await?;
            }
        }
    }

    async fn throw_away(
        &self,
        endpoint: &Endpoint,
        range: &KeyRange,
        mut count: usize,
        why: &str,
    ) -> Result<(), Trouble> {
        let mut thrown = 0;
        while count > 0 {
            let snapshot = self.outbox.store.snapshot().await?;
            let rows = snapshot.scan(range, count.min(THROWN_AT_ONCE)).await?;
            drop(snapshot);
            if rows.is_empty() {
                break;
            }
            let mut batch = Batch::new();
            rows.iter().for_each(|(key, _)| batch.delete(key.clone()));
            let number = i64::try_from(rows.len()).unwrap_or(i64::MAX);
            batch.add(keys::thrown_away(&endpoint.name), number);
            self.outbox.store.commit(batch).await?;
            thrown += rows.len();
            count -= rows.len();
        }
        if thrown > 0 {
            tracing::warn!(
                webhook = endpoint.name,
                events = thrown,
                why,
                "events were thrown away untold"
            );
        }
        Ok(())
    }

    /// Throws away what waits for endpoints that are not in the settings any more.
    async fn clear_others(&self) {
        if let Err(error) = self.try_clear_others().await {
            tracing::error!(%error, "what waits for former webhooks could not be thrown away");
        }
    }

    async fn try_clear_others(&self) -> Result<(), Trouble> {
        let mut range = keys::outbox().prefix_range();
        loop {
            let snapshot = self.outbox.store.snapshot().await?;
            let rows = snapshot.scan(&range, 1).await?;
            drop(snapshot);
            let Some((key, _)) = rows.first() else {
                return Ok(());
            };
            let name = key.reader().text().unwrap_or_default();
            let known = self
                .outbox
                .endpoints()
                .iter()
                .any(|endpoint| endpoint.name == name);
            let of_it = Outbox::range(&name);
            if !known {
                let mut thrown = 0;
                loop {
                    let snapshot = self.outbox.store.snapshot().await?;
                    let rows = snapshot.scan(&of_it, THROWN_AT_ONCE).await?;
                    drop(snapshot);
                    let mut batch = Batch::new();
                    rows.iter().for_each(|(key, _)| batch.delete(key.clone()));
                    if batch.is_empty() {
                        break;
                    }
                    thrown += rows.len();
                    self.outbox.store.commit(batch).await?;
                }
                tracing::warn!(
                    webhook = name,
                    events = thrown,
                    "events of a former webhook were thrown away untold"
                );
            }
            range.start = of_it.end;
        }
    }
}

/// What the status of an answer means.
fn said(answer: Result<u16, String>) -> Said {
    match answer {
        Ok(200..=299) => Said::Taken,
        Ok(status @ (400 | 413 | 422)) => Said::Refused(format!("it was answered with {status}")),
        Ok(status) => Said::Failed(format!("it was answered with {status}")),
        Err(why) => Said::Failed(why),
    }
}

fn sender_domain(birth: Option<&Event>) -> Option<&Domain> {
    match birth {
        Some(Event::Received {
            reverse_path: Some(ReversePath::Address(address)),
            ..
        }) => address.domain(),
        _ => None,
    }
}
