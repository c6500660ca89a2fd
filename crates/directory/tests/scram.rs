//! SCRAM against the directory: every password of an account by one salt, and nobody told apart from
//! somebody.
#![allow(clippy::unwrap_used)]

use directory::{
    Argon2Cost, AuthOutcome, AuthReason, Directory, NewAccount, Options, Protocol, Scopes, SystemRandom, Via,
};
use mail::{AccountId, EmailAddress, Secret, Timestamp};
use sasl::client::{Bind, Scram};
use sasl::{Answer, Channel, Exchange, Mechanism, Mechanisms, Request, Step};
use std::sync::Arc;
use store::{Batch, MemoryStore};

const NOW: Timestamp = Timestamp::from_secs(1_795_439_053);
const BOB: &str = "bob@example.com";

fn directory_of(store: Arc<MemoryStore>, scram_iterations: u32) -> Directory {
    let argon2 = Argon2Cost {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };
    let options = Options {
        argon2,
        scram_iterations,
        ..Options::default()
    };
    Directory::new(store, options, Arc::new(SystemRandom)).unwrap()
}

async fn with_bob(directory: &Directory, with_keys: bool) -> AccountId {
    let address = EmailAddress::parse(BOB).unwrap();
    let domain = address.domain().unwrap();
    directory.add_domain(domain, NOW).await.unwrap();
    let secret = Secret::new("secret");
    let password = match with_keys {
        true => directory.hash_password_of(&address, &secret).await.unwrap(),
        false => directory.hash_password(&secret).unwrap(),
    };
    let new = NewAccount {
        address,
        display_name: String::new(),
        password: Some(password),
    };
    let nothing = |_: &mut Batch, _| {};
    directory.add_account(new, NOW, &nothing).await.unwrap().id
}

/// A whole login by SCRAM.
async fn scram(d: &Directory, mechanism: Mechanism, user: &str, password: &str) -> AuthOutcome {
    let channel = Channel::default();
    let (hash, _) = mechanism.scram().unwrap();
    let client = Scram::new(hash, user, Secret::new(password), "nonce", Bind::Cannot, &channel);
    let (exchange, _) =
        Exchange::<AuthOutcome, AuthOutcome>::start(mechanism, Mechanisms::default(), &channel);
    let mut step = exchange.response(client.first().as_bytes());
    let mut client = Some(client);
    let mut proven = None;
    loop {
        step = match step {
            Step::Ask(asking, Request::Salt { user, .. }) => {
                asking.answer(Answer::Salted(d.scram_salt(&user).await.unwrap()))
            }
            Step::Ask(asking, Request::Proof { user, proof, .. }) => {
                let candidate = d.scram_candidate(&user, Protocol::Imap).await.unwrap();
                match candidate.verify_proof(&proof, NOW) {
                    (accepted @ AuthOutcome::Accepted { .. }, signature) => {
                        asking.answer(Answer::Accepted(accepted, signature))
                    }
                    (refused, _) => asking.answer(Answer::Refused(refused)),
                }
            }
            Step::Challenge(exchange, octets) => match client.take() {
                Some(client) => {
                    let (p, last) = client.last(&octets).unwrap();
                    proven = Some(p);
                    exchange.response(last.as_bytes())
                }
                None => {
                    assert!(proven.as_ref().unwrap().is_right(&octets));
                    exchange.response(b"")
                }
            },
            Step::Accepted(outcome) | Step::Refused(outcome) => return outcome,
            other => panic!("{other:?}"),
        };
    }
}

async fn tried(d: &Directory, user: &str, password: &str) -> Result<Via, AuthReason> {
    let mut both = Vec::new();
    for mechanism in [Mechanism::ScramSha1, Mechanism::ScramSha256] {
        both.push(match scram(d, mechanism, user, password).await {
            AuthOutcome::Accepted { via, .. } => Ok(via),
            AuthOutcome::Rejected(reason) => Err(reason),
        });
    }
    assert_eq!(both[0], both[1], "both hash functions alike");
    both.remove(0)
}

#[tokio::test]
async fn the_main_password_and_app_passwords_by_one_salt() {
    let d = directory_of(MemoryStore::new(), 4_096);
    let bob = with_bob(&d, true).await;
    assert_eq!(tried(&d, BOB, "secret").await, Ok(Via::MainPassword));
    assert_eq!(
        tried(&d, "BOB@Example.com", "secret").await,
        Ok(Via::MainPassword)
    );
    assert_eq!(tried(&d, BOB, "wrong").await, Err(AuthReason::WrongPassword));
    assert_eq!(
        tried(&d, "nobody@example.com", "secret").await,
        Err(AuthReason::UnknownUser)
    );
    let phone = d.add_app_password(bob, "phone", Scopes::ALL, NOW).await.unwrap();
    let smtp_only = Scopes {
        smtp: true,
        imap: false,
        pop3: false,
    };
    let printer = d.add_app_password(bob, "printer", smtp_only, NOW).await.unwrap();
    let soon = Some(NOW.plus(std::time::Duration::from_micros(1)));
    let guest = d.add_expiring_app_password(bob, "guest", Scopes::ALL, soon, Timestamp(0));
    let guest = guest.await.unwrap();
    let grouped = phone.password.expose().to_owned();
    let letters = grouped.replace(' ', "");
    for typed in [grouped, letters] {
        let via = tried(&d, BOB, &typed).await.unwrap();
        assert!(matches!(via, Via::AppPassword { name, .. } if name == "phone"));
    }
    assert_eq!(
        tried(&d, BOB, printer.password.expose()).await,
        Err(AuthReason::AppPasswordScope)
    );
    assert!(tried(&d, BOB, guest.password.expose()).await.is_ok());
    let candidate = d.candidate(BOB, Protocol::Imap).await.unwrap();
    assert_eq!(
        candidate.verify(&guest.password, NOW.plus(std::time::Duration::from_secs(1))),
        AuthOutcome::Rejected(AuthReason::AppPasswordExpired)
    );
    d.set_second_factor(bob, Some(d.new_totp_secret().unwrap()))
        .await
        .unwrap();
    assert_eq!(
        tried(&d, BOB, "secret").await,
        Err(AuthReason::AppPasswordRequired)
    );
    assert!(tried(&d, BOB, phone.password.expose()).await.is_ok());
    d.revoke_app_password(bob, phone.record.id).await.unwrap();
    assert_eq!(
        tried(&d, BOB, phone.password.expose()).await,
        Err(AuthReason::WrongPassword)
    );
}

#[tokio::test]
async fn a_changed_password_takes_its_keys_along() {
    let d = directory_of(MemoryStore::new(), 4_096);
    let bob = with_bob(&d, true).await;
    let address = EmailAddress::parse(BOB).unwrap();
    let new = d
        .hash_password_of(&address, &Secret::new("another"))
        .await
        .unwrap();
    d.set_password(bob, Some(new)).await.unwrap();
    assert_eq!(tried(&d, BOB, "secret").await, Err(AuthReason::WrongPassword));
    assert_eq!(tried(&d, BOB, "another").await, Ok(Via::MainPassword));
    // A password without keys: the old ones count for nothing.
    let plain = d.hash_password(&Secret::new("third")).unwrap();
    d.set_password(bob, Some(plain)).await.unwrap();
    assert_eq!(tried(&d, BOB, "another").await, Err(AuthReason::NoScramKeys));
    d.remove_account(bob).await.unwrap();
    assert_eq!(tried(&d, BOB, "third").await, Err(AuthReason::UnknownUser));
}

#[tokio::test]
async fn keys_come_with_the_first_login_that_shows_the_password() {
    let d = directory_of(MemoryStore::new(), 4_096);
    let bob = with_bob(&d, false).await;
    assert_eq!(tried(&d, BOB, "secret").await, Err(AuthReason::NoScramKeys));
    let lacking = d.lacking_keys(bob, &Via::MainPassword).await.unwrap().unwrap();
    d.keep_keys(lacking.derive(&Secret::new("secret"))).await.unwrap();
    assert_eq!(tried(&d, BOB, "secret").await, Ok(Via::MainPassword));
    assert!(d.lacking_keys(bob, &Via::MainPassword).await.unwrap().is_none());
    let none = directory_of(MemoryStore::new(), 0);
    let bob = with_bob(&none, true).await;
    assert!(
        none.lacking_keys(bob, &Via::MainPassword)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn nobody_looks_like_somebody() {
    let store = MemoryStore::new();
    let d = directory_of(Arc::clone(&store), 4_096);
    with_bob(&d, true).await;
    let mut salts = Vec::new();
    for user in [BOB, "nobody@example.com", "nobody", "\u{fc}@x"] {
        let first = d.scram_salt(user).await.unwrap();
        let again = directory_of(Arc::clone(&store), 4_096)
            .scram_salt(user)
            .await
            .unwrap();
        assert_eq!(
            (&first.salt, first.iterations, first.salt.len()),
            (&again.salt, 4_096, 16),
            "{user}: the same after a restart"
        );
        assert_ne!(first.nonce, again.nonce);
        salts.push(first.salt);
    }
    salts.sort();
    salts.dedup();
    assert_eq!(salts.len(), 4, "each name has its own");
    let other = directory_of(MemoryStore::new(), 4_096)
        .scram_salt(BOB)
        .await
        .unwrap();
    assert!(!salts.contains(&other.salt), "another server, another salt");
}

#[tokio::test]
async fn the_audit_knows_what_belongs_to_nobody() {
    let store = MemoryStore::new();
    let d = directory_of(Arc::clone(&store), 4_096);
    let bob = with_bob(&d, true).await;
    d.add_app_password(bob, "phone", Scopes::ALL, NOW).await.unwrap();
    let mut found = Vec::new();
    let snapshot = store::Tables::snapshot(store.as_ref()).await.unwrap();
    directory::audit(snapshot.as_ref(), &mut |f| found.push(format!("{f:?}")))
        .await
        .unwrap();
    assert!(found.is_empty(), "{found:?}");
}
