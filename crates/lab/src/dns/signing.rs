//! Signed zones (RFC 4033 to 4035): keys, signatures and proofs of absence, made when they are asked for.
//!
//! Promises: a zone that was signed validates from the root's key down, if every zone above it is signed
//! too; one that was not is proved not to be; faults make exactly the wrong answers that were ordered.
//! Signing is part of answering, and still a function of the zones alone: when signatures begin and end
//! was said when the zone was signed. One key of each zone signs all (ECDSA P-256). Absence is proved by
//! NSEC. Never: NSEC3, key changes.

use super::zone::{Fault, Outcome, Zones, key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, NSEC, RRSIG, SigInput};
use hickory_proto::dnssec::{Algorithm, DigestType, PublicKey as _, SigningKey, TBS};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber};
use mail::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Days that signatures are valid, from the day before the zone was signed.
pub const SIGNED_DAYS: u32 = 30;
const DAY_SECS: i64 = 86_400;
const ALGORITHM: Algorithm = Algorithm::ECDSAP256SHA256;

/// A zone could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the zone could not be signed: {0}")]
pub struct SignError(String);

fn failed(e: impl fmt::Display) -> SignError {
    SignError(e.to_string())
}

/// What a zone is signed with.
#[derive(Clone)]
pub(super) struct Signed {
    key: Arc<EcdsaSigningKey>,
    dnskey: DNSKEY,
    /// What the zone above says of the key; of another key when the delegation was forged.
    ds: DS,
    key_tag: u16,
    origin: Name,
    begin: u32,
    end: u32,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} by key {})", self.origin, self.key_tag)
    }
}

impl Signed {
    fn new(origin: &str, now: Timestamp) -> Result<Self, SignError> {
        let pkcs8 = EcdsaSigningKey::generate_pkcs8(ALGORITHM).map_err(failed)?;
        let key = EcdsaSigningKey::from_pkcs8(&pkcs8, ALGORITHM).map_err(failed)?;
        let public = key.to_public_key().map_err(failed)?;
        let dnskey = DNSKEY::from_key(&public);
        let origin = Name::from_ascii(format!("{origin}.")).map_err(failed)?;
        let secs = |at: i64| u32::try_from(at).map_err(failed);
        let begin = now.secs() - DAY_SECS;
        Ok(Self {
            key: Arc::new(key),
            ds: DS::from_key(&public, &origin, DigestType::SHA256).map_err(failed)?,
            key_tag: dnskey.calculate_key_tag().map_err(failed)?,
            dnskey,
            origin,
            begin: secs(begin)?,
            end: secs(begin + i64::from(SIGNED_DAYS) * DAY_SECS)?,
        })
    }

    /// The signature of records of one name and type.
    fn sign(&self, records: &[Record], is_forged: bool) -> Option<Record> {
        let first = records.first()?;
        let input = SigInput {
            type_covered: first.record_type(),
            algorithm: ALGORITHM,
            num_labels: first.name.num_labels(),
            original_ttl: first.ttl,
            sig_expiration: SerialNumber::new(self.end),
            sig_inception: SerialNumber::new(self.begin),
            key_tag: self.key_tag,
            signer_name: self.origin.clone(),
        };
        let to_sign = TBS::from_input(&first.name, DNSClass::IN, &input, records.iter()).ok()?;
        let mut signature = self.key.sign(&to_sign).ok()?;
        if is_forged && let Some(octet) = signature.last_mut() {
            *octet ^= 1;
        }
        let data = DNSSECRData::RRSIG(RRSIG::from_sig(input, signature));
        Some(Record::from_rdata(
            first.name.clone(),
            first.ttl,
            RData::DNSSEC(data),
        ))
    }
}

impl Zones {
    /// Signs a zone with a new key; it is opened when it is not there. The zone above, where it is ours,
    /// says so. Sign the root (`""`) too: validation begins there.
    ///
    /// # Errors
    /// When there is no randomness, or the name is none.
    pub fn sign(&mut self, origin: &str, now: Timestamp) -> Result<&mut Self, SignError> {
        let at = key(origin);
        let signed = Signed::new(&at, now)?;
        self.open_zone(&at);
        let data = RData::DNSSEC(DNSSECRData::DNSKEY(signed.dnskey.clone()));
        let record = Record::from_rdata(signed.origin.clone(), super::TTL_SECS_DEFAULT, data);
        self.replace(&at, record);
        self.signed.insert(at, signed);
        Ok(self)
    }

    /// Signs a zone anew with a key that the zone above does not know: whatever it says is bogus.
    ///
    /// # Errors
    /// As [`Zones::sign`]; also when the zone was not signed before.
    pub fn forge_keys(&mut self, origin: &str, now: Timestamp) -> Result<&mut Self, SignError> {
        let at = key(origin);
        let Some(before) = self.signed.get(&at) else {
            return Err(SignError(format!("{origin} was not signed before")));
        };
        let ds = before.ds.clone();
        self.sign(&at, now)?;
        if let Some(signed) = self.signed.get_mut(&at) {
            signed.ds = ds;
        }
        Ok(self)
    }

    /// The root's key as a line of a zone file: what a validating resolver begins with.
    #[must_use]
    pub fn trust_anchor(&self) -> Option<String> {
        let dnskey = &self.signed.get("")?.dnskey;
        let public = STANDARD.encode(dnskey.public_key().public_bytes());
        Some(format!(
            ". 60 IN DNSKEY {} 3 {} {public}\n",
            dnskey.flags(),
            u8::from(ALGORITHM)
        ))
    }

    /// What the zone above says of a zone of ours; `None`: that is not the question.
    pub(super) fn delegation(&self, name: &str, kind: RecordType) -> Option<Outcome> {
        if kind != RecordType::DS || !self.origins().any(|origin| origin == name) {
            return None;
        }
        let above = self.zone_above(name)?;
        let Some(signed) = self.signed.get(name) else {
            return self.soa(&above).map(|soa| Outcome::NoData(Box::new(soa)));
        };
        let data = RData::DNSSEC(DNSSECRData::DS(signed.ds.clone()));
        let ds = Record::from_rdata(signed.origin.clone(), super::TTL_SECS_DEFAULT, data);
        Some(Outcome::Records(vec![ds]))
    }

    /// Whether a server that validates would vouch for the answer.
    pub(super) fn is_genuine(&self, name: &str, kind: RecordType) -> bool {
        let at = key(name);
        let Outcome::Records(records) = self.lookup(&at, kind) else {
            return false;
        };
        records.iter().all(|record| {
            let owner = key(&record.name.to_ascii());
            let zone = self.zone_of(&owner);
            zone.is_some_and(|zone| self.signed.contains_key(&zone)) && self.fault_of(&owner).is_none()
        })
    }

    /// Adds signatures to an answer, and to one that there is nothing the proof of that.
    pub(super) fn add_proof(&self, name: &str, response: &mut Message) {
        let signatures = self.signatures(&response.answers);
        response.add_answers(signatures);
        let soa = response
            .authorities
            .iter()
            .find(|r| r.record_type() == RecordType::SOA)
            .cloned();
        let Some(soa) = soa else { return };
        let zone = key(&soa.name.to_ascii());
        let at = key(name);
        if !self.signed.contains_key(&zone) || self.fault_of(&at) == Some(Fault::Stripped) {
            return;
        }
        let mut denied = vec![at.clone()];
        if response.metadata.response_code == ResponseCode::NXDomain {
            denied.push(self.wildcard_for(&at));
        }
        let chain = self.chain(&zone);
        let mut proofs: Vec<Record> = Vec::new();
        for name in &denied {
            let nsec = nsec_for(name, &chain);
            proofs.extend(nsec.filter(|nsec| !proofs.contains(nsec)));
        }
        for proof in std::iter::once(soa).chain(proofs) {
            let signature = self.signed_by(&zone, std::slice::from_ref(&proof), &at);
            if proof.record_type() == RecordType::NSEC {
                response.add_authority(proof);
            }
            response.add_authorities(signature);
        }
    }

    fn signed_by(&self, zone: &str, records: &[Record], asked: &str) -> Option<Record> {
        let is_forged = self.fault_of(asked) == Some(Fault::Forged);
        self.signed.get(zone)?.sign(records, is_forged)
    }

    /// One signature for the records of each name and type.
    fn signatures(&self, records: &[Record]) -> Vec<Record> {
        let mut sets: BTreeMap<(String, RecordType), Vec<Record>> = BTreeMap::new();
        for record in records {
            let owner = key(&record.name.to_ascii());
            let set = sets.entry((owner, record.record_type())).or_default();
            set.push(record.clone());
        }
        let signature = |((owner, kind), set): ((String, RecordType), Vec<Record>)| {
            let zone = match kind {
                RecordType::DS => self.zone_above(&owner)?,
                _ => self.zone_of(&owner)?,
            };
            match self.fault_of(&owner) {
                Some(Fault::Stripped) => None,
                _ => self.signed_by(&zone, &set, &owner),
            }
        };
        sets.into_iter().filter_map(signature).collect()
    }

    /// The names of a zone with their types, in the order that NSEC goes by (RFC 4034 §6.1): its own,
    /// and those of the zones below.
    fn chain(&self, zone: &str) -> BTreeMap<Name, Vec<RecordType>> {
        let mut chain = BTreeMap::new();
        for (owner, records) in self.owners(zone) {
            if let Ok(name) = Name::from_ascii(format!("{owner}.")) {
                let mut types: Vec<RecordType> = records.iter().map(Record::record_type).collect();
                types.dedup();
                chain.insert(name, types);
            }
        }
        for below in self
            .origins()
            .filter(|o| self.zone_above(o).as_deref() == Some(zone))
        {
            if let Ok(name) = Name::from_ascii(format!("{below}.")) {
                let mut types = vec![RecordType::NS];
                types.extend(self.signed.contains_key(below).then_some(RecordType::DS));
                chain.insert(name, types);
            }
        }
        chain
    }
}

/// The record that shows what a name has, or between which others it is missing.
fn nsec_for(name: &str, chain: &BTreeMap<Name, Vec<RecordType>>) -> Option<Record> {
    let name = Name::from_ascii(format!("{name}.")).ok()?;
    let (owner, types) = chain
        .range(..=name)
        .next_back()
        .or_else(|| chain.last_key_value())?;
    let after = chain
        .range((std::ops::Bound::Excluded(owner), std::ops::Bound::Unbounded))
        .next();
    let (next, _) = after.or_else(|| chain.first_key_value())?;
    let nsec = NSEC::new_cover_self(next.clone(), types.iter().copied());
    Some(Record::from_rdata(
        owner.clone(),
        super::TTL_SECS_DEFAULT,
        RData::DNSSEC(DNSSECRData::NSEC(nsec)),
    ))
}
