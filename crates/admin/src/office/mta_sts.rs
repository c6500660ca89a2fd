//! Questions about MTA-STS: what is remembered of other domains, and what is published for our own.

use super::Office;
use crate::words::{MtaSts, MtaStsOrder, MtaStsView, Refusal, Response};
use directory::DomainRecord;
use mail::{Domain, Timestamp};
use mtasts::{Entry, Policy, hosted};

/// Domains that one answer lists at most; the rest by further questions.
const ROWS_MAX: usize = 1_000;

impl Office {
    pub(super) async fn mta_sts(&self, order: MtaStsOrder) -> Result<Response, Refusal> {
        match order {
            MtaStsOrder::List { after } => {
                let now = self.clock.now();
                let entries = self.mta_sts.entries(after.as_ref(), ROWS_MAX).await?;
                let next = entries.last().map(|entry| entry.domain.clone());
                let next = next.filter(|_| entries.len() == ROWS_MAX);
                let rows = entries.into_iter().map(|entry| view(entry, now)).collect();
                Ok(Response::MtaSts(MtaSts { rows, next }))
            }
            MtaStsOrder::Show { domain } => match self.mta_sts.entry(&domain).await? {
                Some(entry) => Ok(Response::MtaStsOf(Box::new(view(entry, self.clock.now())))),
                None => Err(Refusal::not_found(format!(
                    "nothing is remembered of {domain}: no mail went there, or it has no record at _mta-sts.{domain}"
                ))),
            },
            MtaStsOrder::Refresh { domain } => self.refresh(&domain).await,
            MtaStsOrder::Policy { domain } => self.policy_of_ours(&domain).await,
        }
    }

    async fn refresh(&self, domain: &Domain) -> Result<Response, Refusal> {
        let Some(policies) = &self.policies else {
            return Err(Refusal::invalid(
                "policies are fetched by the running server: start it with posthaste serve",
            ));
        };
        match policies.refresh(domain).await? {
            Some(entry) => Ok(Response::MtaStsOf(Box::new(view(entry, self.clock.now())))),
            None => Err(Refusal::not_found(format!(
                "{domain} has no MTA-STS record at _mta-sts.{domain}, or not exactly one that is well-formed"
            ))),
        }
    }

    async fn policy_of_ours(&self, domain: &Domain) -> Result<Response, Refusal> {
        let record = self.directory.domain(domain).await?;
        let record = record.ok_or_else(|| directory::Error::NoSuchDomain(domain.to_string()))?;
        match self.hosted_policy(&record) {
            Some(policy) => Ok(Response::MtaStsPolicy(policy.to_body())),
            None => Err(Refusal::not_found(format!(
                "{domain} publishes no MTA-STS policy; begin with: posthaste domain set {domain} --mta-sts testing"
            ))),
        }
    }

    /// The policy that a domain of ours publishes.
    pub(super) fn hosted_policy(&self, record: &DomainRecord) -> Option<Policy> {
        let sts = record.settings.mta_sts.as_ref()?;
        hosted::policy(sts.mode.as_str(), &sts.mx, sts.max_age_secs, &self.hostname)
    }
}

fn view(entry: Entry, now: Timestamp) -> MtaStsView {
    let until = entry.held.as_ref().map(mtasts::cache::Held::until);
    MtaStsView {
        holds: entry.holding(now).is_some(),
        until,
        next_fetch: Some(entry.next_fetch()).filter(|at| *at > now),
        entry,
    }
}

impl From<mtasts::Error> for Refusal {
    fn from(error: mtasts::Error) -> Self {
        Self::failed(error)
    }
}
