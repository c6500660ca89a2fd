//! The login log: what became of logins, for the account's owner and for the operator. A client is
//! told less.
//!
//! A ring for each account and one for names that nobody has; a new entry takes the place of the
//! oldest. Entries that repeat are one entry with a count.

use crate::{AuthReason, Directory, Error, Protocol, Via, keys, value};
use mail::{AccountId, Timestamp};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;
use store::{Batch, Snapshot};

/// Entries that are kept of an account.
pub const LOGIN_LOG_ENTRIES_MAX: u64 = 100;
/// Entries that are kept of names that nobody has.
pub const UNKNOWN_LOGINS_MAX: u64 = 1_000;

/// An entry: one login, or several that went alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoginEntry {
    /// Its number within the ring, rising.
    pub number: u64,
    /// When it went so for the first time.
    pub first: Timestamp,
    /// When it went so for the last time.
    pub last: Timestamp,
    /// How often.
    pub count: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: LoginEvent,
}

/// A login and what became of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct LoginEvent {
    /// The name as the client gave it.
    pub user: String,
    /// From where.
    pub peer: IpAddr,
    /// To use what.
    pub protocol: Protocol,
    /// How, as the client named it.
    pub mechanism: String,
    /// What became of it.
    pub end: LoginEnd,
}

/// What became of a login.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginEnd {
    /// Welcome, by the main password.
    MainPassword,
    /// Welcome, by the app password of this name.
    AppPassword(String),
    /// Welcome, by a token of this issuer.
    Token(String),
    /// Welcome, by the client's certificate.
    Certificate,
    /// Looked at and refused.
    Refused(AuthReason),
    /// It came before TLS, and was not looked at.
    BeforeTls,
    /// Its mechanism is not offered here.
    NotOffered,
    /// The exchange failed; why.
    Exchange(String),
    /// Refused unseen; the block, in words.
    Blocked(String),
    /// It could not be looked at: a fault of ours.
    Unavailable,
}

impl From<&Via> for LoginEnd {
    fn from(via: &Via) -> Self {
        match via {
            Via::MainPassword => LoginEnd::MainPassword,
            Via::AppPassword { name, .. } => LoginEnd::AppPassword(name.clone()),
            Via::Token { issuer } => LoginEnd::Token(issuer.clone()),
            Via::Certificate => LoginEnd::Certificate,
        }
    }
}

impl LoginEnd {
    /// Whether it was accepted.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        matches!(
            self,
            LoginEnd::MainPassword | LoginEnd::AppPassword(_) | LoginEnd::Token(_) | LoginEnd::Certificate
        )
    }

    /// What happened, in words.
    #[must_use]
    pub fn words(&self) -> Cow<'static, str> {
        match self {
            LoginEnd::MainPassword => "logged in with the main password".into(),
            LoginEnd::AppPassword(name) => format!("logged in with the app password \"{name}\"").into(),
            LoginEnd::Token(issuer) => format!("logged in with a token of {issuer}").into(),
            LoginEnd::Certificate => "logged in with a client certificate".into(),
            LoginEnd::Refused(reason) => refused(*reason),
            LoginEnd::BeforeTls => "refused: the login came before TLS".into(),
            LoginEnd::NotOffered => "refused: this mechanism is not offered here".into(),
            LoginEnd::Exchange(why) => format!("refused: {why}").into(),
            LoginEnd::Blocked(why) => format!("refused unseen: {why}").into(),
            LoginEnd::Unavailable => "could not be looked at: a fault of the server".into(),
        }
    }

    /// What to change, when there is something.
    #[must_use]
    pub const fn advice(&self) -> Option<&'static str> {
        Some(match self {
            LoginEnd::Refused(reason) => return advice(*reason),
            LoginEnd::BeforeTls => {
                "turn on TLS in the mail program: port 465, 993 or 995 with TLS, or STARTTLS on the others; \
                 if it sent a password in clear, change the password"
            }
            LoginEnd::NotOffered => "choose another way of authentication in the mail program",
            LoginEnd::Exchange(_) => "try again from another network; if it lasts, choose PLAIN inside TLS",
            LoginEnd::Blocked(_) => "wait until the block ends, and correct the password in the mail program",
            LoginEnd::Unavailable => "look into the server's log at that time",
            _ => return None,
        })
    }
}

fn refused(reason: AuthReason) -> Cow<'static, str> {
    match reason {
        AuthReason::UnknownUser => "refused: there is no account of that name".into(),
        AuthReason::WrongPassword => "refused: wrong password".into(),
        AuthReason::AppPasswordRequired => {
            "refused: the main password is right, but with a second factor only app passwords count".into()
        }
        AuthReason::AppPasswordScope => "refused: the app password does not open this protocol".into(),
        AuthReason::AppPasswordExpired => "refused: the app password has ended".into(),
        AuthReason::Suspended => "refused: the account is suspended".into(),
        AuthReason::NoScramKeys => "refused: no keys of SCRAM are kept for this account yet".into(),
        AuthReason::ActsForAnother => "refused: it wanted to act for another user".into(),
        AuthReason::Token(fault) => format!("refused: bad token: {fault}").into(),
        AuthReason::Certificate => "refused: the certificate names another address, or none".into(),
    }
}

const fn advice(reason: AuthReason) -> Option<&'static str> {
    Some(match reason {
        AuthReason::UnknownUser => "the user name is the whole address; see: posthaste account list",
        AuthReason::WrongPassword => {
            "type the password anew in the mail program, or set one: posthaste account password ADDRESS"
        }
        AuthReason::AppPasswordRequired => {
            "make one and use it in the mail program: posthaste account app-password add ADDRESS --name PROGRAM"
        }
        AuthReason::AppPasswordScope => "make an app password with that scope for the mail program",
        AuthReason::AppPasswordExpired => "make a new app password for the mail program",
        AuthReason::Suspended => "end the suspension: posthaste account resume ADDRESS",
        AuthReason::NoScramKeys => {
            "log in once with PLAIN, or set the password anew: posthaste account password ADDRESS"
        }
        AuthReason::ActsForAnother => "leave the authorization identity empty in the mail program",
        AuthReason::Token(_) => {
            "log in anew at the provider; if it lasts, look at login.issuer in the settings"
        }
        AuthReason::Certificate => "use a certificate whose alternative name is the account's address",
    })
}

/// Where entries of a ring go next.
#[derive(Clone, Debug)]
pub struct LoginRing {
    account: Option<AccountId>,
    /// The newest entry.
    newest: Option<LoginEntry>,
}

impl LoginRing {
    /// Whose it is; `None` for names that nobody has.
    #[must_use]
    pub const fn account(&self) -> Option<AccountId> {
        self.account
    }

    /// Adds to a batch that this happened `count` times between two moments. It counts to the newest
    /// entry when that says the same and is not older than `merge_within`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(
        &mut self,
        batch: &mut Batch,
        happened: LoginEntry,
        merge_within: std::time::Duration,
    ) -> Result<(), Error> {
        let entry = match self.newest.take() {
            Some(newest)
                if newest.what == happened.what && happened.first.since(newest.last) < merge_within =>
            {
                LoginEntry {
                    count: newest.count.saturating_add(happened.count),
                    last: happened.last,
                    ..newest
                }
            }
            newest => LoginEntry {
                number: newest.map_or(0, |newest| newest.number + 1),
                ..happened
            },
        };
        let places = match self.account {
            Some(_) => LOGIN_LOG_ENTRIES_MAX,
            None => UNKNOWN_LOGINS_MAX,
        };
        let key = keys::login_entry(self.account, entry.number % places);
        batch.put(key.clone(), value::encode(&key, &entry)?);
        self.newest = Some(entry);
        Ok(())
    }
}

impl Directory {
    /// The login log of an account, or of names that nobody has; the oldest entry first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn login_log(&self, account: Option<AccountId>) -> Result<Vec<LoginEntry>, Error> {
        let snapshot = self.store.snapshot().await?;
        entries(snapshot.as_ref(), account).await
    }

    /// The ring of an account, or of names that nobody has, to put entries into.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn login_ring(&self, account: Option<AccountId>) -> Result<LoginRing, Error> {
        let newest = self.login_log(account).await?.pop();
        Ok(LoginRing { account, newest })
    }

    /// Writes entries that were put into a batch.
    ///
    /// # Errors
    /// What the store says.
    pub async fn write_login_log(&self, batch: Batch) -> Result<(), Error> {
        self.store.commit(batch).await?;
        Ok(())
    }
}

async fn entries(snapshot: &dyn Snapshot, account: Option<AccountId>) -> Result<Vec<LoginEntry>, Error> {
    let range = keys::login_log(account).prefix_range();
    let rows = snapshot.scan(&range, UNKNOWN_LOGINS_MAX as usize).await?;
    // One that cannot be read is not worth failing for; the audit of the store tells of damage.
    let mut entries: Vec<LoginEntry> = rows
        .iter()
        .filter_map(|(key, stored)| value::decode(key, &stored.value).ok())
        .collect();
    entries.sort_by_key(|entry| entry.number);
    Ok(entries)
}
