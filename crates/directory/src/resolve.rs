//! Who gets the mail of an address, and who may send under it.

use crate::account::account_of_key;
use crate::record::owner_in;
use crate::{Directory, Error, keys};
use mail::{AccountId, EmailAddress, LocalPart};

/// Divides a user from a tag of their own.
const TAG_SEPARATOR: char = '+';
/// What must reach somebody at every domain (RFC 5321 §4.5.1, RFC 2142 §4).
const FOR_EVERY_DOMAIN: [&str; 2] = ["postmaster", "abuse"];

/// Who an address leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// These accounts, at least one, each once.
    Local(Vec<AccountId>),
    /// The domain is ours, the user is nobody: 550 5.1.1.
    UnknownUser,
    /// The domain is not ours.
    NotOurs,
}

impl Directory {
    /// Who gets the mail of an address. `user+tag` leads where `user` leads unless it has an entry
    /// of its own. `postmaster` and `abuse` of a local domain lead to its first account when they
    /// have no entry (RFC 5321 §4.5.1, RFC 2142).
    ///
    /// # Errors
    /// When the store cannot be read: a temporary failure, never an unknown user.
    pub async fn resolve(&self, address: &EmailAddress) -> Result<Resolution, Error> {
        let Some(domain) = address.domain() else {
            return Ok(Resolution::NotOurs);
        };
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        if snapshot.get(&keys::domain(domain)).await?.is_none() {
            return Ok(Resolution::NotOurs);
        }
        if let Some(owner) = owner_in(snapshot, &address.folded()).await? {
            return Ok(Resolution::Local(owner.accounts()));
        }
        if let Some(base) = without_tag(address)
            && let Some(owner) = owner_in(snapshot, &base.folded()).await?
        {
            return Ok(Resolution::Local(owner.accounts()));
        }
        let local = address.local().as_str();
        if FOR_EVERY_DOMAIN
            .iter()
            .any(|name| local.eq_ignore_ascii_case(name))
        {
            let first = snapshot
                .scan(&keys::accounts_of(domain).prefix_range(), 1)
                .await?;
            if let Some((key, _)) = first.first() {
                return Ok(Resolution::Local(vec![account_of_key(key)?]));
            }
        }
        Ok(Resolution::UnknownUser)
    }

    /// Whether an account may send under an address: it must lead to the account, and the account
    /// must not be suspended, be it since the login or before.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn may_send_as(&self, account: AccountId, address: &EmailAddress) -> Result<bool, Error> {
        match self.resolve(address).await? {
            Resolution::Local(accounts) if accounts.contains(&account) => {
                let known = self.account(account).await?;
                Ok(known.is_some_and(|account| !account.suspended))
            }
            Resolution::Local(_) => Ok(false),
            Resolution::UnknownUser | Resolution::NotOurs => Ok(false),
        }
    }
}

/// `user@host` of `user+tag@host`. A user that is empty or cannot stand alone has no tag.
fn without_tag(address: &EmailAddress) -> Option<EmailAddress> {
    let (user, _) = address.local().as_str().split_once(TAG_SEPARATOR)?;
    let user = LocalPart::parse(user).ok()?;
    Some(EmailAddress::new(user, address.host().clone()))
}
