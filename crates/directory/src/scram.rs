//! Keys of SCRAM beside the argon2 hashes: what a mechanism of RFC 5802 asks of an account.
//!
//! Each account has one salt and one iteration count, because a client is told them before it says
//! with which of the account's passwords it comes; the proof is then tried against the keys of each.
//! The salt is derived from a secret of this server and the address, so that a name that nobody has
//! gets one that is as stable as a real one. Keys that don't fit the password beside them, or the
//! salt and count of now, count as absent; they are made anew at the next login that shows the
//! password.

use crate::account::account_in;
use crate::app_password::shown_forms;
use crate::auth::account_of_login;
use crate::{Account, AppPassword, CONFLICT_RETRIES_MAX, Directory, Error, PasswordHash, Random, Via};
use crate::{NoRandomness, keys, value};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use mail::{AccountId, EmailAddress, Secret};
use sasl::{Hash, Keys, Proof, Salted, ServerSignature};
use serde::{Deserialize, Serialize};
use store::{Batch, KeyRange, Require, Snapshot};

/// Rows of an account at most: one for each app password and one for the main password.
const ROWS_MAX: usize = crate::APP_PASSWORDS_PER_ACCOUNT_MAX + 1;
const SALT_OCTETS: usize = 16;
const NONCE_OCTETS: usize = 18;

/// The keys of one password.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ScramKeys {
    salt: Vec<u8>,
    iterations: u32,
    /// Digest of what is stored of the password itself: keys of another one count as absent.
    of: [u8; 32],
    /// One for each way in which the password may be typed.
    forms: Vec<BothKeys>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct BothKeys {
    sha1: Keys,
    sha256: Keys,
}

/// How the keys of an account are made.
#[derive(Clone, Debug)]
pub(crate) struct Salting {
    salt: Vec<u8>,
    iterations: u32,
}

impl Salting {
    /// Derives keys; slow on purpose (milliseconds for each form).
    pub(crate) fn keys(&self, of: [u8; 32], forms: &[Secret]) -> ScramKeys {
        let both = |password: &Secret| BothKeys {
            sha1: Keys::derive(Hash::Sha1, password, &self.salt, self.iterations),
            sha256: Keys::derive(Hash::Sha256, password, &self.salt, self.iterations),
        };
        ScramKeys {
            salt: self.salt.clone(),
            iterations: self.iterations,
            of,
            forms: forms.iter().map(both).collect(),
        }
    }

    fn fits(&self, keys: &ScramKeys) -> bool {
        keys.salt == self.salt && keys.iterations == self.iterations
    }
}

/// What keys of a main password are bound to.
pub(crate) fn of_main(hash: &PasswordHash) -> [u8; 32] {
    digest_of(hash.as_phc().as_bytes())
}

/// What keys of an app password are bound to.
pub(crate) fn of_app(app: &AppPassword) -> [u8; 32] {
    digest_of(&app.digest)
}

fn digest_of(octets: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
    out
}

/// The keys of an account that count, by the number of their password.
#[derive(Clone, Default)]
pub(crate) struct AccountKeys(Vec<(u64, ScramKeys)>);

impl AccountKeys {
    /// The password that the proof was made with.
    pub(crate) fn matching(
        &self,
        proof: &Proof,
        account: &Account,
        app_passwords: &[AppPassword],
    ) -> Option<(u64, ServerSignature)> {
        self.0.iter().find_map(|(number, keys)| {
            let of = match number {
                0 => account.password.as_ref().map(of_main),
                n => app_passwords.iter().find(|app| app.id == *n).map(of_app),
            };
            if of != Some(keys.of) {
                return None;
            }
            let signature = keys.forms.iter().find_map(|form| {
                proof.verify(match proof.hash {
                    Hash::Sha1 => &form.sha1,
                    Hash::Sha256 => &form.sha256,
                })
            });
            signature.map(|signature| (*number, signature))
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Keys that an account lacks, to be derived where waiting does not hurt.
pub struct LackingKeys {
    account: AccountId,
    number: u64,
    of: [u8; 32],
    salting: Salting,
}

/// Keys that were derived, to be kept with [`Directory::keep_keys`].
pub struct DerivedKeys {
    account: AccountId,
    number: u64,
    keys: ScramKeys,
}

impl LackingKeys {
    /// Derives them from the password; slow on purpose (milliseconds).
    #[must_use]
    pub fn derive(self, password: &Secret) -> DerivedKeys {
        let forms = match self.number {
            0 => vec![password.clone()],
            _ => shown_forms(password.expose()),
        };
        DerivedKeys {
            account: self.account,
            number: self.number,
            keys: self.salting.keys(self.of, &forms),
        }
    }
}

impl Directory {
    /// What SCRAM tells first: salt and count of the account, or of nobody, and a nonce.
    ///
    /// # Errors
    /// When the store cannot be read or there is no randomness: a temporary failure.
    pub async fn scram_salt(&self, login: &str) -> Result<Salted, Error> {
        let snapshot = self.store.snapshot().await?;
        let account = account_of_login(self, snapshot.as_ref(), login).await?;
        drop(snapshot);
        let salting = match (account, self.login_address(login)) {
            (Some((account, _)), _) => self.salting(&account.address.folded()).await?,
            (None, Some(address)) => self.salting(&address.folded()).await?,
            (None, None) => self.salting(login).await?,
        };
        Ok(Salted {
            salt: salting.salt,
            iterations: salting.iterations,
            nonce: nonce(self.random.as_ref())?,
        })
    }

    /// Hashes a main password, and derives the keys of SCRAM for the account of that address. Slow on
    /// purpose (tens of milliseconds).
    ///
    /// # Errors
    /// As [`Directory::hash_password`]; otherwise what the store says.
    pub async fn hash_password_of(
        &self,
        address: &EmailAddress,
        password: &Secret,
    ) -> Result<PasswordHash, Error> {
        let hash = self.hash_password(password)?;
        if self.options.scram_iterations == 0 {
            return Ok(hash);
        }
        let salting = self.salting(&address.folded()).await?;
        let keys = salting.keys(of_main(&hash), std::slice::from_ref(password));
        Ok(hash.with_scram(keys))
    }

    /// What is to be derived for the password of a login that has just shown it; `None` when all is
    /// there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn lacking_keys(&self, id: AccountId, via: &Via) -> Result<Option<LackingKeys>, Error> {
        let Some(number) = via.number().filter(|_| self.options.scram_iterations > 0) else {
            return Ok(None);
        };
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let Some((account, _)) = account_in(snapshot, id).await? else {
            return Ok(None);
        };
        let of = match number {
            0 => account.password.as_ref().map(of_main),
            number => {
                let key = keys::app_password(id, number);
                match snapshot.get(&key).await? {
                    Some(stored) => Some(of_app(&value::decode(&key, &stored.value)?)),
                    None => None,
                }
            }
        };
        let Some(of) = of else { return Ok(None) };
        let key = keys::scram(id, number);
        let known: Option<ScramKeys> = match snapshot.get(&key).await? {
            Some(stored) => value::decode(&key, &stored.value).ok(),
            None => None,
        };
        let salting = self.salting(&account.address.folded()).await?;
        let is_there = known.is_some_and(|keys| keys.of == of && salting.fits(&keys));
        Ok((!is_there).then_some(LackingKeys {
            account: id,
            number,
            of,
            salting,
        }))
    }

    /// Keeps keys, unless their password is gone.
    ///
    /// # Errors
    /// What the store says; the login stands all the same.
    pub async fn keep_keys(&self, derived: DerivedKeys) -> Result<(), Error> {
        let DerivedKeys {
            account,
            number,
            keys,
        } = derived;
        let mut batch = Batch::new();
        batch.require(Require::KeyPresent(match number {
            0 => keys::account(account),
            number => keys::app_password(account, number),
        }));
        put_keys(&mut batch, account, number, &keys)?;
        self.commit_unless_conflict(batch).await?;
        Ok(())
    }

    pub(crate) async fn salting(&self, folded: &str) -> Result<Salting, Error> {
        let secret = self.scram_secret().await?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let tag = hmac::sign(&key, folded.as_bytes());
        Ok(Salting {
            salt: tag.as_ref().iter().copied().take(SALT_OCTETS).collect(),
            iterations: self.options.scram_iterations,
        })
    }

    /// The secret that salts are derived from; made at its first use.
    async fn scram_secret(&self) -> Result<[u8; 32], Error> {
        if let Some(secret) = self.scram_secret.get() {
            return Ok(*secret);
        }
        let key = keys::scram_secret();
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            if let Some(stored) = snapshot.get(&key).await? {
                let secret = value::decode(&key, &stored.value)?;
                return Ok(*self.scram_secret.get_or_init(|| secret));
            }
            drop(snapshot);
            let mut secret = [0u8; 32];
            self.random.fill(&mut secret)?;
            let mut batch = Batch::new();
            batch.require(Require::KeyAbsent(key.clone()));
            batch.put(key.clone(), value::encode(&key, &secret)?);
            self.commit_unless_conflict(batch).await?;
        }
        Err(Error::Contended)
    }

    /// The keys of an account that fit the salt and count of now.
    pub(crate) async fn keys_of(
        &self,
        snapshot: &dyn Snapshot,
        account: &Account,
    ) -> Result<AccountKeys, Error> {
        let salting = self.salting(&account.address.folded()).await?;
        let range: KeyRange = keys::scrams_of(account.id).prefix_range();
        let mut known = Vec::new();
        for (key, stored) in snapshot.scan(&range, ROWS_MAX).await? {
            let mut parts = key.reader();
            let number = parts.u64().and_then(|_| parts.u64());
            // What cannot be read is absent: the next login that shows the password mends it.
            let keys = value::decode::<ScramKeys>(&key, &stored.value).ok();
            if let (Some(number), Some(keys)) = (number, keys)
                && salting.fits(&keys)
            {
                known.push((number, keys));
            }
        }
        Ok(AccountKeys(known))
    }
}

pub(crate) fn put_keys(
    batch: &mut Batch,
    account: AccountId,
    number: u64,
    keys: &ScramKeys,
) -> Result<(), Error> {
    let key = keys::scram(account, number);
    batch.put(key.clone(), value::encode(&key, keys)?);
    Ok(())
}

fn nonce(random: &dyn Random) -> Result<String, NoRandomness> {
    let mut octets = [0u8; NONCE_OCTETS];
    random.fill(&mut octets)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(octets))
}
