//! Accounts: who owns mail here.

use crate::domain::hold_domain;
use crate::record::{Owner, owner_in};
use crate::scram::put_keys;
use crate::standing::ends_logins;
use crate::{
    CONFLICT_RETRIES_MAX, Directory, Error, PASSWORD_OCTETS_MAX, PasswordHash, TotpSecret, keys, value,
};
use mail::{AccountId, Domain, EmailAddress, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use store::{Batch, CommitError, Key, Require, Snapshot};

/// App passwords and last uses of one account that are removed with it; more than there can be.
const REMOVED_ROWS_MAX: usize = 10_000;

/// Octets of a display name at most.
pub const DISPLAY_NAME_OCTETS_MAX: usize = 256;

/// An account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Account {
    /// Its number, never reused.
    pub id: AccountId,
    /// Its primary address, also its login.
    pub address: EmailAddress,
    /// How its owner is called.
    #[serde(default)]
    pub display_name: String,
    /// The main password; without one only app passwords log in.
    #[serde(default)]
    pub password: Option<PasswordHash>,
    /// A suspended account cannot log in; mail to it is still accepted.
    #[serde(default)]
    pub suspended: bool,
    /// With a second factor on, the main password opens no mail protocol.
    #[serde(default)]
    pub second_factor: Option<TotpSecret>,
    /// Since when.
    pub created: Timestamp,
}

/// An account to be made.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// Its primary address, at a domain that is served here.
    pub address: EmailAddress,
    /// How its owner is called; may be empty.
    pub display_name: String,
    /// The main password; see [`Directory::hash_password`].
    pub password: Option<PasswordHash>,
}

impl Directory {
    /// Hashes a main password. Slow on purpose (tens of milliseconds): run it where waiting does
    /// not hurt.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is empty or too long, [`Error::NoRandomness`].
    pub fn hash_password(&self, password: &Secret) -> Result<PasswordHash, Error> {
        if password.expose().is_empty() || password.expose().len() > PASSWORD_OCTETS_MAX {
            return Err(Error::Invalid("a password has 1 to 1024 octets"));
        }
        PasswordHash::of(password, self.options.argon2, self.random.as_ref())
    }

    /// Makes an account. `add` puts what belongs to it (its mailboxes) into the same batch.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::Exists`] when the address is taken, [`Error::Invalid`].
    pub async fn add_account(
        &self,
        new: NewAccount,
        now: Timestamp,
        add: &(dyn Fn(&mut Batch, AccountId) + Send + Sync),
    ) -> Result<Account, Error> {
        check_display_name(&new.display_name)?;
        // A number of its own first: what belongs to the account stands under it in the one batch
        // below. When that fails, a number stays unused.
        let mut batch = Batch::new();
        let slot = batch.alloc(keys::account_ids(), 1);
        let id = AccountId(self.store.commit(batch).await?.value(slot));
        let account = Account {
            id,
            address: new.address,
            display_name: new.display_name,
            password: new.password,
            suspended: false,
            second_factor: None,
            created: now,
        };
        let address_key = keys::address(&account.address.folded());
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let mut batch = Batch::new();
            let domain = hold_domain(snapshot.as_ref(), &mut batch, &account.address).await?;
            if snapshot.get(&address_key).await?.is_some() {
                return Err(Error::Exists(account.address.to_string()));
            }
            drop(snapshot);
            batch.require(Require::KeyAbsent(address_key.clone()));
            let owner = Owner::Account(id);
            batch.put(address_key.clone(), value::encode(&address_key, &owner)?);
            batch.put(keys::account(id), value::encode(&keys::account(id), &account)?);
            batch.put(keys::account_of(&domain, id), vec![1]);
            if let Some(scram) = account.password.as_ref().and_then(PasswordHash::scram) {
                put_keys(&mut batch, id, 0, scram)?;
            }
            add(&mut batch, id);
            if self.commit_unless_conflict(batch).await? {
                return Ok(account);
            }
        }
        Err(Error::Contended)
    }

    /// At most `limit` accounts with a number above `after`, by number.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn accounts(&self, after: Option<AccountId>, limit: usize) -> Result<Vec<Account>, Error> {
        let snapshot = self.store.snapshot().await?;
        let mut range = keys::accounts().prefix_range();
        if let Some(after) = after {
            range = range.after(&keys::account(after));
        }
        let rows = snapshot.scan(&range, limit).await?;
        rows.iter().map(|(k, v)| value::decode(k, &v.value)).collect()
    }

    /// At most `limit` accounts of a domain with a number above `after`, by number.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn accounts_of(
        &self,
        domain: &Domain,
        after: Option<AccountId>,
        limit: usize,
    ) -> Result<Vec<Account>, Error> {
        let snapshot = self.store.snapshot().await?;
        let mut range = keys::accounts_of(domain).prefix_range();
        if let Some(after) = after {
            range = range.after(&keys::account_of(domain, after));
        }
        let mut accounts = Vec::new();
        for (key, _) in snapshot.scan(&range, limit).await? {
            accounts.extend(
                account_in(snapshot.as_ref(), account_of_key(&key)?)
                    .await?
                    .map(|(a, _)| a),
            );
        }
        Ok(accounts)
    }

    /// One account.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn account(&self, id: AccountId) -> Result<Option<Account>, Error> {
        let snapshot = self.store.snapshot().await?;
        Ok(account_in(snapshot.as_ref(), id)
            .await?
            .map(|(account, _)| account))
    }

    /// The account with this primary address.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn account_by_address(&self, address: &EmailAddress) -> Result<Option<Account>, Error> {
        let snapshot = self.store.snapshot().await?;
        match owner_in(snapshot.as_ref(), &address.folded()).await? {
            Some(Owner::Account(id)) => Ok(account_in(snapshot.as_ref(), id).await?.map(|(a, _)| a)),
            Some(_) | None => Ok(None),
        }
    }

    /// Changes the display name.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`], [`Error::Invalid`].
    pub async fn set_display_name(&self, id: AccountId, name: &str) -> Result<(), Error> {
        check_display_name(name)?;
        self.change_account(id, &|account| account.display_name = name.to_owned())
            .await
    }

    /// Changes or removes the main password. Logins by the old one end.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`].
    pub async fn set_password(&self, id: AccountId, password: Option<PasswordHash>) -> Result<(), Error> {
        self.change_account(id, &|account| account.password.clone_from(&password))
            .await?;
        // Keys of another password count as absent, so these may come after.
        let mut batch = Batch::new();
        batch.require(Require::KeyPresent(keys::account(id)));
        match password.as_ref().and_then(PasswordHash::scram) {
            Some(scram) => put_keys(&mut batch, id, 0, scram)?,
            None => batch.delete(keys::scram(id, 0)),
        }
        self.commit_unless_conflict(batch).await?;
        Ok(())
    }

    /// Suspends an account. All its logins end.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`].
    pub async fn suspend(&self, id: AccountId) -> Result<(), Error> {
        self.change_account(id, &|account| account.suspended = true).await
    }

    /// Ends a suspension.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`].
    pub async fn resume(&self, id: AccountId) -> Result<(), Error> {
        self.change_account(id, &|account| account.suspended = false)
            .await
    }

    /// Adds to a batch that the account must still be there when it is committed: what is delivered
    /// to an account must not outlive it unseen.
    pub fn require_account(&self, batch: &mut Batch, id: AccountId) {
        batch.require(Require::KeyPresent(keys::account(id)));
    }

    /// Removes an account with its app passwords, its address, and its place in aliases; aliases
    /// that lead to nobody else go too. Its mailboxes are the caller's matter.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`]; otherwise what the store says.
    pub async fn remove_account(&self, id: AccountId) -> Result<(), Error> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let snapshot = snapshot.as_ref();
            let (account, version) = account_in(snapshot, id).await?.ok_or(Error::NoSuchAccount)?;
            let mut batch = Batch::new();
            batch.require(Require::VersionIs(keys::account(id), version));
            batch.delete(keys::account(id));
            batch.notify(keys::logins_topic(id));
            batch.delete(keys::address(&account.address.folded()));
            if let Some(domain) = account.address.domain() {
                batch.delete(keys::account_of(domain, id));
            }
            batch.delete(keys::totp_step(id));
            batch.delete(keys::own_quota(id));
            for prefix in [
                keys::app_passwords_of(id),
                keys::last_uses_of(id),
                keys::grants_of(id),
                keys::login_log(Some(id)),
                keys::scrams_of(id),
            ] {
                for (key, _) in snapshot.scan(&prefix.prefix_range(), REMOVED_ROWS_MAX).await? {
                    batch.delete(key);
                }
            }
            leave_aliases(snapshot, &mut batch, id).await?;
            if self.commit_unless_conflict(batch).await? {
                self.quotas.forget();
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    pub(crate) async fn change_account(
        &self,
        id: AccountId,
        change: &(dyn Fn(&mut Account) + Send + Sync),
    ) -> Result<(), Error> {
        let key = keys::account(id);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let found = account_in(snapshot.as_ref(), id).await?;
            drop(snapshot);
            let (mut account, version) = found.ok_or(Error::NoSuchAccount)?;
            let before = account.clone();
            change(&mut account);
            let mut batch = Batch::new();
            batch.require(Require::VersionIs(key.clone(), version));
            if ends_logins(&before, &account) {
                batch.notify(keys::logins_topic(id));
            }
            batch.put(key.clone(), value::encode(&key, &account)?);
            if self.commit_unless_conflict(batch).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// Answers `false` when a precondition did not hold.
    pub(crate) async fn commit_unless_conflict(&self, batch: Batch) -> Result<bool, Error> {
        match self.store.commit(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// An account and its record's version.
pub(crate) async fn account_in(
    snapshot: &dyn Snapshot,
    id: AccountId,
) -> Result<Option<(Account, u64)>, Error> {
    let key = keys::account(id);
    match snapshot.get(&key).await? {
        Some(stored) => Ok(Some((value::decode(&key, &stored.value)?, stored.version))),
        None => Ok(None),
    }
}

/// The account that a key of table 0x16 ends with.
pub(crate) fn account_of_key(key: &Key) -> Result<AccountId, Error> {
    let mut parts = key.reader();
    let id = parts.text().and_then(|_| parts.u64());
    id.map(AccountId).ok_or_else(|| Error::Damaged {
        key: key.clone(),
        what: "the key holds no account".to_owned(),
    })
}

fn check_display_name(name: &str) -> Result<(), Error> {
    if name.len() > DISPLAY_NAME_OCTETS_MAX || name.chars().any(char::is_control) {
        return Err(Error::Invalid(
            "a display name has at most 256 octets and no control characters",
        ));
    }
    Ok(())
}

/// Takes an account out of every alias and group; what leads to nobody else goes.
async fn leave_aliases(snapshot: &dyn Snapshot, batch: &mut Batch, id: AccountId) -> Result<(), Error> {
    for (key, stored) in value::scan_all(snapshot, keys::addresses().prefix_range()).await? {
        let owner: Owner = value::decode(&key, &stored.value)?;
        let mut leads = owner.leads();
        if matches!(owner, Owner::Account(_)) || !leads.accounts.contains(&id) {
            continue;
        }
        leads.accounts.retain(|a| *a != id);
        batch.require(Require::VersionIs(key.clone(), stored.version));
        if leads.is_empty() {
            batch.delete(key);
        } else {
            let left = value::encode(&key, &owner.with_leads(leads))?;
            batch.put(key, left);
        }
    }
    Ok(())
}
