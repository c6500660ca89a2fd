//! Which site a domain's mail goes to: the set of its exchangers.
//!
//! A thousand domains at one provider are one site. What the DNS said is believed for a while, since it
//! only decides what is counted together: each attempt asks anew where to go.

use crate::control::Limits;
use crate::lanes::Site;
use crate::plan::Plan;
use crate::route::{RouteFor, ServerName};
use crate::service::{Context, Options};
use crate::waiting::Waiting;
use crate::way;
use mail::Host;
use queue::Due;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a domain's site is believed.
const BELIEVED: Duration = Duration::from_secs(600);
/// The same, where it could not be found out.
const BELIEVED_UNFOUND: Duration = Duration::from_secs(60);
/// Domains that are known at most.
const KNOWN_MAX: usize = 100_000;
/// Domains that are looked up at a time.
const ASKED_MAX: usize = 64;
/// Errands that wait until their domain's site is known, in all.
const UNKNOWN_MAX: usize = 30_000;
/// The same, of one domain.
const UNKNOWN_OF_A_DOMAIN: usize = 100;

/// What the settings allow for some sites.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SiteLimit {
    /// For which: by the recipients' domain, or by an exchanger's name.
    pub of: RouteFor,
    /// How much.
    pub limits: Limits,
}

/// A domain's site.
pub(crate) struct Found {
    pub(crate) domain: String,
    pub(crate) site: Site,
    pub(crate) limits: Limits,
    believed: Duration,
}

struct Known {
    site: Site,
    until: Instant,
}

/// The sites of domains, and the errands that wait for the answer.
#[derive(Default)]
pub(crate) struct Sites {
    known: HashMap<String, Known>,
    unknown: HashMap<String, Waiting>,
    /// Those of them that nobody was asked about yet, in the order in which they came.
    to_ask: VecDeque<String>,
    waiting: usize,
    /// Whether some were not remembered.
    left_out: bool,
    asked: HashSet<String>,
    asking: JoinSet<Found>,
}

impl Sites {
    /// The site of a domain, when it is known.
    pub(crate) fn of(&self, domain: &str, now: Instant) -> Option<&Site> {
        let known = self.known.get(domain)?;
        (known.until > now || self.asked.contains(domain)).then_some(&known.site)
    }

    /// Remembers an errand until the site of its domain is known.
    pub(crate) fn wait(&mut self, due: Due) {
        if let Some(waiting) = self.unknown.get_mut(&due.domain) {
            if waiting.len() >= UNKNOWN_OF_A_DOMAIN || self.waiting >= UNKNOWN_MAX {
                self.left_out = true;
                if !waiting.make_room_for(&due) {
                    return;
                }
                self.waiting -= 1;
            }
            waiting.push(due);
        } else if self.waiting >= UNKNOWN_MAX {
            self.left_out = true;
            return;
        } else {
            let domain = due.domain.clone();
            self.to_ask.push_back(domain.clone());
            self.unknown.entry(domain).or_default().push(due);
        }
        self.waiting += 1;
    }

    /// Has the DNS asked for those that wait.
    pub(crate) fn ask(&mut self, ctx: &Arc<Context>) {
        while self.asking.len() < ASKED_MAX
            && let Some(domain) = self.to_ask.pop_front()
        {
            if self.unknown.contains_key(&domain) && self.asked.insert(domain.clone()) {
                self.asking.spawn(find(Arc::clone(ctx), domain));
            }
        }
    }

    /// The next answer. Pends while nobody is asked.
    pub(crate) async fn answered(&mut self) -> Option<Found> {
        match self.asking.join_next().await {
            Some(Ok(found)) => Some(found),
            Some(Err(error)) => {
                tracing::error!(%error, "a domain's exchangers could not be looked up");
                // Which one is not known: all that are not answered are asked again.
                if self.asking.is_empty() {
                    self.asked.clear();
                    self.to_ask = self.unknown.keys().cloned().collect();
                }
                None
            }
            None => std::future::pending().await,
        }
    }

    /// Believes an answer. Gives back the errands that waited for it.
    pub(crate) fn believe(&mut self, found: &Found, now: Instant) -> Vec<Due> {
        if self.known.len() >= KNOWN_MAX {
            self.known.retain(|_, known| known.until > now);
            // Much of it at once, so that not each new one looks through all.
            if self.known.len() >= KNOWN_MAX / 4 * 3 {
                self.known.clear();
            }
        }
        self.asked.remove(&found.domain);
        let known = Known {
            site: found.site.clone(),
            until: now + found.believed,
        };
        self.known.insert(found.domain.clone(), known);
        let mut waiting = self.unknown.remove(&found.domain).unwrap_or_default();
        self.waiting -= waiting.len();
        waiting.take_all()
    }

    /// Whether nothing of a domain waits for an answer.
    pub(crate) fn is_free(&self, domain: &str) -> bool {
        !self.unknown.contains_key(domain)
    }

    /// Whether nothing waits for an answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.unknown.is_empty() && !self.left_out
    }

    /// Whether more is due than is remembered, and there is room again.
    pub(crate) fn starves(&self) -> bool {
        self.left_out && self.waiting < UNKNOWN_MAX / 2
    }

    /// Whether more is due than is remembered.
    pub(crate) fn is_partial(&self) -> bool {
        self.left_out
    }

    /// Forgets what waits.
    pub(crate) fn clear(&mut self) {
        self.unknown.clear();
        self.to_ask.clear();
        self.waiting = 0;
        self.left_out = false;
    }
}

async fn find(ctx: Arc<Context>, domain: String) -> Found {
    let (site, limits, believed) = match Host::parse(&domain) {
        Ok(host) => look_up(&ctx, &host).await,
        // Not reached: it was the host of a recipient.
        Err(_) => (domain.as_str().into(), everywhere(&ctx.options), BELIEVED_UNFOUND),
    };
    Found {
        domain,
        site,
        limits,
        believed,
    }
}

async fn look_up(ctx: &Context, host: &Host) -> (Site, Limits, Duration) {
    if let Some(domain) = host.domain()
        && matches!(ctx.directory.domain(domain).await, Ok(Some(_)))
    {
        // Mailboxes here: nobody outside is to be treated with care.
        let limits = Limits {
            connections_max: ctx.options.attempts_max,
            messages_per_minute: None,
            connections_per_minute: None,
        };
        return ("here".into(), limits, BELIEVED_UNFOUND);
    }
    let mut random = |n: usize| ctx.below(n);
    match way::find(ctx.resolver.as_ref(), &ctx.routes(), &ctx.own, host, &mut random).await {
        Ok(plan) => {
            let limits = limits_of(&ctx.options, host, &plan);
            (name_of(&plan), limits, BELIEVED)
        }
        Err(_) => (
            host.to_string().into(),
            everywhere(&ctx.options),
            BELIEVED_UNFOUND,
        ),
    }
}

/// A site's name: its exchangers, in the order of the alphabet.
pub(crate) fn name_of(plan: &Plan) -> Site {
    let hosts: BTreeSet<String> = plan
        .hops
        .iter()
        .map(|hop| match hop.address.port() {
            crate::route::SMTP_PORT => hop.host.to_string(),
            _ if hop.socket().is_some() => hop.host.to_string(),
            port => format!("{}:{port}", hop.host),
        })
        .collect();
    let name = hosts.into_iter().collect::<Vec<_>>().join(" ");
    match &plan.login {
        // Whoever logs in elsewhere with the same name is another guest there.
        Some(login) => format!("{name} as {}", login.user).into(),
        None => name.into(),
    }
}

fn everywhere(options: &Options) -> Limits {
    Limits {
        connections_max: options.attempts_per_domain_max,
        messages_per_minute: None,
        connections_per_minute: None,
    }
}

/// What the settings allow for the way of a domain: of all that fit by the domain or by an exchanger, the one
/// that says most.
fn limits_of(options: &Options, host: &Host, plan: &Plan) -> Limits {
    let exchangers = plan.hops.iter().filter_map(|hop| match &hop.host {
        ServerName::Name(name) => Some(name),
        ServerName::Ip(_) | ServerName::Socket(_) => None,
    });
    let names: Vec<Option<&mail::Domain>> = std::iter::once(host.domain())
        .chain(exchangers.map(Some))
        .collect();
    let fitting = options
        .site_limits
        .iter()
        .filter(|limit| names.iter().any(|name| limit.of.covers(*name)));
    fitting
        .rev()
        .max_by_key(|limit| limit.of.weight())
        .map_or_else(|| everywhere(options), |limit| limit.limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(n: usize, believed: Duration) -> Found {
        Found {
            domain: format!("d{n}.example"),
            site: "mx.example".into(),
            limits: Limits {
                connections_max: 1,
                messages_per_minute: None,
                connections_per_minute: None,
            },
            believed,
        }
    }

    #[test]
    fn room_for_new_domains_is_made_for_many_at_once() {
        let now = Instant::now();
        let mut sites = Sites::default();
        sites.believe(&found(0, Duration::ZERO), now);
        (1..KNOWN_MAX).for_each(|n| drop(sites.believe(&found(n, BELIEVED), now)));
        assert_eq!(sites.known.len(), KNOWN_MAX);
        // Only one of them is not believed any more.
        sites.believe(&found(KNOWN_MAX, BELIEVED), now);
        assert!(sites.known.len() <= KNOWN_MAX / 4 * 3, "{}", sites.known.len());
        assert!(sites.of(&format!("d{KNOWN_MAX}.example"), now).is_some());
    }
}
