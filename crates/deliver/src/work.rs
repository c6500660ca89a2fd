//! What is under way and what comes next: room in all and per domain, and the backlog of due errands.

use crate::attempt::RECIPIENTS_MAX;
use crate::errand;
use crate::service::Context;
use mail::Timestamp;
use queue::{Claim, Due};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
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
pub(crate) const PAUSE: Duration = Duration::from_secs(5);
/// What is under way, and what was seen to be due.
pub(crate) struct Work {
    pub(crate) running: JoinSet<()>,
    domains: HashMap<tokio::task::Id, String>,
    per_domain: HashMap<String, usize>,
    /// Due errands that had no room yet. Old news at worst: a claim tells.
    backlog: Vec<Due>,
    scan: usize,
    scanned_at: Instant,
}

impl Work {
    pub(crate) fn new() -> Self {
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
    pub(crate) async fn fill(&mut self, ctx: &Arc<Context>) -> Result<Duration, queue::Error> {
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
