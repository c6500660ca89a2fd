//! Domains, accounts, aliases, resolution and logins, one behaviour a test.
#![allow(clippy::unwrap_used)]

use directory::{
    Account, Argon2Cost, AuthOutcome, AuthReason, Directory, Error, NewAccount, Options, PasswordHash,
    Protocol, Resolution, Scopes, SigningAlgorithm, SigningKey, SystemRandom, Via,
};
use mail::{AccountId, Domain, EmailAddress, Secret, Timestamp};
use proptest::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use store::memory::MemoryStore;
use store::{
    Batch, BlobError, BlobId, BlobWriter, Blobs, BoxFuture, CommitError, Key, ReadError, Receipt, Snapshot,
    Tables, Topic, Watch,
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// The cheapest argon2 there is: these tests are about decisions.
fn options() -> Options {
    Options {
        argon2: Argon2Cost {
            memory_kib: 8,
            passes: 1,
            lanes: 1,
        },
        default_domain: Some(domain("example.com")),
        ..Options::default()
    }
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

fn directory(store: &Arc<MemoryStore>) -> Directory {
    Directory::new(store.clone(), options(), Arc::new(SystemRandom)).unwrap()
}

async fn fresh() -> (Arc<MemoryStore>, Directory) {
    let store = MemoryStore::new();
    let directory = directory(&store);
    directory.add_domain(&domain("example.com"), NOW).await.unwrap();
    (store, directory)
}

async fn add(directory: &Directory, text: &str, password: Option<&str>) -> Account {
    let new = NewAccount {
        address: address(text),
        display_name: "Somebody".into(),
        password: password.map(|p| directory.hash_password(&Secret::new(p)).unwrap()),
    };
    directory.add_account(new, NOW, &|_, _| {}).await.unwrap()
}

async fn login(directory: &Directory, name: &str, password: &str, protocol: Protocol) -> AuthOutcome {
    directory
        .candidate(name, protocol)
        .await
        .unwrap()
        .verify(&Secret::new(password), NOW)
}

fn accepted(account: &Account, via: Via) -> AuthOutcome {
    AuthOutcome::Accepted {
        account: account.id,
        address: account.address.clone(),
        via,
    }
}

const fn rejected(reason: AuthReason) -> AuthOutcome {
    AuthOutcome::Rejected(reason)
}

#[tokio::test]
async fn domains_and_their_keys() {
    let (_, d) = fresh().await;
    let name = domain("example.com");
    assert!(matches!(d.add_domain(&name, NOW).await, Err(Error::Exists(_))));
    let key = |selector: &str| SigningKey {
        selector: selector.into(),
        algorithm: SigningAlgorithm::Ed25519Sha256,
        pkcs8_pem: "-----BEGIN PRIVATE KEY-----".into(),
        created: NOW,
    };
    d.add_signing_key(&name, key("s1")).await.unwrap();
    d.add_signing_key(&name, key("s2")).await.unwrap();
    assert!(matches!(
        d.add_signing_key(&name, key("s1")).await,
        Err(Error::Exists(_))
    ));
    assert!(matches!(
        d.add_signing_key(&name, key("not a name")).await,
        Err(Error::Invalid(_))
    ));
    assert!(matches!(
        d.add_signing_key(&domain("x.y"), key("s")).await,
        Err(Error::NoSuchDomain(_))
    ));
    d.remove_signing_key(&name, "s1").await.unwrap();
    assert_eq!(
        d.remove_signing_key(&name, "s1").await,
        Err(Error::NoSuch("signing key"))
    );
    let stored = d.domain(&name).await.unwrap().unwrap();
    assert_eq!(stored.signing_keys, [key("s2")]);
    assert!(!format!("{stored:?}").contains("PRIVATE"), "a key never prints");
    d.add_domain(&domain("another.example"), NOW).await.unwrap();
    let names: Vec<String> = d
        .domains()
        .await
        .unwrap()
        .into_iter()
        .map(|d| d.name.to_string())
        .collect();
    assert_eq!(names, ["another.example", "example.com"]);
    for n in 0..directory::SIGNING_KEYS_PER_DOMAIN_MAX - 1 {
        d.add_signing_key(&name, key(&format!("k{n}"))).await.unwrap();
    }
    assert!(matches!(
        d.add_signing_key(&name, key("more")).await,
        Err(Error::Limit { .. })
    ));
}

#[tokio::test]
async fn a_domain_in_use_stays() {
    let (_, d) = fresh().await;
    let name = domain("example.com");
    let bob = add(&d, "bob@example.com", None).await;
    assert!(matches!(d.remove_domain(&name).await, Err(Error::InUse(_))));
    d.add_domain(&domain("other.example"), NOW).await.unwrap();
    d.set_alias(&address("info@other.example"), &[bob.id])
        .await
        .unwrap();
    assert!(matches!(
        d.remove_domain(&domain("other.example")).await,
        Err(Error::InUse(_))
    ));
    d.remove_account(bob.id).await.unwrap();
    d.remove_domain(&name).await.unwrap();
    d.remove_domain(&domain("other.example")).await.unwrap();
    assert!(matches!(
        d.remove_domain(&name).await,
        Err(Error::NoSuchDomain(_))
    ));
}

#[tokio::test]
async fn accounts() {
    let (store, d) = fresh().await;
    let bob = add(&d, "Bob@example.com", None).await;
    let carol = add(&d, "carol@example.com", None).await;
    assert!(carol.id > bob.id);
    let new = |text: &str| NewAccount {
        address: address(text),
        display_name: String::new(),
        password: None,
    };
    let taken = d.add_account(new("bOB@Example.com"), NOW, &|_, _| {}).await;
    assert!(matches!(taken, Err(Error::Exists(_))), "addresses are folded");
    let foreign = d.add_account(new("x@gmail.com"), NOW, &|_, _| {}).await;
    assert!(matches!(foreign, Err(Error::NoSuchDomain(_))));
    let literal = d.add_account(new("x@[192.0.2.1]"), NOW, &|_, _| {}).await;
    assert!(matches!(literal, Err(Error::Invalid(_))));
    // What belongs to an account comes with it.
    let dave = d.add_account(new("dave@example.com"), NOW, &|batch, id| {
        batch.put(Key::table(0x99).u64(id.0), vec![1])
    });
    let dave = dave.await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert!(
        snapshot
            .get(&Key::table(0x99).u64(dave.id.0))
            .await
            .unwrap()
            .is_some()
    );
    let ids = |l: Vec<Account>| l.into_iter().map(|a| a.id).collect::<Vec<_>>();
    assert_eq!(ids(d.accounts(None, 2).await.unwrap()), [bob.id, carol.id]);
    assert_eq!(ids(d.accounts(Some(carol.id), 2).await.unwrap()), [dave.id]);
    assert_eq!(
        ids(d
            .accounts_of(&domain("example.com"), Some(bob.id), 9)
            .await
            .unwrap()),
        [carol.id, dave.id]
    );
    d.set_display_name(bob.id, "Bob the Builder").await.unwrap();
    assert!(matches!(
        d.set_display_name(bob.id, "a\r\nb").await,
        Err(Error::Invalid(_))
    ));
    let found = d
        .account_by_address(&address("bob@example.com"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.id, found.display_name.as_str()),
        (bob.id, "Bob the Builder")
    );
    assert_eq!(d.suspend(AccountId(99)).await, Err(Error::NoSuchAccount));
}

#[tokio::test]
async fn a_removed_account_leaves_nothing() {
    let (store, d) = fresh().await;
    let keep = add(&d, "keep@example.com", None).await;
    let bob = add(&d, "bob@example.com", Some("pw")).await;
    d.add_app_password(bob.id, "phone", Scopes::ALL, NOW)
        .await
        .unwrap();
    d.note_login(bob.id, &Via::MainPassword, NOW).await.unwrap();
    d.set_alias(&address("team@example.com"), &[bob.id, keep.id])
        .await
        .unwrap();
    d.set_alias(&address("only@example.com"), &[bob.id])
        .await
        .unwrap();
    d.remove_account(bob.id).await.unwrap();
    assert_eq!(d.remove_account(bob.id).await, Err(Error::NoSuchAccount));
    let aliases = d.aliases().await.unwrap();
    assert_eq!(aliases.len(), 1);
    assert_eq!(
        (aliases[0].address.to_string().as_str(), &aliases[0].accounts[..]),
        ("team@example.com", &[keep.id][..])
    );
    assert_eq!(
        d.resolve(&address("bob@example.com")).await.unwrap(),
        Resolution::UnknownUser
    );
    let snapshot = store.snapshot().await.unwrap();
    for table in [0x13, 0x14, 0x17] {
        assert_eq!(
            snapshot.scan(&Key::table(table).prefix_range(), 9).await.unwrap(),
            [],
            "table {table:#x}"
        );
    }
    let again = add(&d, "bob@example.com", None).await;
    assert!(again.id > bob.id, "a number is never used again");
}

#[tokio::test]
async fn who_gets_the_mail() {
    let (_, d) = fresh().await;
    d.add_domain(&domain("empty.example"), NOW).await.unwrap();
    let bob = add(&d, "bob@example.com", None).await;
    let carol = add(&d, "carol@example.com", None).await;
    let tagged = add(&d, "carol+work@example.com", None).await;
    d.set_alias(&address("Team@example.com"), &[carol.id, bob.id, bob.id])
        .await
        .unwrap();
    let local = |ids: &[AccountId]| Resolution::Local(ids.to_vec());
    for (text, expected) in [
        ("bob@example.com", local(&[bob.id])),
        ("BOB@EXAMPLE.COM", local(&[bob.id])),
        ("bob+lists@example.com", local(&[bob.id])),
        ("bob+a+b@example.com", local(&[bob.id])),
        ("carol+work@example.com", local(&[tagged.id])),
        ("carol+other@example.com", local(&[carol.id])),
        ("team@example.com", local(&[bob.id, carol.id])),
        ("team+x@example.com", local(&[bob.id, carol.id])),
        ("Postmaster@example.com", local(&[bob.id])),
        ("abuse@example.com", local(&[bob.id])),
        ("nobody@example.com", Resolution::UnknownUser),
        ("+x@example.com", Resolution::UnknownUser),
        ("postmaster@empty.example", Resolution::UnknownUser),
        ("bob@gmail.com", Resolution::NotOurs),
        ("bob@sub.example.com", Resolution::NotOurs),
        ("bob@[192.0.2.1]", Resolution::NotOurs),
    ] {
        assert_eq!(d.resolve(&address(text)).await.unwrap(), expected, "{text}");
    }
    d.set_alias(&address("postmaster@example.com"), &[carol.id])
        .await
        .unwrap();
    assert_eq!(
        d.resolve(&address("postmaster@example.com")).await.unwrap(),
        local(&[carol.id])
    );
    for (account, text, may) in [
        (bob.id, "bob@example.com", true),
        (bob.id, "Bob+tag@example.com", true),
        (bob.id, "team@example.com", true),
        (bob.id, "carol@example.com", false),
        (bob.id, "postmaster@example.com", false),
        (bob.id, "nobody@example.com", false),
        (bob.id, "bob@gmail.com", false),
    ] {
        assert_eq!(
            d.may_send_as(account, &address(text)).await.unwrap(),
            may,
            "{text}"
        );
    }
    d.suspend(bob.id).await.unwrap();
    assert!(!d.may_send_as(bob.id, &address("bob@example.com")).await.unwrap());
    d.resume(bob.id).await.unwrap();
    assert!(d.may_send_as(bob.id, &address("bob@example.com")).await.unwrap());
}

#[tokio::test]
async fn aliases_are_checked() {
    let (_, d) = fresh().await;
    let bob = add(&d, "bob@example.com", None).await;
    let alias = address("info@example.com");
    assert!(matches!(d.set_alias(&alias, &[]).await, Err(Error::Invalid(_))));
    assert_eq!(
        d.set_alias(&alias, &[AccountId(77)]).await,
        Err(Error::NoSuchAccount)
    );
    assert!(matches!(
        d.set_alias(&bob.address, &[bob.id]).await,
        Err(Error::Exists(_))
    ));
    assert!(matches!(
        d.set_alias(&address("a@gmail.com"), &[bob.id]).await,
        Err(Error::NoSuchDomain(_))
    ));
    d.set_alias(&alias, &[bob.id]).await.unwrap();
    let new = NewAccount {
        address: alias.clone(),
        display_name: String::new(),
        password: None,
    };
    assert!(matches!(
        d.add_account(new, NOW, &|_, _| {}).await,
        Err(Error::Exists(_))
    ));
    d.remove_alias(&alias).await.unwrap();
    assert_eq!(d.remove_alias(&alias).await, Err(Error::NoSuch("alias")));
    assert_eq!(d.remove_alias(&bob.address).await, Err(Error::NoSuch("alias")));
}

#[tokio::test]
async fn main_password() {
    let (_, d) = fresh().await;
    let bob = add(&d, "bob@example.com", Some("correct horse")).await;
    let none = add(&d, "none@example.com", None).await;
    d.set_alias(&address("b@example.com"), &[bob.id]).await.unwrap();
    d.set_alias(&address("both@example.com"), &[bob.id, none.id])
        .await
        .unwrap();
    let yes = accepted(&bob, Via::MainPassword);
    let long = "x".repeat(directory::PASSWORD_OCTETS_MAX + 1);
    for (name, password, expected) in [
        ("bob@example.com", "correct horse", yes.clone()),
        ("BOB@example.com", "correct horse", yes.clone()),
        ("bob", "correct horse", yes.clone()),
        ("b@example.com", "correct horse", yes.clone()),
        (
            "bob@example.com",
            "Correct horse",
            rejected(AuthReason::WrongPassword),
        ),
        ("bob@example.com", "", rejected(AuthReason::WrongPassword)),
        ("bob@example.com", &long, rejected(AuthReason::WrongPassword)),
        ("none@example.com", "", rejected(AuthReason::WrongPassword)),
        (
            "both@example.com",
            "correct horse",
            rejected(AuthReason::UnknownUser),
        ),
        (
            "nobody@example.com",
            "correct horse",
            rejected(AuthReason::UnknownUser),
        ),
        (
            "bob@gmail.com",
            "correct horse",
            rejected(AuthReason::UnknownUser),
        ),
        (
            "bob+tag@example.com",
            "correct horse",
            rejected(AuthReason::UnknownUser),
        ),
        ("not an address", "", rejected(AuthReason::UnknownUser)),
        ("@", "", rejected(AuthReason::UnknownUser)),
    ] {
        // The second time the first answer may be remembered; it must be the same.
        for _ in 0..2 {
            assert_eq!(
                login(&d, name, password, Protocol::Imap).await,
                expected,
                "{name} {password}"
            );
        }
    }
    let new = d.hash_password(&Secret::new("battery staple")).unwrap();
    d.set_password(bob.id, Some(new)).await.unwrap();
    let old = login(&d, "bob", "correct horse", Protocol::Imap).await;
    assert_eq!(
        old,
        rejected(AuthReason::WrongPassword),
        "what was remembered is void"
    );
    assert_eq!(login(&d, "bob", "battery staple", Protocol::Imap).await, yes);
    d.suspend(bob.id).await.unwrap();
    assert_eq!(
        login(&d, "bob", "battery staple", Protocol::Smtp).await,
        rejected(AuthReason::Suspended)
    );
    assert_eq!(
        login(&d, "bob", "wrong", Protocol::Smtp).await,
        rejected(AuthReason::WrongPassword)
    );
    d.resume(bob.id).await.unwrap();
    assert_eq!(login(&d, "bob", "battery staple", Protocol::Smtp).await, yes);
    d.set_password(bob.id, None).await.unwrap();
    assert_eq!(
        login(&d, "bob", "battery staple", Protocol::Smtp).await,
        rejected(AuthReason::WrongPassword)
    );
}

#[tokio::test]
async fn app_passwords_open_what_they_say() {
    let (_, d) = fresh().await;
    let bob = add(&d, "bob@example.com", Some("main")).await;
    let imap_only = Scopes {
        smtp: false,
        imap: true,
        pop3: false,
    };
    let phone = d.add_app_password(bob.id, "phone", imap_only, NOW).await.unwrap();
    let laptop = d
        .add_app_password(bob.id, "laptop", Scopes::ALL, NOW)
        .await
        .unwrap();
    let typed = phone.password.expose().to_owned();
    assert_eq!(typed.len(), 24, "five groups of four: {typed}");
    assert_ne!(typed, laptop.password.expose());
    let via = Via::AppPassword {
        id: phone.record.id,
        name: "phone".into(),
    };
    for spelling in [
        typed.clone(),
        typed.replace(' ', ""),
        typed.replace(' ', "-"),
        typed.to_uppercase(),
    ] {
        assert_eq!(
            login(&d, "bob", &spelling, Protocol::Imap).await,
            accepted(&bob, via.clone()),
            "{spelling}"
        );
    }
    assert_eq!(
        login(&d, "bob", &typed, Protocol::Smtp).await,
        rejected(AuthReason::AppPasswordScope)
    );
    assert!(!AuthReason::AppPasswordScope.may_be_told());
    assert!(matches!(
        d.add_app_password(bob.id, "phone", imap_only, NOW).await,
        Err(Error::Exists(_))
    ));
    assert!(matches!(
        d.add_app_password(bob.id, "", imap_only, NOW).await,
        Err(Error::Invalid(_))
    ));
    d.suspend(bob.id).await.unwrap();
    assert_eq!(
        login(&d, "bob", &typed, Protocol::Imap).await,
        rejected(AuthReason::Suspended)
    );
    d.resume(bob.id).await.unwrap();
    d.revoke_app_password(bob.id, phone.record.id).await.unwrap();
    assert_eq!(
        d.revoke_app_password(bob.id, phone.record.id).await,
        Err(Error::NoSuch("app password"))
    );
    assert_eq!(
        login(&d, "bob", &typed, Protocol::Imap).await,
        rejected(AuthReason::WrongPassword)
    );
    let left = d.app_passwords(bob.id).await.unwrap();
    assert_eq!(
        left.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
        ["laptop"]
    );
    for n in 1..directory::APP_PASSWORDS_PER_ACCOUNT_MAX {
        d.add_app_password(bob.id, &format!("{n}"), imap_only, NOW)
            .await
            .unwrap();
    }
    assert!(matches!(
        d.add_app_password(bob.id, "more", imap_only, NOW).await,
        Err(Error::Limit { .. })
    ));
}

#[tokio::test]
async fn with_a_second_factor_only_app_passwords() {
    let (_, d) = fresh().await;
    let bob = add(&d, "bob@example.com", Some("main")).await;
    let app = d
        .add_app_password(bob.id, "phone", Scopes::ALL, NOW)
        .await
        .unwrap();
    let secret = d.new_totp_secret().unwrap();
    d.set_second_factor(bob.id, Some(secret)).await.unwrap();
    for protocol in [Protocol::Smtp, Protocol::Imap, Protocol::Pop3] {
        let main = login(&d, "bob", "main", protocol).await;
        assert_eq!(main, rejected(AuthReason::AppPasswordRequired));
        assert_eq!(
            login(&d, "bob", "wrong", protocol).await,
            rejected(AuthReason::WrongPassword)
        );
        let via = Via::AppPassword {
            id: app.record.id,
            name: "phone".into(),
        };
        assert_eq!(
            login(&d, "bob", app.password.expose(), protocol).await,
            accepted(&bob, via)
        );
    }
    assert!(AuthReason::AppPasswordRequired.may_be_told());
    d.suspend(bob.id).await.unwrap();
    assert_eq!(
        login(&d, "bob", "main", Protocol::Imap).await,
        rejected(AuthReason::Suspended)
    );
    d.resume(bob.id).await.unwrap();
    d.set_second_factor(bob.id, None).await.unwrap();
    assert_eq!(
        login(&d, "bob", "main", Protocol::Imap).await,
        accepted(&bob, Via::MainPassword)
    );
    assert!(
        !d.check_totp(bob.id, "000000", NOW).await.unwrap(),
        "no second factor, no code"
    );
}

#[tokio::test]
async fn last_use_is_written_now_and_then() {
    let (store, d) = fresh().await;
    let bob = add(&d, "bob@example.com", None).await;
    let app = d
        .add_app_password(bob.id, "phone", Scopes::ALL, NOW)
        .await
        .unwrap()
        .record;
    let via = Via::AppPassword {
        id: app.id,
        name: app.name,
    };
    let later = |secs| NOW.plus(Duration::from_secs(secs));
    d.note_login(bob.id, &via, NOW).await.unwrap();
    let seq = store.snapshot().await.unwrap().seq();
    d.note_login(bob.id, &via, later(599)).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().seq(), seq, "nothing was written");
    assert_eq!(d.app_passwords(bob.id).await.unwrap()[0].last_used, Some(NOW));
    d.note_login(bob.id, &via, later(600)).await.unwrap();
    assert_eq!(
        d.app_passwords(bob.id).await.unwrap()[0].last_used,
        Some(later(600))
    );
    assert_eq!(d.last_login(bob.id).await.unwrap(), None);
    d.note_login(bob.id, &Via::MainPassword, NOW).await.unwrap();
    assert_eq!(d.last_login(bob.id).await.unwrap(), Some(NOW));
    d.revoke_app_password(bob.id, app.id).await.unwrap();
    d.note_login(bob.id, &via, later(9000)).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(
        snapshot
            .scan(&Key::table(0x14).prefix_range(), 9)
            .await
            .unwrap()
            .len(),
        1,
        "nothing is left behind"
    );
}

#[tokio::test]
async fn hashes() {
    let (_, d) = fresh().await;
    let hash = d.hash_password(&Secret::new("pw")).unwrap();
    assert!(hash.as_phc().starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
    assert_ne!(
        hash,
        d.hash_password(&Secret::new("pw")).unwrap(),
        "each has its own salt"
    );
    assert_eq!(PasswordHash::parse(hash.as_phc()).unwrap(), hash);
    assert_eq!(format!("{hash:?}"), "PasswordHash(…)");
    for bad in [
        "",
        "plain",
        "$argon2id$",
        "$1$abc$def",
        &hash.as_phc().replace("argon2id", "argon2d"),
    ] {
        assert!(PasswordHash::parse(bad).is_err(), "{bad}");
    }
    assert!(matches!(
        d.hash_password(&Secret::new("")),
        Err(Error::Invalid(_))
    ));
    let defaults = Argon2Cost::default();
    assert_eq!(
        (defaults.memory_kib, defaults.passes, defaults.lanes),
        (19 * 1024, 2, 1)
    );
    let bad = Options {
        argon2: Argon2Cost {
            memory_kib: 1,
            passes: 0,
            lanes: 0,
        },
        ..Options::default()
    };
    assert!(Directory::new(MemoryStore::new(), bad, Arc::new(SystemRandom)).is_err());
}

#[tokio::test]
async fn damage_names_the_key() {
    let (store, d) = fresh().await;
    let bob = add(&d, "bob@example.com", None).await;
    let key = Key::table(0x11).u64(bob.id.0);
    let mut batch = Batch::new();
    batch.put(key.clone(), b"\x01{".to_vec());
    store.commit(batch).await.unwrap();
    match d.account(bob.id).await {
        Err(Error::Damaged { key: named, .. }) => assert_eq!(named, key),
        other => panic!("{other:?}"),
    }
}

/// Every reader lets the others go ahead between its snapshot and its commit.
struct Yielding(Arc<MemoryStore>);

impl Tables for Yielding {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        self.0.commit(batch)
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, ReadError>> {
        Box::pin(async {
            let snapshot = self.0.snapshot().await;
            tokio::task::yield_now().await;
            snapshot
        })
    }

    fn watch(&self, topic: &Topic) -> Watch {
        self.0.watch(topic)
    }
}

impl Blobs for Yielding {
    fn stage(&self, len_hint: u64) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, BlobError>> {
        self.0.stage(len_hint)
    }

    fn read(&self, id: BlobId, range: Range<u64>) -> BoxFuture<'_, Result<bytes::Bytes, BlobError>> {
        self.0.read(id, range)
    }
}

#[tokio::test]
async fn changes_that_cross_are_decided_one_after_the_other() {
    let store = MemoryStore::new();
    let d = Directory::new(Arc::new(Yielding(store)), options(), Arc::new(SystemRandom)).unwrap();
    let name = domain("example.com");
    let (one, two) = tokio::join!(d.add_domain(&name, NOW), d.add_domain(&name, NOW));
    assert!(one.is_ok() != two.is_ok(), "one domain of a name");
    let new = || NewAccount {
        address: address("bob@example.com"),
        display_name: String::new(),
        password: None,
    };
    let (one, two) = tokio::join!(
        d.add_account(new(), NOW, &|_, _| {}),
        d.add_account(new(), NOW, &|_, _| {})
    );
    assert!(one.is_ok() != two.is_ok(), "one account of an address");
    let bob = one.or(two).unwrap();
    let (one, two, three) = tokio::join!(
        d.add_app_password(bob.id, "phone", Scopes::ALL, NOW),
        d.add_app_password(bob.id, "phone", Scopes::ALL, NOW),
        d.add_app_password(bob.id, "laptop", Scopes::ALL, NOW),
    );
    assert!(one.is_ok() != two.is_ok(), "one app password of a name");
    three.unwrap();
    let all = d.app_passwords(bob.id).await.unwrap();
    assert!(all.len() == 2 && all[0].id != all[1].id);
    let (named, suspended) = tokio::join!(d.set_display_name(bob.id, "Bob"), d.suspend(bob.id));
    named.unwrap();
    suspended.unwrap();
    let stored = d.account(bob.id).await.unwrap().unwrap();
    assert!(
        stored.suspended && stored.display_name == "Bob",
        "neither change is lost"
    );
    let other = domain("other.example");
    d.add_domain(&other, NOW).await.unwrap();
    let target = [bob.id];
    let info = address("info@other.example");
    let (removed, alias) = tokio::join!(d.remove_domain(&other), d.set_alias(&info, &target));
    assert!(
        removed.is_ok() != alias.is_ok(),
        "no alias at a domain that is gone"
    );
    let team = address("team@example.com");
    let (gone, alias) = tokio::join!(d.remove_account(bob.id), d.set_alias(&team, &target));
    gone.unwrap();
    assert_eq!(
        d.aliases().await.unwrap(),
        [],
        "no alias leads to nobody: {alias:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is added and removed, in any order, an address has one owner and leads where the
    /// last change said.
    #[test]
    fn an_address_has_one_owner(ops in proptest::collection::vec((0u8..4, 0usize..4), 1..30)) {
        let names = ["a", "b", "c", "d"];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_, d) = fresh().await;
            let root = add(&d, "root@example.com", None).await;
            let mut owner: [Option<(AccountId, bool)>; 4] = [None; 4];
            for (what, which) in ops {
                let at = address(&format!("{}@example.com", names[which]));
                match what {
                    0 => {
                        let new = NewAccount { address: at, display_name: String::new(), password: None };
                        match d.add_account(new, NOW, &|_, _| {}).await {
                            Ok(account) => assert!(owner[which].replace((account.id, true)).is_none()),
                            Err(e) => assert!(matches!(e, Error::Exists(_)) && owner[which].is_some()),
                        }
                    }
                    1 => match d.set_alias(&at, &[root.id]).await {
                        Ok(_) => assert!(!owner[which].replace((root.id, false)).is_some_and(|(_, own)| own)),
                        Err(e) => assert!(matches!(e, Error::Exists(_)) && owner[which].unwrap().1),
                    },
                    2 => match d.remove_alias(&at).await {
                        Ok(()) => assert!(!owner[which].take().unwrap().1),
                        Err(_) => assert!(owner[which].is_none_or(|(_, own)| own)),
                    },
                    _ => if let Some((id, true)) = owner[which] {
                        d.remove_account(id).await.unwrap();
                        owner[which] = None;
                    },
                }
                for (name, owner) in names.iter().zip(owner) {
                    let expected = owner.map_or(Resolution::UnknownUser, |(id, _)| Resolution::Local(vec![id]));
                    let at = address(&format!("{name}@example.com"));
                    assert_eq!(d.resolve(&at).await.unwrap(), expected);
                }
            }
        });
    }
}
