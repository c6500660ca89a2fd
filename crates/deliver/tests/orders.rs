//! What the operator ordered, as the service keeps it: held and suspended mail is not tried.
#![allow(clippy::unwrap_used)]

mod common;

use common::Script;
use common::world::{START, World, domain};
use dns::table::TableResolver;
use journey::Event;
use mail::{Clock, QueueId, Timestamp};
use queue::{Errand, Filter, Order, SenderIs, Standing, Suspended, Suspension, Walk};
use std::net::Ipv4Addr;
use std::time::Duration;
use store::Batch;

const MX: &str = "192.0.2.1:25";

fn zones() -> TableResolver {
    let address = Ipv4Addr::new(192, 0, 2, 1);
    TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_mx("example.org", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", address)
}

fn suspension(what: Suspended, since: Timestamp, until: Option<Timestamp>) -> Suspension {
    Suspension {
        what,
        since,
        until,
        by: "ann".into(),
        why: Some("they asked for it".into()),
    }
}

async fn order(world: &World, filter: Filter, order: Order) -> usize {
    let walk = Walk {
        filter: &filter,
        class_of: &|_| String::new(),
        behind: None,
        now: world.clock.now(),
    };
    let add = |_: &mut Batch, _: QueueId, _: &[Errand]| {};
    world.queue.order_step(walk, &order, &add).await.unwrap().errands
}

async fn is_suspended(world: &World, id: QueueId) -> bool {
    let listed = world.show(id).await.unwrap();
    listed.errands.iter().any(|errand| errand.suspended)
}

#[tokio::test(start_paused = true)]
async fn a_suspended_destination_waits_and_the_others_do_not() {
    let world = World::new(zones()).await;
    let server = world.net.put(MX, Script::default());
    let what = Suspended::Destination(domain("example.com"));
    let suspended = suspension(what.clone(), START, None);
    world.queue.suspend(&suspended).await.unwrap();
    let waits = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    let goes = world.submit("alice@gmail.com", &["bob@example.org"]).await;
    world.until_gone(goes).await;
    world
        .until("it is put back", || is_suspended(&world, waits))
        .await;
    // Days pass, and it is neither tried nor given up; its journey says why, once.
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    }
    assert_eq!(server.messages().len(), 1);
    let told = world.told(waits).await;
    let [
        Event::Suspended {
            what: said,
            by,
            why,
            recipients,
            ..
        },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!((said.as_str(), by.as_str()), ("mail to example.com", "ann"));
    assert_eq!((why.as_deref(), recipients.len()), (Some("they asked for it"), 1));
    assert!(world.queue.resume(&what).await.unwrap());
    let filter = Filter {
        standing: Some(Standing::Suspended),
        ..Filter::default()
    };
    assert_eq!(order(&world, filter, Order::Retry).await, 1);
    world.until_gone(waits).await;
    assert_eq!(server.messages().len(), 2);
    assert!(
        !world.queue.resume(&what).await.unwrap(),
        "it was not there any more"
    );
}

#[tokio::test(start_paused = true)]
async fn a_suspension_that_ends_needs_nobody() {
    let world = World::new(zones()).await;
    let server = world.net.put(MX, Script::default());
    let until = START.plus(Duration::from_secs(6 * 3600));
    let sender = Suspended::Sender(SenderIs::parse("@gmail.com").unwrap());
    let suspended = suspension(sender, START, Some(until));
    world.queue.suspend(&suspended).await.unwrap();
    let waits = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    let goes = world.submit("", &["bob@example.com"]).await;
    world.until_gone(goes).await;
    assert_eq!(server.messages().len(), 1);
    world.until_gone(waits).await;
    let late = world.clock.now().since(until);
    assert!(late < Duration::from_secs(120), "{late:?}");
    assert_eq!(
        world.names(waits).await,
        ["something else", "route", "attempt", "relayed"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_resumption_that_was_cut_off_heals() {
    let world = World::new(zones()).await;
    world.net.put(MX, Script::default());
    let what = Suspended::Destination(domain("example.com"));
    let suspended = suspension(what.clone(), START, None);
    world.queue.suspend(&suspended).await.unwrap();
    let waits = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    world
        .until("it is put back", || is_suspended(&world, waits))
        .await;
    // Nothing is retried.
    world.queue.resume(&what).await.unwrap();
    world.until_gone(waits).await;
    let took = world.clock.now().since(START);
    assert!(took <= queue::PUT_BACK_FOR + Duration::from_secs(120), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn held_mail_is_not_tried() {
    let world = World::new(zones()).await;
    let id = world.submit("alice@gmail.com", &["bob@example.com"]).await;
    let attempted = || async { !world.names(id).await.is_empty() };
    world.until("the first attempt, in vain", attempted).await;
    let hold = Order::Hold { by: "ann".into() };
    world
        .until("it is held", || async {
            order(&world, Filter::of(id), hold.clone()).await == 1
        })
        .await;
    let server = world.net.put(MX, Script::default());
    tokio::time::sleep(Duration::from_secs(10 * 86_400)).await;
    assert!(server.messages().is_empty());
    assert_eq!(order(&world, Filter::of(id), Order::Release).await, 1);
    world.until_gone(id).await;
    assert_eq!(server.messages().len(), 1, "although its time was over");
}

#[tokio::test(start_paused = true)]
async fn mail_goes_where_the_operator_sends_it() {
    let zones = zones().with_address("relay.example.net", Ipv4Addr::new(192, 0, 2, 9));
    let world = World::new(zones).await;
    let to = ["bob@example.com", "carol@example.com"];
    let id = world.submit("alice@gmail.com", &to).await;
    let attempted = || async { !world.names(id).await.is_empty() };
    world.until("the first attempt, in vain", attempted).await;
    let relay = world.net.put("192.0.2.9:2525", Script::default());
    let via = queue::Via {
        host: "relay.example.net".into(),
        port: 2525,
    };
    let only_bob = Filter {
        recipient: Some(common::world::address("bob@example.com")),
        ..Filter::default()
    };
    world
        .until("it is sent another way", || async {
            let reroute = Order::Reroute {
                via: Some(via.clone()),
            };
            order(&world, only_bob.clone(), reroute).await == 1
        })
        .await;
    world
        .until("bob has it", || async { relay.messages().len() == 1 })
        .await;
    let told = world.told(id).await;
    let by_order =
        |event: &Event| matches!(event, Event::Route { why, .. } if why.starts_with("the operator's order"));
    assert!(told.iter().any(by_order), "{told:?}");
    // Carol's goes where the DNS says.
    let server = world.net.put(MX, Script::default());
    world.until_gone(id).await;
    assert_eq!((relay.messages().len(), server.messages().len()), (1, 1));
}

/// Two recipients of one message go different ways, one after the other. The first way takes nearly all the
/// time of the claim; what is left of it must do for the second, or whoever claims it next sends it again.
#[tokio::test(start_paused = true)]
async fn no_attempt_outlives_its_claim() {
    let at = |n| Ipv4Addr::new(192, 0, 2, n);
    let zones = (11..17).fold(zones(), |zones, n| zones.with_address("a.example.net", at(n)));
    let zones = (21..24).fold(zones, |zones, n| zones.with_address("b.example.net", at(n)));
    let world = World::new(zones).await;
    for n in (11..17).chain(21..23) {
        let silent = Script {
            silent_at: Some("EHLO"),
            ..Script::default()
        };
        world.net.put(&format!("192.0.2.{n}:25"), silent);
    }
    let last = world.net.put("192.0.2.23:25", Script::default());
    let to = ["bob@example.com", "carol@example.com"];
    let later = |_: &mut queue::Message, errands: &mut Vec<queue::NewErrand>| {
        for errand in errands {
            errand.next_attempt = START.plus(Duration::from_secs(3_600));
        }
    };
    let id = world.submit_asking("alice@gmail.com", &to, "Hi\r\n", later).await;
    assert_eq!(
        order(&world, Filter::of(id), Order::Hold { by: "ann".into() }).await,
        2
    );
    for (recipient, host) in to.into_iter().zip(["a.example.net", "b.example.net"]) {
        let whom = Filter {
            recipient: Some(common::world::address(recipient)),
            ..Filter::default()
        };
        let via = Some(queue::Via {
            host: host.into(),
            port: 25,
        });
        assert_eq!(order(&world, whom, Order::Reroute { via }).await, 1);
    }
    assert_eq!(order(&world, Filter::of(id), Order::Release).await, 2);
    world.ctx.wake();
    world
        .until("carol has it", || async { !last.messages().is_empty() })
        .await;
    tokio::time::sleep(Duration::from_secs(6 * 3_600)).await;
    assert_eq!(last.messages().len(), 1);
    let listed = world.show(id).await.unwrap();
    let last = listed.errands[1].last.as_ref().unwrap();
    assert_eq!(last.reply, "250 2.0.0 taken");
}
