//! Aliases: addresses that lead to one or more accounts.

use crate::account::account_in;
use crate::domain::hold_domain;
use crate::record::Owner;
use crate::{CONFLICT_RETRIES_MAX, Directory, Error, keys, value};
use mail::{AccountId, EmailAddress};
use store::{Batch, Key, Require, Snapshot};

/// Accounts that one alias leads to at most.
pub const ALIAS_TARGETS_MAX: usize = 1_000;

/// An address that leads to accounts.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Alias {
    /// The address, folded.
    pub address: EmailAddress,
    /// Where it leads.
    pub accounts: Vec<AccountId>,
}

impl Directory {
    /// Makes an alias, or changes where it leads.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::NoSuchAccount`], [`Error::Exists`] when the address is an
    /// account's own, [`Error::Invalid`] without accounts, [`Error::Limit`].
    pub async fn set_alias(&self, address: &EmailAddress, accounts: &[AccountId]) -> Result<Alias, Error> {
        let mut accounts = accounts.to_vec();
        accounts.sort_unstable();
        accounts.dedup();
        if accounts.is_empty() {
            return Err(Error::Invalid("an alias leads to at least one account"));
        }
        if accounts.len() > ALIAS_TARGETS_MAX {
            return Err(Error::Limit {
                what: "accounts of one alias",
                max: ALIAS_TARGETS_MAX,
            });
        }
        let folded = address.folded();
        let key = keys::address(&folded);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let mut batch = Batch::new();
            hold_domain(snapshot.as_ref(), &mut batch, address).await?;
            match snapshot.get(&key).await? {
                Some(stored) => {
                    if let Owner::Account(_) = value::decode(&key, &stored.value)? {
                        return Err(Error::Exists(format!("an account with the address {address}")));
                    }
                    batch.require(Require::VersionIs(key.clone(), stored.version));
                }
                None => batch.require(Require::KeyAbsent(key.clone())),
            }
            for id in &accounts {
                let found = account_in(snapshot.as_ref(), *id).await?;
                let (account, version) = found.ok_or(Error::NoSuchAccount)?;
                let account_key = keys::account(*id);
                batch.require(Require::VersionIs(account_key.clone(), version));
                // Written again, so that a removal of the account that did not see the alias
                // conflicts.
                let value = value::encode(&account_key, &account)?;
                batch.put(account_key, value);
            }
            drop(snapshot);
            batch.put(key.clone(), value::encode(&key, &Owner::Alias(accounts.clone()))?);
            if self.commit_unless_conflict(batch).await? {
                let address = folded_address(&key, &folded)?;
                return Ok(Alias { address, accounts });
            }
        }
        Err(Error::Contended)
    }

    /// Removes an alias.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub async fn remove_alias(&self, address: &EmailAddress) -> Result<(), Error> {
        let key = keys::address(&address.folded());
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let stored = snapshot.get(&key).await?.ok_or(Error::NoSuch("alias"))?;
            drop(snapshot);
            if let Owner::Account(_) = value::decode(&key, &stored.value)? {
                return Err(Error::NoSuch("alias"));
            }
            let mut batch = Batch::new();
            batch.require(Require::VersionIs(key.clone(), stored.version));
            batch.delete(key.clone());
            if self.commit_unless_conflict(batch).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// All aliases, by address.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn aliases(&self) -> Result<Vec<Alias>, Error> {
        let snapshot = self.store.snapshot().await?;
        aliases_in(snapshot.as_ref()).await
    }
}

pub(crate) async fn aliases_in(snapshot: &dyn Snapshot) -> Result<Vec<Alias>, Error> {
    let rows = value::scan_all(snapshot, keys::addresses().prefix_range()).await?;
    let mut aliases = Vec::new();
    for (key, stored) in rows {
        if let Owner::Alias(accounts) = value::decode(&key, &stored.value)? {
            let folded = key.reader().text().unwrap_or_default();
            let address = folded_address(&key, &folded)?;
            aliases.push(Alias { address, accounts });
        }
    }
    Ok(aliases)
}

fn folded_address(key: &Key, folded: &str) -> Result<EmailAddress, Error> {
    EmailAddress::parse(folded).map_err(|e| Error::Damaged {
        key: key.clone(),
        what: e.to_string(),
    })
}
