//! Private keys that sign: made, read, written as PKCS#8, and told to the DNS.
//!
//! Promises: never prints the key.

use super::RSA_BITS_MIN;
use super::key::Algorithm;
use crate::tags::{base64, to_base64};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use std::fmt;

/// Which kind of key is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// RSA with 2,048 bits: every verifier knows it (RFC 8301 §3.2).
    Rsa2048,
    /// Ed25519: short and fast, not known everywhere (RFC 8463).
    Ed25519,
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text or bytes hold no private key that we can use.
    #[error("this is no RSA (1024 bits or more) or Ed25519 private key in PKCS#8 or PKCS#1: {0}")]
    Unreadable(String),
    /// The library could not make or write a key.
    #[error("the key could not be made or written")]
    Library,
}

enum Inner {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A private key that signs.
pub struct SigningKey {
    inner: Inner,
}

impl SigningKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let inner = match kind {
            KeyKind::Rsa2048 => {
                Inner::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Library)?)
            }
            KeyKind::Ed25519 => Inner::Ed25519(Ed25519KeyPair::generate().map_err(|_| KeyError::Library)?),
        };
        Ok(Self { inner })
    }

    /// Reads a key in PKCS#8 (RFC 5208), or an RSA key in PKCS#1 (RFC 8017), as DER.
    ///
    /// # Errors
    /// When it is neither, or an RSA key under 1024 bits.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let inner = Inner::Ed25519(key);
            return Ok(Self { inner });
        }
        let key = RsaKeyPair::from_pkcs8(der)
            .or_else(|_| RsaKeyPair::from_der(der))
            .map_err(|e| KeyError::Unreadable(e.to_string()))?;
        if key.public_modulus_len() * 8 < RSA_BITS_MIN {
            return Err(KeyError::Unreadable("the RSA key is too short".to_owned()));
        }
        let inner = Inner::Rsa(key);
        Ok(Self { inner })
    }

    /// Reads a key in PEM (RFC 7468): the first private key in the text.
    ///
    /// # Errors
    /// When there is none that can be used.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let unreadable = |why: &str| KeyError::Unreadable(why.to_owned());
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY"] {
            let (begin, end) = (
                format!("-----BEGIN {label}-----"),
                format!("-----END {label}-----"),
            );
            let Some((_, rest)) = pem.split_once(&begin) else {
                continue;
            };
            let (body, _) = rest
                .split_once(&end)
                .ok_or_else(|| unreadable("the PEM has no end line"))?;
            let der = base64(body).ok_or_else(|| unreadable("the PEM is not base64"))?;
            return Self::from_der(&der);
        }
        Err(unreadable("there is no private key in the PEM"))
    }

    /// The key in PKCS#8, as DER. Keep it secret.
    ///
    /// # Errors
    /// When the library cannot write it.
    pub fn to_pkcs8_der(&self) -> Result<Vec<u8>, KeyError> {
        match &self.inner {
            Inner::Rsa(key) => {
                let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| KeyError::Library)?;
                Ok(der.as_ref().to_vec())
            }
            Inner::Ed25519(key) => {
                let der = key.to_pkcs8v1().map_err(|_| KeyError::Library)?;
                Ok(der.as_ref().to_vec())
            }
        }
    }

    /// The key in PKCS#8, as PEM. Keep it secret.
    ///
    /// # Errors
    /// When the library cannot write it.
    pub fn to_pkcs8_pem(&self) -> Result<String, KeyError> {
        let encoded = to_base64(&self.to_pkcs8_der()?);
        let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in encoded.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(pem)
    }

    /// The public half, base64 encoded, as it stands in `p=`.
    ///
    /// # Errors
    /// When the library cannot write it.
    pub fn public_key_base64(&self) -> Result<String, KeyError> {
        match &self.inner {
            Inner::Rsa(key) => {
                let der: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|_| KeyError::Library)?;
                Ok(to_base64(der.as_ref()))
            }
            // RFC 8463 §4.2: the 32 octets themselves.
            Inner::Ed25519(key) => Ok(to_base64(key.public_key().as_ref())),
        }
    }

    /// The TXT record to publish at `<selector>._domainkey.<domain>`, in one piece. An RSA key's is
    /// longer than 255 octets: in a zone file it has to be split into several strings.
    ///
    /// # Errors
    /// When the library cannot write the public key.
    pub fn dns_record_value(&self) -> Result<String, KeyError> {
        let key_type = match &self.inner {
            Inner::Rsa(_) => "rsa",
            Inner::Ed25519(_) => "ed25519",
        };
        Ok(format!("v=DKIM1; k={key_type}; p={}", self.public_key_base64()?))
    }

    /// The name of the algorithm with which it signs (`a=`).
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match &self.inner {
            Inner::Rsa(_) => Algorithm::RsaSha256.as_str(),
            Inner::Ed25519(_) => Algorithm::Ed25519Sha256.as_str(),
        }
    }

    /// Signs data with SHA-256 and the key's algorithm.
    pub(crate) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.inner {
            Inner::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature)
                    .map_err(|_| KeyError::Library)?;
                Ok(signature)
            }
            Inner::Ed25519(key) => Ok(key.sign(digest(&SHA256, data).as_ref()).as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.algorithm())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        for kind in [KeyKind::Rsa2048, KeyKind::Ed25519] {
            let key = SigningKey::generate(kind).unwrap();
            let again = SigningKey::from_pem(&key.to_pkcs8_pem().unwrap()).unwrap();
            assert_eq!(key.dns_record_value().unwrap(), again.dns_record_value().unwrap());
            assert_eq!(key.sign(b"x").unwrap(), again.sign(b"x").unwrap());
            assert!(!format!("{key:?}").contains("PRIVATE"));
        }
        for bad in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(matches!(SigningKey::from_pem(bad), Err(KeyError::Unreadable(_))));
        }
    }
}
