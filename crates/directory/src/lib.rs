//! Who is served here: domains with their signing keys, accounts, aliases and groups, where each
//! address leads, who may send as whom, and the secrets that open accounts. And the routes by which an
//! operator sends mail for domains elsewhere.
//!
//! Promises: an address belongs to at most one account, alias or group; no password is stored or printed
//! in clear; a login that names nobody costs and says the same as one with a wrong password; what
//! takes a login away counts at once, and who is logged in hears of it.
//!
//! Never: a protocol, a socket, the wall clock, randomness of its own.

mod account;
mod alias;
mod app_password;
mod audit;
mod auth;
mod cache;
mod domain;
mod domain_settings;
mod error;
mod explain;
mod group;
mod hash;
mod keys;
mod leads;
mod login_log;
mod quota;
mod random;
mod record;
mod resolve;
mod route;
mod scram;
mod second_factor;
mod send_as;
mod senders;
mod spread;
pub mod srs;
mod standing;
mod token;
mod value;

pub use account::{Account, DISPLAY_NAME_OCTETS_MAX, NewAccount};
pub use alias::{ALIAS_TARGETS_MAX, Alias};
pub use app_password::{
    APP_PASSWORD_NAME_OCTETS_MAX, APP_PASSWORDS_PER_ACCOUNT_MAX, AppPassword, NewAppPassword, Scopes,
};
pub use audit::{Accounts, audit};
pub use auth::{AuthOutcome, AuthReason, Candidate, PASSWORD_OCTETS_MAX, Protocol, Via};
pub use domain::{DomainRecord, SIGNING_KEYS_PER_DOMAIN_MAX, SigningAlgorithm, SigningKey};
pub use domain_settings::{
    DISABLED_WORDS_OCTETS_MAX, Disabled, DomainChange, DomainSettings, MTA_STS_AGE_SECS,
    MTA_STS_AGE_SECS_RANGE, MTA_STS_HOSTS_MAX, MtaSts, MtaStsMode, TAG_SEPARATOR,
};
pub use error::Error;
pub use explain::Explanation;
pub use group::{Group, GroupChange};
pub use hash::{Argon2Cost, PasswordHash};
pub use login_log::{LOGIN_LOG_ENTRIES_MAX, LoginEnd, LoginEntry, LoginEvent, LoginRing, UNKNOWN_LOGINS_MAX};
pub use quota::Quota;
pub use random::{NoRandomness, Random, SystemRandom};
pub use record::{Leads, Posting};
pub use resolve::Resolution;
pub use route::{ROUTE_HOSTS_MAX, ROUTE_TEXT_OCTETS_MAX, ROUTES_MAX, RouteSpec};
pub use scram::{DerivedKeys, LackingKeys};
pub use second_factor::{TOTP_STEP_SECS, TotpSecret};
pub use send_as::{GRANTS_PER_ACCOUNT_MAX, Grant};
pub use senders::OriginalSender;
pub use spread::{Flaw, Forward, NESTING_MAX, SPREAD_MAX, Spread};
pub use srs::{SrsError, VALID_DAYS as SRS_VALID_DAYS};
pub use standing::Credential;
pub use token::{ISSUER_KEYS_MAX, Issuer, IssuerKeys, TOKEN_OCTETS_MAX, TokenFault, Vouched, check_token};

use mail::Domain;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How often a change is decided anew after another one was quicker.
pub const CONFLICT_RETRIES_MAX: usize = 32;

/// How the directory behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What hashing a main password costs.
    pub argon2: Argon2Cost,
    /// Accounts whose verified main password is remembered, so that argon2 runs once and not at
    /// every login. Default 100,000 (about 8 MiB); 0 turns it off.
    pub verified_max: usize,
    /// A credential's last use is written at most once in this time. Default 10 minutes.
    pub note_login_every: Duration,
    /// How often the hash of SCRAM is iterated, for both hash functions. RFC 5802 §5.1 asks for 4,096
    /// at least. Default 15,000; 0 keeps no keys of SCRAM, so that nobody can log in by it. After a
    /// change keys count as absent until the next login that shows the password.
    pub scram_iterations: u32,
    /// What a login without `@` belongs to. Default none: such a login names nobody.
    pub default_domain: Option<Domain>,
    /// Octets that an account without a quota of its own may keep. Default none: any amount.
    pub quota_default_octets: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            argon2: Argon2Cost::default(),
            verified_max: 100_000,
            note_login_every: Duration::from_secs(600),
            scram_iterations: 15_000,
            default_domain: None,
            quota_default_octets: None,
        }
    }
}

/// The directory of a store. Cheap to clone; clones share what they remember.
#[derive(Clone)]
pub struct Directory {
    store: Arc<dyn store::Store>,
    options: Options,
    random: Arc<dyn Random>,
    verified: Arc<cache::Verified>,
    /// Verified when the login names nobody, so that this takes as long as a wrong password.
    dummy: PasswordHash,
    /// The key of rewritten senders, once it was needed.
    srs: Arc<OnceLock<Arc<srs::SrsKey>>>,
    quotas: Arc<quota::Quotas>,
    /// What the salts of SCRAM are derived from, once it was read.
    scram_secret: Arc<OnceLock<[u8; 32]>>,
}

impl Directory {
    /// The directory that lives in `store`.
    ///
    /// # Errors
    /// When `random` gives nothing, or the cost of argon2 is not acceptable.
    pub fn new(
        store: Arc<dyn store::Store>,
        options: Options,
        random: Arc<dyn Random>,
    ) -> Result<Self, Error> {
        let verified = Arc::new(cache::Verified::new(options.verified_max, random.as_ref())?);
        let dummy = PasswordHash::unmatchable(options.argon2, random.as_ref())?;
        Ok(Self {
            store,
            options,
            random,
            verified,
            dummy,
            srs: Arc::default(),
            quotas: Arc::default(),
            scram_secret: Arc::default(),
        })
    }
}
