//! A login for as long as its session lasts: whether it still holds.
//!
//! Promises: the directory is asked again only after something happened to the account, so asking
//! [`Standing::is_over`] before each command costs next to nothing. Never: a timer, a word to the
//! client.

use directory::{Credential, Directory};
use mail::AccountId;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use store::Watch;

/// A login that can end before its session does.
pub struct Standing {
    account: AccountId,
    /// None when a proxy that we trust vouches for the login.
    credential: Option<Credential>,
    watch: Watch,
    /// Something happened that the directory was not asked about yet.
    unsure: bool,
    over: bool,
}

impl Standing {
    /// Begins to watch over an accepted login. It is unsure at first: what happened between the
    /// check of the password and now is not missed.
    #[must_use]
    pub fn new(directory: &Directory, account: AccountId, credential: Credential) -> Self {
        Self::begun(directory, account, Some(credential))
    }

    /// The same for a login for which a trusted proxy vouches; it ends with the account, or when that is
    /// suspended.
    #[must_use]
    pub fn vouched(directory: &Directory, account: AccountId) -> Self {
        Self::begun(directory, account, None)
    }

    fn begun(directory: &Directory, account: AccountId, credential: Option<Credential>) -> Self {
        Self {
            account,
            credential,
            watch: directory.watch_account(account),
            unsure: true,
            over: false,
        }
    }

    /// Waits for a reason to ask [`Standing::is_over`]. Cancel-safe.
    pub async fn unsettled(&mut self) {
        if self.unsure || self.over {
            return;
        }
        if !self.watch.changed().await {
            // The store has closed; nothing will happen any more.
            std::future::pending::<()>().await;
        }
        self.unsure = true;
    }

    /// Whether the login has ended. When that cannot be found out, it has: the client can log in
    /// anew as soon as it can. Cancel-safe.
    pub async fn is_over(&mut self, directory: &Directory) -> bool {
        self.unsure |= self.was_woken();
        if self.over || !self.unsure {
            return self.over;
        }
        // On the heap, so that a session that waits does not hold room for it.
        let valid = Box::pin(self.is_valid(directory)).await;
        self.unsure = false;
        self.over = match valid {
            Ok(valid) => !valid,
            Err(error) => {
                tracing::error!(%error, "a login could not be checked again");
                true
            }
        };
        if self.over {
            tracing::info!(account = %self.account, "a login ended while its session was open");
        }
        self.over
    }

    async fn is_valid(&self, directory: &Directory) -> Result<bool, directory::Error> {
        match &self.credential {
            Some(credential) => directory.still_valid(self.account, credential).await,
            None => Ok(directory
                .account(self.account)
                .await?
                .is_some_and(|account| !account.suspended)),
        }
    }

    /// The store wakes its watchers before it answers a commit, so what was done is never missed.
    fn was_woken(&mut self) -> bool {
        let mut now = Context::from_waker(Waker::noop());
        pin!(self.watch.changed()).poll(&mut now) == Poll::Ready(true)
    }
}

/// [`Standing::unsettled`] where there may be no login; then it waits for ever.
pub async fn unsettled(standing: Option<&mut Standing>) {
    match standing {
        Some(standing) => standing.unsettled().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use directory::{NewAccount, Protocol, Scopes, SystemRandom};
    use mail::{Domain, EmailAddress, Timestamp};
    use std::sync::Arc;
    use store::{Batch, MemoryStore};

    const NOW: Timestamp = Timestamp::from_secs(1_795_439_053);

    async fn logged_in() -> (Directory, AccountId, Credential) {
        let options = directory::Options::default();
        let directory = Directory::new(MemoryStore::new(), options, Arc::new(SystemRandom)).unwrap();
        let domain = Domain::parse("example.com").unwrap();
        directory.add_domain(&domain, NOW).await.unwrap();
        let new = NewAccount {
            address: EmailAddress::parse("bob@example.com").unwrap(),
            display_name: String::new(),
            password: None,
        };
        let nothing = |_: &mut Batch, _| {};
        let bob = directory.add_account(new, NOW, &nothing).await.unwrap().id;
        let app = directory.add_app_password(bob, "phone", Scopes::ALL, NOW);
        let app = app.await.unwrap();
        let candidate = directory.candidate("bob@example.com", Protocol::Imap).await;
        let candidate = candidate.unwrap();
        let directory::AuthOutcome::Accepted { via, .. } = candidate.verify(&app.password, NOW) else {
            panic!("the app password is right");
        };
        let credential = candidate.credential(via);
        (directory, bob, credential)
    }

    fn is_unsettled(standing: &mut Standing) -> bool {
        let mut now = Context::from_waker(Waker::noop());
        pin!(standing.unsettled()).poll(&mut now).is_ready()
    }

    #[tokio::test]
    async fn it_asks_when_something_happened_and_then_rests() {
        let (directory, bob, credential) = logged_in().await;
        let mut standing = Standing::new(&directory, bob, credential);
        assert!(is_unsettled(&mut standing), "at first");
        assert!(!standing.is_over(&directory).await);
        assert!(!is_unsettled(&mut standing));
        let secret = directory.new_totp_secret().unwrap();
        directory.set_second_factor(bob, Some(secret)).await.unwrap();
        assert!(is_unsettled(&mut standing));
        assert!(is_unsettled(&mut standing), "until it has asked");
        assert!(
            !standing.is_over(&directory).await,
            "no matter of an app password"
        );
        assert!(!is_unsettled(&mut standing));
        directory.suspend(bob).await.unwrap();
        assert!(
            standing.is_over(&directory).await,
            "also unless it was waited for"
        );
        directory.resume(bob).await.unwrap();
        assert!(standing.is_over(&directory).await, "over is over");
    }

    #[tokio::test]
    async fn nothing_is_missed_between_the_password_and_the_watch() {
        let (directory, bob, credential) = logged_in().await;
        directory.suspend(bob).await.unwrap();
        let mut standing = Standing::new(&directory, bob, credential);
        assert!(is_unsettled(&mut standing));
        assert!(standing.is_over(&directory).await);
    }
}
