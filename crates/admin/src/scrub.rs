//! The background scrub: every row and every octet of every blob is read once in so many days, a
//! little at a time, for rot to be found while a backup still has what it ate.
//!
//! Promises: what it reads is bounded by a rate that follows from the size of the store and the
//! days it has; its place and what it found survive restarts; a finding goes to the log at once, at
//! error level. Never: a repair; more than one short read at a time.

use crate::audit::{FindingRow, Names};
use crate::{Office, keys};
use mail::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use store::{Batch, CommitError, LogStore, ReadError, Scrubbed, Tables as _};

const VERSION: u8 = 1;
/// Findings that are kept of a round at most; all are in the log.
pub const FINDINGS_KEPT: usize = 100;
/// Octets that one step reads at least and at most.
const STEP_OCTETS: (u64, u64) = (64 * 1024, 8 << 20);
/// The time between two steps at least and at most.
const STEP_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// How often its place is written down.
pub const SAVED_EVERY: Duration = Duration::from_secs(600);

/// Where the scrub stands and what it found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Scrub {
    /// The row from which it goes on, in hexadecimal digits; empty: a round begins.
    #[serde(default)]
    pub cursor: String,
    /// When this round began.
    #[serde(default)]
    pub began: Option<Timestamp>,
    /// Rows read in this round.
    #[serde(default)]
    pub rows: u64,
    /// Octets read in this round.
    #[serde(default)]
    pub octets: u64,
    /// What this round found so far, the first [`FINDINGS_KEPT`].
    #[serde(default)]
    pub findings: Vec<FindingRow>,
    /// The last round that came to its end.
    #[serde(default)]
    pub last: Option<Round>,
}

/// A round through the whole store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Round {
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Rows read.
    pub rows: u64,
    /// Octets read.
    pub octets: u64,
    /// What it found, the first [`FINDINGS_KEPT`].
    pub findings: Vec<FindingRow>,
}

/// How much is read at once and how often, so that `octets` are read within `days`: at most 8 MiB a
/// second, and a small store more often than it must be.
#[must_use]
pub fn plan(octets: u64, days: u64) -> (u64, Duration) {
    let secs = days.saturating_mul(86_400).max(1);
    // A tenth more than must be, so that restarts don't make a round late.
    let rate = (octets.saturating_add(octets / 10) / secs).max(1);
    let (least, most) = STEP_OCTETS;
    let step = rate.clamp(least, most);
    let (soonest, latest) = STEP_EVERY;
    let every = Duration::from_secs(step / rate).clamp(soonest, latest);
    (step, every)
}

/// What is written down of the scrub.
///
/// # Errors
/// When the store cannot be read. What can't be understood counts as nothing.
pub async fn read(store: &LogStore) -> Result<Option<Scrub>, ReadError> {
    let snapshot = store.snapshot().await?;
    let found = match snapshot.get(&keys::scrub()).await {
        Err(ReadError::Corrupt(_)) => None,
        found => found?,
    };
    Ok(found.and_then(|stored| match &stored.value[..] {
        [VERSION, json @ ..] => serde_json::from_slice(json).ok(),
        _ => None,
    }))
}

impl Scrub {
    /// Writes it down.
    ///
    /// # Errors
    /// What the store says.
    pub async fn save(&self, store: &LogStore) -> Result<(), CommitError> {
        let mut value = vec![VERSION];
        if serde_json::to_writer(&mut value, self).is_err() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(keys::scrub(), value);
        store.commit(batch).await.map(drop)
    }

    /// Does the next step, on a thread that may wait for the disk. Answers whether the round ended.
    ///
    /// # Errors
    /// When the store cannot be read just now.
    pub async fn step(&mut self, office: &Office, octets: u64) -> Result<bool, ReadError> {
        let now = office.clock.now();
        let began = *self.began.get_or_insert(now);
        let from = octets_of(&self.cursor);
        let store = office.store.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut findings = Vec::new();
            let done = store.scrub(&from, octets, &mut |finding| findings.push(finding));
            done.map(|done| (done, findings))
        });
        let (done, findings): (Scrubbed, Vec<_>) = done
            .await
            .unwrap_or_else(|error| Err(ReadError::Io(error.to_string())))?;
        for finding in findings {
            let row = FindingRow::of(&finding, &Names::default());
            tracing::error!(
                code = row.code,
                place = row.place,
                what = row.what,
                "the scrub found damage: {}",
                row.remedy
            );
            if self.findings.len() < FINDINGS_KEPT {
                self.findings.push(row);
            }
        }
        self.rows += done.rows;
        self.octets += done.octets;
        if let Some(next) = done.next {
            self.cursor = digits_of(&next);
            return Ok(false);
        }
        let last = Round {
            began,
            ended: office.clock.now(),
            rows: self.rows,
            octets: self.octets,
            findings: std::mem::take(&mut self.findings),
        };
        *self = Self {
            last: Some(last),
            ..Self::default()
        };
        Ok(true)
    }
}

fn digits_of(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn octets_of(digits: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map_while(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_read_in_its_days() {
        for octets in [1_000_000, 1 << 30, 1 << 40, 5 << 40] {
            for days in [1, 14, 365] {
                let (step, every) = plan(octets, days);
                let read = step as f64 * (days * 86_400) as f64 / every.as_secs_f64();
                let full = (8u64 << 20) * days * 86_400;
                assert!(
                    read >= octets.min(full) as f64,
                    "{octets} octets in {days} days: {step} every {every:?}"
                );
            }
        }
    }

    #[test]
    fn it_is_gentle() {
        let (step, every) = plan(1 << 40, 14);
        let rate = step as f64 / every.as_secs_f64();
        assert!(rate < 1.2e6, "a TiB in 14 days is about 1 MB/s: {rate}");
        assert_eq!(plan(0, 14), (64 * 1024, Duration::from_secs(600)));
        assert_eq!(plan(u64::MAX, 1).0, 8 << 20);
    }

    #[test]
    fn a_cursor_comes_back() {
        for cursor in [vec![], vec![1, 0, 255, 16]] {
            assert_eq!(octets_of(&digits_of(&cursor)), cursor);
        }
    }
}
