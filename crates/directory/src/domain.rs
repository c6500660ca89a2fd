//! Domains and their DKIM signing keys.

use crate::{Directory, Error};
use mail::{Domain, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Signing keys of one domain at most.
pub const SIGNING_KEYS_PER_DOMAIN_MAX: usize = 16;

/// With which algorithm a key signs (RFC 6376 §3.3, RFC 8463).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    /// `rsa-sha256`
    #[serde(rename = "rsa-sha256")]
    RsaSha256,
    /// `ed25519-sha256`
    #[serde(rename = "ed25519-sha256")]
    Ed25519Sha256,
}

/// A DKIM key of a domain. Its private part never prints.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Where the public part stands in the DNS: `selector._domainkey.domain`.
    pub selector: String,
    /// How it signs.
    pub algorithm: SigningAlgorithm,
    /// The private key, PKCS#8 in PEM form.
    pub pkcs8_pem: String,
    /// When it was made.
    pub created: Timestamp,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("selector", &self.selector)
            .field("algorithm", &self.algorithm)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

/// A domain that is served here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DomainRecord {
    /// Its name.
    pub name: Domain,
    /// Since when.
    pub created: Timestamp,
    /// Its signing keys; mail is signed with each.
    #[serde(default)]
    pub signing_keys: Vec<SigningKey>,
}

impl Directory {
    /// Serves a domain from now on.
    ///
    /// # Errors
    /// [`Error::Exists`]; otherwise what the store says.
    pub async fn add_domain(&self, name: &Domain, now: Timestamp) -> Result<DomainRecord, Error> {
        let _ = (name, now);
        todo!()
    }

    /// Serves a domain no more.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::InUse`] while it has accounts or aliases.
    pub async fn remove_domain(&self, name: &Domain) -> Result<(), Error> {
        let _ = name;
        todo!()
    }

    /// The domains, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn domains(&self) -> Result<Vec<DomainRecord>, Error> {
        todo!()
    }

    /// One domain.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn domain(&self, name: &Domain) -> Result<Option<DomainRecord>, Error> {
        let _ = name;
        todo!()
    }

    /// Adds a signing key.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::Exists`] for the selector, [`Error::Limit`],
    /// [`Error::Invalid`] when the selector is no DNS name.
    pub async fn add_signing_key(&self, name: &Domain, key: SigningKey) -> Result<(), Error> {
        let _ = (name, key);
        todo!()
    }

    /// Removes a signing key.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::NoSuch`].
    pub async fn remove_signing_key(&self, name: &Domain, selector: &str) -> Result<(), Error> {
        let _ = (name, selector);
        todo!()
    }
}
