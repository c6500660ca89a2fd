//! Logging in, in three steps: `candidate` reads (I/O), `verify` decides (CPU), `note_login` writes.
//!
//! Drivers run `verify` on a thread that may be busy for tens of milliseconds.

use crate::cache::Verified;
use crate::{Account, AppPassword, Directory, Error, PasswordHash};
use mail::{AccountId, EmailAddress, Secret, Timestamp};
use std::sync::Arc;

/// Octets of a password at most. Longer ones are wrong.
pub const PASSWORD_OCTETS_MAX: usize = 1024;

/// What is to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Submission.
    Smtp,
    /// IMAP.
    Imap,
    /// POP3.
    Pop3,
}

/// By what a login was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Via {
    /// The main password.
    MainPassword,
    /// An app password.
    AppPassword {
        /// Its number.
        id: u64,
        /// Its name.
        name: String,
    },
}

/// Why a login was rejected. For the log and the journey; a client learns only of
/// [`AuthReason::AppPasswordRequired`], because that is said after the right main password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthReason {
    /// The login names nobody.
    UnknownUser,
    /// The password is wrong, or there is none.
    WrongPassword,
    /// The main password is right, but with a second factor on only app passwords open mail
    /// protocols (534 5.7.9).
    AppPasswordRequired,
    /// An app password that is right, but does not open this protocol.
    AppPasswordScope,
    /// The password is right, and the account suspended.
    Suspended,
}

impl AuthReason {
    /// Whether the client may be told, and not just that the login failed.
    #[must_use]
    pub const fn may_be_told(self) -> bool {
        matches!(self, AuthReason::AppPasswordRequired)
    }
}

/// What a login came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuthOutcome {
    /// Welcome.
    Accepted {
        /// Whose account.
        account: AccountId,
        /// Its primary address.
        address: EmailAddress,
        /// By what.
        via: Via,
    },
    /// No.
    Rejected(AuthReason),
}

/// Everything that is needed to verify a password, read in one go.
#[derive(Clone)]
pub struct Candidate {
    pub(crate) protocol: Protocol,
    pub(crate) account: Option<Account>,
    pub(crate) app_passwords: Vec<AppPassword>,
    pub(crate) dummy: PasswordHash,
    pub(crate) verified: Arc<Verified>,
}

impl Directory {
    /// Reads what is known of a login name. Nobody by that name is no error: `verify` then takes as
    /// long as for a wrong password.
    ///
    /// # Errors
    /// When the store cannot be read: a temporary failure.
    pub async fn candidate(&self, login: &str, protocol: Protocol) -> Result<Candidate, Error> {
        let _ = (login, protocol);
        todo!()
    }

    /// Records the last use of a credential, at most once per [`crate::Options::note_login_every`].
    ///
    /// # Errors
    /// What the store says; the login stands all the same.
    pub async fn note_login(&self, account: AccountId, via: &Via, now: Timestamp) -> Result<(), Error> {
        let _ = (account, via, now);
        todo!()
    }

    /// When the main password was last used, to within [`crate::Options::note_login_every`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn last_login(&self, account: AccountId) -> Result<Option<Timestamp>, Error> {
        let _ = account;
        todo!()
    }
}

impl Candidate {
    /// Decides. Slow on purpose unless the password was verified before (tens of milliseconds).
    #[must_use]
    pub fn verify(&self, password: &Secret) -> AuthOutcome {
        let _ = password;
        todo!()
    }
}
