//! Where an address leads.
//!
//! For a plain account this reads two rows: the domain's, which is not even decoded, and the
//! address's. All else is read only for addresses that need it, and in bounded numbers.

use crate::account::account_of_key;
use crate::domain::settings_in;
use crate::domain_settings::{Disabled, TAG_SEPARATOR};
use crate::record::{Leads, Owner, Posting, owner_in};
use crate::spread::{Flaw, Spread, Walk};
use crate::{Directory, DomainSettings, Error, keys, srs};
use mail::{AccountId, Domain, EmailAddress, Host, LocalPart};
use store::Snapshot;

/// What must reach somebody at every domain (RFC 5321 §4.5.1, RFC 2142 §4).
const POSTMASTER: &str = "postmaster";
const ABUSE: &str = "abuse";

/// Who an address leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// These accounts, at least one, each once.
    Local(Vec<AccountId>),
    /// Through a group, or to addresses elsewhere too.
    Spread(Box<Spread>),
    /// A sender's address that was rewritten when mail was sent on (SRS):
    /// [`Directory::original_sender`] says whose it is.
    Rewritten,
    /// The domain is ours and takes no mail.
    Disabled(Disabled),
    /// The address is ours and what it leads to is not in order: the operator's to repair.
    Flawed(Flaw),
    /// The domain is ours, the user is nobody: 550 5.1.1.
    UnknownUser,
    /// The domain is not ours.
    NotOurs,
}

/// What stands at an address, one step far.
pub(crate) enum Place {
    Found(Box<Located>),
    /// It has the form of a sender that was rewritten.
    Returning,
    Closed(Disabled),
    Unknown,
    NotOurs,
}

/// An address and its owner.
pub(crate) struct Located {
    pub(crate) owner: Owner,
    /// The address that has this owner.
    pub(crate) address: EmailAddress,
    pub(crate) how: How,
}

/// Why an address leads to an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// It is the owner's.
    Own,
    /// It is, without its tag.
    Tag,
    /// The domain names it for postmaster or abuse.
    Named,
    /// Postmaster and abuse of a domain that names nobody.
    FirstAccount,
    /// Nobody else has it.
    CatchAll,
}

impl How {
    /// Whether the address belongs to nobody by itself.
    pub(crate) fn is_fallback(self) -> bool {
        matches!(self, How::Named | How::FirstAccount | How::CatchAll)
    }
}

impl Directory {
    /// Who gets the mail of an address. `user+tag` leads where `user` leads unless it has an entry
    /// of its own. `postmaster` and `abuse` of a local domain lead where the domain's settings say,
    /// or to its first account, when they have no entry (RFC 5321 §4.5.1, RFC 2142).
    ///
    /// # Errors
    /// When the store cannot be read: a temporary failure, never an unknown user.
    pub async fn resolve(&self, address: &EmailAddress) -> Result<Resolution, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let found = match locate(snapshot, address).await? {
            Place::Found(found) => found,
            other => return Ok(other.resolution()),
        };
        match found.owner {
            Owner::Account(id) => Ok(Resolution::Local(vec![id])),
            Owner::Alias(ids) => Ok(Resolution::Local(ids)),
            owner => {
                let (spread, flaw) = Walk::new(snapshot).run(&found.address, owner).await?;
                Ok(match flaw {
                    Some(Flaw::ClosedForNow(disabled)) => Resolution::Disabled(disabled),
                    Some(flaw) => Resolution::Flawed(flaw),
                    None if spread.forwards.is_empty() && spread.post == Posting::Anyone => {
                        Resolution::Local(spread.accounts)
                    }
                    None => Resolution::Spread(Box::new(spread)),
                })
            }
        }
    }

    /// Whether somebody may post to what an address leads to: a group may be for the people of its
    /// domain or for its members only, who are known by their login.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn may_post(
        &self,
        login: Option<AccountId>,
        address: &EmailAddress,
        spread: &Spread,
    ) -> Result<bool, Error> {
        match (spread.post, login) {
            (Posting::Anyone, _) => Ok(true),
            (_, None) => Ok(false),
            (Posting::Members, Some(id)) => Ok(spread.accounts.contains(&id)),
            (Posting::Domain, Some(id)) => {
                let snapshot = self.store.snapshot().await?;
                let Place::Found(found) = locate(snapshot.as_ref(), address).await? else {
                    return Ok(false);
                };
                let account = crate::account::account_in(snapshot.as_ref(), id).await?;
                Ok(account.is_some_and(|(account, _)| account.address.domain() == found.address.domain()))
            }
        }
    }
}

impl Place {
    fn resolution(self) -> Resolution {
        match self {
            Place::Found(found) => Resolution::Local(found.owner.leads().accounts),
            Place::Returning => Resolution::Rewritten,
            Place::Closed(disabled) => Resolution::Disabled(disabled),
            Place::Unknown => Resolution::UnknownUser,
            Place::NotOurs => Resolution::NotOurs,
        }
    }
}

/// What stands at an address.
pub(crate) async fn locate(snapshot: &dyn Snapshot, address: &EmailAddress) -> Result<Place, Error> {
    let Some(domain) = address.domain() else {
        return Ok(Place::NotOurs);
    };
    let Some(settings) = settings_in(snapshot, domain).await? else {
        return Ok(Place::NotOurs);
    };
    let Some(settings) = settings else {
        return at(snapshot, domain, address, None).await;
    };
    if let Some(disabled) = settings.disabled {
        return Ok(Place::Closed(disabled));
    }
    let Some(other) = settings.alias_of.clone() else {
        return at(snapshot, domain, address, Some(settings)).await;
    };
    let there = EmailAddress::new(address.local().clone(), Host::Domain(other.clone()));
    match settings_in(snapshot, &other).await? {
        Some(Some(settings)) => match settings.disabled {
            Some(disabled) => Ok(Place::Closed(disabled)),
            None => at(snapshot, &other, &there, Some(settings)).await,
        },
        Some(None) => at(snapshot, &other, &there, None).await,
        // What it stands for is not served any more.
        None => Ok(Place::Unknown),
    }
}

async fn at(
    snapshot: &dyn Snapshot,
    domain: &Domain,
    address: &EmailAddress,
    settings: Option<Box<DomainSettings>>,
) -> Result<Place, Error> {
    let found = |owner, address, how| {
        let located = Located { owner, address, how };
        Ok(Place::Found(Box::new(located)))
    };
    if let Some(owner) = owner_in(snapshot, &address.folded()).await? {
        return found(owner, address.clone(), How::Own);
    }
    if srs::is_rewritten(address.local()) {
        return Ok(Place::Returning);
    }
    let separator = settings.as_ref().map_or(Some(TAG_SEPARATOR), |s| s.tag_separator);
    if let Some(base) = separator.and_then(|separator| without_tag(address, separator))
        && let Some(owner) = owner_in(snapshot, &base.folded()).await?
    {
        return found(owner, base, How::Tag);
    }
    let named = |to: &EmailAddress| {
        let leads = Leads {
            accounts: Vec::new(),
            addresses: vec![to.clone()],
        };
        Owner::Forward(leads)
    };
    let is = |name: &str| address.local().as_str().eq_ignore_ascii_case(name);
    if is(POSTMASTER) || is(ABUSE) {
        let abuse = settings
            .as_ref()
            .and_then(|s| s.abuse.as_ref())
            .filter(|_| is(ABUSE));
        let postmaster = settings.as_ref().and_then(|s| s.postmaster.as_ref());
        if let Some(to) = abuse.or(postmaster) {
            return found(named(to), address.clone(), How::Named);
        }
        // Abuse without a word of its own is the postmaster's.
        if is(ABUSE)
            && let Ok(local) = LocalPart::parse(POSTMASTER)
        {
            let other = EmailAddress::new(local, address.host().clone());
            if let Some(owner) = owner_in(snapshot, &other.folded()).await? {
                return found(owner, other, How::Named);
            }
        }
        let range = keys::accounts_of(domain).prefix_range();
        if let Some((key, _)) = snapshot.scan(&range, 1).await?.first() {
            let owner = Owner::Account(account_of_key(key)?);
            return found(owner, address.clone(), How::FirstAccount);
        }
    }
    match settings.as_ref().and_then(|s| s.catch_all.as_ref()) {
        Some(to) => found(named(to), address.clone(), How::CatchAll),
        None => Ok(Place::Unknown),
    }
}

/// `user@host` of `user+tag@host`. A user that is empty or cannot stand alone has no tag.
pub(crate) fn without_tag(address: &EmailAddress, separator: char) -> Option<EmailAddress> {
    let (user, _) = address.local().as_str().split_once(separator)?;
    let user = LocalPart::parse(user).ok()?;
    Some(EmailAddress::new(user, address.host().clone()))
}
