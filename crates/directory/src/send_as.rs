//! Who may send as whom.
//!
//! An account may send as an address when the address is its own, with or without a tag; when it is
//! an alias that leads to the account, alone or among others; when it is a group whose members may,
//! and the account is one; or when the operator granted it the address or the whole domain. A
//! catch-all is no permission: it would be one for every address that is still free.

use crate::account::account_in;
use crate::record::Owner;
use crate::resolve::{How, Located, Place, locate, without_tag};
use crate::spread::Walk;
use crate::{CONFLICT_RETRIES_MAX, Directory, Error, TAG_SEPARATOR, keys, value};
use mail::{AccountId, Domain, EmailAddress, Host};
use std::fmt;
use store::{Batch, Require, Snapshot};

/// Grants of one account at most.
pub const GRANTS_PER_ACCOUNT_MAX: usize = 1_000;

/// What an account may send as, by the operator's word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Grant {
    /// This address, with any tag.
    Address(EmailAddress),
    /// Every address of this domain.
    Domain(Domain),
}

impl Grant {
    /// Reads `user@domain` or `@domain`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let read = match text.strip_prefix('@') {
            Some(domain) => Domain::parse(domain).ok().map(Grant::Domain),
            None => EmailAddress::parse(text).ok().map(Grant::Address),
        };
        read.ok_or(Error::Invalid(
            "a grant is an address (sales@example.com) or a domain (@example.com)",
        ))
    }

    fn domain(&self) -> Option<&Domain> {
        match self {
            Grant::Address(address) => address.domain(),
            Grant::Domain(domain) => Some(domain),
        }
    }

    fn folded(&self) -> String {
        match self {
            Grant::Address(address) => address.folded(),
            Grant::Domain(domain) => format!("@{domain}"),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grant::Address(address) => address.fmt(f),
            Grant::Domain(domain) => write!(f, "@{domain}"),
        }
    }
}

impl Directory {
    /// Whether an account may send under an address, and is not suspended, be it since the login or
    /// before.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn may_send_as(&self, account: AccountId, address: &EmailAddress) -> Result<bool, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let place = locate(snapshot, address).await?;
        let may = match &place {
            Place::Found(found) => by_right(snapshot, account, found).await?,
            Place::Unknown | Place::Returning => false,
            // A domain that is not ours, or takes no mail, is nobody's to send as.
            Place::NotOurs | Place::Closed(_) => return Ok(false),
        };
        if !may && !by_grant(snapshot, account, address).await? {
            return Ok(false);
        }
        let known = account_in(snapshot, account).await?;
        Ok(known.is_some_and(|(account, _)| !account.suspended))
    }

    /// Lets an account send as an address or a domain that is served here.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::NoSuchAccount`], [`Error::Limit`].
    pub async fn grant_sending(&self, id: AccountId, grant: &Grant) -> Result<(), Error> {
        let key = keys::grant(id, &grant.folded());
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let snapshot = snapshot.as_ref();
            let domain = grant.domain().ok_or(Error::Invalid("a grant has a domain"))?;
            crate::domain::domain_in(snapshot, domain).await?;
            let (account, version) = account_in(snapshot, id).await?.ok_or(Error::NoSuchAccount)?;
            let range = keys::grants_of(id).prefix_range();
            if snapshot.scan(&range, GRANTS_PER_ACCOUNT_MAX).await?.len() >= GRANTS_PER_ACCOUNT_MAX {
                return Err(Error::Limit {
                    what: "grants of one account",
                    max: GRANTS_PER_ACCOUNT_MAX,
                });
            }
            let mut batch = Batch::new();
            let account_key = keys::account(id);
            batch.require(Require::VersionIs(account_key.clone(), version));
            // Written again, so that a removal of the account that did not see the grant conflicts.
            let value = value::encode(&account_key, &account)?;
            batch.put(account_key, value);
            batch.put(key.clone(), vec![1]);
            if self.commit_unless_conflict(batch).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// Takes a grant away.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub async fn revoke_sending(&self, id: AccountId, grant: &Grant) -> Result<(), Error> {
        let key = keys::grant(id, &grant.folded());
        let mut batch = Batch::new();
        batch.require(Require::KeyPresent(key.clone()));
        batch.delete(key);
        match self.commit_unless_conflict(batch).await? {
            true => Ok(()),
            false => Err(Error::NoSuch("grant")),
        }
    }

    /// The grants of an account.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn grants(&self, id: AccountId) -> Result<Vec<Grant>, Error> {
        let snapshot = self.store.snapshot().await?;
        let range = keys::grants_of(id).prefix_range();
        let rows = snapshot.scan(&range, GRANTS_PER_ACCOUNT_MAX).await?;
        let grants = rows.iter().filter_map(|(key, _)| {
            let mut parts = key.reader();
            let text = parts.u64().and_then(|_| parts.text())?;
            Grant::parse(&text).ok()
        });
        Ok(grants.collect())
    }
}

/// Whether the address is the account's, or leads to it.
async fn by_right(snapshot: &dyn Snapshot, account: AccountId, found: &Located) -> Result<bool, Error> {
    if found.how == How::CatchAll {
        return Ok(false);
    }
    match &found.owner {
        Owner::Account(id) => Ok(*id == account),
        Owner::Alias(ids) => Ok(ids.contains(&account)),
        owner => {
            let walk = Walk::for_sending(snapshot);
            let (spread, _) = walk.run(&found.address, owner.clone()).await?;
            Ok(spread.accounts.contains(&account))
        }
    }
}

/// Whether the operator granted the address, without its tag, or the domain.
async fn by_grant(
    snapshot: &dyn Snapshot,
    account: AccountId,
    address: &EmailAddress,
) -> Result<bool, Error> {
    let Some(domain) = address.domain() else {
        return Ok(false);
    };
    let any = snapshot.scan(&keys::grants_of(account).prefix_range(), 1).await?;
    if any.is_empty() {
        return Ok(false);
    }
    let settings = crate::domain::settings_in(snapshot, domain).await?.flatten();
    let separator = settings.as_ref().map_or(Some(TAG_SEPARATOR), |s| s.tag_separator);
    let mut wanted = vec![address.folded(), format!("@{domain}")];
    if let Some(base) = separator.and_then(|s| without_tag(address, s)) {
        wanted.push(base.folded());
    }
    if let Some(other) = settings.and_then(|s| s.alias_of) {
        let there = EmailAddress::new(address.local().clone(), Host::Domain(other.clone()));
        wanted.extend([there.folded(), format!("@{other}")]);
    }
    for text in wanted {
        if snapshot.get(&keys::grant(account, &text)).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
