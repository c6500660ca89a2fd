//! The second factor: time-based one-time passwords (RFC 6238) with HMAC-SHA-1, 6 digits, 30 s.

use crate::account::account_in;
use crate::{CONFLICT_RETRIES_MAX, Directory, Error, keys, value};
use aws_lc_rs::hmac;
use mail::{AccountId, EmailAddress, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use store::{Batch, Require};

/// Seconds of one step (RFC 6238 §4.1).
pub const TOTP_STEP_SECS: u64 = 30;

/// The shared secret of a second factor. It never prints by itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotpSecret(pub(crate) [u8; 20]);

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(…)")
    }
}

impl TotpSecret {
    /// The secret in base 32, for typing into an authenticator.
    #[must_use]
    pub fn to_base32(&self) -> String {
        base32(&self.0)
    }

    /// The address that authenticators read from a QR code.
    #[must_use]
    pub fn otpauth_uri(&self, account: &EmailAddress) -> String {
        // An address holds nothing that needs more than this in a URI's path (RFC 3986 §3.3).
        let label: String = account
            .to_string()
            .bytes()
            .map(|b| match b {
                b if b.is_ascii_alphanumeric() || b"@.-_~".contains(&b) => char::from(b).to_string(),
                b => format!("%{b:02X}"),
            })
            .collect();
        format!(
            "otpauth://totp/Posthaste:{label}?secret={}&issuer=Posthaste&algorithm=SHA1&digits=6&period=30",
            self.to_base32()
        )
    }
}

impl Directory {
    /// Makes a secret; nothing is stored.
    ///
    /// # Errors
    /// [`Error::NoRandomness`].
    pub fn new_totp_secret(&self) -> Result<TotpSecret, Error> {
        let mut secret = [0u8; 20];
        self.random.fill(&mut secret)?;
        Ok(TotpSecret(secret))
    }

    /// Turns the second factor on with this secret, or off. When it is turned on, logins by the main
    /// password end.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`].
    pub async fn set_second_factor(&self, id: AccountId, secret: Option<TotpSecret>) -> Result<(), Error> {
        self.change_account(id, &|account| account.second_factor.clone_from(&secret))
            .await
    }

    /// Whether a code is right at `now`, one step of drift allowed. A code counts once.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`]; otherwise what the store says.
    pub async fn check_totp(&self, id: AccountId, code: &str, now: Timestamp) -> Result<bool, Error> {
        let key = keys::totp_step(id);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let snapshot = self.store.snapshot().await?;
            let (account, _) = account_in(snapshot.as_ref(), id)
                .await?
                .ok_or(Error::NoSuchAccount)?;
            let used = snapshot.get(&key).await?;
            drop(snapshot);
            let last_step: u64 = match &used {
                Some(stored) => value::decode(&key, &stored.value)?,
                None => 0,
            };
            let step = account
                .second_factor
                .and_then(|secret| matching_step(&secret, code, now));
            let Some(step) = step.filter(|step| *step > last_step) else {
                return Ok(false);
            };
            let mut batch = Batch::new();
            batch.require(match used {
                Some(stored) => Require::VersionIs(key.clone(), stored.version),
                None => Require::KeyAbsent(key.clone()),
            });
            batch.put(key.clone(), value::encode(&key, &step)?);
            if self.commit_unless_conflict(batch).await? {
                return Ok(true);
            }
        }
        Err(Error::Contended)
    }
}

/// The step around `now` whose code this is (RFC 6238 §5.2: one step of drift either way).
fn matching_step(secret: &TotpSecret, code: &str, now: Timestamp) -> Option<u64> {
    let current = now.micros() / 1_000_000 / TOTP_STEP_SECS;
    let steps = [current, current.saturating_sub(1), current + 1];
    // All are compared, whichever matches.
    steps
        .into_iter()
        .filter(|step| mail::secret::constant_time_eq(code_at(secret, *step).as_bytes(), code.as_bytes()))
        .max()
}

/// The six digits of a step (RFC 4226 §5.3).
fn code_at(secret: &TotpSecret, step: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret.0);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag.last().copied().unwrap_or(0) & 0x0f);
    let word = tag.get(offset..offset + 4).and_then(|w| w.first_chunk::<4>());
    let number = word.map_or(0, |w| u32::from_be_bytes(*w) & 0x7fff_ffff);
    format!("{:06}", number % 1_000_000)
}

/// Base 32 without padding (RFC 4648 §6); the length is a multiple of 5 octets.
fn base32(octets: &[u8; 20]) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = String::with_capacity(32);
    for chunk in octets.chunks_exact(5) {
        let bits = chunk.iter().fold(0u64, |all, b| all << 8 | u64::from(*b));
        for shift in (0..8).rev() {
            let digit = (bits >> (5 * shift)) & 31;
            out.push(char::from(DIGITS[digit as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: TotpSecret = TotpSecret(*b"12345678901234567890");

    #[test]
    fn codes_of_rfc_6238_appendix_b() {
        for (secs, eight_digits) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(code_at(&SECRET, secs / TOTP_STEP_SECS), eight_digits[2..]);
        }
    }

    #[test]
    fn one_step_of_drift() {
        let code = code_at(&SECRET, 100);
        let at = |secs| matching_step(&SECRET, &code, Timestamp::from_secs(secs));
        assert_eq!(
            [at(2969), at(2970), at(3029), at(3030), at(3059)],
            [None, Some(100), Some(100), Some(100), Some(100)]
        );
        assert_eq!(at(3060), None);
        assert_eq!(matching_step(&SECRET, "", Timestamp(0)), None);
    }

    #[tokio::test]
    async fn a_code_counts_once() {
        let store = store::memory::MemoryStore::new();
        let options = crate::Options::default();
        let d = Directory::new(store, options, std::sync::Arc::new(crate::SystemRandom)).unwrap();
        let address = EmailAddress::parse("bob@example.com").unwrap();
        d.add_domain(address.domain().unwrap(), Timestamp(0))
            .await
            .unwrap();
        let new = crate::NewAccount {
            address,
            display_name: String::new(),
            password: None,
        };
        let id = d.add_account(new, Timestamp(0), &|_, _| {}).await.unwrap().id;
        d.set_second_factor(id, Some(SECRET)).await.unwrap();
        let now = Timestamp::from_secs(3000);
        let (before, current, after) = (code_at(&SECRET, 99), code_at(&SECRET, 100), code_at(&SECRET, 101));
        assert!(!d.check_totp(id, "12345", now).await.unwrap());
        assert!(d.check_totp(id, &current, now).await.unwrap());
        assert!(!d.check_totp(id, &current, now).await.unwrap(), "used");
        assert!(
            !d.check_totp(id, &before, now).await.unwrap(),
            "older than the used one"
        );
        assert!(d.check_totp(id, &after, now).await.unwrap());
    }

    #[test]
    fn base_32() {
        assert_eq!(SECRET.to_base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn uri() {
        let uri = SECRET.otpauth_uri(&EmailAddress::parse("a+b%c@example.com").unwrap());
        assert!(
            uri.starts_with("otpauth://totp/Posthaste:a%2Bb%25c@example.com?secret=GEZDGNBV"),
            "{uri}"
        );
    }
}
