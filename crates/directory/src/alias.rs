//! Aliases: addresses that lead to accounts, to other addresses here, and to addresses elsewhere.

use crate::leads::owners_in;
use crate::record::{Leads, Owner};
use crate::{Directory, Error};
use mail::{AccountId, EmailAddress};

/// Accounts and addresses that one alias or group leads to at most, one step far.
pub const ALIAS_TARGETS_MAX: usize = 1_000;

/// An address that leads to others.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Alias {
    /// The address, folded.
    pub address: EmailAddress,
    /// The accounts it leads to.
    pub accounts: Vec<AccountId>,
    /// The addresses it leads to: aliases and groups here, and addresses elsewhere.
    pub addresses: Vec<EmailAddress>,
}

impl Alias {
    fn new(address: EmailAddress, leads: Leads) -> Self {
        Self {
            address,
            accounts: leads.accounts,
            addresses: leads.addresses,
        }
    }
}

impl Directory {
    /// Makes an alias, or changes where it leads.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::NoSuchAccount`], [`Error::Exists`] when the address is an
    /// account's own or a group, [`Error::Invalid`] without accounts, [`Error::Limit`].
    pub async fn set_alias(&self, address: &EmailAddress, accounts: &[AccountId]) -> Result<Alias, Error> {
        self.set_alias_to(address, &Leads::to_accounts(accounts)).await
    }

    /// Makes an alias that leads to addresses too, or changes where it leads.
    ///
    /// # Errors
    /// As [`Directory::set_alias`]; [`Error::Loop`] when an address leads back to this one.
    pub async fn set_alias_to(&self, address: &EmailAddress, leads: &Leads) -> Result<Alias, Error> {
        self.change_alias(address, &|was| *was = leads.clone()).await
    }

    /// Adds to where an alias leads; makes it when it is not there.
    ///
    /// # Errors
    /// As [`Directory::set_alias_to`].
    pub async fn add_to_alias(&self, address: &EmailAddress, more: &Leads) -> Result<Alias, Error> {
        self.change_alias(address, &|leads| {
            leads.accounts.extend(&more.accounts);
            leads.addresses.extend(more.addresses.iter().cloned());
        })
        .await
    }

    /// Takes targets away from an alias; one that would lead to nobody is removed.
    ///
    /// # Errors
    /// [`Error::NoSuch`] when there is no such alias, or it leads to none of them.
    pub async fn take_from_alias(&self, address: &EmailAddress, less: &Leads) -> Result<(), Error> {
        let known = self.alias(address).await?.ok_or(Error::NoSuch("alias"))?;
        let mut left = Leads {
            accounts: known.accounts,
            addresses: known.addresses,
        };
        let before = left.len();
        left.take(less);
        if left.len() == before {
            return Err(Error::NoSuch("target of the alias"));
        }
        if left.is_empty() {
            return self.remove_alias(address).await;
        }
        self.change_alias(address, &|leads| leads.take(less))
            .await
            .map(drop)
    }

    async fn change_alias(
        &self,
        address: &EmailAddress,
        change: &(dyn Fn(&mut Leads) + Send + Sync),
    ) -> Result<Alias, Error> {
        let owner = self
            .change_owner(address, &|before| {
                let mut leads = match before {
                    Some(Owner::Group(_)) => return Err(Error::Exists(format!("a group {address}"))),
                    Some(owner) => owner.leads(),
                    None => Leads::default(),
                };
                change(&mut leads);
                leads.tidy();
                Ok(Owner::alias(leads))
            })
            .await?;
        let folded = EmailAddress::parse(&address.folded()).unwrap_or_else(|_| address.clone());
        Ok(Alias::new(folded, owner.leads()))
    }

    /// Removes an alias.
    ///
    /// # Errors
    /// [`Error::NoSuch`]; [`Error::InUse`] while another address leads to it.
    pub async fn remove_alias(&self, address: &EmailAddress) -> Result<(), Error> {
        let is_it = |owner: &Owner| matches!(owner, Owner::Alias(_) | Owner::Forward(_));
        self.remove_owner(address, "alias", is_it).await
    }

    /// One alias.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn alias(&self, address: &EmailAddress) -> Result<Option<Alias>, Error> {
        let snapshot = self.store.snapshot().await?;
        let owner = crate::record::owner_in(snapshot.as_ref(), &address.folded()).await?;
        Ok(match owner {
            Some(owner @ (Owner::Alias(_) | Owner::Forward(_))) => {
                Some(Alias::new(address.clone(), owner.leads()))
            }
            _ => None,
        })
    }

    /// All aliases, by address.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn aliases(&self) -> Result<Vec<Alias>, Error> {
        let snapshot = self.store.snapshot().await?;
        let owners = owners_in(snapshot.as_ref()).await?;
        let aliases = owners.into_iter().filter_map(|(address, owner)| match owner {
            Owner::Alias(_) | Owner::Forward(_) => Some(Alias::new(address, owner.leads())),
            Owner::Account(_) | Owner::Group(_) => None,
        });
        Ok(aliases.collect())
    }
}
