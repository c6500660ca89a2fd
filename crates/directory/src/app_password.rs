//! App passwords: made by us, one per program, limited in what they open, revocable one by one.

use crate::account::account_in;
use crate::auth::last_use_in;
use crate::scram::{of_app, put_keys};
use crate::{CONFLICT_RETRIES_MAX, Directory, Error, NoRandomness, Protocol, Random, keys, value};
use aws_lc_rs::digest as sha2;
use mail::{AccountId, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use store::{Batch, Require, Snapshot};

/// Letters of an app password: 20 of 26 carry 94 bits.
const LETTERS: usize = 20;
const GROUP: usize = 4;

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
    /// From when on it opens nothing any more; `None`: never.
    #[serde(default)]
    pub expires: Option<Timestamp>,
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
        self.add_expiring_app_password(id, name, scopes, None, now).await
    }

    /// Makes an app password that opens nothing any more from a time on. Sessions that are open then
    /// last to their end.
    ///
    /// # Errors
    /// As [`Directory::add_app_password`]; [`Error::Invalid`] when that time has come already.
    pub async fn add_expiring_app_password(
        &self,
        id: AccountId,
        name: &str,
        scopes: Scopes,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<NewAppPassword, Error> {
        if expires.is_some_and(|end| end <= now) {
            return Err(Error::Invalid("an app password ends in the future"));
        }
        if name.is_empty() || name.len() > APP_PASSWORD_NAME_OCTETS_MAX || name.chars().any(char::is_control)
        {
            return Err(Error::Invalid(
                "the name of an app password has 1 to 100 octets and no control characters",
            ));
        }
        let letters = random_letters(self.random.as_ref())?;
        let mut salt = [0u8; 16];
        self.random.fill(&mut salt)?;
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let (account, version) = account_in(snapshot.as_ref(), id)
                .await?
                .ok_or(Error::NoSuchAccount)?;
            let others = app_passwords_in(snapshot.as_ref(), id).await?;
            let last_id = snapshot.counter(&keys::app_password_ids()).await?;
            drop(snapshot);
            if others.iter().any(|p| p.name == name) {
                return Err(Error::Exists(format!("the app password {name}")));
            }
            if others.len() >= APP_PASSWORDS_PER_ACCOUNT_MAX {
                return Err(Error::Limit {
                    what: "app passwords of one account",
                    max: APP_PASSWORDS_PER_ACCOUNT_MAX,
                });
            }
            let app = u64::try_from(last_id).unwrap_or(0) + 1;
            let record = AppPassword {
                id: app,
                name: name.to_owned(),
                scopes,
                created: now,
                expires,
                last_used: None,
                salt,
                digest: digest(&salt, &letters),
            };
            let key = keys::app_password(id, app);
            let mut batch = Batch::new();
            // The account's record changes with it, so that two of one name cannot cross.
            batch.require(Require::VersionIs(keys::account(id), version));
            batch.put(keys::account(id), value::encode(&keys::account(id), &account)?);
            // The number is only this one's when nobody took it meanwhile.
            batch.add(keys::app_password_ids(), 1);
            batch.require(Require::AtMost(keys::app_password_ids(), last_id + 1));
            batch.put(key.clone(), value::encode(&key, &record)?);
            if self.options.scram_iterations > 0 {
                let salting = self.salting(&account.address.folded()).await?;
                let forms = shown_forms(&in_groups(&letters));
                put_keys(&mut batch, id, app, &salting.keys(of_app(&record), &forms))?;
            }
            if self.commit_unless_conflict(batch).await? {
                return Ok(NewAppPassword {
                    record,
                    password: Secret::new(in_groups(&letters)),
                });
            }
        }
        Err(Error::Contended)
    }

    /// The app passwords of an account, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn app_passwords(&self, id: AccountId) -> Result<Vec<AppPassword>, Error> {
        let snapshot = self.store.snapshot().await?;
        let mut all = app_passwords_in(snapshot.as_ref(), id).await?;
        for app in &mut all {
            app.last_used = last_use_in(snapshot.as_ref(), id, app.id).await?;
        }
        Ok(all)
    }

    /// Revokes an app password. Logins by it end.
    ///
    /// # Errors
    /// [`Error::NoSuch`].
    pub async fn revoke_app_password(&self, id: AccountId, app: u64) -> Result<(), Error> {
        let key = keys::app_password(id, app);
        let mut batch = Batch::new();
        batch.require(Require::KeyPresent(key.clone()));
        batch.delete(key);
        batch.delete(keys::last_use(id, app));
        batch.delete(keys::scram(id, app));
        batch.notify(keys::logins_topic(id));
        match self.commit_unless_conflict(batch).await? {
            true => Ok(()),
            false => Err(Error::NoSuch("app password")),
        }
    }
}

impl AppPassword {
    /// Whether this is the password, typed with or without the groups' spaces, in any case.
    pub(crate) fn matches(&self, typed: &str) -> bool {
        let letters = letters_of(typed);
        mail::secret::constant_time_eq(&digest(&self.salt, &letters), &self.digest)
    }
}

fn letters_of(typed: &str) -> Vec<u8> {
    typed
        .bytes()
        .filter(|b| !matches!(b, b' ' | b'-'))
        .map(|b| b.to_ascii_lowercase())
        .collect()
}

/// An app password as it may be typed where we don't see it: without the groups' spaces, and with.
pub(crate) fn shown_forms(typed: &str) -> Vec<Secret> {
    let letters: String = letters_of(typed).into_iter().map(char::from).collect();
    let grouped: Vec<&str> = (0..letters.len())
        .step_by(GROUP)
        .filter_map(|at| letters.get(at..letters.len().min(at + GROUP)))
        .collect();
    let grouped = Secret::new(grouped.join(" "));
    vec![Secret::new(letters), grouped]
}

/// A salted SHA-256 is enough here, and argon2 would be waste: it makes guessing a weak password
/// slow, but these are 94 random bits, which nobody guesses at any speed. The salt keeps equal
/// digests from showing equal passwords.
fn digest(salt: &[u8; 16], letters: &[u8]) -> [u8; 32] {
    let mut context = sha2::Context::new(&sha2::SHA256);
    context.update(salt);
    context.update(letters);
    let mut out = [0u8; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Letters `a` to `z`, each equally likely.
fn random_letters(random: &dyn Random) -> Result<[u8; LETTERS], NoRandomness> {
    let mut letters = [0u8; LETTERS];
    for letter in &mut letters {
        *letter = loop {
            let mut octet = [0u8; 1];
            random.fill(&mut octet)?;
            // 234 is the largest multiple of 26 in an octet: beyond it some letters were likelier.
            if octet[0] < 234 {
                break b'a' + octet[0] % 26;
            }
        };
    }
    Ok(letters)
}

fn in_groups(letters: &[u8; LETTERS]) -> String {
    let groups: Vec<String> = letters
        .chunks(GROUP)
        .map(|g| g.iter().map(|b| char::from(*b)).collect())
        .collect();
    groups.join(" ")
}

pub(crate) async fn app_passwords_in(
    snapshot: &dyn Snapshot,
    id: AccountId,
) -> Result<Vec<AppPassword>, Error> {
    let range = keys::app_passwords_of(id).prefix_range();
    let rows = snapshot.scan(&range, APP_PASSWORDS_PER_ACCOUNT_MAX).await?;
    rows.iter().map(|(k, v)| value::decode(k, &v.value)).collect()
}
