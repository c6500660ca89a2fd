//! The second factor: time-based one-time passwords (RFC 6238) with HMAC-SHA-1, 6 digits, 30 s.

use crate::{Directory, Error};
use mail::{AccountId, EmailAddress, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

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
        todo!()
    }

    /// The address that authenticators read from a QR code.
    #[must_use]
    pub fn otpauth_uri(&self, account: &EmailAddress) -> String {
        let _ = account;
        todo!()
    }
}

impl Directory {
    /// Makes a secret; nothing is stored.
    ///
    /// # Errors
    /// [`Error::NoRandomness`].
    pub fn new_totp_secret(&self) -> Result<TotpSecret, Error> {
        todo!()
    }

    /// Turns the second factor on with this secret, or off.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`].
    pub async fn set_second_factor(&self, id: AccountId, secret: Option<TotpSecret>) -> Result<(), Error> {
        let _ = (id, secret);
        todo!()
    }

    /// Whether a code is right at `now`, one step of drift allowed. A code counts once.
    ///
    /// # Errors
    /// [`Error::NoSuchAccount`]; otherwise what the store says.
    pub async fn check_totp(&self, id: AccountId, code: &str, now: Timestamp) -> Result<bool, Error> {
        let _ = (id, code, now);
        todo!()
    }
}
