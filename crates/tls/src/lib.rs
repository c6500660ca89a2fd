//! TLS for mail: our certificates and how they are renewed, and what we ask of a peer's certificate.
//!
//! Promises: TLS 1.2 and 1.3 only, one crypto provider (aws-lc-rs) named explicitly; a reload never
//! leaves the server without a working certificate; whether a peer's certificate would have verified
//! is known even where it was not required. Never: a socket, a global provider, a client
//! certificate on a port that serves strangers.

pub mod certificates;
pub mod client;
pub mod dane;
mod error;
mod pem;
mod self_signed;
pub mod sessions;

pub use certificates::{CertificateFiles, CertificateInfo, CertificateSource, Certificates, ConnectionNames};
pub use client::{Client, Flaw, Roots, Verdict, VerdictHandle, Verification, server_name};
pub use dane::{Dane, DaneUsage};
pub use error::TlsError;
pub use self_signed::{SELF_SIGNED_RENEW_DAYS, SELF_SIGNED_VALID_DAYS};
pub use sessions::Meeting;

/// The settings of a listener's TLS.
pub use rustls::ServerConfig;

use std::fmt;
use std::sync::Arc;

/// The one crypto provider of the program.
pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What a finished handshake agreed on; for Received fields, logs and the journey.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`; `TLS` when the handshake has not told yet.
    pub version: &'static str,
    /// The cipher suite by its IANA name, such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The key exchange group, such as `X25519MLKEM768`.
    pub group: Option<String>,
}

impl fmt::Display for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with cipher {}", self.version, self.cipher)?;
        match &self.group {
            Some(group) => write!(f, " and key exchange {group}"),
            None => Ok(()),
        }
    }
}

/// What a connection agreed on. Call it after the handshake.
#[must_use]
pub fn describe(connection: &rustls::CommonState) -> TlsInfo {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    // rustls names the suites of TLS 1.3 with a prefix of its own; the registry does not.
    let cipher = connection.negotiated_cipher_suite().map_or_else(
        || "unknown".to_owned(),
        |suite| format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1),
    );
    let group = connection
        .negotiated_key_exchange_group()
        .map(|group| format!("{:?}", group.name()));
    TlsInfo {
        version,
        cipher,
        group,
    }
}
