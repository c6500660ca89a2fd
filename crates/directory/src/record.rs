//! Who owns an address: one table for accounts and aliases, so that no address has two owners.

use crate::{Error, keys, value};
use mail::AccountId;
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
}

impl Owner {
    pub(crate) fn accounts(self) -> Vec<AccountId> {
        match self {
            Owner::Account(id) => vec![id],
            Owner::Alias(ids) => ids,
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
