//! What ends a login, and what wakes those who are logged in.
#![allow(clippy::unwrap_used)]

use directory::{
    Argon2Cost, AuthOutcome, Credential, Directory, NewAccount, Options, Protocol, Scopes, SystemRandom,
};
use mail::{AccountId, Domain, EmailAddress, Secret, Timestamp};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use store::{Batch, MemoryStore, Watch};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

struct World {
    directory: Directory,
    bob: AccountId,
    laptop: u64,
    phone: u64,
    main: Credential,
    by_phone: Credential,
    watch: Watch,
}

async fn credential(directory: &Directory, password: &Secret) -> Credential {
    let candidate = directory
        .candidate("bob@example.com", Protocol::Imap)
        .await
        .unwrap();
    match candidate.verify(password, NOW) {
        AuthOutcome::Accepted { via, .. } => candidate.credential(via),
        AuthOutcome::Rejected(why) => panic!("{why:?}"),
    }
}

async fn world() -> World {
    let options = Options {
        argon2: Argon2Cost {
            memory_kib: 8,
            passes: 1,
            lanes: 1,
        },
        ..Options::default()
    };
    let directory = Directory::new(MemoryStore::new(), options, Arc::new(SystemRandom)).unwrap();
    let domain = Domain::parse("example.com").unwrap();
    directory.add_domain(&domain, NOW).await.unwrap();
    let password = Secret::new("secret");
    let new = |text| NewAccount {
        address: EmailAddress::parse(text).unwrap(),
        display_name: String::new(),
        password: Some(directory.hash_password(&password).unwrap()),
    };
    let nothing = |_: &mut Batch, _| {};
    let bob = directory.add_account(new("bob@example.com"), NOW, &nothing);
    let bob = bob.await.unwrap().id;
    let carol = directory.add_account(new("carol@example.com"), NOW, &nothing);
    carol.await.unwrap();
    let add = async |name| {
        directory
            .add_app_password(bob, name, Scopes::ALL, NOW)
            .await
            .unwrap()
    };
    let (laptop, phone) = (add("laptop").await, add("phone").await);
    World {
        main: credential(&directory, &password).await,
        by_phone: credential(&directory, &phone.password).await,
        watch: directory.watch_account(bob),
        laptop: laptop.record.id,
        phone: phone.record.id,
        bob,
        directory,
    }
}

impl World {
    /// Whether the watch has fired, whether the login by the main password holds, and whether the
    /// one by the app password does.
    async fn state(&mut self) -> [bool; 3] {
        let mut now = Context::from_waker(Waker::noop());
        let woken = pin!(self.watch.changed()).poll(&mut now) == Poll::Ready(true);
        let main = self.directory.still_valid(self.bob, &self.main).await.unwrap();
        let phone = self
            .directory
            .still_valid(self.bob, &self.by_phone)
            .await
            .unwrap();
        [woken, main, phone]
    }
}

#[tokio::test]
async fn what_ends_a_login() {
    const UNTOUCHED: [bool; 3] = [false, true, true];
    for (change, expected) in [
        ("nothing", UNTOUCHED),
        ("a display name", UNTOUCHED),
        ("an app password more", UNTOUCHED),
        ("a login", UNTOUCHED),
        ("the end of no suspension", UNTOUCHED),
        ("the second factor off", UNTOUCHED),
        ("another's suspension", UNTOUCHED),
        ("suspension", [true, false, false]),
        ("a new password", [true, false, true]),
        ("the same password anew", [true, false, true]),
        ("no password", [true, false, true]),
        ("the second factor", [true, false, true]),
        ("the other app password", [true, true, true]),
        ("the app password", [true, true, false]),
        ("removal", [true, false, false]),
    ] {
        let mut world = world().await;
        assert_eq!(world.state().await, UNTOUCHED, "before {change}");
        let (d, bob) = (&world.directory, world.bob);
        let hash = |text| Some(d.hash_password(&Secret::new(text)).unwrap());
        let done = match change {
            "nothing" => Ok(()),
            "a display name" => d.set_display_name(bob, "Bob").await,
            "an app password more" => d
                .add_app_password(bob, "tablet", Scopes::ALL, NOW)
                .await
                .map(|_| ()),
            "a login" => d
                .note_login(bob, &directory::Via::MainPassword, NOW)
                .await
                .map(drop),
            "the end of no suspension" => d.resume(bob).await,
            "the second factor off" => d.set_second_factor(bob, None).await,
            "another's suspension" => d.suspend(AccountId(bob.0 + 1)).await,
            "suspension" => d.suspend(bob).await,
            "a new password" => d.set_password(bob, hash("another")).await,
            "the same password anew" => d.set_password(bob, hash("secret")).await,
            "no password" => d.set_password(bob, None).await,
            "the second factor" => {
                let secret = d.new_totp_secret().unwrap();
                d.set_second_factor(bob, Some(secret)).await
            }
            "the other app password" => d.revoke_app_password(bob, world.laptop).await,
            "the app password" => d.revoke_app_password(bob, world.phone).await,
            "removal" => d.remove_account(bob).await,
            other => panic!("{other}"),
        };
        done.unwrap();
        assert_eq!(world.state().await, expected, "{change}");
        let woken_again = world.state().await[0];
        assert!(!woken_again, "{change} wakes once");
    }
}
