//! Finding the way to a destination: asks the DNS what the plan must know.

use crate::failure::Failure;
use crate::plan::{self, AddressBook, AddressOrder, Addresses, Hosts, Own, Plan};
use crate::route::{Action, Route, ServerName, TlsPolicy, route_for};
use crate::security::{Evidence, TlsaFound};
use dns::{Answer, Dnssec, Resolver};
use futures_util::future::{join, join_all};
use journey::{Event, MxHost};
use mail::{Domain, EnhancedStatus, Host};
use std::collections::BTreeMap;

/// The plan for a recipient's host. `random` gives numbers below its argument.
///
/// # Errors
/// Why there is no way, for now or for good. A route that discards is no way; see [`discarding`].
pub async fn find(
    resolver: &dyn Resolver,
    routes: &[Route],
    own: &Own,
    host: &Host,
    random: &mut (dyn FnMut(usize) -> usize + Send),
) -> Result<Plan, Failure> {
    let mut mx = None;
    let route = route_for(routes, host.domain());
    let hosts = match (route, host) {
        (Some(route), _) => {
            let (hosts, of_mx) = by_route(resolver, route, own, random).await?;
            mx = of_mx;
            hosts
        }
        (None, Host::Literal(ip)) => plan::hosts_by_literal(*ip, own),
        (None, Host::Domain(domain)) => {
            let answer = resolver.mx(domain).await;
            mx = answer.as_ref().ok().map(|answer| answer.dnssec);
            plan::hosts_by_mx(domain, answer.map(|answer| answer.records), own, random)?
        }
    };
    let names: Vec<Domain> = hosts.names().cloned().collect();
    let found = join_all(names.iter().map(|name| addresses(resolver, name, own.order))).await;
    let safe: BTreeMap<Domain, Safety> = names
        .iter()
        .cloned()
        .zip(found.iter().map(|f| f.1.clone()))
        .collect();
    let book: AddressBook = names.into_iter().zip(found.into_iter().map(|f| f.0)).collect();
    let mut plan = plan::plan(hosts, &book, own)?;
    plan.evidence = Evidence {
        mx,
        domain: host.domain().filter(|_| route.is_none() && mx.is_some()).cloned(),
        hosts: tlsa_of_hosts(resolver, &plan, mx, &safe).await,
        sts: None,
        sts_unknown: None,
    };
    Ok(plan)
}

/// The plan for an errand that the operator sends another way.
///
/// # Errors
/// Why there is no way, for now.
pub async fn find_by_order(resolver: &dyn Resolver, via: &queue::Via, own: &Own) -> Result<Plan, Failure> {
    let hosts = plan::hosts_by_order(via, own)?;
    let names: Vec<Domain> = hosts.names().cloned().collect();
    let found = join_all(names.iter().map(|name| addresses(resolver, name, own.order))).await;
    let book: AddressBook = names.into_iter().zip(found.into_iter().map(|f| f.0)).collect();
    plan::plan(hosts, &book, own)
}

/// The servers of a route, and what DNSSEC says of the MX records, where it asks for some.
async fn by_route(
    resolver: &dyn Resolver,
    route: &Route,
    own: &Own,
    random: &mut (dyn FnMut(usize) -> usize + Send),
) -> Result<(Hosts, Option<Dnssec>), Failure> {
    match &route.action {
        Action::Relay(targets) => Ok((plan::hosts_by_route(route, targets, random), None)),
        Action::Lmtp(target) => Ok((
            plan::hosts_by_route(route, std::slice::from_ref(target), random),
            None,
        )),
        Action::MxOf { domain, port } => {
            let answer = resolver.mx(domain).await;
            let mx = answer.as_ref().ok().map(|answer| answer.dnssec);
            let own = Own {
                port: *port,
                ..own.clone()
            };
            let answer = answer.map(|answer| answer.records);
            Ok((plan::hosts_by_mx_of(route, domain, answer, &own, random)?, mx))
        }
        Action::Fail(refusal) => {
            let words = refusal.words.clone();
            Err(Failure::ours(refusal.code, refusal.status, words))
        }
        Action::Discard => {
            let words = format!("the route for {} throws the mail away", route.named());
            Err(Failure::ours(451, EnhancedStatus::new(4, 4, 4), words))
        }
    }
}

/// The route that throws mail for this host away, if there is one.
#[must_use]
pub fn discarding<'a>(routes: &'a [Route], host: &Host) -> Option<&'a Route> {
    route_for(routes, host.domain()).filter(|route| route.action == Action::Discard)
}

/// Whether a host's addresses are secure, and what its name is an alias of.
#[derive(Clone, Debug, Default)]
struct Safety {
    is_secure: bool,
    alias_of: Option<Domain>,
}

impl Safety {
    /// Of the answers that hold addresses, all must be secure.
    fn and<T>(self, answer: &Answer<T>) -> Self {
        match answer.records.is_empty() {
            true => self,
            false => Self {
                is_secure: self.is_secure && answer.dnssec.is_secure(),
                alias_of: answer.alias_of.as_ref().and_then(dns::Name::to_domain),
            },
        }
    }
}

async fn addresses(resolver: &dyn Resolver, name: &Domain, order: AddressOrder) -> (Addresses, Safety) {
    let nothing = || dns::DnsError::NoSuchName(name.to_string());
    let v4 = async {
        match order {
            AddressOrder::V6Only => Err(nothing()),
            _ => resolver.a(name).await,
        }
    };
    let v6 = async {
        match order {
            AddressOrder::V4Only => Err(nothing()),
            _ => resolver.aaaa(name).await,
        }
    };
    let (v4, v6) = join(v4, v6).await;
    let mut safety = Safety {
        is_secure: true,
        alias_of: None,
    };
    if let Ok(answer) = &v4 {
        safety = safety.and(answer);
    }
    if let Ok(answer) = &v6 {
        safety = safety.and(answer);
    }
    let addresses = Addresses {
        v4: v4.map(|answer| answer.records),
        v6: v6.map(|answer| answer.records),
    };
    (addresses, safety)
}

/// The TLSA records of each host of the plan, asked for only where they would count (RFC 7672 §2.2).
async fn tlsa_of_hosts(
    resolver: &dyn Resolver,
    plan: &Plan,
    mx: Option<Dnssec>,
    safe: &BTreeMap<Domain, Safety>,
) -> BTreeMap<Domain, TlsaFound> {
    let mut hosts: BTreeMap<Domain, u16> = BTreeMap::new();
    for hop in &plan.hops {
        if let ServerName::Name(name) = &hop.host {
            hosts.insert(name.clone(), hop.address.port());
        }
    }
    let found = hosts.iter().map(|(host, port)| async move {
        let safety = safe.get(host).cloned().unwrap_or_default();
        if matches!(plan.tls, TlsPolicy::Off | TlsPolicy::Unchecked) {
            TlsaFound::NotAsked("the route leaves it aside")
        } else if mx == Some(Dnssec::Insecure) {
            TlsaFound::NotAsked("the MX records are not signed (DNSSEC)")
        } else if !safety.is_secure {
            TlsaFound::NotAsked("its addresses are not signed (DNSSEC)")
        } else {
            tlsa(resolver, host, safety.alias_of.as_ref(), *port).await
        }
    });
    let found = join_all(found).await;
    hosts.keys().cloned().zip(found).collect()
}

/// RFC 7672 §2.2.2: of a host whose name is an alias the records of what it leads to count; where that
/// has none, those of the name itself. (Where the alias is signed and what it leads to is not, RFC 7672
/// would use the name's own; its addresses are insecure then, and we leave DANE aside.)
async fn tlsa(resolver: &dyn Resolver, host: &Domain, alias_of: Option<&Domain>, port: u16) -> TlsaFound {
    for base in alias_of.into_iter().chain([host]) {
        let Some(name) = dns::tlsa_name(port, base) else {
            continue;
        };
        match resolver.tlsa(&name).await {
            Ok(answer) if answer.dnssec.is_secure() && !answer.records.is_empty() => {
                return TlsaFound::Records {
                    base: base.clone(),
                    records: answer.records,
                };
            }
            Err(error) if error.is_temporary() => return TlsaFound::Unknown(error.to_string()),
            Ok(_) | Err(_) => {}
        }
    }
    TlsaFound::None
}

/// What the journey is told of the way.
#[must_use]
pub fn event(host: &Host, found: &Result<Plan, Failure>) -> Event {
    let mut hosts: Vec<MxHost> = Vec::new();
    let why = match found {
        Err(failure) => failure.words.clone(),
        Ok(plan) => {
            for hop in &plan.hops {
                let name = hop.host.to_string();
                match hosts.iter_mut().find(|h| h.host == name) {
                    Some(known) => known.addresses.extend(hop.ip()),
                    None => hosts.push(MxHost {
                        host: name,
                        preference: hop.preference.unwrap_or(0),
                        addresses: hop.ip().into_iter().collect(),
                    }),
                }
            }
            plan.reason()
        }
    };
    Event::Route {
        domain: host.to_string(),
        hosts,
        why,
    }
}
