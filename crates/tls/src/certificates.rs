//! Our certificates: where they come from, which one a client is shown, and how they are renewed
//! while the server runs.
//!
//! Promises: [`Certificates::reload`] either takes everything new or keeps everything old; a client
//! that names an unknown host is shown the default certificate and may judge for itself.

use crate::error::TlsError;
use crate::{pem, provider, self_signed};
use arc_swap::ArcSwap;
use mail::{Domain, Timestamp};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::extensions::GeneralName;

/// A certificate chain and its key, each in a PEM file. Both may be the same file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// The chain: the server's own certificate first, then the intermediates.
    pub chain: PathBuf,
    /// The private key, not encrypted (PKCS#8, SEC1 or PKCS#1).
    pub key: PathBuf,
}

/// Where our certificates come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CertificateSource {
    /// Files of an operator or an ACME client. The first is the default; the others are chosen by SNI.
    Files(Vec<CertificateFiles>),
    /// One that we make ourselves when there is none, and renew before it ends.
    SelfSigned {
        /// The folder for it: `<data>/tls`. Created when missing.
        dir: PathBuf,
        /// Our host name. `localhost`, `127.0.0.1` and `::1` are named as well.
        host_name: Domain,
        /// Further addresses of ours that clients may connect to by number.
        addresses: Vec<IpAddr>,
    },
}

/// What a certificate says of itself, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateInfo {
    /// Names and addresses it is for, lower case.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// The certificates in use, and the TLS settings that show them.
pub struct Certificates {
    source: CertificateSource,
    client_roots: Option<PathBuf>,
    shown: Arc<Shown>,
    config: Arc<ServerConfig>,
    /// For listeners with logins; asks for a client's certificate when there are roots for it.
    login_config: ArcSwap<ServerConfig>,
}

impl Certificates {
    /// Loads the certificates, or makes a self-signed one. Reads and writes files: not for a busy
    /// async thread.
    ///
    /// # Errors
    /// When a file cannot be used; the text says which, why, and what to change.
    pub fn open(source: CertificateSource, now: Timestamp) -> Result<Self, TlsError> {
        Self::open_with_client_roots(source, None, now)
    }

    /// The same, and listeners with logins ask clients for a certificate that one of the authorities
    /// in this PEM file issued. A client without one is served all the same.
    ///
    /// # Errors
    /// As [`Certificates::open`].
    pub fn open_with_client_roots(
        source: CertificateSource,
        client_roots: Option<PathBuf>,
        now: Timestamp,
    ) -> Result<Self, TlsError> {
        let shown = Arc::new(Shown(ArcSwap::from_pointee(load(&source, now)?)));
        let config = Arc::new(server_config(Arc::clone(&shown), None)?);
        let login_config = match &client_roots {
            Some(path) => Arc::new(server_config(Arc::clone(&shown), Some(path))?),
            None => Arc::clone(&config),
        };
        Ok(Self {
            source,
            client_roots,
            shown,
            config,
            login_config: ArcSwap::new(login_config),
        })
    }

    /// Loads everything anew. Connections that begin after this see the new certificates.
    ///
    /// # Errors
    /// When something new cannot be used; then everything old stays in use.
    pub fn reload(&self, now: Timestamp) -> Result<(), TlsError> {
        let loaded = load(&self.source, now)?;
        if let Some(path) = &self.client_roots {
            let config = server_config(Arc::clone(&self.shown), Some(path))?;
            self.login_config.store(Arc::new(config));
        }
        self.shown.0.store(Arc::new(loaded));
        Ok(())
    }

    /// The settings for listeners with logins. Ask anew for each connection: a reload may change
    /// which client certificates count.
    #[must_use]
    pub fn login_config(&self) -> Arc<ServerConfig> {
        self.login_config.load_full()
    }

    /// Whether clients are asked for a certificate where they log in.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.client_roots.is_some()
    }

    /// What names this connection to both ends, and the address in the client's certificate. Call it
    /// right after the handshake.
    #[must_use]
    pub fn names_of(&self, connection: &rustls::ServerConnection) -> ConnectionNames {
        // RFC 9266 §4.2: in TLS 1.2 it would need the extended master secret.
        let is_1_3 = connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let exporter = is_1_3.then(|| {
            let label = b"EXPORTER-Channel-Binding";
            connection
                .export_keying_material([0u8; 32], label, Some(&[]))
                .ok()
        });
        let loaded = self.shown.0.load();
        let client = connection.peer_certificates().and_then(|chain| chain.first());
        ConnectionNames {
            exporter: exporter.flatten(),
            end_point: loaded
                .entry(connection.server_name())
                .and_then(|e| e.end_point.clone()),
            client_address: client.and_then(client_address),
        }
    }

    /// The settings for listeners. The same before and after a reload: they show what is newest.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// What is in use, the default certificate first.
    #[must_use]
    pub fn describe(&self) -> Vec<CertificateInfo> {
        let loaded = self.shown.0.load();
        loaded.entries.iter().map(|e| e.info.clone()).collect()
    }

    /// The TLSA record for the certificate that is shown to whoever asks for `host` (RFC 7672 §3.1.1).
    #[must_use]
    pub fn tlsa(&self, host: &Domain) -> Option<dns::Tlsa> {
        let loaded = self.shown.0.load();
        let entry = loaded.entry(Some(host.as_str()))?;
        crate::dane::record_for(entry.key.cert.first()?)
    }

    /// Whether the certificate is renewed for the same key. Ours is; how files are renewed is unknown.
    #[must_use]
    pub fn keeps_key(&self) -> bool {
        matches!(self.source, CertificateSource::SelfSigned { .. })
    }

    /// What an operator should look at: ended or soon ending certificates, keys that everybody may
    /// read. Empty when all is well.
    #[must_use]
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let loaded = self.shown.0.load();
        let mut out = Vec::new();
        for entry in &loaded.entries {
            let (path, end) = (entry.files.chain.display(), entry.info.not_after);
            let day = mail::date::iso8601(end);
            if end <= now {
                out.push(format!(
                    "the certificate in {path} ended {day}; renew it and reload"
                ));
            } else if end <= now.plus(WARN_BEFORE_END) {
                out.push(format!("the certificate in {path} ends {day}; renew it soon"));
            }
            if is_world_readable(&entry.files.key) {
                let key = entry.files.key.display();
                out.push(format!(
                    "every user of this machine may read the key {key}; chmod 600 it"
                ));
            }
        }
        out
    }
}

/// How long before its end a certificate is worth a warning. ACME clients renew a month before.
const WARN_BEFORE_END: std::time::Duration = std::time::Duration::from_secs(14 * 86_400);

fn is_world_readable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o004 != 0)
}

fn server_config(shown: Arc<Shown>, client_roots: Option<&PathBuf>) -> Result<ServerConfig, TlsError> {
    let crypto = |e: rustls::Error| TlsError::Crypto(e.to_string());
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(crypto)?;
    let builder = match client_roots {
        Some(path) => builder.with_client_cert_verifier(client_verifier(path)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(shown);
    // Stateless tickets: a resumed session costs the client one signature less, us no memory.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(crypto)?;
    Ok(config)
}

fn client_verifier(path: &Path) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let damaged = |reason: String| TlsError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let text = pem::read_file("the client roots", path)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in pem::certificates(&text, path)? {
        roots.add(certificate).map_err(|e| damaged(e.to_string()))?;
    }
    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| damaged(e.to_string()))
}

/// What names a connection to both of its ends, and who the client says to be.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ConnectionNames {
    /// `tls-exporter` (RFC 9266); only in TLS 1.3.
    pub exporter: Option<[u8; 32]>,
    /// `tls-server-end-point` (RFC 5929 §4): the hash of the certificate that was shown.
    pub end_point: Option<Vec<u8>>,
    /// The rfc822Name in the client's certificate, which was verified; `None` without one.
    pub client_address: Option<String>,
}

/// The first rfc822Name among the alternative names (RFC 5280 §4.2.1.6).
fn client_address(der: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::RFC822Name(address) => Some((*address).to_owned()),
        _ => None,
    })
}

/// RFC 5929 §4.1: by the hash of the certificate's own signature; SHA-256 in place of MD5 and SHA-1.
/// `None` where the signature has no hash of its own, such as Ed25519.
fn end_point(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let hash = match certificate.signature_algorithm.algorithm.to_id_string().as_str() {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &SHA512,
        _ => return None,
    };
    Some(digest(hash, der).as_ref().to_vec())
}

#[derive(Debug)]
struct Entry {
    files: CertificateFiles,
    info: CertificateInfo,
    end_point: Option<Vec<u8>>,
    key: Arc<CertifiedKey>,
}

#[derive(Debug)]
struct Loaded {
    /// Never empty; the first is the default.
    entries: Vec<Entry>,
}

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug)]
struct Shown(ArcSwap<Loaded>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0
            .load()
            .entry(hello.server_name())
            .map(|e| Arc::clone(&e.key))
    }
}

impl Loaded {
    fn entry(&self, name: Option<&str>) -> Option<&Entry> {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.entries
                .iter()
                .find(|e| e.info.names.iter().any(|pattern| covers(pattern, &name)))
        });
        // rustls ends the handshake when there is no answer; mail wants the default instead.
        named.or(self.entries.first())
    }
}

/// Whether a certificate's name covers `name`. A wildcard stands for exactly one label
/// (RFC 9525 §6.3).
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => pattern == name,
    }
}

fn load(source: &CertificateSource, now: Timestamp) -> Result<Loaded, TlsError> {
    let files = match source {
        CertificateSource::Files(files) if files.is_empty() => return Err(TlsError::NothingConfigured),
        CertificateSource::Files(files) => files.clone(),
        CertificateSource::SelfSigned {
            dir,
            host_name,
            addresses,
        } => {
            let names = self_signed_names(host_name, addresses);
            if !self_signed::is_usable(dir, &names, now) {
                self_signed::make(dir, &names, now)?;
            }
            let path = self_signed::identity_path(dir);
            vec![CertificateFiles {
                chain: path.clone(),
                key: path,
            }]
        }
    };
    let entries = files.into_iter().map(load_entry).collect::<Result<_, _>>()?;
    Ok(Loaded { entries })
}

fn self_signed_names(host_name: &Domain, addresses: &[IpAddr]) -> Vec<String> {
    let fixed = [host_name.as_str(), "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut names: Vec<String> = Vec::new();
    for name in fixed.into_iter().chain(addresses.iter().map(ToString::to_string)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn load_entry(files: CertificateFiles) -> Result<Entry, TlsError> {
    let chain_pem = pem::read_file("the certificate", &files.chain)?;
    let chain = pem::certificates(&chain_pem, &files.chain)?;
    let key_pem = pem::read_file("the private key", &files.key)?;
    let key = pem::private_key(&key_pem, &files.key)?;
    let info = chain.first().and_then(info_of).ok_or_else(|| TlsError::Damaged {
        path: files.chain.clone(),
        reason: "the first certificate is not valid X.509".to_owned(),
    })?;
    let end_point = chain.first().and_then(end_point);
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            chain: files.chain.clone(),
            key: files.key.clone(),
        },
        e => TlsError::UnusableKey {
            path: files.key.clone(),
            reason: e.to_string(),
        },
    })?;
    Ok(Entry {
        files,
        info,
        end_point,
        key: Arc::new(key),
    })
}

/// Reads what a certificate says of itself; `None` when it is not X.509.
pub(crate) fn info_of(der: &CertificateDer<'_>) -> Option<CertificateInfo> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension
            .value
            .general_names
            .iter()
            .filter_map(shown_name)
            .collect(),
        _ => Vec::new(),
    };
    let validity = certificate.validity();
    Some(CertificateInfo {
        names,
        issuer: certificate.issuer().to_string(),
        not_before: Timestamp::from_secs(validity.not_before.timestamp()),
        not_after: Timestamp::from_secs(validity.not_after.timestamp()),
    })
}

fn shown_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from).ok();
            let v6 = || <[u8; 16]>::try_from(*octets).map(IpAddr::from).ok();
            v4.or_else(v6).map(|ip| ip.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (pattern, name, expected) in [
            ("mail.example.com", "mail.example.com", true),
            ("mail.example.com", "example.com", false),
            ("*.example.com", "mail.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.mail.example.com", false),
        ] {
            assert_eq!(covers(pattern, name), expected, "{pattern} {name}");
        }
    }
}
