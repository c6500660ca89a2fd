//! Reports that other servers send about our domains, as they are kept: what they say about one domain,
//! bounded in number and size, for a while.

use crate::collect::{decode, encode};
use crate::report::Report;
use crate::tally::{DETAILS_MAX, POLICIES_MAX};
use crate::{Day, Error, keys, number_of};
use mail::{Domain, QueueId, Timestamp};
use serde::{Deserialize, Serialize};
use store::{Batch, Key, Store};

/// Reports about one domain that are kept of those that arrive in a day, at most. A further one goes to
/// the mailbox only.
pub const PER_DOMAIN_AND_DAY_MAX: usize = 200;
/// Days that a report is kept.
pub const DAYS_KEPT: u32 = 60;
/// Octets of a kept report at most; details are left out until it fits.
const KEPT_OCTETS_MAX: usize = 32 * 1024;
/// Rows that are read or removed at once.
const PAGE: usize = 200;

/// A report as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Our domain that it is about.
    pub domain: Domain,
    /// When it came.
    pub received: Timestamp,
    /// The message that brought it.
    pub message: QueueId,
    /// Whose DKIM signature vouches for it.
    pub signed_by: String,
    /// Failure details that were left out for their number or size.
    #[serde(default)]
    pub details_left_out: usize,
    /// What it says about the domain.
    pub report: Report,
}

impl Kept {
    /// What a report says about one domain, cut to what is kept. `None` when it says nothing about it.
    #[must_use]
    pub fn of(
        report: &Report,
        domain: &Domain,
        signed_by: &str,
        message: QueueId,
        received: Timestamp,
    ) -> Option<Self> {
        let about = |name: &str| Domain::parse(name).is_ok_and(|name| name == *domain);
        let mut report = report.clone();
        report.policies.retain(|one| about(&one.policy.domain));
        if report.policies.is_empty() {
            return None;
        }
        report.policies.truncate(POLICIES_MAX);
        let mut kept = Self {
            domain: domain.clone(),
            received,
            message,
            signed_by: crate::clean(signed_by),
            details_left_out: 0,
            report,
        };
        let mut most = DETAILS_MAX;
        kept.cut_to(most);
        while most > 0 && serde_json::to_vec(&kept).map_or(0, |json| json.len()) > KEPT_OCTETS_MAX {
            most /= 2;
            kept.cut_to(most);
        }
        Some(kept)
    }

    /// Keeps so many details and lines of each policy; of the details the most frequent.
    fn cut_to(&mut self, most: usize) {
        for one in &mut self.report.policies {
            one.details.sort_by_key(|detail| std::cmp::Reverse(detail.failed));
            self.details_left_out += one.details.len().saturating_sub(most);
            one.details.truncate(most);
            one.policy.strings.truncate(most);
            one.policy.mx_hosts.truncate(most);
        }
    }

    /// Two reports of one signer with one name are the same report.
    fn key(&self) -> Key {
        let number = number_of(&[&self.signed_by, &self.report.id]);
        keys::received_on(self.domain.as_str(), Day::of(self.received)).u64(number)
    }
}

/// Adds a report to the batch that accepts its message. `false`: there are too many of the domain and
/// day already.
///
/// # Errors
/// When the store cannot be read.
pub async fn add_received(store: &dyn Store, batch: &mut Batch, kept: &Kept) -> Result<bool, Error> {
    let key = kept.key();
    let snapshot = store.snapshot().await?;
    if snapshot.get(&key).await?.is_none() {
        let of_day = keys::received_on(kept.domain.as_str(), Day::of(kept.received)).prefix_range();
        if snapshot.scan(&of_day, PER_DOMAIN_AND_DAY_MAX).await?.len() >= PER_DOMAIN_AND_DAY_MAX {
            return Ok(false);
        }
    }
    batch.put(key.clone(), encode(&key, kept)?);
    Ok(true)
}

/// Reports that are kept, about one domain or all, the newest first, `limit` of them at most.
///
/// # Errors
/// When the store cannot be read.
pub async fn received(store: &dyn Store, domain: Option<&Domain>, limit: usize) -> Result<Vec<Kept>, Error> {
    let snapshot = store.snapshot().await?;
    let mut range = match domain {
        Some(domain) => keys::received_about(domain.as_str()),
        None => keys::all_received(),
    }
    .prefix_range();
    let mut newest: Vec<Kept> = Vec::new();
    loop {
        let rows = snapshot.scan_back(&range, PAGE).await?;
        let Some((last, _)) = rows.last() else { break };
        range = range.before(last);
        for (key, stored) in &rows {
            newest.push(decode(key, &stored.value)?);
        }
        newest.sort_by_key(|kept| std::cmp::Reverse(kept.received));
        newest.truncate(limit);
        // Of one domain they stand in the order of their days.
        if domain.is_some() && newest.len() == limit {
            break;
        }
    }
    Ok(newest)
}

/// Forgets reports that came more than [`DAYS_KEPT`] days ago.
///
/// # Errors
/// When the store failed.
pub async fn forget_received(store: &dyn Store, now: Timestamp) -> Result<(), Error> {
    let oldest = Day(Day::of(now).0.saturating_sub(DAYS_KEPT));
    let mut range = keys::all_received().prefix_range();
    loop {
        let rows = store.snapshot().await?.scan(&range, PAGE).await?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        range = range.after(last);
        let mut batch = Batch::new();
        for (key, _) in &rows {
            if keys::received_parts(key).is_none_or(|(_, day, _)| day < oldest) {
                batch.delete(key.clone());
            }
        }
        if !batch.is_empty() {
            store.commit(batch).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use store::{MemoryStore, Tables as _};

    const NOON: Timestamp = Timestamp::from_secs(20_780 * 86_400 + 43_200);
    const DAY: Duration = Duration::from_secs(86_400);

    fn d(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn kept(id: &str, received: Timestamp) -> Kept {
        let json = include_bytes!("../tests/data/rfc8460-appendix-b.json");
        let mut report = Report::parse(json).unwrap();
        report.id = id.to_owned();
        let domain = d("company-y.example");
        Kept::of(&report, &domain, "company-x.example", QueueId(7), received).unwrap()
    }

    async fn add(store: &MemoryStore, kept: &Kept) -> bool {
        let mut batch = Batch::new();
        let added = add_received(store, &mut batch, kept).await.unwrap();
        if added {
            store.commit(batch).await.unwrap();
        }
        added
    }

    #[tokio::test]
    async fn reports_are_kept_once_newest_first_for_a_while() {
        let store = MemoryStore::new();
        for (id, days) in [("a", 0), ("b", 1), ("a", 0), ("c", 2)] {
            assert!(add(&store, &kept(id, NOON.plus(DAY * days))).await);
        }
        let ids = async |limit| -> Vec<String> {
            let domain = d("company-y.example");
            let one = received(store.as_ref(), Some(&domain), limit).await.unwrap();
            let all = received(store.as_ref(), None, limit).await.unwrap();
            assert_eq!(one, all);
            all.into_iter().map(|kept| kept.report.id).collect()
        };
        assert_eq!(ids(10).await, ["c", "b", "a"]);
        assert_eq!(ids(2).await, ["c", "b"]);
        let later = NOON.plus(DAY * (DAYS_KEPT + 1));
        forget_received(store.as_ref(), later).await.unwrap();
        assert_eq!(ids(10).await, ["c", "b"]);
        let other = d("company-x.example");
        assert!(
            received(store.as_ref(), Some(&other), 9)
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_day_takes_so_many() {
        let store = MemoryStore::new();
        for n in 0..PER_DOMAIN_AND_DAY_MAX {
            assert!(add(&store, &kept(&n.to_string(), NOON)).await);
        }
        assert!(!add(&store, &kept("more", NOON)).await);
        assert!(add(&store, &kept("7", NOON)).await, "the same one again");
        assert!(add(&store, &kept("more", NOON.plus(DAY))).await);
    }

    #[test]
    fn only_what_is_about_the_domain_is_kept_and_not_more_than_fits() {
        let json = include_bytes!("../tests/data/rfc8460-appendix-b.json");
        let mut report = Report::parse(json).unwrap();
        let about = |report: &Report, domain: &str| Kept::of(report, &d(domain), "x", QueueId(1), NOON);
        assert!(about(&report, "company-x.example").is_none());
        let mut other = report.policies[0].clone();
        other.policy.domain = "other.example".into();
        report.policies.push(other);
        assert_eq!(
            about(&report, "company-y.example").unwrap().report.policies.len(),
            1
        );
        let detail = report.policies[0].details[0].clone();
        let many = (0..900).map(|n| crate::Detail {
            failed: n,
            reason: Some("x".repeat(500)),
            additional: Some("y".repeat(500)),
            ..detail.clone()
        });
        report.policies[0].details = many.collect();
        let kept = about(&report, "company-y.example").unwrap();
        assert!(serde_json::to_vec(&kept).unwrap().len() <= KEPT_OCTETS_MAX);
        let details = &kept.report.policies[0].details;
        assert_eq!(details.len() + kept.details_left_out, 900);
        assert_eq!(details[0].failed, 899, "the most frequent stay");
    }
}
