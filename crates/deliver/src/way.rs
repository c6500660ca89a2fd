//! Finding the way to a destination: asks the DNS what the plan must know.

use crate::failure::Failure;
use crate::plan::{self, AddressBook, AddressOrder, Addresses, Own, Plan};
use crate::route::{Route, route_for};
use dns::Resolver;
use futures_util::future::{join, join_all};
use journey::{Event, MxHost};
use mail::{Domain, Host};

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
    let hosts = match (route_for(routes, host.domain()), host) {
        (Some(route), _) => plan::hosts_by_route(route),
        (None, Host::Literal(ip)) => plan::hosts_by_literal(*ip, own),
        (None, Host::Domain(domain)) => {
            let answer = resolver.mx(domain).await.map(|answer| answer.records);
            plan::hosts_by_mx(domain, answer, own, random)?
        }
    };
    let names: Vec<Domain> = hosts.names().cloned().collect();
    let found = join_all(names.iter().map(|name| addresses(resolver, name, own.order))).await;
    let book: AddressBook = names.into_iter().zip(found).collect();
    plan::plan(hosts, &book, own.order)
}

async fn addresses(resolver: &dyn Resolver, name: &Domain, order: AddressOrder) -> Addresses {
    let v4 = async {
        match order {
            AddressOrder::V6Only => Ok(Vec::new()),
            _ => resolver.a(name).await.map(|answer| answer.records),
        }
    };
    let v6 = async {
        match order {
            AddressOrder::V4Only => Ok(Vec::new()),
            _ => resolver.aaaa(name).await.map(|answer| answer.records),
        }
    };
    let (v4, v6) = join(v4, v6).await;
    Addresses { v4, v6 }
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
