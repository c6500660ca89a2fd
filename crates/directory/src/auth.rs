//! Logging in, in three steps: `candidate` reads (I/O), `verify` decides (CPU), `note_login` writes.
//!
//! Drivers run `verify` on a thread that may be busy for tens of milliseconds.

use crate::account::account_in;
use crate::app_password::app_passwords_in;
use crate::cache::Verified;
use crate::record::owner_in;
use crate::{Account, AppPassword, Directory, Error, PasswordHash, keys, value};
use mail::{AccountId, EmailAddress, Host, LocalPart, Secret, Timestamp};
use std::sync::Arc;
use store::{Batch, Require, Snapshot};

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
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let mut account = None;
        if let Some(address) = self.login_address(login)
            && let Some(owner) = owner_in(snapshot, &address.folded()).await?
            && let [id] = owner.accounts()[..]
        {
            account = account_in(snapshot, id).await?.map(|(account, _)| account);
        }
        let app_passwords = match &account {
            Some(account) => app_passwords_in(snapshot, account.id).await?,
            None => Vec::new(),
        };
        Ok(Candidate {
            protocol,
            account,
            app_passwords,
            dummy: self.dummy.clone(),
            verified: Arc::clone(&self.verified),
        })
    }

    /// Records the last use of a credential, at most once per [`crate::Options::note_login_every`].
    ///
    /// # Errors
    /// What the store says; the login stands all the same.
    pub async fn note_login(&self, account: AccountId, via: &Via, now: Timestamp) -> Result<(), Error> {
        let key = keys::last_use(account, via.number());
        let snapshot = self.store.snapshot().await?;
        let known = last_use_in(snapshot.as_ref(), account, via.number()).await?;
        drop(snapshot);
        if known.is_some_and(|last| now.since(last) < self.options.note_login_every) {
            return Ok(());
        }
        let mut batch = Batch::new();
        // What is removed already gets no last use any more.
        batch.require(Require::KeyPresent(match via {
            Via::MainPassword => keys::account(account),
            Via::AppPassword { id, .. } => keys::app_password(account, *id),
        }));
        batch.put(key.clone(), value::encode(&key, &now)?);
        self.commit_unless_conflict(batch).await?;
        Ok(())
    }

    /// When the main password was last used, to within [`crate::Options::note_login_every`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn last_login(&self, account: AccountId) -> Result<Option<Timestamp>, Error> {
        let snapshot = self.store.snapshot().await?;
        last_use_in(snapshot.as_ref(), account, Via::MainPassword.number()).await
    }
}

impl Candidate {
    /// Decides. Slow on purpose unless the password was verified before (tens of milliseconds).
    #[must_use]
    pub fn verify(&self, password: &Secret) -> AuthOutcome {
        // Too long is wrong, but wrong in the time that every wrong one takes.
        let too_long = password.expose().len() > PASSWORD_OCTETS_MAX;
        let empty = Secret::new("");
        let password = if too_long { &empty } else { password };
        let Some(account) = &self.account else {
            self.dummy.matches(password);
            return AuthOutcome::Rejected(AuthReason::UnknownUser);
        };
        // An app password is found at once; that it is quick shows only to who has it.
        let app = self
            .app_passwords
            .iter()
            .find(|app| app.matches(password.expose()));
        if let Some(app) = app {
            let via = Via::AppPassword {
                id: app.id,
                name: app.name.clone(),
            };
            return match app.scopes.allow(self.protocol) {
                true => self.opened(account, via),
                false => AuthOutcome::Rejected(AuthReason::AppPasswordScope),
            };
        }
        if !self.is_main_password(account, password) {
            return AuthOutcome::Rejected(AuthReason::WrongPassword);
        }
        match self.opened(account, Via::MainPassword) {
            AuthOutcome::Accepted { .. } if account.second_factor.is_some() => {
                AuthOutcome::Rejected(AuthReason::AppPasswordRequired)
            }
            outcome => outcome,
        }
    }

    fn is_main_password(&self, account: &Account, password: &Secret) -> bool {
        let Some(hash) = &account.password else {
            self.dummy.matches(password);
            return false;
        };
        if self.verified.knows(account.id, hash, password) {
            return true;
        }
        let right = hash.matches(password);
        if right {
            self.verified.remember(account.id, hash, password);
        }
        right
    }

    fn opened(&self, account: &Account, via: Via) -> AuthOutcome {
        if account.suspended {
            return AuthOutcome::Rejected(AuthReason::Suspended);
        }
        AuthOutcome::Accepted {
            account: account.id,
            address: account.address.clone(),
            via,
        }
    }
}

impl Via {
    /// The app password's number; 0, which none has, for the main password.
    const fn number(&self) -> u64 {
        match self {
            Via::MainPassword => 0,
            Via::AppPassword { id, .. } => *id,
        }
    }
}

impl Directory {
    /// The address that a login name stands for.
    fn login_address(&self, login: &str) -> Option<EmailAddress> {
        if login.contains('@') {
            return EmailAddress::parse(login).ok();
        }
        let domain = self.options.default_domain.clone()?;
        let local = LocalPart::parse(login).ok()?;
        Some(EmailAddress::new(local, Host::Domain(domain)))
    }
}

pub(crate) async fn last_use_in(
    snapshot: &dyn Snapshot,
    account: AccountId,
    number: u64,
) -> Result<Option<Timestamp>, Error> {
    let key = keys::last_use(account, number);
    match snapshot.get(&key).await? {
        Some(stored) => Ok(Some(value::decode(&key, &stored.value)?)),
        None => Ok(None),
    }
}
