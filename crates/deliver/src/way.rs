//! Finding the way to a destination: asks the DNS what the plan must know.

use crate::failure::Failure;
use crate::plan::{self, AddressBook, AddressOrder, Addresses, Own, Plan};
use crate::route::{Route, ServerName, TlsPolicy, route_for};
use crate::security::{Evidence, TlsaFound};
use dns::{Answer, Dnssec, Resolver};
use futures_util::future::{join, join_all};
use journey::{Event, MxHost};
use mail::{Domain, Host};
use std::collections::BTreeMap;

/// The plan for a recipient's host. `random` gives numbers below its argument.
///
/// # Errors
/// Why there is no way, for now or for good.
pub async fn find(
    resolver: &dyn Resolver,
    routes: &[Route],
    own: &Own,
    host: &Host,
    random: &mut (dyn FnMut(usize) -> usize + Send),
) -> Result<Plan, Failure> {
    let mut mx = None;
    let hosts = match (route_for(routes, host.domain()), host) {
        (Some(route), _) => plan::hosts_by_route(route),
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
    let mut plan = plan::plan(hosts, &book, own.order)?;
    plan.evidence = Evidence {
        mx,
        domain: host.domain().filter(|_| mx.is_some()).cloned(),
        hosts: tlsa_of_hosts(resolver, &plan, mx, &safe).await,
        sts: None,
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
    plan::plan(hosts, &book, own.order)
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
                    Some(known) => known.addresses.push(hop.address.ip()),
                    None => hosts.push(MxHost {
                        host: name,
                        preference: hop.preference.unwrap_or(0),
                        addresses: vec![hop.address.ip()],
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
