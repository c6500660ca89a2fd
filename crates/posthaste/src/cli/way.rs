//! The way of a message as a delivery would find it, for `posthaste route` and `posthaste probe`: routes, the
//! DNS with DANE, the MTA-STS policy, our own addresses; and what would hold the mail up before it is tried.
//!
//! Promises: the ways are found by the same functions as in a delivery. What the server remembers (policies,
//! suspensions, suppressed addresses) is asked of it, or read in its store when it does not run. Never: a
//! change of that; a policy that has to be fetched is fetched for this answer alone.

use super::out::outln;
use super::route::{own, printable, random};
use super::{Failure, office};
use crate::args::DnsServer;
use crate::serve::ways;
use crate::settings::Settings;
use crate::world::{self, SystemClock};
use admin::words::{MtaStsOrder, SuppressionOrder};
use admin::{Request, Response};
use deliver::plan::Plan;
use deliver::security::Level;
use deliver::{Route, sts, way};
use mail::{Clock as _, EmailAddress, Host, ReversePath, date};
use mtasts::Entry;
use queue::{Suspended, Suspension};
use serde::Serialize;
use std::sync::Arc;

/// A way, or why there is none.
pub struct Found {
    pub plan: Result<Plan, deliver::Failure>,
    /// Where the MTA-STS policy that counts was had from; none where there is no policy.
    pub policy_from: Option<&'static str>,
}

/// What the server remembers of the MTA-STS policy of the recipient's domain.
pub fn remembered(settings: &Settings, host: &Host) -> Result<Option<Entry>, Failure> {
    let Some(domain) = host.domain().filter(|_| settings.deliver.mta_sts) else {
        return Ok(None);
    };
    if office::must_be_there(settings).is_err() {
        return Ok(None);
    }
    let domain = domain.clone();
    match office::perform(settings, Request::MtaSts(MtaStsOrder::Show { domain })) {
        Ok(Response::MtaStsOf(view)) => Ok(Some(view.entry)),
        Ok(_) => Err(another_version()),
        // Nothing is remembered.
        Err(Failure::No(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn another_version() -> Failure {
    Failure::store("the server answered something else; is it of the same version?")
}

/// Finds the way. `remembered` is what [`remembered`] answered.
pub async fn find(
    settings: &Settings,
    server: &DnsServer,
    routes: &[Route],
    from: &ReversePath,
    host: &Host,
    remembered: Option<Entry>,
) -> Result<Found, Failure> {
    let resolver: Arc<dyn dns::Resolver> = Arc::new(super::auth::resolver(settings, server)?);
    let own = own(settings)?;
    let mut plan = way::find(resolver.as_ref(), routes, &own, host, &mut random).await;
    let mut policy_from = None;
    if let Ok(found) = &mut plan
        && settings.deliver.mta_sts
    {
        // A store of its own, so that what is fetched here is not taken for what the server fetched.
        let policies = world::policies(
            settings,
            store::MemoryStore::new(),
            Arc::new(SystemClock),
            resolver,
        )?;
        if let Some(entry) = &remembered {
            let unusable = |e| Failure::store(format!("the remembered MTA-STS policy: {e}"));
            policies.memory().put(entry).await.map_err(unusable)?;
        }
        match sts::look_up(&policies, found, host).await {
            Ok(()) => {
                policy_from = found
                    .mta_sts
                    .applied
                    .as_ref()
                    .map(|applied| origin(applied, remembered))
            }
            Err(failure) => plan = Err(failure),
        }
    }
    let sender = from.address().and_then(EmailAddress::domain);
    let sources = ways::sources(settings)?;
    let plan = plan.and_then(|plan| sources.depart(plan, sender, &mut random));
    Ok(Found { plan, policy_from })
}

fn origin(applied: &mtasts::policies::Applied, remembered: Option<Entry>) -> &'static str {
    let held = remembered.and_then(|entry| entry.held);
    match held.is_some_and(|held| held.id == applied.id && held.until() == applied.until) {
        true => "the server remembers the MTA-STS policy",
        false => "the MTA-STS policy was fetched just now, for this answer alone",
    }
}

/// A level of TLS in a word, for programs.
pub fn level_name(level: &Level) -> &'static str {
    match level {
        Level::Clear => "none",
        Level::Opportunistic => "opportunistic",
        Level::Encrypted => "encrypted",
        Level::WebPki(_) => "verified",
        Level::Dane(_) => "dane",
    }
}

/// What would hold the mail up before a server is asked.
#[derive(Serialize)]
pub struct HeldUp {
    /// `wait` or `refuse`.
    what: &'static str,
    why: String,
    /// The end of it; none: until an operator ends it.
    until: Option<String>,
    remedy: String,
}

impl HeldUp {
    pub fn print(&self) {
        let would = match self.what {
            "refuse" => "it would be refused when it is sent",
            _ => "it would wait",
        };
        outln!("{would}, because {}", printable(&self.why));
        let end = self.until.as_deref().unwrap_or("somebody ends it");
        outln!("  until {end}, or: {}", self.remedy);
    }
}

/// Suspensions that mean this mail, and whether the address is suppressed for its sender. The login is taken
/// to be the sender's address.
pub fn held_up(settings: &Settings, from: &ReversePath, to: &EmailAddress) -> Result<Vec<HeldUp>, Failure> {
    if office::must_be_there(settings).is_err() {
        return Ok(Vec::new());
    }
    let now = SystemClock.now();
    let Response::Suspensions(suspensions) = office::perform(settings, Request::Suspensions)? else {
        return Err(another_version());
    };
    let host = to.host().to_string();
    let means = |s: &&Suspension| {
        let is_from = match &s.what {
            Suspended::Sender(sender) => {
                sender.fits_path(from, from.address().map(ToString::to_string).as_deref())
            }
            Suspended::Destination(_) => false,
        };
        s.is_in_force(now) && (is_from || s.is_to(&host))
    };
    let mut all: Vec<HeldUp> = suspensions.iter().filter(means).map(suspended).collect();
    let Some(login) = from.address().map(ToString::to_string) else {
        return Ok(all);
    };
    let order = SuppressionOrder::Find {
        login: login.clone(),
        address: to.clone(),
    };
    let Response::Suppressed(found) = office::perform(settings, Request::Suppression(order))? else {
        return Err(another_version());
    };
    all.extend(found.into_iter().map(|found| HeldUp {
        what: "refuse",
        why: format!(
            "{to} is suppressed for the login {login}: {} refused it on {} with: {}",
            found.host,
            date::iso8601(found.from),
            found.reply
        ),
        until: Some(date::iso8601(found.until)),
        remedy: format!("posthaste suppression remove {to}"),
    }));
    Ok(all)
}

fn suspended(suspension: &Suspension) -> HeldUp {
    let order = match &suspension.what {
        Suspended::Destination(domain) => format!("--domain {domain}"),
        Suspended::Sender(sender) => format!("--from {sender}"),
    };
    let why = suspension
        .why
        .as_ref()
        .map(|why| format!(" ({why})"))
        .unwrap_or_default();
    HeldUp {
        what: "wait",
        why: format!(
            "{} is suspended by {} since {}{why}",
            suspension.what,
            suspension.by,
            date::iso8601(suspension.since)
        ),
        until: suspension.until.map(date::iso8601),
        remedy: format!("posthaste queue resume {order}"),
    }
}
