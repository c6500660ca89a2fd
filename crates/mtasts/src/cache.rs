//! What is remembered of a domain, and what is to be done with it: a pure function of what the DNS
//! says now, what was fetched before, and the time.
//!
//! The rules (RFC 8461 §3.3, §5.1, §10.2):
//! - A policy that was fetched holds until its age is over, whatever becomes of the record in the DNS
//!   or of the policy host: who could take the record away could take the protection away.
//! - Another id in the record means another policy: it is fetched before mail goes.
//! - Where the fetch fails, the policy that holds goes on holding; without one, mail goes as to a
//!   domain that has none. The next fetch is tried after [`RETRY_AFTER`] at the earliest.
//! - Before its age is over a policy is fetched anew in the background, so that whoever blocks the
//!   policy host has to block it for long. When the record is gone for certain, it is not: then it
//!   was taken back (§8.3), and ends with its age.

use crate::fetch::Fault;
use crate::policy::Policy;
use crate::record::{Id, RecordFault};
use mail::{Domain, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// From a fetch that failed to the next (RFC 8461 §3.3: five minutes or longer).
pub const RETRY_AFTER: Duration = Duration::from_secs(5 * 60);
/// A policy that is meant to hold for a shorter time holds for this, so that not each message has it
/// fetched.
pub const HELD_MIN: Duration = Duration::from_secs(5 * 60);
/// How old a policy grows before the background fetches it anew; a short-lived one half its age.
pub const REFRESH_AFTER: Duration = Duration::from_secs(86_400);
/// For how long after its last use a policy is kept fresh in the background.
pub const FRESH_FOR: Duration = Duration::from_secs(30 * 86_400);
/// How exactly the last use is known; so often is it written at most.
pub const USE_GRAIN: Duration = Duration::from_secs(86_400);

/// A policy that was fetched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// What the record said when it was fetched.
    pub id: Id,
    /// The policy.
    pub policy: Policy,
    /// When it was fetched.
    pub fetched: Timestamp,
}

impl Held {
    /// Until when it holds.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.fetched.plus(self.policy.max_age().max(HELD_MIN))
    }

    fn refresh_at(&self) -> Timestamp {
        let half = self.policy.max_age().max(HELD_MIN) / 2;
        self.fetched.plus(half.min(REFRESH_AFTER))
    }
}

/// A fetch that was tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tried {
    /// When.
    pub at: Timestamp,
    /// What went wrong; `None` when it went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// What is remembered of a domain. Names of fields are stored: add with a default, never rename.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Whose.
    pub domain: Domain,
    /// The policy that was fetched last; it may be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// The fetch that was tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Tried>,
    /// When mail went there, to within [`USE_GRAIN`].
    pub used: Timestamp,
}

impl Entry {
    /// Nothing but the name.
    #[must_use]
    pub fn new(domain: Domain, now: Timestamp) -> Self {
        Self {
            domain,
            held: None,
            tried: None,
            used: now,
        }
    }

    /// The policy, while it holds.
    #[must_use]
    pub fn holding(&self, now: Timestamp) -> Option<&Held> {
        self.held.as_ref().filter(|held| held.until() > now)
    }

    /// What went wrong at the last fetch, when something did.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.tried.as_ref()?.fault.as_ref()
    }

    /// When the next fetch may be tried; the past when it may be now.
    #[must_use]
    pub fn next_fetch(&self) -> Timestamp {
        match &self.tried {
            Some(Tried { at, fault: Some(_) }) => at.plus(RETRY_AFTER),
            _ => Timestamp::default(),
        }
    }

    /// Whether nothing is lost when it is forgotten.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.holding(now).is_none() && self.used.plus(FRESH_FOR) <= now
    }

    /// Takes in what a fetch gave. A policy that is refused leaves the one that holds in place.
    pub fn take(&mut self, id: Id, fetched: Result<Policy, Fault>, now: Timestamp) {
        let fault = match fetched {
            Ok(policy) => {
                self.held = Some(Held {
                    id,
                    policy,
                    fetched: now,
                });
                None
            }
            Err(fault) => Some(fault),
        };
        self.tried = Some(Tried { at: now, fault });
    }
}

/// What the DNS says of a domain's record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// There is a policy, of this id.
    Id(Id),
    /// There is no record.
    Absent,
    /// There is something, but nothing that counts (RFC 8461 §3.1).
    Faulty(RecordFault),
    /// The DNS could not be asked.
    Unknown,
}

/// What is to be done before mail goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing: what holds, holds.
    Keep,
    /// The policy is to be fetched, and to be kept under this id.
    Fetch(Id),
}

/// What is to be done before mail goes to a domain.
#[must_use]
pub fn before_mail(entry: Option<&Entry>, seen: &Seen, now: Timestamp) -> Step {
    let Seen::Id(id) = seen else {
        return Step::Keep;
    };
    let is_known = entry
        .and_then(|e| e.holding(now))
        .is_some_and(|held| held.id == *id);
    let is_too_early = entry.is_some_and(|e| e.next_fetch() > now);
    if is_known || is_too_early {
        return Step::Keep;
    }
    Step::Fetch(id.clone())
}

/// What is to be done in the background.
#[must_use]
pub fn in_background(entry: &Entry, seen: &Seen, now: Timestamp) -> Step {
    if !is_refresh_due(entry, now) {
        return Step::Keep;
    }
    let held_id = entry.held.as_ref().map(|held| &held.id);
    match (seen, held_id) {
        (Seen::Id(id), _) => Step::Fetch(id.clone()),
        (Seen::Unknown, Some(id)) => Step::Fetch(id.clone()),
        (Seen::Absent | Seen::Faulty(_) | Seen::Unknown, _) => Step::Keep,
    }
}

/// Whether the background has to look after a domain: mail goes there, and its policy grows old.
#[must_use]
pub fn is_refresh_due(entry: &Entry, now: Timestamp) -> bool {
    let is_old = entry.holding(now).is_some_and(|held| held.refresh_at() <= now);
    is_old && entry.used.plus(FRESH_FOR) > now && entry.next_fetch() <= now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Mode, Pattern};

    const NOW: Timestamp = Timestamp::from_secs(1_795_439_053);
    const DAY: u64 = 86_400;

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    fn seen(text: &str) -> Seen {
        Seen::Id(id(text))
    }

    fn after(secs: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(secs))
    }

    fn entry(max_age_secs: u64) -> Entry {
        let domain = Domain::parse("example.com").unwrap();
        let mut entry = Entry::new(domain.clone(), NOW);
        let policy = Policy {
            mode: Mode::Enforce,
            mx: vec![Pattern::host(domain)],
            max_age_secs,
        };
        entry.take(id("1"), Ok(policy), NOW);
        entry
    }

    #[test]
    fn the_first_policy() {
        assert_eq!(before_mail(None, &seen("1"), NOW), Step::Fetch(id("1")));
        for nothing in [Seen::Absent, Seen::Unknown, Seen::Faulty(RecordFault::Several(2))] {
            assert_eq!(before_mail(None, &nothing, NOW), Step::Keep);
        }
    }

    #[test]
    fn a_policy_holds_whatever_the_dns_says() {
        let held = entry(7 * DAY);
        for seen in [
            seen("1"),
            Seen::Absent,
            Seen::Unknown,
            Seen::Faulty(RecordFault::NoId),
        ] {
            for secs in [0, 3 * DAY, 7 * DAY - 1] {
                assert_eq!(before_mail(Some(&held), &seen, after(secs)), Step::Keep);
                assert!(held.holding(after(secs)).is_some());
            }
        }
        assert_eq!(
            before_mail(Some(&held), &seen("2"), after(1)),
            Step::Fetch(id("2"))
        );
        let over = after(7 * DAY);
        assert!(held.holding(over).is_none());
        assert_eq!(before_mail(Some(&held), &seen("1"), over), Step::Fetch(id("1")));
        assert_eq!(before_mail(Some(&held), &Seen::Absent, over), Step::Keep);
    }

    #[test]
    fn a_failed_fetch_is_not_repeated_at_once_and_changes_nothing() {
        let mut held = entry(7 * DAY);
        held.take(id("2"), Err(Fault::fetch("down")), after(100));
        assert_eq!(held.held.as_ref().map(|h| h.id.as_str()), Some("1"));
        assert_eq!(held.holding(after(100)).map(|h| h.until()), Some(after(7 * DAY)));
        assert_eq!(before_mail(Some(&held), &seen("2"), after(399)), Step::Keep);
        assert_eq!(
            before_mail(Some(&held), &seen("2"), after(400)),
            Step::Fetch(id("2"))
        );
        let mut fresh = Entry::new(held.domain.clone(), NOW);
        fresh.take(id("2"), Err(Fault::fetch("down")), NOW);
        assert_eq!(before_mail(Some(&fresh), &seen("2"), after(299)), Step::Keep);
        assert_eq!(
            before_mail(Some(&fresh), &seen("2"), after(300)),
            Step::Fetch(id("2"))
        );
    }

    #[test]
    fn a_policy_is_fetched_anew_before_it_ends() {
        for (max_age, from) in [(7 * DAY, DAY), (DAY, DAY / 2), (0, 150)] {
            let held = entry(max_age);
            assert!(!is_refresh_due(&held, after(from - 1)), "{max_age}");
            assert!(is_refresh_due(&held, after(from)), "{max_age}");
        }
        let held = entry(7 * DAY);
        let due = after(2 * DAY);
        for (seen, step) in [
            (seen("1"), Step::Fetch(id("1"))),
            (seen("2"), Step::Fetch(id("2"))),
            (Seen::Unknown, Step::Fetch(id("1"))),
            (Seen::Absent, Step::Keep),
            (Seen::Faulty(RecordFault::NoId), Step::Keep),
        ] {
            assert_eq!(in_background(&held, &seen, due), step, "{seen:?}");
        }
        assert_eq!(in_background(&held, &seen("1"), NOW), Step::Keep, "it is new");
        let long = entry(300 * DAY);
        assert!(!is_refresh_due(&long, after(31 * DAY)), "no mail goes there");
        assert!(!long.is_over(after(31 * DAY)));
        assert!(held.is_over(after(31 * DAY)));
        assert!(!held.is_over(after(8 * DAY)));
    }

    #[test]
    fn stored_forms_stay_readable() {
        let stored = r#"{"domain":"example.com","held":{"id":"1","policy":{"mode":"enforce","mx":["example.com"],"max_age_secs":604800},"fetched":1795439053000000},"tried":{"at":1795439053000000},"used":1795439053000000}"#;
        let held = entry(7 * DAY);
        assert_eq!(serde_json::to_string(&held).unwrap(), stored);
        assert_eq!(serde_json::from_str::<Entry>(stored).unwrap(), held);
        let least: Entry = serde_json::from_str(r#"{"domain":"example.com","used":0}"#).unwrap();
        assert_eq!(least.held, None);
    }
}
