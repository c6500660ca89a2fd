//! Domains and their DKIM signing keys.

use crate::leads::owners_in;
use crate::{CONFLICT_RETRIES_MAX, Directory, DomainSettings, Error, keys, value};
use mail::{Domain, EmailAddress, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use store::{Batch, CommitError, Key, Require, Snapshot};

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
    /// How it treats its addresses.
    #[serde(default, skip_serializing_if = "DomainSettings::is_default")]
    pub settings: DomainSettings,
}

/// The first octet of a record with settings: what knows no settings must not pass over them.
const WITH_SETTINGS: u8 = 2;

fn encode(key: &Key, record: &DomainRecord) -> Result<Vec<u8>, Error> {
    let mut value = value::encode(key, record)?;
    if !record.settings.is_default()
        && let Some(first) = value.first_mut()
    {
        *first = WITH_SETTINGS;
    }
    Ok(value)
}

pub(crate) fn decode(key: &Key, value: &[u8]) -> Result<DomainRecord, Error> {
    match value {
        [WITH_SETTINGS, json @ ..] => serde_json::from_slice(json).map_err(|e| Error::Damaged {
            key: key.clone(),
            what: e.to_string(),
        }),
        _ => value::decode(key, value),
    }
}

/// The settings of a domain: `None` when it is not served here, and `Some(None)` when they are the
/// defaults, which the record's first octet says.
pub(crate) async fn settings_in(
    snapshot: &dyn Snapshot,
    name: &Domain,
) -> Result<Option<Option<Box<DomainSettings>>>, Error> {
    #[derive(Deserialize)]
    struct Only {
        settings: Box<DomainSettings>,
    }
    let key = keys::domain(name);
    let Some(stored) = snapshot.get(&key).await? else {
        return Ok(None);
    };
    match stored.value.as_ref() {
        [WITH_SETTINGS, json @ ..] => {
            let only: Only = serde_json::from_slice(json).map_err(|e| Error::Damaged {
                key: key.clone(),
                what: e.to_string(),
            })?;
            Ok(Some(Some(only.settings)))
        }
        _ => Ok(Some(None)),
    }
}

impl Directory {
    /// Serves a domain from now on.
    ///
    /// # Errors
    /// [`Error::Exists`]; otherwise what the store says.
    pub async fn add_domain(&self, name: &Domain, now: Timestamp) -> Result<DomainRecord, Error> {
        let record = DomainRecord {
            name: name.clone(),
            created: now,
            signing_keys: Vec::new(),
            settings: DomainSettings::default(),
        };
        let key = keys::domain(name);
        let mut batch = Batch::new();
        batch.require(Require::KeyAbsent(key.clone()));
        batch.put(key.clone(), encode(&key, &record)?);
        match self.store.commit(batch).await {
            Ok(_) => Ok(record),
            Err(CommitError::Conflict { .. }) => Err(Error::Exists(name.to_string())),
            Err(e) => Err(e.into()),
        }
    }

    /// Serves a domain no more.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::InUse`] while it has accounts, aliases or groups, or another
    /// domain stands for it.
    pub async fn remove_domain(&self, name: &Domain) -> Result<(), Error> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let (_, version) = domain_in(snapshot.as_ref(), name).await?;
            self.must_be_empty(snapshot.as_ref(), name).await?;
            self.must_stand_for_itself(name).await?;
            drop(snapshot);
            let mut batch = Batch::new();
            // Whoever adds an account or an alias writes the domain's record too.
            batch.require(Require::VersionIs(keys::domain(name), version));
            batch.delete(keys::domain(name));
            if self.commit_unless_conflict(batch).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// No account, alias or group is at the domain.
    pub(crate) async fn must_be_empty(&self, snapshot: &dyn Snapshot, name: &Domain) -> Result<(), Error> {
        let accounts = keys::accounts_of(name).prefix_range();
        if !snapshot.scan(&accounts, 1).await?.is_empty() {
            return Err(Error::InUse(format!("{name} has accounts")));
        }
        for (address, owner) in owners_in(snapshot).await? {
            if address.domain() == Some(name) {
                return Err(Error::InUse(format!("{address} is {}", owner.kind())));
            }
        }
        Ok(())
    }

    /// The domains, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn domains(&self) -> Result<Vec<DomainRecord>, Error> {
        let snapshot = self.store.snapshot().await?;
        let rows = value::scan_all(snapshot.as_ref(), keys::domains().prefix_range()).await?;
        rows.iter().map(|(k, v)| decode(k, &v.value)).collect()
    }

    /// One domain.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn domain(&self, name: &Domain) -> Result<Option<DomainRecord>, Error> {
        let snapshot = self.store.snapshot().await?;
        match domain_in(snapshot.as_ref(), name).await {
            Ok((record, _)) => Ok(Some(record)),
            Err(Error::NoSuchDomain(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Adds a signing key.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::Exists`] for the selector, [`Error::Limit`],
    /// [`Error::Invalid`] when the selector is no DNS name.
    pub async fn add_signing_key(&self, name: &Domain, key: SigningKey) -> Result<(), Error> {
        if name.prefixed(&format!("{}._domainkey", key.selector)).is_err() {
            return Err(Error::Invalid(
                "the selector is no DNS name, or too long for this domain",
            ));
        }
        self.change_domain(name, &|record| {
            if record.signing_keys.iter().any(|k| k.selector == key.selector) {
                return Err(Error::Exists(format!("the selector {}", key.selector)));
            }
            if record.signing_keys.len() >= SIGNING_KEYS_PER_DOMAIN_MAX {
                return Err(Error::Limit {
                    what: "signing keys of one domain",
                    max: SIGNING_KEYS_PER_DOMAIN_MAX,
                });
            }
            record.signing_keys.push(key.clone());
            Ok(())
        })
        .await
    }

    /// Removes a signing key.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::NoSuch`].
    pub async fn remove_signing_key(&self, name: &Domain, selector: &str) -> Result<(), Error> {
        self.change_domain(name, &|record| {
            let before = record.signing_keys.len();
            record.signing_keys.retain(|k| k.selector != selector);
            if record.signing_keys.len() == before {
                return Err(Error::NoSuch("signing key"));
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn change_domain(
        &self,
        name: &Domain,
        change: &(dyn Fn(&mut DomainRecord) -> Result<(), Error> + Send + Sync),
    ) -> Result<(), Error> {
        let key = keys::domain(name);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let (mut record, version) = domain_in(snapshot.as_ref(), name).await?;
            drop(snapshot);
            change(&mut record)?;
            let mut batch = Batch::new();
            batch.require(Require::VersionIs(key.clone(), version));
            batch.put(key.clone(), encode(&key, &record)?);
            if self.commit_unless_conflict(batch).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }
}

/// A domain and its record's version.
pub(crate) async fn domain_in(snapshot: &dyn Snapshot, name: &Domain) -> Result<(DomainRecord, u64), Error> {
    let key = keys::domain(name);
    match snapshot.get(&key).await? {
        Some(stored) => Ok((decode(&key, &stored.value)?, stored.version)),
        None => Err(Error::NoSuchDomain(name.to_string())),
    }
}

/// Makes a batch conflict with the removal of a domain, and the removal with it.
pub(crate) async fn hold_domain(
    snapshot: &dyn Snapshot,
    batch: &mut Batch,
    address: &EmailAddress,
) -> Result<Domain, Error> {
    let name = address.domain().ok_or(Error::Invalid(
        "an address here has a domain, not an address literal",
    ))?;
    let (record, version) = domain_in(snapshot, name).await?;
    if let Some(other) = &record.settings.alias_of {
        return Err(Error::InUse(format!(
            "{name} is an alias of {other}; use an address there"
        )));
    }
    let key = keys::domain(name);
    batch.require(Require::VersionIs(key.clone(), version));
    batch.put(key.clone(), encode(&key, &record)?);
    Ok(record.name)
}
