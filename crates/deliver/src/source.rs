//! From which address of ours a message leaves, and by which name: pools of source addresses.
//!
//! Strategies: by site (rendezvous hashing with weights: a receiver always sees the same address, and an
//! address that comes or goes moves only its own share) or at random by weight. A pool may be for some
//! senders' domains; those that no pool names leave from the addresses that are for all.
//!
//! Pure. Promises: one address for each family and plan; where a pool has no address of a family, the
//! servers' addresses of that family are left out, so that no mail leaves from an address that SPF does
//! not know.

use crate::failure::Failure;
use crate::plan::{Hop, Plan};
use crate::route::RouteFor;
use mail::{Domain, EnhancedStatus};
use std::net::IpAddr;

/// Source addresses at most.
pub const SOURCES_MAX: usize = 1_000;

/// An address of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// The name for EHLO; it should be what the address's reverse DNS says.
    pub helo: String,
    /// How much of the mail leaves from here, compared with the others; 0: none.
    pub weight: u32,
    /// For senders of which domains; empty: for all that no other source names.
    pub domains: Vec<RouteFor>,
}

/// How one is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// By the destination: always the same for one site.
    #[default]
    Site,
    /// At random, for each attempt.
    Random,
}

/// All addresses of ours; without any the system chooses.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The addresses.
    pub all: Vec<Source>,
    /// How one is chosen.
    pub choice: Choice,
}

/// Whence a connection is made, and by which name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Departure {
    /// The address.
    pub address: IpAddr,
    /// The name for EHLO.
    pub helo: String,
}

/// The departures of one plan, by family. Where there is none the system chooses the address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Departures {
    /// To IPv4 addresses.
    pub v4: Option<Departure>,
    /// To IPv6 addresses.
    pub v6: Option<Departure>,
}

impl Departures {
    /// Whence a connection to that server is made. To a socket of this machine none leaves from an
    /// address.
    #[must_use]
    pub fn to(&self, hop: &Hop) -> Option<&Departure> {
        match hop.ip()? {
            IpAddr::V4(_) => self.v4.as_ref(),
            IpAddr::V6(_) => self.v6.as_ref(),
        }
    }
}

impl Sources {
    /// Gives a plan its departures. `sender` is the domain of the reverse-path; `random` gives numbers
    /// below its argument.
    ///
    /// # Errors
    /// When no server of the plan has an address of a family that the pool has; the mail waits.
    pub fn depart(
        &self,
        mut plan: Plan,
        sender: Option<&Domain>,
        random: &mut dyn FnMut(usize) -> usize,
    ) -> Result<Plan, Failure> {
        let pool = self.pool(sender);
        if pool.is_empty() {
            return Ok(plan);
        }
        let site = site_of(&plan);
        let mut choose = |v6: bool| {
            let of_family: Vec<&Source> = pool
                .iter()
                .copied()
                .filter(|s| s.address.is_ipv6() == v6)
                .collect();
            let chosen = match self.choice {
                Choice::Site => by_site(&of_family, &site),
                Choice::Random => at_random(&of_family, random),
            };
            chosen.map(|source| Departure {
                address: source.address,
                helo: source.helo.clone(),
            })
        };
        plan.departures = Departures {
            v4: choose(false),
            v6: choose(true),
        };
        let (kept, left_out): (Vec<_>, Vec<_>) = plan
            .hops
            .into_iter()
            .partition(|hop| hop.ip().is_none() || plan.departures.to(hop).is_some());
        let Some(first) = left_out.first() else {
            plan.hops = kept;
            return Ok(plan);
        };
        let family = if first.address.is_ipv6() { "IPv6" } else { "IPv4" };
        if kept.is_empty() {
            let words = format!(
                "the servers have {family} addresses only, and no source address of ours is of that family; add one to deliver.source"
            );
            return Err(Failure::ours(451, EnhancedStatus::new(4, 4, 4), words));
        }
        plan.notes.push(format!(
            "{} {family} addresses left out, because no source address of ours is of that family",
            left_out.len()
        ));
        plan.hops = kept;
        Ok(plan)
    }

    /// The sources for a sender's domain; those for all where none names it.
    fn pool(&self, sender: Option<&Domain>) -> Vec<&Source> {
        let usable = || self.all.iter().filter(|source| source.weight > 0);
        let names = |source: &&Source| source.domains.iter().any(|d| d.covers(sender));
        let own: Vec<&Source> = usable().filter(names).collect();
        if own.is_empty() {
            return usable().filter(|source| source.domains.is_empty()).collect();
        }
        own
    }
}

/// The destination, whatever the order of its servers today: the first name among the most preferred.
fn site_of(plan: &Plan) -> String {
    let first = plan.hops.iter().min_by_key(|hop| (hop.preference, &hop.host));
    first.map(|hop| hop.host.to_string()).unwrap_or_default()
}

/// Weighted rendezvous hashing: the highest score wins.
fn by_site<'a>(sources: &[&'a Source], site: &str) -> Option<&'a Source> {
    let score = |source: &Source| {
        // Above 0 and below 1, so that the logarithm is below 0.
        let part = ((hash(site, source.address) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(source.weight) / part.ln()
    };
    let scored = sources.iter().map(|source| (score(source), *source));
    scored
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, source)| source)
}

fn at_random<'a>(sources: &[&'a Source], random: &mut dyn FnMut(usize) -> usize) -> Option<&'a Source> {
    let all: usize = sources.iter().map(|source| source.weight as usize).sum();
    let mut place = if all == 0 { 0 } else { random(all) };
    for source in sources {
        match place.checked_sub(source.weight as usize) {
            Some(rest) => place = rest,
            None => return Some(source),
        }
    }
    sources.last().copied()
}

/// FNV-1a over both, its bits mixed at the end: alike on every machine and in every version.
fn hash(site: &str, address: IpAddr) -> u64 {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let fnv = |h: u64, octet: &u8| (h ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
    let mut h = site.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    h = octets.iter().fold(h, fnv);
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        h = (h ^ (h >> 33)).wrapping_mul(factor);
    }
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn source(address: &str, weight: u32) -> Source {
        Source {
            address: address.parse().unwrap(),
            helo: format!("out-{address}"),
            weight,
            domains: Vec::new(),
        }
    }

    fn shares(sources: &[Source]) -> BTreeMap<IpAddr, usize> {
        let refs: Vec<&Source> = sources.iter().collect();
        let mut shares = BTreeMap::new();
        for n in 0..10_000 {
            let chosen = by_site(&refs, &format!("mx{n}.example")).unwrap();
            *shares.entry(chosen.address).or_default() += 1;
        }
        shares
    }

    #[test]
    fn sites_are_shared_by_weight_and_few_move() {
        let mut sources = vec![source("192.0.2.1", 1), source("192.0.2.2", 3)];
        let before = shares(&sources);
        let heavy = before[&sources[1].address];
        assert!((7_200..7_800).contains(&heavy), "three quarters: {heavy}");
        let refs: Vec<Source> = sources.clone();
        sources.push(source("192.0.2.3", 4));
        let (old, new): (Vec<&Source>, Vec<&Source>) = (refs.iter().collect(), sources.iter().collect());
        for n in 0..1_000 {
            let site = format!("mx{n}.example");
            let (a, b) = (by_site(&old, &site).unwrap(), by_site(&new, &site).unwrap());
            assert!(
                a.address == b.address || b.address == sources[2].address,
                "{site}"
            );
        }
    }

    #[test]
    fn random_by_weight() {
        let sources = [source("192.0.2.1", 1), source("192.0.2.2", 3)];
        let refs: Vec<&Source> = sources.iter().collect();
        let picked: Vec<&str> = (0..4)
            .map(|n| at_random(&refs, &mut |_| n).unwrap().helo.as_str())
            .collect();
        assert_eq!(
            picked,
            ["out-192.0.2.1", "out-192.0.2.2", "out-192.0.2.2", "out-192.0.2.2"]
        );
        assert_eq!(at_random(&[], &mut |_| 0), None);
    }
}
