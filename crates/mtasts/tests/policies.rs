//! Policies over a DNS that changes, a policy host that fails, a clock that moves, and restarts.
#![allow(clippy::unwrap_used)]

use dns::table::TableResolver;
use futures_util::future::{BoxFuture, join_all};
use mail::{Clock, Domain, Timestamp};
use mtasts::{Fault, FaultKind, Fetch, Mode, Policies};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{MemoryStore, Store};

const NAME: &str = "_mta-sts.example.com";
const FIRST: &[&str] = &["v=STSv1; id=1"];
const DAY: u64 = 86_400;
const ENFORCE: &str = "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 604800\n";

/// The policy host and the clock, as a test sets them.
struct World {
    body: Mutex<Result<String, Fault>>,
    fetches: Mutex<usize>,
    now: Mutex<Timestamp>,
    store: Arc<dyn Store>,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            body: Mutex::new(Err(Fault::fetch("nothing listens there"))),
            fetches: Mutex::new(0),
            now: Mutex::new(Timestamp::from_secs(1_795_439_053)),
            store: MemoryStore::new(),
        })
    }

    /// A server that was just started, over a DNS with these texts at `_mta-sts`.
    fn with(self: &Arc<Self>, texts: &[&str]) -> Policies {
        let texts = texts.iter();
        self.over(texts.fold(TableResolver::new(), |table, text| table.with_txt(NAME, text)))
    }

    fn over(self: &Arc<Self>, dns: TableResolver) -> Policies {
        Policies::new(self.store.clone(), Arc::new(dns), self.clone(), self.clone())
    }

    fn serve(&self, body: &str) {
        *self.body.lock().unwrap() = Ok(body.to_owned());
    }

    fn fail(&self, fault: Fault) {
        *self.body.lock().unwrap() = Err(fault);
    }

    fn pass(&self, secs: u64) {
        let mut now = self.now.lock().unwrap();
        *now = now.plus(Duration::from_secs(secs));
    }

    fn fetches(&self) -> usize {
        *self.fetches.lock().unwrap()
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }
}

impl Fetch for World {
    fn fetch<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            assert_eq!(domain.as_str(), "example.com");
            *self.fetches.lock().unwrap() += 1;
            tokio::task::yield_now().await;
            let body = self.body.lock().unwrap().clone();
            body.map(String::into_bytes)
        })
    }
}

fn domain() -> Domain {
    Domain::parse("example.com").unwrap()
}

/// The mode and id that hold, and the kind of fault.
async fn now(policies: &Policies) -> (Option<(Mode, String)>, Option<FaultKind>) {
    let found = policies.look_up(&domain()).await.unwrap();
    let applied = found
        .applied
        .map(|applied| (applied.policy.mode, applied.id.to_string()));
    (applied, found.fault.map(|fault| fault.kind))
}

fn enforced(id: &str) -> Option<(Mode, String)> {
    Some((Mode::Enforce, id.to_owned()))
}

#[tokio::test]
async fn a_domain_without_a_record_costs_no_fetch_and_no_row() {
    let world = World::new();
    let policies = world.with(&["v=spf1 -all"]);
    assert_eq!(now(&policies).await, (None, None));
    assert_eq!(world.fetches(), 0);
    assert!(policies.memory().entries(None, 10).await.unwrap().is_empty());
    assert_eq!(policies.refresh(&domain()).await.unwrap(), None);
}

#[tokio::test]
async fn a_policy_is_fetched_once_and_outlives_a_restart() {
    let world = World::new();
    world.serve(ENFORCE);
    let first = world.with(FIRST);
    assert_eq!(now(&first).await, (enforced("1"), None));
    assert_eq!(now(&first).await, (enforced("1"), None));
    assert_eq!(world.fetches(), 1);
    drop(first);
    // The attacker takes the record away, stops the policy host and makes us restart.
    world.fail(Fault::fetch("blocked"));
    let second = world.with(&[]);
    world.pass(6 * DAY);
    assert_eq!(now(&second).await, (enforced("1"), None));
    let third = world.over(TableResolver::new().with_timeout(NAME));
    assert_eq!(now(&third).await, (enforced("1"), None));
    let fourth = world.with(&["v=STSv1; id=1", "v=STSv1; id=2"]);
    assert_eq!(now(&fourth).await, (enforced("1"), None));
    world.pass(DAY);
    assert_eq!(now(&second).await, (None, None), "its age is over");
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn another_id_is_another_policy() {
    let world = World::new();
    world.serve(ENFORCE);
    now(&world.with(FIRST)).await;
    world.serve(&ENFORCE.replace("enforce", "testing"));
    assert_eq!(
        now(&world.with(&["v=STSv1; id=2"])).await,
        (Some((Mode::Testing, "2".to_owned())), None)
    );
    let policies = world.with(&["v=STSv1; id=3"]);
    world.serve("version: STSv1\nmode: none\nmax_age: 86400\n");
    assert_eq!(now(&policies).await, (None, None), "taken back");
    assert_eq!(now(&policies).await, (None, None));
    assert_eq!(world.fetches(), 3);
}

#[tokio::test]
async fn what_fails_is_told_and_tried_again_after_five_minutes() {
    let world = World::new();
    let policies = world.with(FIRST);
    for (fault, kind) in [
        (Fault::fetch("refused"), FaultKind::Fetch),
        (Fault::certificate("it has expired"), FaultKind::Certificate),
    ] {
        world.fail(fault);
        assert_eq!(now(&policies).await, (None, Some(kind)));
        world.pass(299);
        assert_eq!(now(&policies).await, (None, Some(kind)));
        world.pass(1);
    }
    world.serve("<html>");
    assert_eq!(now(&policies).await, (None, Some(FaultKind::Policy)));
    assert_eq!(world.fetches(), 3);
    world.pass(300);
    world.serve(ENFORCE);
    assert_eq!(now(&policies).await, (enforced("1"), None));
    // A new id whose policy cannot be fetched: the old one holds.
    world.fail(Fault::fetch("refused"));
    let later = world.with(&["v=STSv1; id=2"]);
    assert_eq!(now(&later).await, (enforced("1"), Some(FaultKind::Fetch)));
}

#[tokio::test]
async fn many_messages_make_one_fetch() {
    let world = World::new();
    let policies = world.with(FIRST);
    world.serve(ENFORCE);
    let all = join_all((0..50).map(|_| now(&policies))).await;
    assert!(all.iter().all(|found| *found == (enforced("1"), None)));
    assert_eq!(world.fetches(), 1);
    world.fail(Fault::fetch("refused"));
    let policies = world.with(&["v=STSv1; id=2"]);
    join_all((0..50).map(|_| now(&policies))).await;
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn the_background_keeps_what_is_used_fresh_and_forgets_the_rest() {
    let world = World::new();
    let policies = world.with(FIRST);
    world.serve(ENFORCE);
    now(&policies).await;
    policies.upkeep().await.unwrap();
    assert_eq!(world.fetches(), 1, "it is new");
    world.pass(DAY);
    world.fail(Fault::fetch("blocked"));
    policies.upkeep().await.unwrap();
    policies.upkeep().await.unwrap();
    assert_eq!(world.fetches(), 2, "not repeated at once");
    world.pass(DAY);
    world.serve(ENFORCE);
    policies.upkeep().await.unwrap();
    assert_eq!(world.fetches(), 3);
    let entry = policies.memory().entry(&domain()).await.unwrap().unwrap();
    assert_eq!(entry.held.unwrap().fetched, world.now());
    world.pass(6 * DAY);
    assert_eq!(now(&policies).await, (enforced("1"), None), "it was prolonged");
    world.pass(31 * DAY);
    policies.upkeep().await.unwrap();
    assert_eq!(policies.memory().entry(&domain()).await.unwrap(), None);
}

#[tokio::test]
async fn an_order_to_refresh_does_not_wait() {
    let world = World::new();
    let policies = world.with(FIRST);
    now(&policies).await;
    world.serve(ENFORCE);
    let entry = policies.refresh(&domain()).await.unwrap().unwrap();
    assert!(entry.holding(world.now()).is_some());
    assert_eq!(world.fetches(), 2);
}
