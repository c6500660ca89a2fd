//! Mail that waits because its destination or its sender is suspended.

use super::Office;
use super::queued::{OPERATOR, plain};
use crate::words::{Refusal, Response};
use mail::date;
use queue::{Errand, Message, Suspended, Suspension};
use std::time::Duration;

/// The longest suspension that says its end: ten years.
const SECS_MAX: u64 = 3_660 * 86_400;

impl Office {
    pub(super) async fn suspend_mail(
        &self,
        what: Suspended,
        secs: Option<u64>,
        why: Option<String>,
        by: Option<String>,
    ) -> Result<Response, Refusal> {
        let since = self.clock.now();
        let by = by.unwrap_or_else(|| OPERATOR.to_owned());
        plain("the name of who orders", &by)?;
        if let Some(why) = &why {
            plain("the reason", why)?;
        }
        if secs.is_some_and(|secs| !(1..=SECS_MAX).contains(&secs)) {
            return Err(Refusal::invalid("a suspension lasts from a second to ten years"));
        }
        let suspension = Suspension {
            what,
            since,
            until: secs.map(|secs| since.plus(Duration::from_secs(secs))),
            by,
            why,
        };
        match self.queue.suspend(&suspension).await {
            Err(error @ queue::Error::Limit { .. }) => {
                let what_to_do = "; end some: posthaste queue resume";
                return Err(Refusal::invalid(format!("{error}{what_to_do}")));
            }
            done => done?,
        }
        Ok(Response::Done(format!(
            "{} now waits {}",
            suspension.what,
            end(&suspension)
        )))
    }

    pub(super) async fn resume_mail(&self, what: &Suspended) -> Result<Response, Refusal> {
        match self.queue.resume(what).await? {
            true => Ok(Response::Done(format!("{what} goes on"))),
            false => Err(Refusal::not_found(format!(
                "{what} is not suspended; see: posthaste queue status"
            ))),
        }
    }

    pub(super) async fn suspensions(&self) -> Result<Response, Refusal> {
        Ok(Response::Suspensions(self.suspensions_now().await?))
    }

    /// Those in force.
    pub(super) async fn suspensions_now(&self) -> Result<Vec<Suspension>, Refusal> {
        let now = self.clock.now();
        let all = self.queue.suspensions().await?;
        Ok(all.iter().filter(|s| s.is_in_force(now)).cloned().collect())
    }
}

/// Why an open errand waits, when it is suspended.
pub(super) fn why(errand: &Errand, message: &Message, in_force: &[Suspension]) -> Option<String> {
    let host = errand.recipient.host().to_string();
    let by = in_force.iter().find(|s| s.is_to(&host) || s.is_from(message))?;
    let order = match &by.what {
        Suspended::Destination(domain) => format!("--domain {domain}"),
        Suspended::Sender(sender) => format!("--from {sender}"),
    };
    let why = by.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    Some(format!(
        "{} is suspended by {} since {}{why}; it waits {}, or: posthaste queue resume {order}",
        by.what,
        by.by,
        date::iso8601(by.since),
        end(by),
    ))
}

fn end(suspension: &Suspension) -> String {
    match suspension.until {
        Some(until) => format!("until {}", date::iso8601(until)),
        None => "until it is resumed".to_owned(),
    }
}
