//! What can go wrong with certificates and keys, said so that an operator knows what to change.

use std::path::PathBuf;

/// Why certificates, keys or root certificates cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(
        "{what} {path} cannot be read: {reason}; check the path in the settings and that the server's user may read the file"
    )]
    Read {
        /// What the file should hold.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A file cannot be written.
    #[error("{path} cannot be written: {reason}; the server's user needs write access to the folder")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is far larger than any certificate chain.
    #[error("{path} is larger than {limit_bytes} bytes; it is hardly a PEM file")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit, in octets.
        limit_bytes: u64,
    },
    /// The file holds PEM that is broken, or a certificate that is.
    #[error("{path} is damaged: {reason}; copy it again from whoever issued it")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No certificate in the file.
    #[error("{path} holds no certificate; it must hold PEM that begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// No private key in the file.
    #[error(
        "{path} holds no private key; it must hold PEM that begins with -----BEGIN PRIVATE KEY----- (not encrypted)"
    )]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// The key is of a kind that cannot be used.
    #[error(
        "the key in {path} cannot be used: {reason}; use an ECDSA P-256 or an RSA key of 2048 bits or more"
    )]
    UnusableKey {
        /// Which file.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
    /// Certificate and key are not a pair.
    #[error(
        "the certificate in {chain} does not belong to the key in {key}; put the server's own certificate first in the chain and name the key it was issued for"
    )]
    Mismatch {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The settings name no certificate.
    #[error("no certificate is configured; name a chain and a key, or leave both out for a self-signed one")]
    NothingConfigured,
    /// The crypto library failed; no fault of the files.
    #[error("the crypto library failed: {0}")]
    Crypto(String),
}
