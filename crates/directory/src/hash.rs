//! Main passwords as argon2id hashes in PHC form (RFC 9106). Pure and slow: run it where waiting
//! does not hurt.

use crate::scram::ScramKeys;
use crate::{Error, Random};
use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use base64::Engine;
use mail::Secret;
use std::fmt;
use std::sync::Arc;

const SALT_OCTETS: usize = 16;
const HASH_OCTETS: usize = 32;

/// What hashing a main password costs. The default is OWASP's: 19 MiB, 2 passes, 1 lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Argon2Cost {
    /// Memory in KiB. Default 19,456.
    pub memory_kib: u32,
    /// Passes over it. Default 2.
    pub passes: u32,
    /// Lanes. Default 1.
    pub lanes: u32,
}

impl Default for Argon2Cost {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            passes: 2,
            lanes: 1,
        }
    }
}

impl Argon2Cost {
    fn hasher(self) -> Result<Argon2<'static>, Error> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(HASH_OCTETS))
            .map_err(|_| Error::Invalid("the argon2 cost is out of range"))?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// The hash of a main password in PHC form. It carries its own cost, so that old hashes stay valid
/// when the cost is raised.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PasswordHash {
    phc: String,
    /// Keys of SCRAM that were derived with it, on their way to a row of their own.
    #[serde(skip)]
    scram: Option<Arc<ScramKeys>>,
}

impl PartialEq for PasswordHash {
    fn eq(&self, other: &Self) -> bool {
        self.phc == other.phc
    }
}

impl Eq for PasswordHash {}

impl PasswordHash {
    fn from_phc(phc: String) -> Self {
        Self { phc, scram: None }
    }

    pub(crate) fn with_scram(mut self, keys: ScramKeys) -> Self {
        self.scram = Some(Arc::new(keys));
        self
    }

    pub(crate) fn scram(&self) -> Option<&ScramKeys> {
        self.scram.as_deref()
    }

    /// Hashes a password. Takes the time that `cost` says (tens of milliseconds by default).
    ///
    /// # Errors
    /// When there is no randomness, or the cost is out of range.
    pub(crate) fn of(password: &Secret, cost: Argon2Cost, random: &dyn Random) -> Result<Self, Error> {
        let mut salt = [0u8; SALT_OCTETS];
        random.fill(&mut salt)?;
        let hash: phc::PasswordHash = cost
            .hasher()?
            .hash_password_with_salt(password.expose().as_bytes(), &salt)
            .map_err(|_| Error::Invalid("the password cannot be hashed"))?;
        Ok(Self::from_phc(hash.to_string()))
    }

    /// Reads a PHC string, for accounts that come from elsewhere.
    ///
    /// # Errors
    /// When it is not one of argon2id.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match phc::PasswordHash::new(text) {
            Ok(hash) if hash.algorithm.as_str() == "argon2id" && hash.hash.is_some() => {
                Ok(Self::from_phc(text.to_owned()))
            }
            _ => Err(Error::Invalid("not an argon2id hash in PHC form")),
        }
    }

    /// A hash of the same cost that no password is known for. Made without running argon2.
    pub(crate) fn unmatchable(cost: Argon2Cost, random: &dyn Random) -> Result<Self, Error> {
        cost.hasher()?;
        let mut octets = [0u8; SALT_OCTETS + HASH_OCTETS];
        random.fill(&mut octets)?;
        let b64 = base64::engine::general_purpose::STANDARD_NO_PAD;
        let (salt, hash) = octets.split_at(SALT_OCTETS);
        Ok(Self::from_phc(format!(
            "$argon2id$v=19$m={},t={},p={}${}${}",
            cost.memory_kib,
            cost.passes,
            cost.lanes,
            b64.encode(salt),
            b64.encode(hash)
        )))
    }

    /// Whether the password is the one that was hashed. Takes the time that the hash says; the
    /// comparison is constant-time.
    pub(crate) fn matches(&self, password: &Secret) -> bool {
        phc::PasswordHash::new(&self.phc).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(password.expose().as_bytes(), &hash)
                .is_ok()
        })
    }

    /// The PHC form.
    #[must_use]
    pub fn as_phc(&self) -> &str {
        &self.phc
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemRandom;

    #[test]
    fn nobody_takes_as_long_as_somebody() {
        let cost = Argon2Cost::default();
        let dummy = PasswordHash::unmatchable(cost, &SystemRandom).unwrap();
        let parsed = phc::PasswordHash::new(dummy.as_phc()).unwrap();
        // The whole of argon2 ran, of the same cost, and only the comparison failed.
        let error = Argon2::default().verify_password(b"x", &parsed).unwrap_err();
        assert!(
            matches!(error, argon2::password_hash::Error::PasswordInvalid),
            "{error}"
        );
        let real = PasswordHash::of(&Secret::new("x"), cost, &SystemRandom).unwrap();
        let front = |h: &PasswordHash| h.as_phc().rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(front(&dummy), front(&real));
        assert_eq!(front(&real).as_deref(), Some("$argon2id$v=19$m=19456,t=2,p=1"));
        assert!(real.matches(&Secret::new("x")) && !real.matches(&Secret::new("y")));
    }
}
