//! What a sender asked of its message, all the way: reports, deadlines, TLS, binary bodies, priority;
//! and what leaves is clean. Time is tokio's, paused and moved.
#![allow(clippy::unwrap_used)]

mod common;

use common::stage::{FIRST, SECOND, Stage, fates};
use common::world::{START, World, address, domain};
use common::{Script, StartTls, put_blob};
use dns::table::TableResolver;
use mail::Clock;
use mail::delivery::{ByMode, DeliverBy, Notify, OriginalRecipient, Priority, Ret};
use queue::{Body, Deadline, NewErrand};
use std::net::Ipv4Addr;
use std::time::Duration;

const MX: &str = "192.0.2.1:25";

fn zones() -> TableResolver {
    TableResolver::new()
        .with_mx("example.com", 10, Some(domain("mx.example.com")))
        .with_address("mx.example.com", Ipv4Addr::new(192, 0, 2, 1))
}

fn offering(extensions: &[&'static str]) -> Script {
    Script {
        ehlo: [&["PIPELINING", "8BITMIME", "SIZE 1000000"], extensions].concat(),
        ..Script::default()
    }
}

fn notify(errands: &mut [NewErrand], what: &str) {
    for errand in errands {
        errand.notify = Some(Notify::parse(what).unwrap());
    }
}

/// RFC 3461 §5.2: who can report gets the wishes; where nobody can, we report ourselves.
#[tokio::test(start_paused = true)]
async fn success_is_reported_by_whoever_is_last_to_know_of_the_wish() {
    let world = World::new(zones()).await;
    let server = world.net.put(MX, offering(&["DSN"]));
    let ask = |message: &mut queue::Message, errands: &mut Vec<NewErrand>| {
        message.envid = Some("QQ+1".to_owned());
        message.ret = Some(Ret::Full);
        notify(errands, "SUCCESS,FAILURE");
        errands[0].original_recipient = OriginalRecipient::parse("rfc822;Old+2Bbob@example.com");
    };
    let id = world
        .submit_asking("alice@gmail.com", &["bob@example.com"], "Hi\r\n", ask)
        .await;
    world.until_gone(id).await;
    assert!(server.said(" RET=FULL ENVID=QQ+2B1"));
    assert!(server.said("NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Old+2Bbob@example.com"));
    assert!(world.inbox().await.is_empty(), "the next server reports");

    // It does not change its mind within a connection.
    world.ctx.close_idle_connections();
    *server.script.lock().unwrap() = offering(&[]);
    let id = world
        .submit_asking("alice@gmail.com", &["bob@example.com"], "Hi\r\n", ask)
        .await;
    world.until_gone(id).await;
    assert_eq!(world.names(id).await, ["route", "attempt", "relayed", "report"]);
    let inbox = world.inbox().await;
    for wanted in [
        "Subject: Passed on: your message to bob@example.com\r\n",
        "Original-Envelope-Id: QQ+1\r\n",
        "Original-Recipient: rfc822; Old+bob@example.com\r\nFinal-Recipient: rfc822; bob@example.com\r\nAction: relayed\r\nStatus: 2.0.0\r\nRemote-MTA: dns; mx.example.com\r\nDiagnostic-Code: smtp; 250 2.0.0 taken\r\n",
        "Content-Type: text/rfc822-headers\r\n",
    ] {
        assert!(inbox[0].contains(wanted), "{wanted:?} in\n{}", inbox[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_here_reports_its_delivery() {
    let world = World::new(zones()).await;
    let ask = |_: &mut queue::Message, errands: &mut Vec<NewErrand>| notify(errands, "SUCCESS");
    let id = world
        .submit_asking("alice@gmail.com", &["alice@gmail.com"], "Hi\r\n", ask)
        .await;
    world.until_gone(id).await;
    let inbox = world.inbox().await;
    assert_eq!(inbox.len(), 2);
    let report = inbox
        .iter()
        .find(|text| text.contains("multipart/report"))
        .unwrap();
    assert!(
        report.contains("Final-Recipient: rfc822; alice@gmail.com\r\nAction: delivered\r\nStatus: 2.0.0\r\n")
    );
}

/// RFC 3461 §5.2.7.3: of several the sender hears that they are several, and no more.
#[tokio::test(start_paused = true)]
async fn an_alias_of_several_is_reported_as_expanded() {
    let world = World::new(zones()).await;
    let server = world.net.put(MX, offering(&[]));
    let all = address("all@gmail.com");
    let leads = directory::Leads {
        accounts: vec![world.alice],
        addresses: vec![address("bob@example.com")],
    };
    world.directory.set_alias_to(&all, &leads).await.unwrap();
    let ask = |_: &mut queue::Message, errands: &mut Vec<NewErrand>| notify(errands, "SUCCESS");
    let id = world
        .submit_asking("alice@gmail.com", &["all@gmail.com"], "Hi\r\n", ask)
        .await;
    world.until_gone(id).await;
    world
        .until("the copy elsewhere", || async { server.messages().len() == 1 })
        .await;
    let inbox = world.inbox().await;
    let reports: Vec<_> = inbox
        .iter()
        .filter(|text| text.contains("multipart/report"))
        .collect();
    assert_eq!((inbox.len(), reports.len()), (2, 1));
    assert!(reports[0].contains("Final-Recipient: rfc822; all@gmail.com\r\nAction: expanded\r\n"));
}

/// Members of a group do not wait for one whose mailbox is full; that one waits, and the sender hears of
/// that one alone.
#[tokio::test(start_paused = true)]
async fn a_full_mailbox_holds_up_nobody_else() {
    let world = World::new(zones()).await;
    let (carol, dan) = (
        world.account("carol@gmail.com").await,
        world.account("dan@gmail.com").await,
    );
    let quota = Some(directory::Quota::Octets(10));
    world.directory.set_quota(dan, quota).await.unwrap();
    let leads = directory::Leads::to_accounts(&[carol, dan]);
    let all = address("all@gmail.com");
    world.directory.set_alias_to(&all, &leads).await.unwrap();
    let id = world.submit("alice@gmail.com", &["all@gmail.com"]).await;
    world.until_gone(id).await;
    assert_eq!(world.inbox_of(carol).await.len(), 1);
    assert!(world.inbox_of(dan).await.is_empty());
    let waiting = async || {
        let listed = world.queue.list(&queue::Filter::default(), 10).await.unwrap();
        listed
            .into_iter()
            .find(|m| m.errands[0].recipient == address("dan@gmail.com"))
    };
    let sender = waiting().await.unwrap().message.reverse_path.to_string();
    assert_eq!(sender, "<alice@gmail.com>");
    world
        .until("dan's end", || async { waiting().await.is_none() })
        .await;
    let told = world.inbox().await;
    let failed = told.last().unwrap();
    assert!(
        failed.contains("Final-Recipient: rfc822; dan@gmail.com\r\nAction: failed\r\n"),
        "{failed}"
    );
    assert_eq!(world.inbox_of(carol).await.len(), 1, "once");

    // With room in time he gets his own.
    let id = world.submit("alice@gmail.com", &["all@gmail.com"]).await;
    world.until_gone(id).await;
    world.directory.set_quota(dan, None).await.unwrap();
    world
        .until("dan's mail", || async { waiting().await.is_none() })
        .await;
    assert_eq!(
        (world.inbox_of(carol).await.len(), world.inbox_of(dan).await.len()),
        (2, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn never_means_never_and_ret_says_how_much_comes_back() {
    let world = World::new(zones()).await;
    let refusing = Script {
        replies: vec![("RCPT", "550 5.1.1 nobody")],
        ..offering(&[])
    };
    world.net.put(MX, refusing);
    let to = ["bob@example.com", "eve@example.com", "joe@example.com"];
    let id = world
        .submit_asking("alice@gmail.com", &to, "Hi\r\n", |_, e| notify(e, "NEVER"))
        .await;
    world.until_gone(id).await;
    assert!(world.inbox().await.is_empty());

    let full = |message: &mut queue::Message, _: &mut Vec<NewErrand>| message.ret = Some(Ret::Full);
    let id = world
        .submit_asking("alice@gmail.com", &to, "Hi\n.\nBob\r\n", full)
        .await;
    world.until_gone(id).await;
    let inbox = world.inbox().await;
    let [report] = inbox.as_slice() else {
        panic!("one report for three recipients, not {}", inbox.len());
    };
    assert_eq!(report.matches("Action: failed\r\nStatus: 5.1.1\r\n").count(), 3);
    assert!(report.contains("Content-Type: message/rfc822\r\n"));
    assert!(report.contains("\r\nHi\r\n.\r\nBob\r\n"), "{report}");
    let too_large = "x".repeat(300_000) + "\r\n";
    let id = world
        .submit_asking("alice@gmail.com", &to[..1], &too_large, full)
        .await;
    world.until_gone(id).await;
    assert!(world.inbox().await[1].contains("Content-Type: text/rfc822-headers\r\n"));
}

/// RFC 2852: what comes back does so at the deadline, and goes to nobody who knows of none.
#[tokio::test(start_paused = true)]
async fn deadlines() {
    let world = World::new(zones()).await;
    let by = |mode| {
        move |message: &mut queue::Message, _: &mut Vec<NewErrand>| {
            message.deliver_by = Some(Deadline {
                at: message.received_at.plus(Duration::from_secs(600)),
                mode,
                trace: false,
            });
        }
    };
    let to = ["bob@example.com"];
    // Nobody answers.
    let id = world
        .submit_asking("alice@gmail.com", &to, "Hi\r\n", by(ByMode::Return))
        .await;
    world.until_gone(id).await;
    let waited = world.clock.now().since(START).as_secs();
    assert!(
        (600..700).contains(&waited),
        "at the deadline, not after {waited} s"
    );
    let report = world.inbox().await.remove(0);
    assert!(report.contains("Status: 5.4.7\r\n"), "{report}");

    let server = world.net.put(MX, offering(&[]));
    let id = world
        .submit_asking("alice@gmail.com", &to, "Hi\r\n", by(ByMode::Return))
        .await;
    world.until_gone(id).await;
    assert!(!server.said("MAIL") && world.inbox().await[1].contains("does not offer DELIVERBY"));

    world.ctx.close_idle_connections();
    *server.script.lock().unwrap() = offering(&["DELIVERBY 60"]);
    let id = world
        .submit_asking("alice@gmail.com", &to, "Hi\r\n", by(ByMode::Return))
        .await;
    world.until_gone(id).await;
    assert!(server.said(" BY=600;R"), "{:?}", server.lines);
    assert_eq!((server.messages().len(), world.inbox().await.len()), (1, 2));

    // Who is only to be told gets one notice, and the message goes on.
    world.ctx.close_idle_connections();
    world.net.remove(MX);
    let id = world
        .submit_asking("alice@gmail.com", &to, "Hi\r\n", by(ByMode::Notify))
        .await;
    world
        .until("the notice", || async { world.inbox().await.len() == 3 })
        .await;
    assert!(world.inbox().await[2].contains("Action: delayed\r\n"));
    world.net.put(MX, offering(&["DELIVERBY"]));
    world.until_gone(id).await;
    assert!(world.names(id).await.contains(&"relayed"));
    assert_eq!(world.inbox().await.len(), 3);
}

/// RFC 4865: a message that is held goes at its release, and its time runs from there.
#[tokio::test(start_paused = true)]
async fn a_held_message_waits_for_its_release() {
    let world = World::new(zones()).await;
    let release = START.plus(Duration::from_secs(6 * 86_400));
    let hold = |_: &mut queue::Message, errands: &mut Vec<NewErrand>| errands[0].next_attempt = release;
    let id = world
        .submit_asking("alice@gmail.com", &["bob@example.com"], "Hi\r\n", hold)
        .await;
    let errand = world.show(id).await.unwrap().errands.remove(0);
    assert_eq!(errand.held_until(START), Some(release));
    let mut tried = world.net.tried();
    tried.changed().await.unwrap();
    assert!(world.clock.now() >= release);
    world
        .until("a deferral", || async {
            world.names(id).await.contains(&"deferred")
        })
        .await;
    let errand = world.show(id).await.unwrap().errands.remove(0);
    assert_eq!(errand.held_until(START), None);
    world.net.put(MX, offering(&[]));
    world.until_gone(id).await;
    assert!(world.inbox().await.is_empty(), "no delay was told");
}

/// RFC 8689 §4.2.1.
#[tokio::test(start_paused = true)]
async fn requiretls_goes_to_a_verified_server_that_promises_the_same() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.letter.wishes.require_tls = true;
    let plain = stage.net.put(FIRST, offering(&["REQUIRETLS"]));
    assert_eq!(
        fates(&stage.attempt().await),
        ["4.4.1"],
        "the other one may have it"
    );
    let second = stage.net.put(SECOND, offering(&[]));
    assert_eq!(fates(&stage.attempt().await), ["5.7.10"]);

    let with_tls = |extensions: &[&'static str], starttls: StartTls| Script {
        starttls,
        ..offering(extensions)
    };
    *plain.script.lock().unwrap() = with_tls(&["REQUIRETLS"], stage.tls());
    assert_eq!(
        fates(&stage.attempt().await),
        ["4.7.5"],
        "a certificate of unknown origin can be mended"
    );
    let roots = tls::Roots::public()
        .with_file(&stage.dir.path().join("certificate.pem"))
        .unwrap();
    stage.courier.tls = tls::Client::new(&roots).unwrap();
    *plain.script.lock().unwrap() = with_tls(&["DSN"], stage.tls());
    assert_eq!(fates(&stage.attempt().await), ["5.7.10"]);
    *second.script.lock().unwrap() = with_tls(&[], StartTls::Broken);
    stage.plan.hops.truncate(1);
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["5.7.30"]);
    assert!(!plain.said("MAIL") && !second.said("MAIL"));

    *plain.script.lock().unwrap() = with_tls(&["REQUIRETLS"], stage.tls());
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert!(plain.said(" REQUIRETLS"));
}

#[tokio::test(start_paused = true)]
async fn a_binary_body_goes_octet_for_octet_or_comes_back() {
    let text = "From: a@b.c\r\n\r\nbare\nlf, bare\rcr\r\n.\r\nQUIT\r\n\0 end";
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.plan.hops.truncate(1);
    let store = store::MemoryStore::new();
    (stage.letter.blob, stage.letter.blob_len) = put_blob(&store, text).await;
    stage.courier.store = store;
    stage.letter.binary = true;
    stage.letter.wishes.priority = Priority::new(4).unwrap();
    stage.letter.wishes.deliver_by = DeliverBy::parse("60;N");
    let server = stage.net.put(FIRST, offering(&["CHUNKING"]));
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["5.6.3"]);
    *server.script.lock().unwrap() = offering(&["CHUNKING", "BINARYMIME", "MT-PRIORITY"]);
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert_eq!(server.messages(), [format!("Received: by us\r\n{text}")]);
    assert!(server.said(" BODY=BINARYMIME MT-PRIORITY=4"));
}

/// Whatever our store holds (an old message, an APPEND), it cannot end DATA at the next server: every
/// line ending leaves as CR LF, every line that begins with a dot with two.
#[tokio::test(start_paused = true)]
async fn a_smuggling_attempt_in_the_store_is_one_message_at_the_next_server() {
    for end in [
        "\n.\n",
        "\r.\r",
        "\n.\r\n",
        "\r\n.\r",
        "\r\n.\n",
        "\r.\n",
        "\r\r\n.\r\r\n",
        "\r\n.\r\n",
    ] {
        let text = format!("Hi{end}MAIL FROM:<evil@example.com>\r\nRCPT TO:<eve@example.com>\r\nDATA\r\n2nd");
        let world = World::new(zones()).await;
        let server = world.net.put(MX, offering(&[]));
        let eight_bit = |message: &mut queue::Message, _: &mut Vec<NewErrand>| message.body = Body::EightBit;
        let id = world
            .submit_asking("alice@gmail.com", &["bob@example.com"], &text, eight_bit)
            .await;
        world.until_gone(id).await;
        let messages = server.messages();
        let [message] = messages.as_slice() else {
            panic!("{end:?}: {} messages", messages.len());
        };
        assert!(!server.said("evil@") && message.contains("\r\n..\r\n"), "{end:?}");
        assert!(message.contains("MAIL FROM:<evil@example.com>\r\n"), "{end:?}");
        let rest = message.replace("\r\n", "");
        assert!(!rest.contains(['\r', '\n']), "{end:?}: bare line endings");
    }
}

/// RFC 6710: what is urgent goes first once there is room.
#[tokio::test(start_paused = true)]
async fn urgent_mail_goes_first() {
    let world = World::with(zones(), Vec::new(), |options| {
        options.attempts_per_domain_max = 1;
    })
    .await;
    // Held for a minute, so that all come due together.
    let held = |priority| {
        move |message: &mut queue::Message, errands: &mut Vec<NewErrand>| {
            message.priority = Priority::new(priority).unwrap();
            errands[0].next_attempt = START.plus(Duration::from_secs(60));
        }
    };
    let server = world.net.put(MX, offering(&[]));
    for priority in [-1, 0, 9, 3] {
        let text = format!("priority {priority}\r\n");
        world
            .submit_asking("alice@gmail.com", &["bob@example.com"], &text, held(priority))
            .await;
    }
    let messages = || async { server.messages().len() == 4 };
    world.until("all of them", messages).await;
    let order: Vec<String> = server
        .messages()
        .iter()
        .map(|text| text.trim_end().rsplit(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(order, ["9", "3", "0", "-1"]);
}
