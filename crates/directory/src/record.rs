//! Who owns an address: one table for accounts, aliases and groups, so that no address has two
//! owners.
//!
//! The names in the stored form stay as they are; what came later has names of its own, so that every
//! row ever written is read.

use crate::{Error, keys, value};
use mail::{AccountId, EmailAddress};
use serde::{Deserialize, Serialize};
use store::Snapshot;

/// The owner of an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Owner {
    /// It is this account's primary address.
    Account(AccountId),
    /// It is an alias that leads to these accounts.
    Alias(Vec<AccountId>),
    /// It is an alias that leads to addresses too: here or elsewhere.
    Forward(Leads),
    /// It is a group.
    Group(GroupRecord),
}

/// Where an alias or a group leads.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Leads {
    /// Accounts, each once, by number.
    #[serde(default)]
    pub accounts: Vec<AccountId>,
    /// Addresses that are no account's own: aliases and groups here, and addresses elsewhere.
    #[serde(default)]
    pub addresses: Vec<EmailAddress>,
}

/// Who may post to a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Posting {
    /// Everybody, strangers too.
    #[default]
    Anyone,
    /// Whoever is logged in to an account of the group's domain.
    Domain,
    /// Whoever is logged in to an account that the group leads to.
    Members,
}

/// A group as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    #[serde(flatten)]
    pub(crate) leads: Leads,
    #[serde(default)]
    pub(crate) post: Posting,
    /// Whether members may send as the group.
    #[serde(default)]
    pub(crate) members_send: bool,
}

impl Leads {
    /// To these accounts.
    #[must_use]
    pub fn to_accounts(accounts: &[AccountId]) -> Self {
        Self {
            accounts: accounts.to_vec(),
            addresses: Vec::new(),
        }
    }

    /// How many targets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len() + self.addresses.len()
    }

    /// Whether it leads to nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Without the targets of `less`.
    pub(crate) fn take(&mut self, less: &Leads) {
        self.accounts.retain(|id| !less.accounts.contains(id));
        let gone = |a: &EmailAddress| less.addresses.iter().any(|b| a.folded() == b.folded());
        self.addresses.retain(|a| !gone(a));
    }

    /// Each target once, in a fixed order.
    pub(crate) fn tidy(&mut self) {
        self.accounts.sort_unstable();
        self.accounts.dedup();
        self.addresses.sort_unstable();
        self.addresses.dedup();
    }
}

impl Owner {
    /// An alias in the oldest form that holds it.
    pub(crate) fn alias(leads: Leads) -> Self {
        match leads.addresses.is_empty() {
            true => Owner::Alias(leads.accounts),
            false => Owner::Forward(leads),
        }
    }

    /// Whom the address may name at a login: nobody where it leads to other addresses too, or is a
    /// group's.
    pub(crate) fn accounts(self) -> Vec<AccountId> {
        match self {
            Owner::Account(id) => vec![id],
            Owner::Alias(ids) => ids,
            Owner::Forward(_) | Owner::Group(_) => Vec::new(),
        }
    }

    pub(crate) fn leads(&self) -> Leads {
        match self {
            Owner::Account(id) => Leads::to_accounts(&[*id]),
            Owner::Alias(ids) => Leads::to_accounts(ids),
            Owner::Forward(leads) => leads.clone(),
            Owner::Group(group) => group.leads.clone(),
        }
    }

    /// The same owner with other targets.
    pub(crate) fn with_leads(self, leads: Leads) -> Self {
        match self {
            Owner::Account(id) => Owner::Account(id),
            Owner::Alias(_) | Owner::Forward(_) => Owner::alias(leads),
            Owner::Group(group) => Owner::Group(GroupRecord { leads, ..group }),
        }
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Owner::Account(_) => "an account",
            Owner::Alias(_) | Owner::Forward(_) => "an alias",
            Owner::Group(_) => "a group",
        }
    }
}

pub(crate) async fn owner_in(snapshot: &dyn Snapshot, folded: &str) -> Result<Option<Owner>, Error> {
    let key = keys::address(folded);
    match snapshot.get(&key).await? {
        Some(stored) => Ok(Some(value::decode(&key, &stored.value)?)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as the first release wrote them, and as this one writes them: what is stored is read.
    #[test]
    fn stored_forms_stay_readable() {
        let address = |text: &str| EmailAddress::parse(text).unwrap();
        let leads = Leads {
            accounts: vec![AccountId(7)],
            addresses: vec![address("bob@example.net")],
        };
        for (stored, owner) in [
            (r#"{"account":7}"#, Owner::Account(AccountId(7))),
            (
                r#"{"alias":[7,9]}"#,
                Owner::Alias(vec![AccountId(7), AccountId(9)]),
            ),
            (
                r#"{"forward":{"accounts":[7],"addresses":["bob@example.net"]}}"#,
                Owner::Forward(leads.clone()),
            ),
            (
                r#"{"group":{"accounts":[7],"addresses":["bob@example.net"],"post":"members","members_send":true}}"#,
                Owner::Group(GroupRecord {
                    leads,
                    post: Posting::Members,
                    members_send: true,
                }),
            ),
        ] {
            assert_eq!(serde_json::from_str::<Owner>(stored).unwrap(), owner);
            assert_eq!(serde_json::to_string(&owner).unwrap(), stored);
        }
    }
}
