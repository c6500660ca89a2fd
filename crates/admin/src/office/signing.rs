//! Orders about domains and their signing keys; the zone to publish.

use super::Office;
use crate::words::{DomainRow, Refusal, Response};
use crate::zone::Zone;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use directory::{SigningAlgorithm, SigningKey as StoredKey};
use judge::dkim::{KeyKind, Signer, SigningKey};
use mail::{Domain, Timestamp, date};
use std::net::IpAddr;
use std::sync::Arc;

/// The keys that every domain has.
const KEYS: [(KeyKind, SigningAlgorithm, &str); 2] = [
    (KeyKind::Rsa2048, SigningAlgorithm::RsaSha256, "rsa"),
    (KeyKind::Ed25519, SigningAlgorithm::Ed25519Sha256, "ed"),
];

impl Office {
    /// Adds a domain with an RSA key, which every verifier knows, and an Ed25519 key, which is short
    /// and fast. A domain that lacks them, after a crash in here, gets them when it is added again.
    pub(super) async fn add_domain(&self, domain: &Domain) -> Result<Response, Refusal> {
        let now = self.clock.now();
        let record = match self.directory.domain(domain).await? {
            Some(half) if half.signing_keys.len() < KEYS.len() => half,
            _ => self.directory.add_domain(domain, now).await?,
        };
        for (kind, algorithm, tag) in KEYS {
            if !record.signing_keys.iter().any(|k| k.algorithm == algorithm) {
                self.directory
                    .add_signing_key(domain, new_key(kind, algorithm, tag, now)?)
                    .await?;
            }
        }
        Ok(Response::Done(format!(
            "mail for {domain} is taken from now on; what to publish: posthaste dns records {domain}"
        )))
    }

    pub(super) async fn list_domains(&self) -> Result<Response, Refusal> {
        let domains = self.directory.domains().await?.into_iter();
        Ok(Response::Domains(
            domains
                .map(|d| DomainRow {
                    domain: d.name,
                    selectors: d.signing_keys.into_iter().map(|k| k.selector).collect(),
                })
                .collect(),
        ))
    }

    pub(super) async fn remove_domain(&self, domain: &Domain) -> Result<Response, Refusal> {
        self.directory.remove_domain(domain).await?;
        Ok(Response::Done(format!(
            "mail for {domain} is taken no more; remove its records from the DNS"
        )))
    }

    pub(super) async fn zone(&self, domain: &Domain, addresses: &[IpAddr]) -> Result<Response, Refusal> {
        let mut dkim = Vec::new();
        for key in self.keys_of(domain).await? {
            let value = read_key(&key)?.dns_record_value().map_err(Refusal::failed)?;
            dkim.push((key.selector, value));
        }
        let tlsa = self.own_tlsa.as_ref().and_then(|own_tlsa| own_tlsa());
        let record = self.directory.domain(domain).await?;
        let mta_sts = record.and_then(|record| self.hosted_policy(&record));
        let zone = Zone {
            domain,
            hostname: &self.hostname,
            addresses,
            dkim: &dkim,
            tlsa: tlsa.as_ref(),
            mta_sts: mta_sts.as_ref(),
        };
        Ok(Response::Zone(zone.to_text()))
    }

    /// Signs a message in base64 with each key of a domain; by default the author's.
    pub(super) async fn sign(&self, message: &str, domain: Option<Domain>) -> Result<Response, Refusal> {
        let message = STANDARD
            .decode(message)
            .map_err(|e| Refusal::invalid(e.to_string()))?;
        let domain = match domain {
            Some(given) => given,
            None => judge::dmarc::author_domain(&message)
                .map_err(|e| Refusal::invalid(format!("{e}; name the domain with --domain")))?,
        };
        let mut fields = String::new();
        for stored in self.keys_of(&domain).await? {
            let signer = Signer::new(domain.clone(), &stored.selector, Arc::new(read_key(&stored)?));
            let signer = signer.map_err(Refusal::failed)?;
            fields += &signer
                .sign(&message, self.clock.now())
                .map_err(|e| Refusal::invalid(e.to_string()))?;
        }
        Ok(Response::Signatures(fields))
    }

    async fn keys_of(&self, domain: &Domain) -> Result<Vec<StoredKey>, Refusal> {
        let record = self.directory.domain(domain).await?;
        let record = record.ok_or_else(|| {
            Refusal::not_found(format!(
                "{domain} is not served here; add it with: posthaste domain add {domain}"
            ))
        })?;
        Ok(record.signing_keys)
    }
}

fn read_key(stored: &StoredKey) -> Result<SigningKey, Refusal> {
    SigningKey::from_pem(&stored.pkcs8_pem)
        .map_err(|e| Refusal::failed(format!("the key {} cannot be read: {e}", stored.selector)))
}

/// A new key; its selector tells kind and month, so that a later one can stand beside it.
fn new_key(
    kind: KeyKind,
    algorithm: SigningAlgorithm,
    tag: &str,
    now: Timestamp,
) -> Result<StoredKey, Refusal> {
    let key = SigningKey::generate(kind).map_err(Refusal::failed)?;
    let month = date::civil(now);
    Ok(StoredKey {
        selector: format!("ph{:04}{:02}{tag}", month.year, month.month),
        algorithm,
        pkcs8_pem: key.to_pkcs8_pem().map_err(Refusal::failed)?,
        created: now,
    })
}
