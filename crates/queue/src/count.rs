//! How much is queued, where it goes, and why it is still here: counted as a whole while the queue is
//! short, from a sample beyond.
//!
//! Promises: what one call reads and holds is bounded, however long the queue is; what is sampled says so.

use crate::due::message_in;
use crate::filter::{ClassOf, Standing, standing};
use crate::orders::decoded_or_logged;
use crate::{Errand, Error, Queue, Stats, keys};
use mail::{QueueId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use store::{Key, KeyRange, Snapshot};

/// Errands that are looked at at most; a queue with more is sampled.
pub const LOOKED_AT_MAX: usize = 20_000;
/// Places of the queue from which a sample is taken.
const PLACES: u64 = 400;
/// Due lines and leases that are counted at most.
const COUNTED_MAX: usize = 10_000;
/// Destinations that are held apart while counting; what goes elsewhere counts as one.
const DESTINATIONS_MAX: usize = 5_000;

/// A place with its number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tally {
    /// Its name.
    pub name: String,
    /// Open errands.
    pub errands: u64,
}

/// A destination with its errands and their reasons.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DestinationTally {
    /// The domain.
    pub domain: String,
    /// Open errands.
    pub errands: u64,
    /// Of these, not tried yet.
    pub untried: u64,
    /// The others by the class of their last failure, the most frequent first.
    pub reasons: Vec<Tally>,
}

/// How the queue stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// Messages, open errands and held ones: counters, exact.
    pub stats: Stats,
    /// When the oldest message was accepted.
    pub oldest: Option<Timestamp>,
    /// When the next errand comes due that is not due yet (or a lease ends).
    pub next_due: Option<Timestamp>,
    /// Errands that are due and not taken up yet; 10,000 at most are counted.
    pub due_now: usize,
    /// Errands that are being attempted; 10,000 at most are counted.
    pub attempting: usize,
    /// Whether `due_now` or `attempting` stopped at what is counted at most.
    pub and_more: bool,
    /// Open errands that the rest was counted from.
    pub looked_at: u64,
    /// Whether they are a sample, taken evenly over the time of acceptance.
    pub is_sample: bool,
    /// Of these, put back as suspended.
    pub suspended: u64,
    /// By destination, those with most first.
    pub destinations: Vec<DestinationTally>,
    /// By the class of the last failure, the most frequent first; untried ones are not in it.
    pub reasons: Vec<Tally>,
}

impl Queue {
    /// How the queue stands, with the `destinations` largest destinations.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn count(
        &self,
        class_of: ClassOf<'_>,
        destinations: usize,
        now: Timestamp,
    ) -> Result<Counted, Error> {
        let stats = self.stats().await?;
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let due = KeyRange {
            start: keys::due_all(),
            end: keys::due_after(now),
        };
        let due_now = snapshot.scan(&due, COUNTED_MAX).await?.len();
        let attempting = snapshot
            .scan(&keys::leases().prefix_range(), COUNTED_MAX)
            .await?
            .len();
        let is_sample = stats.errands > LOOKED_AT_MAX as u64;
        let mut sum = Sum::default();
        match is_sample {
            true => sample(snapshot, &mut sum, class_of, now).await?,
            false => whole(snapshot, &mut sum, class_of, now).await?,
        }
        Ok(Counted {
            stats,
            oldest: oldest(snapshot).await?,
            next_due: self.next_due_after(now).await?,
            due_now,
            attempting,
            and_more: due_now == COUNTED_MAX || attempting == COUNTED_MAX,
            looked_at: sum.errands,
            is_sample,
            suspended: sum.suspended,
            destinations: sum.largest(destinations),
            reasons: tallies(sum.reasons),
        })
    }
}

/// What was counted so far.
#[derive(Default)]
struct Sum {
    errands: u64,
    suspended: u64,
    reasons: HashMap<String, u64>,
    /// By domain: untried ones, the others by reason.
    destinations: HashMap<String, (u64, HashMap<String, u64>)>,
}

impl Sum {
    fn add(&mut self, errand: &Errand, class_of: ClassOf<'_>, now: Timestamp) {
        if !errand.state.is_open() {
            return;
        }
        self.errands += 1;
        self.suspended += u64::from(standing(errand, false, now) == Standing::Suspended);
        let mut domain = errand.recipient.host().to_string();
        if !self.destinations.contains_key(&domain) && self.destinations.len() >= DESTINATIONS_MAX {
            domain = "(others)".to_owned();
        }
        let of_it = self.destinations.entry(domain).or_default();
        match &errand.last {
            None => of_it.0 += 1,
            Some(last) => {
                let class = class_of(last);
                *of_it.1.entry(class.clone()).or_default() += 1;
                *self.reasons.entry(class).or_default() += 1;
            }
        }
    }

    fn largest(&mut self, count: usize) -> Vec<DestinationTally> {
        let all = std::mem::take(&mut self.destinations).into_iter();
        let mut all: Vec<DestinationTally> = all
            .map(|(domain, (untried, reasons))| DestinationTally {
                domain,
                errands: untried + reasons.values().sum::<u64>(),
                untried,
                reasons: tallies(reasons),
            })
            .collect();
        all.sort_unstable_by(|a, b| b.errands.cmp(&a.errands).then(a.domain.cmp(&b.domain)));
        all.truncate(count);
        all
    }
}

/// The most frequent first.
fn tallies(counts: HashMap<String, u64>) -> Vec<Tally> {
    let mut all: Vec<Tally> = counts
        .into_iter()
        .map(|(name, errands)| Tally { name, errands })
        .collect();
    all.sort_unstable_by(|a, b| b.errands.cmp(&a.errands).then(a.name.cmp(&b.name)));
    all
}

/// Looks at every errand.
async fn whole(
    snapshot: &dyn Snapshot,
    sum: &mut Sum,
    class_of: ClassOf<'_>,
    now: Timestamp,
) -> Result<(), Error> {
    let mut range = keys::errands().prefix_range();
    // Ended ones stand beside open ones of their message, so there may be more rows than are open.
    let mut rows_left = 2 * LOOKED_AT_MAX;
    while rows_left > 0 {
        let rows = snapshot.scan(&range, rows_left.min(1_000)).await?;
        let Some((last, _)) = rows.last() else { break };
        range = range.after(last);
        rows_left -= rows.len();
        for (key, stored) in &rows {
            if let Some(errand) = decoded_or_logged(key, &stored.value) {
                sum.add(&errand, class_of, now);
            }
        }
    }
    Ok(())
}

/// Looks at some errands at each of [`PLACES`] places. Ids are in the order of time, so the places are
/// spread evenly over the time of acceptance.
async fn sample(
    snapshot: &dyn Snapshot,
    sum: &mut Sum,
    class_of: ClassOf<'_>,
    now: Timestamp,
) -> Result<(), Error> {
    let all = keys::errands().prefix_range();
    let (first, last) = (snapshot.scan(&all, 1).await?, snapshot.scan_back(&all, 1).await?);
    let id = |rows: &[(Key, store::Versioned)]| rows.first().and_then(|(key, _)| key.reader().u64());
    let (Some(first), Some(last)) = (id(&first), id(&last)) else {
        return Ok(());
    };
    let each = LOOKED_AT_MAX / PLACES as usize;
    let step = (last - first) / PLACES;
    let mut seen: Option<Key> = None;
    for place in 0..PLACES {
        let mut range = KeyRange {
            start: keys::errands_of(QueueId(first + place * step)),
            end: all.end.clone(),
        };
        // Where mail is sparse the places overlap; nothing is counted twice.
        if let Some(seen) = &seen {
            range = range.after(seen);
        }
        let rows = snapshot.scan(&range, each).await?;
        for (key, stored) in &rows {
            if let Some(errand) = decoded_or_logged(key, &stored.value) {
                sum.add(&errand, class_of, now);
            }
        }
        if let Some((key, _)) = rows.last() {
            seen = Some(key.clone());
        }
    }
    Ok(())
}

/// When the oldest message was accepted.
async fn oldest(snapshot: &dyn Snapshot) -> Result<Option<Timestamp>, Error> {
    let rows = snapshot.scan(&keys::messages().prefix_range(), 1).await?;
    let Some(id) = rows.first().and_then(|(key, _)| key.reader().u64()) else {
        return Ok(None);
    };
    match message_in(snapshot, QueueId(id)).await {
        Err(Error::Damaged { .. }) => Ok(None),
        message => Ok(message?.map(|message| message.received_at)),
    }
}
