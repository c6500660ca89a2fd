//! Zones as data: records by name, the borders of the zones, and faults to play.
//!
//! Promises: a lookup is a pure function of what was put in; names compare without case.
//! Never: a socket, a clock.

use super::signing::Signed;
use super::text::{self, ZoneError, ZoneErrorKind};
use hickory_proto::rr::rdata::{NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Seconds that a record may be kept when its line does not say: short, because the lab changes
/// its records while it runs.
pub const TTL_SECS_DEFAULT: u32 = 60;

/// CNAMEs followed within our zones before we give up: a loop ends here.
const CNAME_CHAIN_MAX: usize = 8;

/// What a name is made to suffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Answered with SERVFAIL.
    ServFail,
    /// Not answered at all: whoever asks runs into a time-out.
    Silence,
    /// Answered without signatures and proofs, though the zone is signed: what somebody between, who can
    /// change answers but has no keys, makes of them.
    Stripped,
    /// Answered with signatures that are wrong.
    Forged,
}

/// What the zones know about one question.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// The records, CNAMEs that lead to them first.
    Records(Vec<Record>),
    /// The name exists, but not this type. Carries the zone's SOA (RFC 2308 §2.2).
    NoData(Box<Record>),
    /// The name does not exist. Carries the zone's SOA (RFC 2308 §2.1).
    NoSuchName(Box<Record>),
    /// Not our zone.
    NotOurs,
    /// A fault that was ordered.
    Broken(Fault),
}

/// A set of zones: what one authoritative server knows.
#[derive(Clone, Default, Debug)]
pub struct Zones {
    /// Origins, in key form.
    origins: BTreeSet<String>,
    /// Records by owner, in key form.
    records: BTreeMap<String, Vec<Record>>,
    /// Faults by name, in key form.
    faults: BTreeMap<String, Fault>,
    /// What signed zones are signed with, by origin, in key form.
    pub(super) signed: BTreeMap<String, Signed>,
}

/// Lower case, without the dot at the end.
pub(super) fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether `name` is `origin` or lies below it; both in key form.
fn is_within(name: &str, origin: &str) -> bool {
    origin.is_empty()
        || name == origin
        || name
            .strip_suffix(origin)
            .is_some_and(|front| front.ends_with('.'))
}

/// The name without its first label; `None` at the top.
fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, rest)| rest)
}

/// The name under which an address's PTR records stand: `1.2.0.192.in-addr.arpa` and so on.
#[must_use]
pub fn address_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(_) => list_name(ip, "in-addr.arpa"),
        IpAddr::V6(_) => list_name(ip, "ip6.arpa"),
    }
}

/// The name that asks the DNS list `list` about an address (RFC 5782 §2.1, §2.4).
#[must_use]
pub fn list_name(ip: IpAddr, list: &str) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.{list}")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().iter().rev().fold(String::new(), |text, b| {
                format!("{text}{:x}.{:x}.", b & 15, b >> 4)
            });
            format!("{nibbles}{list}")
        }
    }
}

impl Zones {
    /// No zones: every question is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads zone-file text (RFC 1035 §5: one entry a line, `;` comments, parentheses, `$ORIGIN`,
    /// `$TTL`). Types: A, AAAA, CNAME, MX, NS, PTR, SOA, TLSA, TXT.
    ///
    /// Each SOA and each `$ORIGIN` opens a zone. Names under none of these are given the zone of
    /// their last two labels, so that a bare list of records to publish can be served as it is.
    ///
    /// # Errors
    /// The first line that could not be read, and why.
    pub fn parse(text: &str) -> Result<Self, ZoneError> {
        let mut zones = Self::new();
        zones.add(text)?;
        Ok(zones)
    }

    /// Reads zone-file text as [`Zones::parse`] does and adds what it says to these zones.
    ///
    /// # Errors
    /// The first line that could not be read, and why; the zones are unchanged then.
    pub fn add(&mut self, text: &str) -> Result<&mut Self, ZoneError> {
        let file = text::parse(text)?;
        for origin in file.origins {
            self.open_zone(&origin);
        }
        for record in file.records {
            let owner = record.name.to_ascii();
            if record.record_type() == RecordType::SOA {
                self.remove(&owner, RecordType::SOA);
                self.origins.insert(key(&owner));
            } else if self.zone_of(&key(&owner)).is_none() {
                let labels: Vec<&str> = owner.trim_end_matches('.').split('.').collect();
                self.open_zone(&labels[labels.len().saturating_sub(2)..].join("."));
            }
            let here = self.records.entry(key(&owner)).or_default();
            if !here.iter().any(|r| r.data == record.data) {
                here.push(record);
            }
        }
        Ok(self)
    }

    /// Opens a zone with an SOA and an NS of its own making, unless it is there already.
    pub fn open_zone(&mut self, origin: &str) -> &mut Self {
        let at = key(origin);
        let Ok(name) = Name::from_ascii(format!("{at}.")) else {
            return self;
        };
        if self.origins.insert(at.clone()) {
            let ns = Name::from_ascii("ns")
                .and_then(|n| n.append_domain(&name))
                .unwrap_or_else(|_| name.clone());
            // RFC 2308 §5: the last number says how long "there is none" may be kept.
            let soa = SOA::new(ns.clone(), name.clone(), 1, 60, 60, 3600, 1);
            let records = self.records.entry(at).or_default();
            for data in [RData::SOA(soa), RData::NS(NS(ns))] {
                records.push(Record::from_rdata(name.clone(), TTL_SECS_DEFAULT, data));
            }
        }
        self
    }

    /// Puts these values in place of all records of this type at this name. Values are written as
    /// in a zone file (`10 mail.example.com.`, `"v=spf1 -all"`); names in them are absolute.
    ///
    /// # Errors
    /// A value that cannot be read; the zones are unchanged then.
    pub fn set(&mut self, name: &str, kind: RecordType, values: &[&str]) -> Result<&mut Self, ZoneError> {
        let owner = key(name);
        if self.zone_of(&owner).is_none() {
            return Err(ZoneError::new(0, ZoneErrorKind::OutsideZones(owner)));
        }
        let lines: Vec<String> = values
            .iter()
            .map(|value| format!("{owner}. {TTL_SECS_DEFAULT} IN {kind} {value}"))
            .collect();
        let file = text::parse(&lines.join("\n"))?;
        self.remove(name, kind);
        self.records.entry(owner).or_default().extend(file.records);
        Ok(self)
    }

    /// Takes all records of this type at this name away.
    pub fn remove(&mut self, name: &str, kind: RecordType) -> &mut Self {
        let owner = key(name);
        if let Some(records) = self.records.get_mut(&owner) {
            records.retain(|r| r.record_type() != kind);
            if records.is_empty() {
                self.records.remove(&owner);
            }
        }
        self
    }

    /// Makes questions about this name and all below it fail.
    pub fn break_name(&mut self, name: &str, fault: Fault) -> &mut Self {
        self.faults.insert(key(name), fault);
        self
    }

    /// Ends the fault that was set for this name.
    pub fn mend_name(&mut self, name: &str) -> &mut Self {
        self.faults.remove(&key(name));
        self
    }

    /// Origins of the zones, in alphabetical order, without the dot at the end.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.origins.iter().map(String::as_str)
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Answers one question.
    #[must_use]
    pub fn lookup(&self, name: &str, kind: RecordType) -> Outcome {
        let mut name = key(name);
        if let Some(fault @ (Fault::ServFail | Fault::Silence)) = self.fault_of(&name) {
            return Outcome::Broken(fault);
        }
        // RFC 4035 §3.1.4.1: what says whether a zone is signed stands in the zone above.
        if let Some(outcome) = self.delegation(&name, kind) {
            return outcome;
        }
        let Some(zone) = self.zone_of(&name) else {
            return Outcome::NotOurs;
        };
        let mut found = Vec::new();
        for _ in 0..CNAME_CHAIN_MAX {
            let Some(here) = self.records_at(&name) else {
                break;
            };
            let mut matching = here
                .iter()
                .filter(|r| kind == RecordType::ANY || r.record_type() == kind)
                .cloned()
                .peekable();
            if matching.peek().is_some() {
                found.extend(matching);
                return Outcome::Records(found);
            }
            let Some(alias) = here.iter().find(|r| r.record_type() == RecordType::CNAME) else {
                break;
            };
            found.push(alias.clone());
            let RData::CNAME(target) = &alias.data else { break };
            name = key(&target.0.to_ascii());
        }
        match (found.is_empty(), self.soa(&zone)) {
            (false, _) => Outcome::Records(found),
            (true, None) => Outcome::Broken(Fault::ServFail),
            (true, Some(soa)) if self.exists(&name) => Outcome::NoData(Box::new(soa)),
            (true, Some(soa)) => Outcome::NoSuchName(Box::new(soa)),
        }
    }

    /// The records at a name, or those a wildcard makes up for it (RFC 4592 §3.3.1).
    fn records_at(&self, name: &str) -> Option<Vec<Record>> {
        if let Some(records) = self.records.get(name) {
            return Some(records.clone());
        }
        let zone = self.zone_of(name)?;
        let mut encloser = name;
        while !self.exists(encloser) {
            encloser = parent(encloser).filter(|up| is_within(up, &zone))?;
        }
        if encloser == name {
            return None;
        }
        let owner = Name::from_ascii(format!("{name}.")).ok()?;
        let mut records = self.records.get(&format!("*.{encloser}"))?.clone();
        for record in &mut records {
            record.name = owner.clone();
        }
        Some(records)
    }

    /// The wildcard that would have answered for a name (RFC 4592 §3.3.1): below the closest name that
    /// exists.
    pub(super) fn wildcard_for(&self, name: &str) -> String {
        let mut above = std::iter::successors(parent(name), |n| parent(n));
        match above.find(|n| self.exists(n)) {
            Some(encloser) => format!("*.{encloser}"),
            None => "*".to_owned(),
        }
    }

    /// Whether a name, or any below it, has records (RFC 8020: an empty name between exists too).
    fn exists(&self, name: &str) -> bool {
        self.records.contains_key(name)
            || self
                .records
                .keys()
                .any(|owner| owner.strip_suffix(name).is_some_and(|front| front.ends_with('.')))
    }

    pub(super) fn fault_of(&self, name: &str) -> Option<Fault> {
        std::iter::successors(Some(name), |n| parent(n)).find_map(|n| self.faults.get(n).copied())
    }

    /// The zone that a name lies in; the root, where it is served, is the last resort.
    pub(super) fn zone_of(&self, name: &str) -> Option<String> {
        std::iter::successors(Some(name), |n| parent(n))
            .chain([""])
            .find(|n| self.origins.contains(*n))
            .map(str::to_owned)
    }

    /// The zone above one of ours, if it is ours too.
    pub(super) fn zone_above(&self, origin: &str) -> Option<String> {
        match parent(origin) {
            Some(up) => self.zone_of(up),
            None if origin.is_empty() => None,
            None => self.zone_of(""),
        }
    }

    /// The owners of records in one zone, with the types that they have.
    pub(super) fn owners(&self, zone: &str) -> impl Iterator<Item = (&str, &[Record])> {
        let here = self
            .records
            .iter()
            .map(|(owner, r)| (owner.as_str(), r.as_slice()));
        here.filter(move |(owner, _)| self.zone_of(owner).as_deref() == Some(zone))
    }

    /// Puts a record in place of those of its type at a name.
    pub(super) fn replace(&mut self, owner: &str, record: Record) {
        self.remove(owner, record.record_type());
        self.records.entry(key(owner)).or_default().push(record);
    }

    pub(super) fn soa(&self, origin: &str) -> Option<Record> {
        self.records
            .get(origin)?
            .iter()
            .find(|r| r.record_type() == RecordType::SOA)
            .cloned()
    }
}
