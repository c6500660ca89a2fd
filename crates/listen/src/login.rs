//! Logging in: so many password checks at a time, off the network threads, and an end to guessing.

mod ask;
mod check;
mod log;

pub use ask::{Asked, Asker};

use arc_swap::ArcSwap;
use directory::{
    AuthOutcome, AuthReason, Credential, Directory, Issuer, LoginEnd, LoginEvent, Protocol, Via,
};
use limits::{Block, Limits, Network};
use mail::{AccountId, Clock, EmailAddress, Secret, Timestamp};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Networks whose failures are remembered at most; beyond that the expired ones are forgotten, and
/// if that is not enough, the older half.
const NETWORKS_MAX: usize = 20_000;
/// By how much the delay of a failed login grows at most: 2 to this power.
const DELAY_DOUBLINGS_MAX: u32 = 4;
/// Failed logins from one address after which it waits longer, and again after as many more.
const FAILURES_PER_DOUBLING: u32 = 5;

/// How much logging in, and failing to, one server takes.
#[derive(Clone, Debug)]
pub struct LoginLimits {
    /// Passwords verified at the same time; each can take tens of milliseconds of a processor.
    /// Default 4; at least 1.
    pub at_once_max: usize,
    /// Failed logins from one address (one /64 of IPv6) within the window, after which more are
    /// refused unseen. Default 100.
    pub failures_per_address_max: u32,
    /// How long failed logins are remembered, from the first one on. Default 10 minutes.
    pub failures_window: Duration,
    /// The wait after the fifth failed login from one address, whatever the session; doubles with each
    /// further five, up to 16 times. Default 1 second.
    pub address_delay: Duration,
}

impl Default for LoginLimits {
    fn default() -> Self {
        Self {
            at_once_max: 4,
            failures_per_address_max: 100,
            failures_window: Duration::from_secs(600),
            address_delay: Duration::from_secs(1),
        }
    }
}

/// Who wants to log in, and from where.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The client.
    pub peer: SocketAddr,
    /// What it wants to use.
    pub protocol: Protocol,
    /// How, as the log shows it.
    pub mechanism: &'a str,
    /// The name as it was given; empty when a token or a certificate alone names the account.
    pub user: &'a str,
    /// By what.
    pub proof: Proof,
}

/// By what a client wants to log in.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A password.
    Password(Secret),
    /// A proof of SCRAM.
    Scram(sasl::Proof),
    /// A bearer token.
    Token(Secret),
    /// The address in the client's certificate, which was verified.
    Certificate(Option<String>),
    /// To act for somebody else, which nobody may here.
    ForAnother,
}

/// What a login came to, as the client may know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Login {
    /// Welcome.
    Accepted {
        /// Whose account.
        account: AccountId,
        /// Its primary address.
        address: EmailAddress,
        /// What the login rests on, for a [`crate::Standing`].
        credential: Credential,
        /// What a client of SCRAM is to be told.
        signature: Option<sasl::ServerSignature>,
    },
    /// The main password is right, but only app passwords open mail protocols.
    AppPasswordRequired,
    /// Wrong in any other way.
    Rejected,
    /// Too many failures from this address.
    TooManyFailures,
    /// We cannot tell now.
    Unavailable,
}

/// Checks logins; best one for all services of a server, so that who guesses has no second go at
/// another port.
pub struct Logins {
    limits: LoginLimits,
    turns: Semaphore,
    by_address: Mutex<HashMap<Network, Failures>>,
    blocks: Option<Limits>,
    issuers: ArcSwap<Vec<Issuer>>,
    log: Option<Arc<log::LoginLog>>,
}

#[derive(Clone, Copy)]
struct Failures {
    since: Timestamp,
    count: u32,
}

impl Logins {
    /// Nobody has failed yet.
    #[must_use]
    pub fn new(limits: LoginLimits) -> Self {
        Self {
            turns: Semaphore::new(limits.at_once_max.max(1)),
            by_address: Mutex::default(),
            blocks: None,
            issuers: ArcSwap::default(),
            log: None,
            limits,
        }
    }

    /// Failed logins lead to blocks, and blocked addresses and logins are refused unseen.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.blocks = Some(limits);
        self
    }

    /// Why nobody may log in from there, or under that name, now.
    #[must_use]
    pub fn block_of(&self, ip: IpAddr, user: &str, now: Timestamp) -> Option<Block> {
        let blocks = self.blocks.as_ref()?;
        blocks
            .blocked(ip, now)
            .or_else(|| blocks.login_blocked(user, now))
    }

    /// Keeps a login log in the directory.
    #[must_use]
    pub fn with_log(mut self, directory: Directory) -> Self {
        self.log = Some(log::LoginLog::new(directory));
        self
    }

    /// Trusts these issuers of tokens from now on, and no others.
    pub fn trust(&self, issuers: Vec<Issuer>) {
        self.issuers.store(Arc::new(issuers));
    }

    /// Writes what waits for the login log; at the end of the program.
    pub async fn write_log(&self) {
        if let Some(log) = &self.log {
            log.write().await;
        }
    }

    fn note(
        &self,
        now: Timestamp,
        peer: SocketAddr,
        protocol: Protocol,
        mechanism: &str,
        user: &str,
        end: LoginEnd,
    ) {
        if let Some(log) = &self.log {
            let event = LoginEvent {
                user: user.to_owned(),
                peer: peer.ip().to_canonical(),
                protocol,
                mechanism: mechanism.to_owned(),
                end,
            };
            log.note(now, event);
        }
    }

    /// Asks the directory. The same answer, after the same time, for a wrong user and a wrong
    /// password.
    pub async fn log_in(&self, directory: &Directory, clock: &dyn Clock, attempt: Attempt<'_>) -> Login {
        let (peer, protocol) = (attempt.peer, attempt.protocol);
        let (mechanism, user) = (attempt.mechanism, attempt.user);
        if let Some(block) = self.block_of(peer.ip(), user, clock.now()) {
            let block = block.sentence();
            tracing::warn!(%peer, ?protocol, login = %user.escape_debug(), block, "login refused: blocked");
            let blocked = LoginEnd::Blocked(block.clone());
            self.note(clock.now(), peer, protocol, mechanism, user, blocked);
            return Login::TooManyFailures;
        }
        if self.may_try(peer.ip(), clock.now()) {
            let Ok(turn) = self.turns.acquire().await else {
                return Login::Unavailable;
            };
            // Asked again: others from there may have failed while this one waited for its turn.
            let now = clock.now();
            if self.may_try(peer.ip(), now) {
                let login = self.verify(directory, now, attempt).await;
                let has_failed = matches!(login, Login::Rejected | Login::AppPasswordRequired);
                let failures = has_failed.then(|| self.note_failure(peer.ip(), now));
                drop(turn);
                if let Some(failures) = failures {
                    self.punish(peer.ip(), user, failures, now).await;
                }
                return login;
            }
        }
        tracing::warn!(%peer, ?protocol, "login refused: too many failures from this address");
        let blocked = LoginEnd::Blocked("too many failed logins from this address".to_owned());
        self.note(clock.now(), peer, protocol, mechanism, user, blocked);
        Login::TooManyFailures
    }

    /// Blocks an address that has failed too often, and makes it wait.
    async fn punish(&self, ip: IpAddr, user: &str, failures: u32, now: Timestamp) {
        if let Some(blocks) = &self.blocks {
            blocks.failed_login(ip, user, now).await;
        }
        if let Some(doublings) = (failures / FAILURES_PER_DOUBLING).checked_sub(1) {
            let wait = self.limits.address_delay * 2u32.pow(doublings.min(DELAY_DOUBLINGS_MAX));
            tokio::time::sleep(wait).await;
        }
    }

    async fn verify(&self, directory: &Directory, now: Timestamp, attempt: Attempt<'_>) -> Login {
        let Attempt {
            peer,
            protocol,
            mechanism,
            user,
            proof,
        } = attempt;
        let note = |user: &str, end| self.note(now, peer, protocol, mechanism, user, end);
        let issuers = match &proof {
            Proof::Token(_) => Vec::clone(&self.issuers.load()),
            _ => Vec::new(),
        };
        let checked = match check::check(directory, issuers, now, (protocol, user), proof).await {
            Ok(checked) => checked,
            Err(error) => {
                tracing::error!(%peer, %error, "a login could not be looked at");
                note(user, LoginEnd::Unavailable);
                return Login::Unavailable;
            }
        };
        match checked.outcome {
            AuthOutcome::Accepted {
                account,
                address,
                via,
            } => {
                // A token, a certificate or an alias names the account only now.
                if let Some(block) = self.block_of(peer.ip(), &address.to_string(), now) {
                    note(&address.to_string(), LoginEnd::Blocked(block.sentence()));
                    return Login::TooManyFailures;
                }
                tracing::info!(%peer, login = %address, ?protocol, mechanism, ?via, "logged in");
                note(&address.to_string(), LoginEnd::from(&via));
                match directory.note_login(account, &via, now).await {
                    Ok(true) => keep_keys(directory, account, &via, checked.shown).await,
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "the login could not be noted"),
                }
                Login::Accepted {
                    account,
                    address,
                    credential: checked.candidate.credential(via),
                    signature: checked.signature,
                }
            }
            AuthOutcome::Rejected(reason) => {
                tracing::info!(%peer, login = %user.escape_debug(), ?protocol, mechanism, ?reason, "login refused");
                note(user, LoginEnd::Refused(reason));
                match reason {
                    AuthReason::AppPasswordRequired => Login::AppPasswordRequired,
                    _ => Login::Rejected,
                }
            }
        }
    }

    fn may_try(&self, ip: IpAddr, now: Timestamp) -> bool {
        let failures = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        failures
            .get(&Network::one_address(ip))
            .is_none_or(|f| f.count < self.limits.failures_per_address_max || self.is_over(f, now))
    }

    fn note_failure(&self, ip: IpAddr, now: Timestamp) -> u32 {
        let network = Network::one_address(ip);
        let mut failures = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= NETWORKS_MAX && !failures.contains_key(&network) {
            self.make_room(&mut failures, now);
        }
        let fresh = Failures { since: now, count: 0 };
        let here = failures.entry(network).or_insert(fresh);
        if self.is_over(here, now) {
            *here = fresh;
        }
        here.count = here.count.saturating_add(1);
        here.count
    }

    fn is_over(&self, failures: &Failures, now: Timestamp) -> bool {
        now.since(failures.since) >= self.limits.failures_window
    }

    /// Forgets what is over, or else the older half: seldom enough to cost little, and who fails
    /// from very many addresses does not free the others all at once.
    fn make_room(&self, failures: &mut HashMap<Network, Failures>, now: Timestamp) {
        failures.retain(|_, f| !self.is_over(f, now));
        if failures.len() < NETWORKS_MAX {
            return;
        }
        let mut by_age: Vec<(Timestamp, Network)> = failures.iter().map(|(ip, f)| (f.since, *ip)).collect();
        let half = by_age.len() / 2;
        by_age.select_nth_unstable(half);
        for (_, network) in &by_age[..half] {
            failures.remove(network);
        }
    }
}

/// Makes the keys of SCRAM that an account lacks, of a password that was shown and is right. Asked at
/// most as often as the login is noted.
async fn keep_keys(directory: &Directory, account: AccountId, via: &Via, shown: Option<Secret>) {
    let Some(password) = shown else { return };
    let kept = async {
        let Some(lacking) = directory.lacking_keys(account, via).await? else {
            return Ok(());
        };
        match tokio::task::spawn_blocking(move || lacking.derive(&password)).await {
            Ok(derived) => directory.keep_keys(derived).await,
            Err(_) => Ok(()),
        }
    };
    if let Err(error) = kept.await {
        tracing::warn!(%error, "the keys of SCRAM could not be kept");
    }
}

/// The wait before a failed login is answered; doubles with each failure of the session, up to 16
/// times the first.
#[derive(Debug)]
pub struct FailureDelay {
    first: Duration,
    failures: u32,
}

impl FailureDelay {
    /// No failure yet; `first` is the wait after the first one.
    #[must_use]
    pub fn new(first: Duration) -> Self {
        Self { first, failures: 0 }
    }

    /// Waits as long as this outcome asks for. A success forgets the failures; when we cannot tell,
    /// and when too many failed from the address (nothing was looked at), there is no wait.
    pub async fn after(&mut self, login: &Login) {
        match login {
            Login::Accepted { .. } => self.failures = 0,
            Login::Rejected | Login::AppPasswordRequired => {
                let doublings = self.failures.min(DELAY_DOUBLINGS_MAX);
                self.failures = self.failures.saturating_add(1);
                tokio::time::sleep(self.first * 2u32.pow(doublings)).await;
            }
            Login::TooManyFailures | Login::Unavailable => {}
        }
    }
}

#[cfg(test)]
mod tests;
