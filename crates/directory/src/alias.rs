//! Aliases: addresses that lead to one or more accounts.

use crate::{Directory, Error};
use mail::{AccountId, EmailAddress};

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
        let _ = (address, accounts);
        todo!()
    }

    /// Removes an alias.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub async fn remove_alias(&self, address: &EmailAddress) -> Result<(), Error> {
        let _ = address;
        todo!()
    }

    /// All aliases, by address.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn aliases(&self) -> Result<Vec<Alias>, Error> {
        todo!()
    }
}
