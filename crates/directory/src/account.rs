//! Accounts: who owns mail here.

use crate::{Directory, Error, PasswordHash, TotpSecret};
use mail::{AccountId, Domain, EmailAddress, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use store::Batch;

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
        let _ = password;
        todo!()
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
        let _ = (new, now, add);
        todo!()
    }

    /// At most `limit` accounts with a number above `after`, by number.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn accounts(&self, after: Option<AccountId>, limit: usize) -> Result<Vec<Account>, Error> {
        let _ = (after, limit);
        todo!()
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
        let _ = (domain, after, limit);
        todo!()
    }

    /// One account.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn account(&self, id: AccountId) -> Result<Option<Account>, Error> {
        let _ = id;
        todo!()
    }

    /// The account with this primary address.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn account_by_address(&self, address: &EmailAddress) -> Result<Option<Account>, Error> {
        let _ = address;
        todo!()
    }

    /// Changes the display name.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`], [`Error::Invalid`].
    pub async fn set_display_name(&self, id: AccountId, name: &str) -> Result<(), Error> {
        let _ = (id, name);
        todo!()
    }

    /// Changes or removes the main password; counts from the next login on.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`].
    pub async fn set_password(&self, id: AccountId, password: Option<PasswordHash>) -> Result<(), Error> {
        let _ = (id, password);
        todo!()
    }

    /// Suspends an account.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`].
    pub async fn suspend(&self, id: AccountId) -> Result<(), Error> {
        let _ = id;
        todo!()
    }

    /// Ends a suspension.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`].
    pub async fn resume(&self, id: AccountId) -> Result<(), Error> {
        let _ = id;
        todo!()
    }

    /// Removes an account with its app passwords, its address, and its place in aliases; aliases
    /// that lead to nobody else go too. Its mailboxes are the caller's matter.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`]; otherwise what the store says.
    pub async fn remove_account(&self, id: AccountId) -> Result<(), Error> {
        let _ = id;
        todo!()
    }
}
