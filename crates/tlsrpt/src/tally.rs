//! Counting: conversations of one day with the servers of one domain.
//!
//! Pure. Promises: however many different failures there are, what is kept of a day and domain is
//! bounded; a conversation beyond the bounds is still counted as far as there is a place for it.

use crate::clean;
use crate::report::{Detail, PolicyResults, Summary};
use crate::result::Session;
use serde::{Deserialize, Serialize};

/// Policies of a domain in a day at most (a policy that changes is another one). Conversations under
/// further ones are only counted as left out.
pub const POLICIES_MAX: usize = 4;
/// Kinds of failure of one policy in a day at most that are told apart (reason, host, addresses).
/// Further ones count in the sum alone.
pub const DETAILS_MAX: usize = 50;

/// How a day with one domain went.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DayResults {
    /// Policy by policy, [`POLICIES_MAX`] at most.
    pub policies: Vec<PolicyResults>,
    /// Conversations under further policies.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl DayResults {
    /// Counts one conversation.
    pub fn add(&mut self, session: &Session) {
        let Some(place) = self.place(
            |one| one.policy == *session.policy,
            || PolicyResults {
                policy: session.policy.as_ref().clone(),
                summary: Summary::default(),
                details: Vec::new(),
            },
        ) else {
            self.left_out += 1;
            return;
        };
        let Err(failure) = &session.result else {
            place.summary.successful += 1;
            return;
        };
        place.summary.failed += 1;
        note(
            &mut place.details,
            Detail {
                result: failure.result.clone(),
                sending_ip: session.sending_ip,
                receiving_host: session.host.as_deref().map(clean),
                receiving_helo: None,
                receiving_ip: session.ip,
                failed: 1,
                additional: None,
                reason: failure.reason.as_deref().map(clean),
            },
        );
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: DayResults) {
        self.left_out += other.left_out;
        for more in other.policies {
            let Some(place) = self.place(
                |one| one.policy == more.policy,
                || PolicyResults {
                    policy: more.policy.clone(),
                    summary: Summary::default(),
                    details: Vec::new(),
                },
            ) else {
                self.left_out += more.summary.successful + more.summary.failed;
                continue;
            };
            place.summary.successful += more.summary.successful;
            place.summary.failed += more.summary.failed;
            for detail in more.details {
                note(&mut place.details, detail);
            }
        }
    }

    /// The policy that is meant; a new one while there is room.
    fn place(
        &mut self,
        is_it: impl Fn(&PolicyResults) -> bool,
        new: impl FnOnce() -> PolicyResults,
    ) -> Option<&mut PolicyResults> {
        let known = self.policies.iter().position(is_it);
        let place = match known {
            Some(place) => place,
            None if self.policies.len() < POLICIES_MAX => {
                self.policies.push(new());
                self.policies.len() - 1
            }
            None => return None,
        };
        self.policies.get_mut(place)
    }

    /// Conversations that went well, and that failed.
    #[must_use]
    pub fn totals(&self) -> Summary {
        self.policies.iter().fold(Summary::default(), |sum, one| Summary {
            successful: sum.successful + one.summary.successful,
            failed: sum.failed + one.summary.failed,
        })
    }
}

fn note(details: &mut Vec<Detail>, detail: Detail) {
    let known = details.iter().position(|known| known.is_like(&detail));
    match known {
        Some(place) => details[place].failed += detail.failed,
        None if details.len() < DETAILS_MAX => details.push(detail),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Failure, Policy, PolicyType, ResultType};
    use mail::Domain;
    use std::sync::Arc;

    fn session(policy: &Arc<Policy>, host: &str, result: Result<(), Failure>) -> Session {
        Session {
            policy: policy.clone(),
            host: Some(host.to_owned()),
            ip: "192.0.2.1".parse().ok(),
            sending_ip: None,
            result,
        }
    }

    #[test]
    fn alike_is_counted_together() {
        let domain = Domain::parse("example.org").unwrap();
        let none = Arc::new(Policy::none(&domain));
        let expired = || Err(Failure::because(ResultType::CertificateExpired, "yesterday"));
        let mut day = DayResults::default();
        day.add(&session(&none, "mx1.example.org", Ok(())));
        day.add(&session(&none, "mx1.example.org", expired()));
        day.add(&session(&none, "mx1.example.org", expired()));
        day.add(&session(&none, "mx2.example.org", expired()));
        let [only] = day.policies.as_slice() else {
            panic!("one policy")
        };
        assert_eq!((only.summary.successful, only.summary.failed), (1, 3));
        let counts: Vec<u64> = only.details.iter().map(|d| d.failed).collect();
        assert_eq!(counts, [2, 1]);
        let mut twice = day.clone();
        twice.merge(day);
        assert_eq!(twice.totals().failed, 6);
        assert_eq!(twice.policies[0].details[0].failed, 4);
    }

    #[test]
    fn a_day_is_bounded() {
        let domain = Domain::parse("example.org").unwrap();
        let mut day = DayResults::default();
        for n in 0..POLICIES_MAX + 2 {
            let lines = vec![format!("max_age: {n}")];
            let policy = Arc::new(Policy::of(PolicyType::Sts, &domain, lines, Vec::new()));
            for host in 0..DETAILS_MAX + 10 {
                let failure = Failure::new(ResultType::ValidationFailure);
                day.add(&session(&policy, &format!("mx{host}.example.org"), Err(failure)));
            }
        }
        assert_eq!(day.policies.len(), POLICIES_MAX);
        for one in &day.policies {
            assert_eq!(one.details.len(), DETAILS_MAX);
            assert_eq!(one.summary.failed, (DETAILS_MAX + 10) as u64);
        }
        assert_eq!(day.left_out, 2 * (DETAILS_MAX + 10) as u64);
        let json = serde_json::to_vec(&day).unwrap();
        assert_eq!(serde_json::from_slice::<DayResults>(&json).unwrap(), day);
    }
}
