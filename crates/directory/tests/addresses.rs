//! Where addresses lead: forwards, groups, circles, settings of domains, who may send as whom.
#![allow(clippy::unwrap_used)]

use directory::{
    Account, Argon2Cost, Directory, Disabled, DomainChange, Error, Grant, GroupChange, Leads, NewAccount,
    Options, OriginalSender, Posting, Quota, Resolution, SRS_VALID_DAYS, Spread, SystemRandom,
};
use mail::{AccountId, Domain, EmailAddress, ReversePath, Timestamp};
use std::sync::Arc;
use store::memory::MemoryStore;
use store::{Batch, Tables as _};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

async fn fresh() -> (Arc<MemoryStore>, Directory) {
    let store = MemoryStore::new();
    let argon2 = Argon2Cost {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };
    let options = Options {
        argon2,
        ..Options::default()
    };
    let directory = Directory::new(store.clone(), options, Arc::new(SystemRandom)).unwrap();
    directory.add_domain(&domain("example.com"), NOW).await.unwrap();
    (store, directory)
}

async fn add(directory: &Directory, text: &str) -> Account {
    let new = NewAccount {
        address: address(text),
        display_name: String::new(),
        password: None,
    };
    directory.add_account(new, NOW, &|_, _| {}).await.unwrap()
}

async fn leads(d: &Directory, targets: &[&str]) -> Leads {
    let mut leads = Leads::default();
    for target in targets {
        d.target(&mut leads, &address(target)).await.unwrap();
    }
    leads
}

async fn spread(d: &Directory, text: &str) -> Spread {
    match d.resolve(&address(text)).await.unwrap() {
        Resolution::Local(accounts) => Spread {
            accounts,
            ..Spread::default()
        },
        Resolution::Spread(spread) => *spread,
        other => panic!("{text}: {other:?}"),
    }
}

async fn alias(d: &Directory, text: &str, targets: &[&str]) -> Result<(), Error> {
    let leads = leads(d, targets).await;
    d.set_alias_to(&address(text), &leads).await.map(drop)
}

fn more(leads: Leads) -> GroupChange {
    GroupChange {
        more: leads,
        ..GroupChange::default()
    }
}

#[tokio::test]
async fn forwards_and_groups_in_each_other() {
    let (_, d) = fresh().await;
    let (bob, carol) = (
        add(&d, "bob@example.com").await,
        add(&d, "carol@example.com").await,
    );
    alias(&d, "sales@example.com", &["bob@example.com", "x@far.example"])
        .await
        .unwrap();
    let members = leads(&d, &["carol@example.com", "sales@example.com", "y@far.example"]).await;
    d.add_group(&address("all@example.com"), &more(members))
        .await
        .unwrap();
    let all = spread(&d, "All+tag@example.com").await;
    assert_eq!(all.accounts, [carol.id, bob.id]);
    let forwards: Vec<String> = all
        .forwards
        .iter()
        .map(|f| format!("{} by {}", f.to, f.by))
        .collect();
    assert_eq!(
        forwards,
        [
            "y@far.example by all@example.com",
            "x@far.example by sales@example.com"
        ]
    );
    // What would lead back is refused and named; what others lead to stays.
    let circle = alias(&d, "sales@example.com", &["all@example.com"]).await;
    assert_eq!(
        circle.unwrap_err().to_string(),
        "sales@example.com would lead back to itself through all@example.com"
    );
    assert!(matches!(
        d.remove_alias(&address("sales@example.com")).await,
        Err(Error::InUse(_))
    ));
    let mut none = Leads::default();
    assert!(matches!(
        d.target(&mut none, &address("nobody@example.com")).await,
        Err(Error::NoSuchTarget(_))
    ));
    d.remove_account(bob.id).await.unwrap();
    assert_eq!(spread(&d, "all@example.com").await.accounts, [carol.id]);
    assert!(matches!(
        d.remove_domain(&domain("example.com")).await,
        Err(Error::InUse(_))
    ));
}

#[tokio::test]
async fn too_deep_is_refused() {
    let (_, d) = fresh().await;
    add(&d, "bob@example.com").await;
    alias(&d, "a0@example.com", &["bob@example.com"]).await.unwrap();
    for n in 1..=9 {
        let made = alias(
            &d,
            &format!("a{n}@example.com"),
            &[&format!("a{}@example.com", n - 1)],
        )
        .await;
        match n {
            9 => assert!(matches!(made, Err(Error::Limit { .. })), "{made:?}"),
            _ => made.unwrap(),
        }
    }
}

#[tokio::test]
async fn settings_of_a_domain() {
    let (_, d) = fresh().await;
    let (bob, carol) = (
        add(&d, "bob@example.com").await,
        add(&d, "carol@example.com").await,
    );
    let name = domain("example.com");
    let change = DomainChange {
        tag_separator: Some(Some('-')),
        catch_all: Some(Some(address("carol@example.com"))),
        postmaster: Some(Some(address("carol@example.com"))),
        abuse: Some(Some(address("abuse@far.example"))),
        ..DomainChange::default()
    };
    d.set_domain(&name, &change).await.unwrap();
    for (text, id) in [
        ("bob@example.com", bob.id),
        ("bob-x@example.com", bob.id),
        ("bob+x@example.com", carol.id),
        ("postmaster@example.com", carol.id),
        ("nobody@example.com", carol.id),
    ] {
        assert_eq!(spread(&d, text).await.accounts, [id], "{text}");
    }
    assert_eq!(
        spread(&d, "abuse@example.com").await.forwards[0].to,
        address("abuse@far.example")
    );
    // A catch-all is no permission.
    assert!(
        !d.may_send_as(carol.id, &address("nobody@example.com"))
            .await
            .unwrap()
    );
    assert!(
        d.may_send_as(carol.id, &address("postmaster@example.com"))
            .await
            .unwrap()
    );
    let off = DomainChange {
        tag_separator: Some(None),
        catch_all: Some(None),
        ..DomainChange::default()
    };
    d.set_domain(&name, &off).await.unwrap();
    let unknown = d.resolve(&address("bob-x@example.com")).await.unwrap();
    assert_eq!(unknown, Resolution::UnknownUser);

    // A domain in another's place, in every respect; then nobody's.
    d.add_domain(&domain("example.net"), NOW).await.unwrap();
    let stand = DomainChange {
        alias_of: Some(Some(name.clone())),
        ..DomainChange::default()
    };
    d.set_domain(&domain("example.net"), &stand).await.unwrap();
    assert_eq!(spread(&d, "bob@example.net").await.accounts, [bob.id]);
    assert!(d.may_send_as(bob.id, &address("bob@example.net")).await.unwrap());
    assert!(matches!(
        d.set_domain(&name, &stand).await,
        Err(Error::Invalid(_))
    ));
    assert!(matches!(d.remove_domain(&name).await, Err(Error::InUse(_))));
    let disabled = Disabled {
        temporary: true,
        words: "we are moving".to_owned(),
    };
    let shut = DomainChange {
        disabled: Some(Some(disabled.clone())),
        ..DomainChange::default()
    };
    d.add_domain(&domain("open.example"), NOW).await.unwrap();
    add(&d, "eve@open.example").await;
    let (inner, outer) = ("inner@example.com", "outer@open.example");
    alias(&d, inner, &["bob@example.com", "x@far.example"])
        .await
        .unwrap();
    alias(&d, outer, &[inner, "eve@open.example"]).await.unwrap();
    d.set_domain(&name, &shut).await.unwrap();
    let answer = d.resolve(&address("bob@example.net")).await.unwrap();
    assert_eq!(answer, Resolution::Disabled(disabled.clone()));
    // Nor is it passed over where others are meant too: they all come again.
    let answer = d.resolve(&address(outer)).await.unwrap();
    assert_eq!(answer, Resolution::Disabled(disabled));
    assert!(!d.may_send_as(bob.id, &address("bob@example.com")).await.unwrap());
}

#[tokio::test]
async fn who_may_send_as_whom() {
    let (_, d) = fresh().await;
    let (bob, carol) = (
        add(&d, "bob@example.com").await,
        add(&d, "carol@example.com").await,
    );
    alias(&d, "sales@example.com", &["bob@example.com", "x@far.example"])
        .await
        .unwrap();
    let team = address("team@example.com");
    d.add_group(&team, &more(Leads::to_accounts(&[bob.id])))
        .await
        .unwrap();
    let may = async |id: AccountId, text: &str| d.may_send_as(id, &address(text)).await.unwrap();
    assert!(may(bob.id, "sales@example.com").await);
    assert!(!may(carol.id, "sales@example.com").await);
    assert!(!may(bob.id, "team@example.com").await);
    let allow = GroupChange {
        post: Some(Posting::Members),
        members_send: Some(true),
        ..GroupChange::default()
    };
    d.change_group(&team, &allow).await.unwrap();
    assert!(may(bob.id, "team@example.com").await);
    for (grant, text) in [
        ("shop@example.com", "shop+1@example.com"),
        ("@example.com", "anything@example.com"),
    ] {
        let grant = Grant::parse(grant).unwrap();
        assert!(!may(carol.id, text).await);
        d.grant_sending(carol.id, &grant).await.unwrap();
        assert_eq!(d.grants(carol.id).await.unwrap(), std::slice::from_ref(&grant));
        assert!(may(carol.id, text).await);
        d.revoke_sending(carol.id, &grant).await.unwrap();
    }
    let foreign = Grant::parse("@far.example").unwrap();
    assert!(matches!(
        d.grant_sending(carol.id, &foreign).await,
        Err(Error::NoSuchDomain(_))
    ));
}

#[tokio::test]
async fn long_senders_are_kept_as_long_as_they_are_good() {
    let (store, d) = fresh().await;
    let long = address(&format!("{}@{}.example", "a".repeat(50), "b".repeat(30)));
    let mut batch = Batch::new();
    let path = d
        .forward_sender(
            &mut batch,
            &ReversePath::Address(long.clone()),
            &domain("example.com"),
            NOW,
        )
        .await
        .unwrap();
    store.commit(batch).await.unwrap();
    let path = path.address().unwrap().clone();
    let at = |days: u32| Timestamp::from_secs(NOW.secs() + i64::from(days) * 86_400);
    assert_eq!(d.resolve(&path).await.unwrap(), Resolution::Rewritten);
    let back = d.original_sender(&path, at(SRS_VALID_DAYS)).await.unwrap();
    assert_eq!(back, OriginalSender::Known(long));
    let late = d.original_sender(&path, at(SRS_VALID_DAYS + 1)).await.unwrap();
    assert!(matches!(late, OriginalSender::Refused(_)));
}

#[tokio::test]
async fn quotas_are_the_accounts_own_or_the_default() {
    let (_, d) = fresh().await;
    let bob = add(&d, "bob@example.com").await;
    assert_eq!(d.quota(bob.id).await.unwrap(), None);
    d.set_quota(bob.id, Some(Quota::Octets(7))).await.unwrap();
    assert_eq!(d.quota(bob.id).await.unwrap(), Some(7));
    d.set_quota(bob.id, Some(Quota::Unlimited)).await.unwrap();
    assert_eq!(d.quota(bob.id).await.unwrap(), None);
    d.remove_account(bob.id).await.unwrap();
    assert_eq!(d.own_quota(bob.id).await.unwrap(), None);
}

#[tokio::test]
async fn the_audit_knows_what_leads_nowhere() {
    let (store, d) = fresh().await;
    add(&d, "bob@example.com").await;
    alias(&d, "sales@example.com", &["bob@example.com", "x@far.example"])
        .await
        .unwrap();
    let catch = DomainChange {
        catch_all: Some(Some(address("sales@example.com"))),
        ..DomainChange::default()
    };
    d.set_domain(&domain("example.com"), &catch).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    let mut found = Vec::new();
    directory::audit(snapshot.as_ref(), &mut |finding| found.push(finding))
        .await
        .unwrap();
    assert!(found.is_empty(), "{found:?}");
}
