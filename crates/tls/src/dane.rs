//! DANE: whether a certificate is what the TLSA records say it must be (RFC 6698, 7671, 7672).
//!
//! Promises: pure; one record that matches is enough; a record that cannot be used is as if it were not
//! there; what is compared is bounded by [`RECORDS_MAX`] and [`CHAIN_MAX`]. Never: a look at the
//! authorities that we believe otherwise, or at a common name (RFC 7672 §3.2.3 leaves that open).

use crate::client::{Flaw, flaw, in_words};
use crate::provider;
use aws_lc_rs::digest::{SHA256, SHA512, digest};
use dns::Tlsa;
use mail::Domain;
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, Der, ServerName, TrustAnchor, UnixTime};
use std::fmt;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Usable records that are compared at most; more are left out. A few are usual.
pub const RECORDS_MAX: usize = 64;
/// Certificates of a chain that are compared at most.
pub const CHAIN_MAX: usize = 16;

/// What a TLSA record says of a certificate, as far as mail uses it (RFC 7672 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DaneUsage {
    /// DANE-TA(2): it is issued, through any number of others, by the one that the record names.
    Ta,
    /// DANE-EE(3): it is the one that the record names.
    Ee,
}

impl fmt::Display for DaneUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DaneUsage::Ta => "DANE-TA",
            DaneUsage::Ee => "DANE-EE",
        })
    }
}

/// What the TLSA records of one host ask of its certificate.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Dane {
    records: Vec<Tlsa>,
    base: Domain,
    /// Names that a certificate issued by a trust anchor may be for.
    names: Vec<Domain>,
}

/// Whether a record can be used at all (RFC 7672 §3.1): DANE-TA or DANE-EE, of the whole certificate or
/// its key, octets or a known digest of the right length. PKIX-TA and PKIX-EE cannot (RFC 7672 §3.1.3).
#[must_use]
pub fn is_usable(record: &Tlsa) -> bool {
    let data_fits = match (record.matching, record.selector) {
        (0, 0) => x509_parser::parse_x509_certificate(&record.data).is_ok(),
        (0, 1) => SubjectPublicKeyInfo::from_der(&record.data).is_ok(),
        (1, _) => record.data.len() == 32,
        (2, _) => record.data.len() == 64,
        _ => false,
    };
    matches!(record.usage, 2 | 3) && matches!(record.selector, 0 | 1) && data_fits
}

impl Dane {
    /// What these records ask of the host `base` (the TLSA base domain, which is also the name to ask
    /// for by SNI, RFC 7672 §8.1). `names`: further names that a certificate issued by a trust anchor may
    /// be for (RFC 7672 §3.2.2). `None`: not one record is usable.
    #[must_use]
    pub fn new(records: &[Tlsa], base: Domain, names: &[Domain]) -> Option<Self> {
        let mut usable: Vec<Tlsa> = records.iter().filter(|r| is_usable(r)).cloned().collect();
        // RFC 7671 §9: of the digests of one usage and selector only the strongest counts.
        let strong: Vec<(u8, u8)> = usable
            .iter()
            .filter(|r| r.matching == 2)
            .map(|r| (r.usage, r.selector))
            .collect();
        usable.retain(|r| r.matching != 1 || !strong.contains(&(r.usage, r.selector)));
        usable.truncate(RECORDS_MAX);
        let mut all = vec![base.clone()];
        all.extend(names.iter().filter(|name| **name != base).cloned());
        (!usable.is_empty()).then_some(Self {
            records: usable,
            base,
            names: all,
        })
    }

    /// The TLSA base domain: the name to ask the host for.
    #[must_use]
    pub fn base(&self) -> &Domain {
        &self.base
    }

    /// The records that count.
    #[must_use]
    pub fn records(&self) -> &[Tlsa] {
        &self.records
    }

    /// The same, its records in the one order that does not depend on the DNS.
    pub(crate) fn in_order(&self) -> Self {
        let mut same = self.clone();
        same.records.sort();
        same
    }

    /// Judges what a host showed.
    pub(crate) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<DaneUsage, (Flaw, String)> {
        let of = |usage| self.records.iter().filter(move |r| r.usage == usage);
        // RFC 7672 §3.1.1: neither its names nor its time matter.
        if of(3).any(|record| matches(record, end_entity)) {
            return Ok(DaneUsage::Ee);
        }
        let chain: Vec<&CertificateDer<'_>> = intermediates.iter().take(CHAIN_MAX).collect();
        let mut anchors = RootCertStore::empty();
        for record in of(2) {
            let shown = chain.iter().filter(|certificate| matches(record, certificate));
            anchors.roots.extend(shown.filter_map(|c| anchor_of(c)));
            if record.matching == 0 {
                anchors
                    .roots
                    .extend(anchors_not_shown(record, end_entity, &chain));
            }
        }
        if anchors.is_empty() {
            let why = format!("it matches none of the TLSA records of {}", self.base);
            return Err((Flaw::NoTlsaMatches, why));
        }
        self.verify(end_entity, intermediates, &anchors, now)
            .map(|()| DaneUsage::Ta)
            .map_err(|e| {
                (
                    flaw(&e),
                    format!("by the TLSA records of {}, {}", self.base, in_words(&e)),
                )
            })
    }

    /// Whether it is issued by one of these, now, for one of our names (RFC 7672 §3.2.2).
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        anchors: &RootCertStore,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, anchors, intermediates, now, algorithms)?;
        let mut last = Err(rustls::CertificateError::NotValidForName.into());
        for name in &self.names {
            let Ok(name) = ServerName::try_from(name.as_str()) else {
                continue;
            };
            last = verify_server_name(&certificate, &name);
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

/// Whether a record matches a certificate (RFC 6698 §2.1.2 to §2.1.4).
fn matches(record: &Tlsa, certificate: &CertificateDer<'_>) -> bool {
    let selected = match record.selector {
        0 => Some(certificate.as_ref()),
        _ => public_key(certificate),
    };
    selected.is_some_and(|octets| match record.matching {
        0 => octets == record.data,
        1 => digest(&SHA256, octets).as_ref() == record.data,
        _ => digest(&SHA512, octets).as_ref() == record.data,
    })
}

/// The record to publish for a certificate: `3 1 1`, its key by SHA-256 (RFC 7672 §3.1.1 advises it: it
/// stays true when the certificate is renewed for the same key). `None`: it is not X.509.
#[must_use]
pub fn record_for(certificate: &CertificateDer<'_>) -> Option<Tlsa> {
    Some(Tlsa {
        usage: 3,
        selector: 1,
        matching: 1,
        data: digest(&SHA256, public_key(certificate)?).as_ref().to_vec(),
    })
}

/// A certificate's SubjectPublicKeyInfo, in DER.
fn public_key<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.tbs_certificate.subject_pki.raw)
}

fn anchor_of(certificate: &CertificateDer<'_>) -> Option<TrustAnchor<'static>> {
    let mut store = RootCertStore::empty();
    store.add(certificate.clone().into_owned()).ok()?;
    store.roots.pop()
}

/// The anchor that a record holds in full, which the host need not show (RFC 7671 §5.2.2): a whole
/// certificate, or a key, which then may be that of any issuer in the chain.
fn anchors_not_shown(
    record: &Tlsa,
    end_entity: &CertificateDer<'_>,
    chain: &[&CertificateDer<'_>],
) -> Vec<TrustAnchor<'static>> {
    if record.selector == 0 {
        return anchor_of(&CertificateDer::from(record.data.as_slice()))
            .into_iter()
            .collect();
    }
    let Some(key) = contents(&record.data) else {
        return Vec::new();
    };
    let issuer = |certificate: &CertificateDer<'_>| {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        contents(parsed.issuer().as_raw()).map(<[u8]>::to_vec)
    };
    let certificates = std::iter::once(end_entity).chain(chain.iter().copied());
    certificates
        .filter_map(issuer)
        .map(|subject| TrustAnchor {
            subject: Der::from(subject),
            subject_public_key_info: Der::from(key.to_vec()),
            name_constraints: None,
        })
        .collect()
}

/// What stands in a DER value, without its tag and length (X.690 §8.1.3).
fn contents(der: &[u8]) -> Option<&[u8]> {
    let first = *der.get(1)?;
    let length_octets = match first {
        0..=0x7f => 0,
        0x81..=0x84 => usize::from(first & 0x7f),
        _ => return None,
    };
    let length = der.get(2..2 + length_octets)?;
    let length = match length_octets {
        0 => usize::from(first),
        _ => length.iter().fold(0, |n, octet| n << 8 | usize::from(*octet)),
    };
    let begin = 2 + length_octets;
    der.get(begin..begin.checked_add(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(usage: u8, selector: u8, matching: u8, data: Vec<u8>) -> Tlsa {
        Tlsa {
            usage,
            selector,
            matching,
            data,
        }
    }

    #[test]
    fn what_cannot_be_used_is_as_if_it_were_not_there() {
        let base = Domain::parse("mx.example.com").unwrap();
        for unusable in [
            record(0, 1, 1, vec![0; 32]),
            record(1, 1, 1, vec![0; 32]),
            record(4, 1, 1, vec![0; 32]),
            record(255, 1, 1, vec![0; 32]),
            record(3, 2, 1, vec![0; 32]),
            record(3, 1, 3, vec![0; 32]),
            record(3, 1, 1, vec![0; 31]),
            record(3, 1, 2, vec![0; 32]),
            record(3, 1, 0, Vec::new()),
            record(2, 0, 0, vec![0x30, 0x03, 1, 2, 3]),
        ] {
            assert!(!is_usable(&unusable), "{unusable}");
            assert_eq!(Dane::new(&[unusable], base.clone(), &[]), None);
        }
    }

    #[test]
    fn of_the_digests_only_the_strongest_counts() {
        let base = Domain::parse("mx.example.com").unwrap();
        let records = [
            record(3, 1, 1, vec![1; 32]),
            record(3, 1, 2, vec![2; 64]),
            record(3, 0, 1, vec![3; 32]),
            record(2, 1, 1, vec![4; 32]),
        ];
        let dane = Dane::new(&records, base, &[]).unwrap();
        let kept: Vec<u8> = dane.records().iter().map(|r| r.data[0]).collect();
        assert_eq!(kept, [2, 3, 4]);
    }

    #[test]
    fn contents_of_der_values() {
        assert_eq!(contents(&[0x30, 2, 7, 8]), Some(&[7, 8][..]));
        let mut long = vec![0x30, 0x81, 0x80];
        long.extend([9; 0x80]);
        assert_eq!(contents(&long).map(<[u8]>::len), Some(0x80));
        for broken in [
            &[][..],
            &[0x30],
            &[0x30, 3, 1],
            &[0x30, 0x80],
            &[0x30, 0x84, 255, 255, 255, 255],
        ] {
            assert_eq!(contents(broken), None, "{broken:?}");
        }
    }
}
