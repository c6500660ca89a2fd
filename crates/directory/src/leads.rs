//! Changing where an address leads: one way for aliases and groups, checked before it is true.

use crate::account::account_in;
use crate::domain::hold_domain;
use crate::record::{Leads, Owner};
use crate::resolve::{Place, locate};
use crate::spread::{Flaw, Walk};
use crate::{ALIAS_TARGETS_MAX, CONFLICT_RETRIES_MAX, Directory, Error, keys, value};
use mail::{AccountId, EmailAddress};
use store::{Batch, Key, Require, Snapshot};

/// What an address is to be, from what it is.
type Change<'a> = &'a (dyn Fn(Option<Owner>) -> Result<Owner, Error> + Send + Sync);

impl Directory {
    /// Makes a target of an address: an account when it is one's own address, else the address as it
    /// is.
    ///
    /// # Errors
    /// [`Error::NoSuchTarget`] for an address at a domain of ours that is nobody.
    pub async fn target(&self, leads: &mut Leads, address: &EmailAddress) -> Result<(), Error> {
        let snapshot = self.store.snapshot().await?;
        match locate(snapshot.as_ref(), address).await? {
            Place::NotOurs => leads.addresses.push(address.clone()),
            Place::Found(found) if !found.how.is_fallback() => match found.owner {
                Owner::Account(id) => leads.accounts.push(id),
                _ => leads.addresses.push(found.address),
            },
            _ => return Err(Error::NoSuchTarget(address.to_string())),
        }
        Ok(())
    }

    /// Changes what an address that is no account's is.
    pub(crate) async fn change_owner(
        &self,
        address: &EmailAddress,
        change: Change<'_>,
    ) -> Result<Owner, Error> {
        let key = keys::address(&address.folded());
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let snapshot = snapshot.as_ref();
            let mut batch = Batch::new();
            hold_domain(snapshot, &mut batch, address).await?;
            let stored = snapshot.get(&key).await?;
            let before = match &stored {
                Some(stored) => {
                    batch.require(Require::VersionIs(key.clone(), stored.version));
                    Some(value::decode(&key, &stored.value)?)
                }
                None => {
                    batch.require(Require::KeyAbsent(key.clone()));
                    None
                }
            };
            if matches!(before, Some(Owner::Account(_))) {
                return Err(Error::Exists(format!("an account with the address {address}")));
            }
            let after = tidied(change(before)?)?;
            check(snapshot, address, &after).await?;
            for id in &after.leads().accounts {
                hold_account(snapshot, &mut batch, *id).await?;
            }
            batch.put(key.clone(), value::encode(&key, &after)?);
            if self.commit_unless_conflict(batch).await? {
                return Ok(after);
            }
        }
        Err(Error::Contended)
    }

    /// Removes what an address is, if it is of that kind.
    pub(crate) async fn remove_owner(
        &self,
        address: &EmailAddress,
        what: &'static str,
        is_it: fn(&Owner) -> bool,
    ) -> Result<(), Error> {
        let folded = address.folded();
        let key = keys::address(&folded);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let stored = snapshot.get(&key).await?.ok_or(Error::NoSuch(what))?;
            if !is_it(&value::decode(&key, &stored.value)?) {
                return Err(Error::NoSuch(what));
            }
            for (other, owner) in owners_in(snapshot.as_ref()).await? {
                if owner.leads().addresses.iter().any(|a| a.folded() == folded) {
                    let why = format!("{other} leads to {address}; take it out there first");
                    return Err(Error::InUse(why));
                }
            }
            drop(snapshot);
            let mut batch = Batch::new();
            batch.require(Require::VersionIs(key.clone(), stored.version));
            batch.delete(key.clone());
            if self.commit_unless_conflict(batch).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }
}

fn tidied(owner: Owner) -> Result<Owner, Error> {
    let mut leads = owner.leads();
    leads.tidy();
    let owner = owner.with_leads(leads);
    let len = owner.leads().len();
    if len == 0 {
        return Err(Error::Invalid(
            "an alias or a group leads to at least one account or address",
        ));
    }
    if len > ALIAS_TARGETS_MAX {
        return Err(Error::Limit {
            what: "targets of one address",
            max: ALIAS_TARGETS_MAX,
        });
    }
    Ok(owner)
}

/// Nobody leads back to where they began, and nothing leads to more than a message can go to.
async fn check(snapshot: &dyn Snapshot, address: &EmailAddress, owner: &Owner) -> Result<(), Error> {
    if owner.leads().addresses.is_empty() {
        return Ok(());
    }
    match Walk::checking(snapshot).run(address, owner.clone()).await? {
        (_, Some(Flaw::Loop { through })) => Err(Error::Loop {
            address: address.to_string(),
            through: through.to_string(),
        }),
        (_, Some(Flaw::TooMany)) => Err(Error::Limit {
            what: "accounts and addresses that one address leads to in all",
            max: crate::SPREAD_MAX,
        }),
        (_, Some(Flaw::TooDeep)) => Err(Error::Limit {
            what: "aliases and groups one in another",
            max: crate::NESTING_MAX,
        }),
        (_, Some(Flaw::Nobody | Flaw::ClosedForNow(_)) | None) => Ok(()),
    }
}

/// Makes a batch conflict with the removal of an account, and the removal with it.
async fn hold_account(snapshot: &dyn Snapshot, batch: &mut Batch, id: AccountId) -> Result<(), Error> {
    let (account, version) = account_in(snapshot, id).await?.ok_or(Error::NoSuchAccount)?;
    let key = keys::account(id);
    batch.require(Require::VersionIs(key.clone(), version));
    let value = value::encode(&key, &account)?;
    batch.put(key, value);
    Ok(())
}

/// All addresses that are no account's, with what they are.
pub(crate) async fn owners_in(snapshot: &dyn Snapshot) -> Result<Vec<(EmailAddress, Owner)>, Error> {
    let rows = value::scan_all(snapshot, keys::addresses().prefix_range()).await?;
    let mut owners = Vec::new();
    for (key, stored) in rows {
        let owner: Owner = value::decode(&key, &stored.value)?;
        if !matches!(owner, Owner::Account(_)) {
            owners.push((address_of(&key)?, owner));
        }
    }
    Ok(owners)
}

fn address_of(key: &Key) -> Result<EmailAddress, Error> {
    let folded = key.reader().text().unwrap_or_default();
    EmailAddress::parse(&folded).map_err(|e| Error::Damaged {
        key: key.clone(),
        what: e.to_string(),
    })
}
