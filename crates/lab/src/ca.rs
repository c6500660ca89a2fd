//! A small certificate authority: a root, and certificates for the lab's servers.
//!
//! Promises: whoever trusts the root can verify every certificate issued here; keys are written
//! readable by their owner only. Never: revocation, or use outside a lab.

use mail::{Secret, Timestamp, date};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Days that certificates are valid. Some mail clients refuse more than 825.
pub const VALID_DAYS: u64 = 365;

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A name is not one that a certificate can hold, or the key could not be made.
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The root could not be put into a store.
    #[error("the root certificate is not usable: {0}")]
    Root(#[from] rustls::Error),
}

/// The authority with its root certificate and key, in memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
    now: Timestamp,
}

/// A certificate and its key.
pub struct Issued {
    /// The certificate in PEM, without the root.
    pub cert_pem: String,
    /// The key in PEM (PKCS #8).
    pub key_pem: Secret,
}

fn validity(params: &mut CertificateParams, now: Timestamp) {
    const DAY: Duration = Duration::from_secs(86_400);
    let day = |at: Timestamp| {
        let c = date::civil(at);
        rcgen::date_time_ymd(i32::try_from(c.year).unwrap_or(1970), c.month, c.day)
    };
    // A day earlier, for clients whose clock is behind.
    params.not_before = day(Timestamp(now.0.saturating_sub(86_400_000_000)));
    params.not_after = day(now.plus(DAY * u32::try_from(VALID_DAYS).unwrap_or(365)));
}

impl Authority {
    /// Makes a root with a new P-256 key. `name` is shown to whoever looks at the certificate;
    /// `now` is the day from which it is valid.
    ///
    /// # Errors
    /// When the system gives no randomness or the name is not usable.
    pub fn new(name: &str, now: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        validity(&mut params, now);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key)?;
        Ok(Self {
            root: root.der().clone(),
            root_pem: root.pem(),
            issuer: Issuer::new(params, key),
            now,
        })
    }

    /// The root certificate in PEM: what clients have to trust.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A store that trusts this root and nothing else.
    ///
    /// # Errors
    /// When the root is not usable as a trust anchor.
    pub fn roots(&self) -> Result<RootCertStore, CaError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        Ok(roots)
    }

    /// Issues a server's certificate for these names and addresses.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn issue(&self, names: &[&str], addresses: &[IpAddr]) -> Result<Issued, CaError> {
        let key = KeyPair::generate()?;
        let mut subjects: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        subjects.extend(addresses.iter().map(IpAddr::to_string));
        let mut params = CertificateParams::new(subjects)?;
        validity(&mut params, self.now);
        params.distinguished_name = DistinguishedName::new();
        let shown = names.first().map_or("lab server", |n| *n);
        params.distinguished_name.push(DnType::CommonName, shown);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            cert_pem: cert.pem(),
            key_pem: Secret::new(key.serialize_pem()),
        })
    }
}

impl Issued {
    /// Writes both as PEM files; the key's is readable by its owner only.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, cert_path: &Path, key_path: &Path) -> io::Result<()> {
        std::fs::write(cert_path, &self.cert_pem)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options
            .open(key_path)?
            .write_all(self.key_pem.expose().as_bytes())
    }
}
