//! Whether a login still holds: sessions outlive the moment at which they were opened.
//!
//! Promises: whatever ends logins of an account wakes those who watch it, and nothing else does.
//! Never: a list of sessions; each asks for itself when it is woken.

use crate::account::account_in;
use crate::{Account, Candidate, Directory, Error, PasswordHash, Via, keys};
use mail::AccountId;
use store::Watch;

/// What a login rests on, as it was when the password was verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    via: Via,
    /// The hash of the main password at that time.
    password: Option<PasswordHash>,
}

impl Candidate {
    /// What a login that was accepted by `via` rests on.
    #[must_use]
    pub fn credential(&self, via: Via) -> Credential {
        let password = match via {
            Via::MainPassword => self.account.as_ref().and_then(|a| a.password.clone()),
            _ => None,
        };
        Credential { via, password }
    }
}

impl Directory {
    /// Wakes when logins of the account may have ended: it was suspended or removed, its main
    /// password changed, its second factor was turned on, or an app password revoked.
    #[must_use]
    pub fn watch_account(&self, id: AccountId) -> Watch {
        self.store.watch(&keys::logins_topic(id))
    }

    /// Whether a login with this credential would be accepted now. A login with an app password
    /// does not depend on the main password or the second factor.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn still_valid(&self, id: AccountId, credential: &Credential) -> Result<bool, Error> {
        let snapshot = self.store.snapshot().await?;
        let Some((account, _)) = account_in(snapshot.as_ref(), id).await? else {
            return Ok(false);
        };
        if account.suspended {
            return Ok(false);
        }
        match &credential.via {
            Via::MainPassword => Ok(account.second_factor.is_none()
                && account.password.is_some()
                && account.password == credential.password),
            // The number is never given again, and what stands under it never changes.
            Via::AppPassword { id: app, .. } => {
                Ok(snapshot.get(&keys::app_password(id, *app)).await?.is_some())
            }
            // Who vouched for them is not asked again; suspending the account ends them.
            Via::Token { .. } | Via::Certificate => Ok(true),
        }
    }
}

/// Whether this change of an account ends logins.
pub(crate) fn ends_logins(before: &Account, after: &Account) -> bool {
    let is_suspended = after.suspended && !before.suspended;
    let has_factor = after.second_factor.is_some() && before.second_factor.is_none();
    is_suspended || has_factor || before.password != after.password
}
