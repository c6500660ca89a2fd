//! What endpoints hear, in which order, and what becomes of it when they do not listen. Time is tokio's,
//! paused and moved.
#![allow(clippy::unwrap_used)]

use journey::{Event, Journey, Reply};
use mail::{Clock, Domain, EmailAddress, QueueId, ReversePath, Secret, Timestamp};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Batch, BoxFuture, MemoryStore, Tables as _};
use tokio::sync::watch;
use tokio::time::Instant;
use webhook::{Endpoint, Kind, Options, Outbox, Post, Sender, SignedRequest, Url, signature};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        START.plus(self.0.elapsed())
    }
}

/// A receiver: says what it was told to say, then 200; keeps what it took.
#[derive(Default)]
struct Receiver {
    answers: Mutex<VecDeque<Result<u16, String>>>,
    /// Says 422 to every request that holds this text.
    dislikes: Option<&'static str>,
    taken: Mutex<Vec<SignedRequest>>,
    asked: Mutex<usize>,
}

impl Receiver {
    /// The events that it took: kind, message and recipient.
    fn events(&self) -> Vec<String> {
        let mut told = Vec::new();
        for request in self.taken.lock().unwrap().iter() {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            for event in body["events"].as_array().unwrap() {
                let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
                told.push(format!("{} {}", text("event"), text("recipient")));
            }
        }
        told
    }
}

impl Post for Receiver {
    fn post<'a>(&'a self, request: &'a SignedRequest) -> BoxFuture<'a, Result<u16, String>> {
        Box::pin(async move {
            *self.asked.lock().unwrap() += 1;
            let body = String::from_utf8_lossy(&request.body).into_owned();
            if self.dislikes.is_some_and(|text| body.contains(text)) {
                return Ok(422);
            }
            match self.answers.lock().unwrap().pop_front() {
                Some(answer) => answer,
                None => {
                    self.taken.lock().unwrap().push(request.clone());
                    Ok(200)
                }
            }
        })
    }
}

/// Both receivers, by the host of the address.
struct Two(Arc<Receiver>, Arc<Receiver>);

impl Post for Two {
    fn post<'a>(&'a self, request: &'a SignedRequest) -> BoxFuture<'a, Result<u16, String>> {
        match request.url.host.as_str() {
            "a.example" => self.0.post(request),
            _ => self.1.post(request),
        }
    }
}

fn endpoint(name: &str, events: &[Kind], from: &[&str]) -> Endpoint {
    Endpoint {
        name: name.to_owned(),
        url: Url::parse(&format!("https://{name}.example/hook")).unwrap(),
        secret: Secret::new("s3cret"),
        events: events.to_vec(),
        from_domains: from.iter().map(|d| Domain::parse(d).unwrap()).collect(),
    }
}

struct World {
    store: Arc<MemoryStore>,
    outbox: Outbox,
    journey: Journey,
    clock: Arc<TokioClock>,
}

impl World {
    fn new(endpoints: Vec<Endpoint>) -> Self {
        let store = MemoryStore::new();
        let outbox = Outbox::new(store.clone(), endpoints);
        let journey = Journey::new(store.clone()).with_also(Arc::new(outbox.clone()));
        Self {
            store,
            outbox,
            journey,
            clock: Arc::new(TokioClock(Instant::now())),
        }
    }

    async fn record(&self, id: u64, events: &[Event]) {
        let mut batch = Batch::new();
        for event in events {
            self.journey
                .record(&mut batch, QueueId(id), self.clock.now(), event);
        }
        self.store.commit(batch).await.unwrap();
    }

    /// A message comes in, and ends.
    async fn relay(&self, id: u64, from: &str, to: &str) {
        self.record(id, &[received(from, to), Event::Accepted { local: 0, queued: 1 }])
            .await;
        self.record(id, &[relayed(to)]).await;
    }

    fn start(&self, post: Arc<dyn Post>, options: Options) -> (Sender, watch::Sender<bool>) {
        let sender = Sender::new(
            self.outbox.clone(),
            self.journey.clone(),
            post,
            self.clock.clone(),
            options,
        );
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(sender.clone().run(stopped));
        (sender, stop)
    }
}

fn received(from: &str, to: &str) -> Event {
    Event::Received {
        service: "submission".into(),
        peer_ip: None,
        peer_name: None,
        helo: String::new(),
        tls: None,
        login: Some("alice".into()),
        reverse_path: Some(ReversePath::Address(EmailAddress::parse(from).unwrap())),
        recipients: vec![EmailAddress::parse(to).unwrap()],
        size: 1234,
        message_id: Some("m1@gmail.com".into()),
    }
}

fn relayed(to: &str) -> Event {
    Event::Relayed {
        recipient: EmailAddress::parse(to).unwrap(),
        host: "mx.example.com".into(),
        reply: Reply {
            code: 250,
            status: None,
            text: "2.0.0 taken".into(),
        },
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30 * 86_400);
    while !condition() {
        assert!(Instant::now() < end, "never came: {what}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_told_in_order_signed_and_whole() {
    let world = World::new(vec![endpoint("a", &Kind::ALL, &[])]);
    let receiver = Arc::new(Receiver::default());
    world.relay(1, "alice@gmail.com", "bob@example.com").await;
    let (sender, stop) = world.start(receiver.clone(), Options::default());
    until("both", || receiver.events().len() == 2).await;
    assert_eq!(receiver.events(), ["received -", "relayed bob@example.com"]);
    world.relay(2, "alice@gmail.com", "carol@example.com").await;
    until("the next ones", || receiver.events().len() == 4).await;
    let request = receiver.taken.lock().unwrap()[0].clone();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["webhook"], "a");
    let event = &body["events"][1];
    for (name, value) in [
        ("event", "relayed"),
        ("message", "0000000000001"),
        ("message_id", "m1@gmail.com"),
        ("from", "alice@gmail.com"),
        ("host", "mx.example.com"),
        ("at", "2027-01-15T08:00:00Z"),
    ] {
        assert_eq!(event[name], value);
    }
    assert_eq!(event["reply"]["code"], 250);
    assert_eq!(body["events"][0]["recipients"][0], "bob@example.com");
    let signed = &request
        .headers
        .iter()
        .find(|(name, _)| *name == "Posthaste-Signature")
        .unwrap()
        .1;
    let secs = START.secs();
    let tag = signature(&Secret::new("s3cret"), secs, &request.body);
    assert_eq!(*signed, format!("t={secs},v1={tag}"));
    assert_eq!(sender.standing("a").failures, 0);
    let waiting = world.outbox.waiting("a").await.unwrap();
    assert_eq!((waiting.waiting, waiting.told, waiting.thrown_away), (0, 4, 0));
    stop.send_replace(true);
}

#[test]
fn the_signature_is_what_others_compute() {
    // python3 -c 'import hmac; print(hmac.new(b"s3cret", b"1800000000.{}", "sha256").hexdigest())'
    let tag = signature(&Secret::new("s3cret"), 1_800_000_000, b"{}");
    assert_eq!(
        tag,
        "1cd77f07c7f231a8a17cd9bc413e578ccb209c24eb17a0577ce1eb9218a4f3ed"
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_down_holds_up_no_other() {
    let world = World::new(vec![
        endpoint("a", &[Kind::Relayed], &[]),
        endpoint("b", &[Kind::Relayed], &["gmail.com"]),
    ]);
    let (down, up) = (Arc::new(Receiver::default()), Arc::new(Receiver::default()));
    let failures = [Err("no connection".to_owned()), Ok(503), Ok(301)];
    down.answers.lock().unwrap().extend(failures);
    let (sender, _stop) = world.start(Arc::new(Two(down.clone(), up.clone())), Options::default());
    world.relay(1, "alice@gmail.com", "bob@example.com").await;
    world.relay(2, "alice@example.org", "carol@example.com").await;
    until("the one that is up", || !up.events().is_empty()).await;
    assert_eq!(
        up.events(),
        ["relayed bob@example.com"],
        "and from that domain only"
    );
    let standing = sender.standing("a");
    assert!(standing.failures >= 1 && standing.next_try.is_some());
    assert_eq!(standing.last_error.as_deref(), Some("no connection"));
    until("the other one", || down.events().len() == 2).await;
    let took = world.clock.now().since(START);
    // 5, 10 and 20 seconds.
    assert!((35..60).contains(&took.as_secs()), "{took:?}");
    assert_eq!(sender.standing("a").failures, 0);
    assert_eq!(
        world.outbox.waiting("b").await.unwrap().waiting,
        0,
        "what it need not hear is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn an_operator_need_not_wait() {
    let world = World::new(vec![endpoint("a", &[Kind::Relayed], &[])]);
    let receiver = Arc::new(Receiver::default());
    let failures = std::iter::repeat_n(Ok(500), 8);
    receiver.answers.lock().unwrap().extend(failures);
    world.relay(1, "alice@gmail.com", "bob@example.com").await;
    let (sender, _stop) = world.start(receiver.clone(), Options::default());
    until("the fifth failure", || sender.standing("a").failures == 5).await;
    let before = world.clock.now();
    for _ in 5..=8 {
        assert!(sender.retry("a"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(receiver.events().len(), 1);
    assert!(world.clock.now().since(before) < Duration::from_secs(1));
    assert!(!sender.retry("b"));
}

#[tokio::test(start_paused = true)]
async fn one_event_that_is_refused_does_not_stop_the_others() {
    let world = World::new(vec![endpoint("a", &[Kind::Relayed], &[])]);
    let receiver = Arc::new(Receiver {
        dislikes: Some("odd@example.com"),
        ..Receiver::default()
    });
    for (id, to) in [(1, "x@example.com"), (2, "odd@example.com"), (3, "y@example.com")] {
        world.relay(id, "alice@gmail.com", to).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (_sender, _stop) = world.start(receiver.clone(), Options::default());
    until("the others", || receiver.events().len() == 2).await;
    assert_eq!(
        receiver.events(),
        ["relayed x@example.com", "relayed y@example.com"]
    );
    let waiting = world.outbox.waiting("a").await.unwrap();
    assert_eq!((waiting.told, waiting.thrown_away), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_in_number_and_age() {
    let world = World::new(vec![endpoint("a", &[Kind::Relayed], &[])]);
    let receiver = Arc::new(Receiver::default());
    for id in 0..150 {
        world
            .relay(id, "alice@gmail.com", &format!("u{id}@example.com"))
            .await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let few = Options {
        waiting_max: 120,
        ..Options::default()
    };
    let (_sender, stop) = world.start(receiver.clone(), few);
    until("the newest", || receiver.events().len() == 120).await;
    assert_eq!(receiver.events()[0], "relayed u30@example.com", "the oldest went");
    assert_eq!(world.outbox.waiting("a").await.unwrap().thrown_away, 30);
    stop.send_replace(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.relay(200, "alice@gmail.com", "late@example.com").await;
    tokio::time::sleep(Duration::from_secs(4 * 86_400)).await;
    let (_sender, _stop) = world.start(receiver.clone(), Options::default());
    world.relay(201, "alice@gmail.com", "new@example.com").await;
    until("the new one", || receiver.events().len() == 121).await;
    assert_eq!(receiver.events()[120], "relayed new@example.com");
    assert_eq!(world.outbox.waiting("a").await.unwrap().thrown_away, 31);
}

#[tokio::test(start_paused = true)]
async fn a_former_endpoint_leaves_nothing() {
    let world = World::new(vec![
        endpoint("a", &[Kind::Relayed], &[]),
        endpoint("b", &[Kind::Relayed], &[]),
    ]);
    world.relay(1, "alice@gmail.com", "bob@example.com").await;
    let only_b = Outbox::new(world.store.clone(), vec![endpoint("b", &[Kind::Relayed], &[])]);
    let receiver = Arc::new(Receiver::default());
    let post: Arc<dyn Post> = receiver.clone();
    let (clock, journey) = (world.clock.clone(), world.journey.clone());
    let sender = Sender::new(only_b, journey, post, clock, Options::default());
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(sender.run(stopped));
    until("b hears", || receiver.events().len() == 1).await;
    assert_eq!(world.outbox.waiting("a").await.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn while_it_is_down_what_waits_stays_bounded() {
    let world = World::new(vec![endpoint("a", &[Kind::Relayed], &[])]);
    let receiver = Arc::new(Receiver::default());
    let down = std::iter::repeat_n(Err("no connection".to_owned()), 100_000);
    receiver.answers.lock().unwrap().extend(down);
    let few = Options {
        waiting_max: 100,
        ..Options::default()
    };
    let (_sender, _stop) = world.start(receiver.clone(), few);
    let (mut most, mut id) = (0, 0);
    // Two hours, in which it is tried every ten minutes in the end.
    for _ in 0..240 {
        for _ in 0..50 {
            id += 1;
            world.record(id, &[relayed("bob@example.com")]).await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        most = most.max(world.outbox.waiting("a").await.unwrap().waiting);
    }
    assert!(most <= 100, "{most} wait");
    assert_eq!(world.outbox.waiting("a").await.unwrap().thrown_away, 12_000 - 100);
}

#[tokio::test(start_paused = true)]
async fn after_one_that_is_refused_many_go_at_once_again() {
    let world = World::new(vec![endpoint("a", &[Kind::Relayed], &[])]);
    let receiver = Arc::new(Receiver {
        dislikes: Some("odd@example.com"),
        ..Receiver::default()
    });
    for id in 0..1_000 {
        let to = if id == 50 {
            "odd@example.com"
        } else {
            "bob@example.com"
        };
        world.record(id, &[relayed(to)]).await;
    }
    let (_sender, _stop) = world.start(receiver.clone(), Options::default());
    until("the others", || receiver.events().len() == 999).await;
    let asked = *receiver.asked.lock().unwrap();
    // The request that was refused, its events one by one with five tries of the odd one, nine more.
    assert!(asked <= 1 + 104 + 9, "{asked} requests");
}

#[tokio::test(start_paused = true)]
async fn mail_that_it_need_not_hear_of_pushes_nothing_out() {
    let world = World::new(vec![endpoint(
        "a",
        &[Kind::Received, Kind::Relayed],
        &["gmail.com"],
    )]);
    let receiver = Arc::new(Receiver::default());
    let down = std::iter::repeat_n(Ok(503), 5);
    receiver.answers.lock().unwrap().extend(down);
    let few = Options {
        waiting_max: 100,
        ..Options::default()
    };
    let (sender, _stop) = world.start(receiver.clone(), few);
    for id in 0..10 {
        world.relay(id, "alice@gmail.com", "bob@example.com").await;
    }
    until("a failure", || sender.standing("a").failures == 1).await;
    // A stranger sends much while it is down.
    for id in 100..1_100 {
        world.relay(id, "eve@strange.example", "bob@example.com").await;
    }
    until("what it hears of", || receiver.events().len() == 20).await;
    let waiting = world.outbox.waiting("a").await.unwrap();
    assert_eq!((waiting.told, waiting.thrown_away), (20, 0));
}
