//! Logging in, in three steps: `candidate` reads (I/O), `verify` decides (CPU), `note_login` writes.
//!
//! Drivers run `verify` on a thread that may be busy for tens of milliseconds.

use crate::account::account_in;
use crate::app_password::app_passwords_in;
use crate::cache::Verified;
use crate::record::owner_in;
use crate::scram::AccountKeys;
use crate::token::TokenFault;
use crate::{Account, AppPassword, Directory, Error, PasswordHash, keys, value};
use mail::{AccountId, EmailAddress, Host, LocalPart, Secret, Timestamp};
use sasl::{Proof, ServerSignature};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Batch, Require, Snapshot};

/// Octets of a password at most. Longer ones are wrong.
pub const PASSWORD_OCTETS_MAX: usize = 1024;

/// What is to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Submission.
    Smtp,
    /// IMAP.
    Imap,
    /// POP3.
    Pop3,
}

/// By what a login was accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// A bearer token.
    Token {
        /// Who issued it.
        issuer: String,
    },
    /// The certificate that the client showed in TLS.
    Certificate,
}

/// Why a login was rejected. For the log and the journey; a client learns only of
/// [`AuthReason::AppPasswordRequired`], because that is said after the right main password.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// An app password that is right, but has ended.
    AppPasswordExpired,
    /// The password is right, and the account suspended.
    Suspended,
    /// A mechanism of SCRAM, and no keys of it are kept for this account yet.
    NoScramKeys,
    /// The client wants to act for somebody else.
    ActsForAnother,
    /// A bearer token that is not good.
    Token(TokenFault),
    /// The client's certificate does not name an account here, or another one than was asked for.
    Certificate,
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
    pub(crate) scram: AccountKeys,
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
        self.read_candidate(login, protocol, false).await
    }

    /// The same with the keys of SCRAM, for [`Candidate::verify_proof`].
    ///
    /// # Errors
    /// When the store cannot be read: a temporary failure.
    pub async fn scram_candidate(&self, login: &str, protocol: Protocol) -> Result<Candidate, Error> {
        self.read_candidate(login, protocol, true).await
    }

    async fn read_candidate(
        &self,
        login: &str,
        protocol: Protocol,
        with_scram: bool,
    ) -> Result<Candidate, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let account = account_of_login(self, snapshot, login)
            .await?
            .map(|(account, _)| account);
        let app_passwords = match &account {
            Some(account) => app_passwords_in(snapshot, account.id).await?,
            None => Vec::new(),
        };
        let scram = match &account {
            Some(account) if with_scram => self.keys_of(snapshot, account).await?,
            _ => AccountKeys::default(),
        };
        Ok(Candidate {
            protocol,
            account,
            app_passwords,
            scram,
            dummy: self.dummy.clone(),
            verified: Arc::clone(&self.verified),
        })
    }

    /// Whose account a login name opens, if there is one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn account_of_login(&self, login: &str) -> Result<Option<AccountId>, Error> {
        let snapshot = self.store.snapshot().await?;
        let found = account_of_login(self, snapshot.as_ref(), login).await?;
        Ok(found.map(|(account, _)| account.id))
    }

    /// Records the last use of a credential, at most once per [`crate::Options::note_login_every`].
    /// Whether it was. Tokens and certificates are not ours and have none.
    ///
    /// # Errors
    /// What the store says; the login stands all the same.
    pub async fn note_login(&self, account: AccountId, via: &Via, now: Timestamp) -> Result<bool, Error> {
        let Some(number) = via.number() else {
            return Ok(false);
        };
        let key = keys::last_use(account, number);
        let snapshot = self.store.snapshot().await?;
        let known = last_use_in(snapshot.as_ref(), account, number).await?;
        drop(snapshot);
        if known.is_some_and(|last| now.since(last) < self.options.note_login_every) {
            return Ok(false);
        }
        let mut batch = Batch::new();
        // What is removed already gets no last use any more.
        batch.require(Require::KeyPresent(match via {
            Via::AppPassword { id, .. } => keys::app_password(account, *id),
            _ => keys::account(account),
        }));
        batch.put(key.clone(), value::encode(&key, &now)?);
        self.commit_unless_conflict(batch).await
    }

    /// When the main password was last used, to within [`crate::Options::note_login_every`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn last_login(&self, account: AccountId) -> Result<Option<Timestamp>, Error> {
        let snapshot = self.store.snapshot().await?;
        last_use_in(snapshot.as_ref(), account, 0).await
    }
}

impl Candidate {
    /// Decides. Slow on purpose unless the password was verified before (tens of milliseconds).
    #[must_use]
    pub fn verify(&self, password: &Secret, now: Timestamp) -> AuthOutcome {
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
            return self.app_opened(account, app, now);
        }
        if !self.is_main_password(account, password) {
            return AuthOutcome::Rejected(AuthReason::WrongPassword);
        }
        self.main_opened(account)
    }

    /// Decides about a proof of SCRAM; quick. The signature is for an accepted login.
    #[must_use]
    pub fn verify_proof(&self, proof: &Proof, now: Timestamp) -> (AuthOutcome, Option<ServerSignature>) {
        let Some(account) = &self.account else {
            let _ = proof.verify(&sasl::Keys::unmatchable(proof.hash));
            return (AuthOutcome::Rejected(AuthReason::UnknownUser), None);
        };
        let Some((number, signature)) = self.scram.matching(proof, account, &self.app_passwords) else {
            let reason = match self.scram.is_empty() {
                true => AuthReason::NoScramKeys,
                false => AuthReason::WrongPassword,
            };
            return (AuthOutcome::Rejected(reason), None);
        };
        let outcome = match self.app_passwords.iter().find(|app| app.id == number) {
            Some(app) => self.app_opened(account, app, now),
            None => self.main_opened(account),
        };
        (outcome, Some(signature))
    }

    /// Decides about who came in another way, by a token or a certificate: whether there is such an
    /// account and it may be opened.
    #[must_use]
    pub fn open_by(&self, via: Via) -> AuthOutcome {
        match &self.account {
            Some(account) => self.opened(account, via),
            None => AuthOutcome::Rejected(AuthReason::UnknownUser),
        }
    }

    fn app_opened(&self, account: &Account, app: &AppPassword, now: Timestamp) -> AuthOutcome {
        if app.expires.is_some_and(|end| end <= now) {
            return AuthOutcome::Rejected(AuthReason::AppPasswordExpired);
        }
        if !app.scopes.allow(self.protocol) {
            return AuthOutcome::Rejected(AuthReason::AppPasswordScope);
        }
        let via = Via::AppPassword {
            id: app.id,
            name: app.name.clone(),
        };
        self.opened(account, via)
    }

    fn main_opened(&self, account: &Account) -> AuthOutcome {
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
    /// The app password's number; 0, which none has, for the main password; `None` for what is no
    /// password.
    pub(crate) const fn number(&self) -> Option<u64> {
        match self {
            Via::MainPassword => Some(0),
            Via::AppPassword { id, .. } => Some(*id),
            Via::Token { .. } | Via::Certificate => None,
        }
    }
}

impl Directory {
    /// The address that a login name stands for.
    pub(crate) fn login_address(&self, login: &str) -> Option<EmailAddress> {
        if login.contains('@') {
            return EmailAddress::parse(login).ok();
        }
        let domain = self.options.default_domain.clone()?;
        let local = LocalPart::parse(login).ok()?;
        Some(EmailAddress::new(local, Host::Domain(domain)))
    }
}

/// The account that a login name opens, with its record's version.
pub(crate) async fn account_of_login(
    directory: &Directory,
    snapshot: &dyn Snapshot,
    login: &str,
) -> Result<Option<(Account, u64)>, Error> {
    if let Some(address) = directory.login_address(login)
        && let Some(owner) = owner_in(snapshot, &address.folded()).await?
        && let [id] = owner.accounts()[..]
    {
        return account_in(snapshot, id).await;
    }
    Ok(None)
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
