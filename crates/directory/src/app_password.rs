//! App passwords: made by us, one per program, limited in what they open, revocable one by one.

use crate::{Directory, Error, Protocol};
use mail::{AccountId, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// App passwords of one account at most.
pub const APP_PASSWORDS_PER_ACCOUNT_MAX: usize = 64;
/// Octets of an app password's name at most.
pub const APP_PASSWORD_NAME_OCTETS_MAX: usize = 100;

/// What an app password opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scopes {
    /// Submission.
    pub smtp: bool,
    /// IMAP.
    pub imap: bool,
    /// POP3.
    pub pop3: bool,
}

impl Scopes {
    /// Every mail protocol.
    pub const ALL: Scopes = Scopes {
        smtp: true,
        imap: true,
        pop3: true,
    };

    /// Whether they hold this protocol.
    #[must_use]
    pub const fn allow(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Smtp => self.smtp,
            Protocol::Imap => self.imap,
            Protocol::Pop3 => self.pop3,
        }
    }
}

/// An app password, without the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppPassword {
    /// Its number, never reused.
    pub id: u64,
    /// What its owner calls it.
    pub name: String,
    /// What it opens.
    pub scopes: Scopes,
    /// Since when.
    pub created: Timestamp,
    /// When it was last used, to within [`crate::Options::note_login_every`].
    #[serde(skip)]
    pub last_used: Option<Timestamp>,
    pub(crate) salt: [u8; 16],
    pub(crate) digest: [u8; 32],
}

impl fmt::Debug for AppPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppPassword")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// An app password just made: the only time that it can be seen.
#[derive(Clone, Debug)]
pub struct NewAppPassword {
    /// What is kept of it.
    pub record: AppPassword,
    /// The password in groups, to be shown once. The groups' spaces need not be typed.
    pub password: Secret,
}

impl Directory {
    /// Makes an app password.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`], [`Error::Exists`] for the name, [`Error::Limit`],
    /// [`Error::Invalid`], [`Error::NoRandomness`].
    pub async fn add_app_password(
        &self,
        id: AccountId,
        name: &str,
        scopes: Scopes,
        now: Timestamp,
    ) -> Result<NewAppPassword, Error> {
        let _ = (id, name, scopes, now);
        todo!()
    }

    /// The app passwords of an account, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn app_passwords(&self, id: AccountId) -> Result<Vec<AppPassword>, Error> {
        let _ = id;
        todo!()
    }

    /// Revokes an app password; counts from the next login on.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub async fn revoke_app_password(&self, id: AccountId, app: u64) -> Result<(), Error> {
        let _ = (id, app);
        todo!()
    }
}
