//! Who gets the mail of an address, and who may send under it.

use crate::{Directory, Error};
use mail::{AccountId, EmailAddress};

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
        let _ = address;
        todo!()
    }

    /// Whether an account may send under an address: it must lead to the account.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn may_send_as(&self, account: AccountId, address: &EmailAddress) -> Result<bool, Error> {
        let _ = (account, address);
        todo!()
    }
}
