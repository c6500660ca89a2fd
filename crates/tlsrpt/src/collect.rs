//! Collecting: conversations are counted in memory and written down every few seconds, so that an
//! ordinary message costs one addition behind a lock. What the last seconds before a crash counted is
//! lost: statistics, not mail.
//!
//! In the store there is one row for each day and domain; a row goes when its report went, or when
//! nobody asked for one.

use crate::tally::DayResults;
use crate::{Day, Error, Session, keys};
use mail::Timestamp;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use store::{Batch, CommitError, Key, Require, Snapshot, Store};

/// Domains of a day at most. Conversations with further ones are not counted that day.
pub const DOMAINS_PER_DAY_MAX: usize = 10_000;
/// Rows that are written in one batch.
const AT_ONCE: usize = 200;
/// Rows that are read at once.
const PAGE: usize = 500;
/// How often a batch is tried again when a row changed meanwhile.
const CONFLICTS_MAX: usize = 8;

/// Counts conversations; one for a server.
pub struct Collector {
    store: Arc<dyn Store>,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    /// What is not written down yet.
    pending: HashMap<(Day, String), DayResults>,
    /// The day whose rows were counted, and how many domains of it are known.
    known: Option<(Day, usize)>,
}

impl Collector {
    /// One that writes into this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            counted: Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a conversation that was held now.
    pub fn record(&self, session: &Session, now: Timestamp) {
        let day = Day::of(now);
        let mut counted = self.lock();
        let pending = counted.pending.len();
        match counted.pending.entry((day, session.policy.domain.clone())) {
            Entry::Occupied(mut known) => known.get_mut().add(session),
            Entry::Vacant(_) if pending >= DOMAINS_PER_DAY_MAX => {}
            Entry::Vacant(place) => place.insert(DayResults::default()).add(session),
        }
    }

    /// Writes down what was counted since the last time. What could not be written stays in memory.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn flush(&self) -> Result<(), Error> {
        loop {
            let part = self.take_part();
            if part.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.write(&part).await {
                let mut counted = self.lock();
                for (key, results) in part {
                    counted.pending.entry(key).or_default().merge(results);
                }
                return Err(error);
            }
        }
    }

    fn take_part(&self) -> Vec<((Day, String), DayResults)> {
        let mut counted = self.lock();
        let keys: Vec<_> = counted.pending.keys().take(AT_ONCE).cloned().collect();
        let taken = keys.into_iter().filter_map(|key| {
            let results = counted.pending.remove(&key)?;
            Some((key, results))
        });
        taken.collect()
    }

    async fn write(&self, part: &[((Day, String), DayResults)]) -> Result<(), Error> {
        let mut conflicts = 0;
        loop {
            match self.try_write(part).await {
                Err(Error::Commit(CommitError::Conflict { .. })) if conflicts < CONFLICTS_MAX => {
                    conflicts += 1
                }
                done => return done,
            }
        }
    }

    async fn try_write(&self, part: &[((Day, String), DayResults)]) -> Result<(), Error> {
        let snapshot = self.store.snapshot().await?;
        let mut batch = Batch::new();
        let mut new_rows: HashMap<Day, usize> = HashMap::new();
        for ((day, domain), counted) in part {
            let key = keys::result(*day, domain);
            let mut results = match snapshot.get(&key).await? {
                Some(stored) => {
                    batch.require(Require::VersionIs(key.clone(), stored.version));
                    // A damaged row is begun anew: the audit tells of it, and counting goes on.
                    decode(&key, &stored.value).unwrap_or_default()
                }
                None => {
                    let new = new_rows.entry(*day).or_default();
                    if self.known(snapshot.as_ref(), *day).await? + *new >= DOMAINS_PER_DAY_MAX {
                        continue;
                    }
                    *new += 1;
                    batch.require(Require::KeyAbsent(key.clone()));
                    DayResults::default()
                }
            };
            results.merge(counted.clone());
            batch.put(key.clone(), encode(&key, &results)?);
        }
        if !batch.is_empty() {
            self.store.commit(batch).await?;
        }
        let mut counted = self.lock();
        if let Some((day, known)) = &mut counted.known {
            *known += new_rows.get(day).copied().unwrap_or(0);
        }
        Ok(())
    }

    /// How many domains of a day have a row. They are counted once a day, and added up from then on.
    async fn known(&self, snapshot: &dyn Snapshot, day: Day) -> Result<usize, Error> {
        if let Some((known_day, known)) = self.lock().known
            && known_day == day
        {
            return Ok(known);
        }
        let mut range = keys::of_day(day).prefix_range();
        let mut known = 0;
        while known < DOMAINS_PER_DAY_MAX {
            let rows = snapshot.scan(&range, PAGE).await?;
            let Some((last, _)) = rows.last() else { break };
            range = range.after(last);
            known += rows.len();
        }
        self.lock().known = Some((day, known));
        Ok(known)
    }
}

/// Results of one day and domain, as they are stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The day.
    pub day: Day,
    /// The domain, as a text.
    pub domain: String,
    /// What was counted.
    pub results: DayResults,
    version: u64,
}

/// A part of the results.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// The rows, by day and domain.
    pub rows: Vec<Row>,
    /// Where to go on; none at the end.
    pub next: Option<(Day, String)>,
}

/// Results that are stored, of days before `before`, at most `limit` of them, behind `after`.
///
/// # Errors
/// When the store cannot be read.
pub async fn outgoing(
    store: &dyn Store,
    before: Day,
    after: Option<&(Day, String)>,
    limit: usize,
) -> Result<Outgoing, Error> {
    let mut range = keys::before(before);
    if let Some((day, domain)) = after {
        range = range.after(&keys::result(*day, domain));
    }
    let stored = store.snapshot().await?.scan(&range, limit).await?;
    let next = match stored.last() {
        Some((last, _)) if stored.len() == limit => keys::parts(last),
        _ => None,
    };
    let rows = stored.into_iter().filter_map(|(key, stored)| {
        let (day, domain) = keys::parts(&key)?;
        Some(Row {
            day,
            domain,
            results: decode(&key, &stored.value).unwrap_or_default(),
            version: stored.version,
        })
    });
    Ok(Outgoing {
        rows: rows.collect(),
        next,
    })
}

/// Takes a row out of the store with this batch, if it is still as it was read: the report that is
/// made of it and its end become true together.
pub fn take_out(batch: &mut Batch, row: &Row) {
    let key = keys::result(row.day, &row.domain);
    batch.require(Require::VersionIs(key.clone(), row.version));
    batch.delete(key);
}

/// Forgets the results of days before this one, for which no report could be sent in time. Answers
/// how many rows went.
///
/// # Errors
/// When the store failed.
pub async fn forget_before(store: &dyn Store, day: Day) -> Result<usize, Error> {
    let mut gone = 0;
    loop {
        let rows = store.snapshot().await?.scan(&keys::before(day), PAGE).await?;
        if rows.is_empty() {
            return Ok(gone);
        }
        gone += rows.len();
        let mut batch = Batch::new();
        rows.into_iter().for_each(|(key, _)| batch.delete(key));
        store.commit(batch).await?;
    }
}

pub(crate) fn encode<T: serde::Serialize>(key: &Key, record: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(record).map_err(|e| Error::Damaged(key.clone(), e.to_string()))
}

pub(crate) fn decode<T: for<'a> serde::Deserialize<'a>>(key: &Key, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|e| Error::Damaged(key.clone(), e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Failure, Policy, ResultType};
    use mail::Domain;
    use std::time::Duration;
    use store::{MemoryStore, Tables as _};

    const NOON: Timestamp = Timestamp::from_secs(20_780 * 86_400 + 43_200);

    fn session(domain: &str, ok: bool) -> Session {
        Session {
            policy: Arc::new(Policy::none(&Domain::parse(domain).unwrap())),
            host: Some(format!("mx.{domain}")),
            ip: None,
            sending_ip: None,
            result: match ok {
                true => Ok(()),
                false => Err(Failure::new(ResultType::StarttlsNotSupported)),
            },
        }
    }

    async fn stored(store: &Arc<MemoryStore>) -> Vec<(u32, String, u64, u64)> {
        let all = outgoing(store.as_ref(), Day(u32::MAX), None, 100).await.unwrap();
        let told = |row: &Row| {
            let totals = row.results.totals();
            (row.day.0, row.domain.clone(), totals.successful, totals.failed)
        };
        all.rows.iter().map(told).collect()
    }

    #[tokio::test]
    async fn days_and_domains_are_counted_apart() {
        let store = MemoryStore::new();
        let collector = Collector::new(store.clone());
        collector.record(&session("a.example", true), NOON);
        collector.record(&session("b.example", false), NOON);
        collector.record(&session("a.example", true), NOON);
        assert!(stored(&store).await.is_empty(), "in memory");
        collector.flush().await.unwrap();
        collector.record(&session("a.example", false), NOON);
        collector.record(
            &session("a.example", true),
            NOON.plus(Duration::from_secs(43_200)),
        );
        collector.flush().await.unwrap();
        collector.flush().await.unwrap();
        assert_eq!(
            stored(&store).await,
            [
                (20_780, "a.example".to_owned(), 2, 1),
                (20_780, "b.example".to_owned(), 0, 1),
                (20_781, "a.example".to_owned(), 1, 0),
            ]
        );
    }

    #[tokio::test]
    async fn a_row_goes_with_its_report_only_as_it_was_read() {
        let store = MemoryStore::new();
        let collector = Collector::new(store.clone());
        collector.record(&session("a.example", true), NOON);
        collector.flush().await.unwrap();
        let rows = outgoing(store.as_ref(), Day(20_781), None, 10)
            .await
            .unwrap()
            .rows;
        collector.record(&session("a.example", true), NOON);
        collector.flush().await.unwrap();
        let mut late = Batch::new();
        take_out(&mut late, &rows[0]);
        let refused = store.commit(late).await;
        assert!(matches!(refused, Err(CommitError::Conflict { .. })));
        let rows = outgoing(store.as_ref(), Day(20_781), None, 10)
            .await
            .unwrap()
            .rows;
        assert_eq!(rows[0].results.totals().successful, 2);
        let mut good = Batch::new();
        take_out(&mut good, &rows[0]);
        store.commit(good).await.unwrap();
        assert!(stored(&store).await.is_empty());
    }

    #[tokio::test]
    async fn domains_of_a_day_are_bounded() {
        let store = MemoryStore::new();
        let collector = Collector::new(store.clone());
        for n in 0..DOMAINS_PER_DAY_MAX + 50 {
            collector.record(&session(&format!("d{n}.example"), true), NOON);
        }
        collector.flush().await.unwrap();
        collector.record(&session("one-more.example", true), NOON);
        collector.record(&session("d7.example", true), NOON);
        collector.flush().await.unwrap();
        // After a restart the rows that are there count too.
        let again = Collector::new(store.clone());
        again.record(&session("and-more.example", true), NOON);
        again.flush().await.unwrap();
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let part = outgoing(store.as_ref(), Day(u32::MAX), after.as_ref(), 3_000)
                .await
                .unwrap();
            rows.extend(part.rows);
            after = part.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(rows.len(), DOMAINS_PER_DAY_MAX);
        let seventh = rows.iter().find(|row| row.domain == "d7.example").unwrap();
        assert_eq!(seventh.results.totals().successful, 2);
        assert_eq!(forget_before(store.as_ref(), Day(20_780)).await.unwrap(), 0);
        assert_eq!(
            forget_before(store.as_ref(), Day(20_781)).await.unwrap(),
            DOMAINS_PER_DAY_MAX
        );
    }
}
