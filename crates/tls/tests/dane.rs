//! DANE over real handshakes: a server with a chain of three certificates, and what each TLSA record
//! makes of it.
#![allow(clippy::unwrap_used)]

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use dns::Tlsa;
use mail::Domain;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use tls::{Client, Dane, DaneUsage, Flaw, Roots, Verdict, Verification};

const HOST: &str = "mx.example.com";

/// A root, an intermediate and a leaf.
struct Chain {
    root: Certificate,
    middle: Certificate,
    leaf: Certificate,
    leaf_key: KeyPair,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn chain(host: &str, expired: bool) -> Chain {
    let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (root_key, middle_key, leaf_key) = (key(), key(), key());
    let root_params = authority("root");
    let root = root_params.self_signed(&root_key).unwrap();
    let root_issuer = Issuer::new(root_params, root_key);
    let middle_params = authority("middle");
    let middle = middle_params.signed_by(&middle_key, &root_issuer).unwrap();
    let middle_issuer = Issuer::new(middle_params, middle_key);
    let mut leaf_params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    if expired {
        leaf_params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let leaf = leaf_params.signed_by(&leaf_key, &middle_issuer).unwrap();
    Chain {
        root,
        middle,
        leaf,
        leaf_key,
    }
}

fn public_key(certificate: &Certificate) -> Vec<u8> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate.der()).unwrap();
    parsed.tbs_certificate.subject_pki.raw.to_vec()
}

fn record(usage: u8, selector: u8, matching: u8, certificate: &Certificate) -> Tlsa {
    let selected = match selector {
        0 => certificate.der().to_vec(),
        _ => public_key(certificate),
    };
    let data = match matching {
        0 => selected,
        1 => digest(&SHA256, &selected).as_ref().to_vec(),
        _ => digest(&SHA512, &selected).as_ref().to_vec(),
    };
    Tlsa {
        usage,
        selector,
        matching,
        data,
    }
}

/// Which certificates the server shows behind its own.
fn server(chain: &Chain, shown: &[&Certificate]) -> Arc<rustls::ServerConfig> {
    let mut certificates: Vec<CertificateDer<'static>> = vec![chain.leaf.der().clone()];
    certificates.extend(shown.iter().map(|c| c.der().clone()));
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(chain.leaf_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    Arc::new(config)
}

type Seen = (bool, Option<Verdict>, Option<Flaw>);

/// A handshake with these records; which name the server was asked for comes too.
fn shake(config: Arc<rustls::ServerConfig>, dane: Dane) -> (Seen, Option<String>) {
    let client = Client::new(&Roots::public()).unwrap();
    let name = tls::server_name(dane.base().as_str()).unwrap();
    let (settings, verdict) = client.config(Verification::Dane(Arc::new(dane)));
    let mut c = rustls::ClientConnection::new(settings, name).unwrap();
    let mut s = rustls::ServerConnection::new(config).unwrap();
    let taken = loop {
        let mut wire = Vec::new();
        c.write_tls(&mut wire).unwrap();
        s.read_tls(&mut wire.as_slice()).unwrap();
        if s.process_new_packets().is_err() {
            break false;
        }
        let mut wire = Vec::new();
        s.write_tls(&mut wire).unwrap();
        c.read_tls(&mut wire.as_slice()).unwrap();
        if c.process_new_packets().is_err() {
            break false;
        }
        if !c.is_handshaking() && !s.is_handshaking() {
            break true;
        }
    };
    let asked = s.server_name().map(str::to_owned);
    ((taken, verdict.verdict(), verdict.flaw()), asked)
}

fn dane(records: &[Tlsa], names: &[&str]) -> Dane {
    let domain = |text: &&str| Domain::parse(text).unwrap();
    let names: Vec<Domain> = names.iter().map(domain).collect();
    Dane::new(records, domain(&HOST), &names).unwrap()
}

#[test]
fn every_usage_selector_and_matching_type() {
    let chain = chain(HOST, false);
    let whole = [&chain.middle, &chain.root];
    for selector in [0, 1] {
        for matching in [0, 1, 2] {
            for (usage, certificate, wanted) in [
                (3, &chain.leaf, DaneUsage::Ee),
                (2, &chain.middle, DaneUsage::Ta),
                (2, &chain.root, DaneUsage::Ta),
            ] {
                let records = [record(usage, selector, matching, certificate)];
                let (seen, asked) = shake(server(&chain, &whole), dane(&records, &[]));
                let what = format!("{usage} {selector} {matching}");
                assert_eq!(seen, (true, Some(Verdict::Dane(wanted)), None), "{what}");
                assert_eq!(asked.as_deref(), Some(HOST), "SNI is the TLSA base domain");
            }
            // The wrong place in the chain is no match.
            for (usage, certificate) in [(3, &chain.middle), (2, &chain.leaf)] {
                let records = [record(usage, selector, matching, certificate)];
                let ((taken, ..), _) = shake(server(&chain, &whole), dane(&records, &[]));
                assert!(!taken, "{usage} {selector} {matching}");
            }
        }
    }
}

/// RFC 7671 §5.2.2: what a record holds in full need not be shown; of what it holds the digest of, it must.
#[test]
fn an_anchor_that_is_not_shown() {
    let chain = chain(HOST, false);
    for (selector, matching, wanted) in [(0, 0, true), (1, 0, true), (0, 1, false), (1, 2, false)] {
        let records = [record(2, selector, matching, &chain.root)];
        let ((taken, _, flaw), _) = shake(server(&chain, &[&chain.middle]), dane(&records, &[]));
        assert_eq!(taken, wanted, "2 {selector} {matching}");
        assert_eq!(flaw, (!wanted).then_some(Flaw::NoTlsaMatches));
    }
}

#[test]
fn one_of_several_is_enough_and_none_is_not() {
    let chain = chain(HOST, false);
    let other = self::chain(HOST, false);
    let wrong = record(3, 1, 1, &other.leaf);
    let right = record(3, 1, 1, &chain.leaf);
    let config = || server(&chain, &[&chain.middle]);
    let (seen, _) = shake(config(), dane(&[wrong.clone(), right.clone()], &[]));
    assert!(seen.0);
    let (seen, _) = shake(
        config(),
        dane(&[wrong.clone(), record(2, 0, 1, &other.root)], &[]),
    );
    let (false, Some(Verdict::Unverified(why)), Some(Flaw::NoTlsaMatches)) = seen else {
        panic!("{seen:?}");
    };
    assert_eq!(why, "it matches none of the TLSA records of mx.example.com");
    // Beside a stronger digest the weaker does not count (RFC 7671 §9).
    let stronger = record(3, 1, 2, &other.leaf);
    let (seen, _) = shake(config(), dane(&[right, stronger], &[]));
    assert!(!seen.0);
}

/// RFC 7672 §3.1.1 and §3.2.2.
#[test]
fn names_and_time_matter_for_anchors_only() {
    for (host, expired, names, ta, flaw) in [
        (HOST, false, &[][..], true, None),
        ("example.com", false, &["example.com"], true, None),
        ("*.example.com", false, &[], true, None),
        (
            "mx.example.net",
            false,
            &["example.com"],
            false,
            Some(Flaw::OtherName),
        ),
        (HOST, true, &[], false, Some(Flaw::NotInItsTime)),
    ] {
        let chain = chain(host, expired);
        let config = server(&chain, &[&chain.middle, &chain.root]);
        let by_ta = dane(&[record(2, 0, 1, &chain.root)], names);
        let ((taken, _, found), _) = shake(Arc::clone(&config), by_ta);
        assert_eq!((taken, found), (ta, flaw), "{host}");
        let by_ee = dane(&[record(3, 1, 1, &chain.leaf)], names);
        let ((taken, verdict, _), _) = shake(config, by_ee);
        assert_eq!(
            (taken, verdict),
            (true, Some(Verdict::Dane(DaneUsage::Ee))),
            "{host}"
        );
    }
}

/// An attacker has the records and the certificates, but not the key.
#[test]
fn the_certificate_without_its_key_is_nothing() {
    let chain = chain(HOST, false);
    let other = self::chain(HOST, false);
    let stolen = Chain {
        leaf_key: other.leaf_key,
        ..chain
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(stolen.leaf_key.serialize_der()));
    let key = provider.key_provider.load_private_key(key).unwrap();
    let shown = vec![stolen.leaf.der().clone()];
    let certified = Arc::new(rustls::sign::CertifiedKey::new(shown, key));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let records = [record(3, 1, 1, &stolen.leaf)];
    let ((taken, ..), _) = shake(Arc::new(config), dane(&records, &[]));
    assert!(!taken);
}
