//! What follows from a fate: tables of outcome, clock and wishes.
#![allow(clippy::unwrap_used)]

mod common;

use common::put_blob;
use deliver::Failure;
use deliver::attempt::{Fate, Taken};
use deliver::dsn::Kind;
use deliver::explain::Replies;
use deliver::settle::{Told, decide, overdue};
use journey::{Event, Reply};
use mail::delivery::{ByMode, Notify};
use mail::{EmailAddress, EnhancedStatus, QueueId, ReversePath, Timestamp};
use queue::{Body, Deadline, Errand, Message, NewErrand, Outcome, Queue, Schedule};
use smtp::client::PassedOn;
use std::sync::Arc;
use std::time::Duration;
use store::{Batch, MemoryStore, Store};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// An errand as the queue gives it, and its message.
async fn errand(notify: Option<&str>) -> (Errand, Message) {
    let store = MemoryStore::new();
    let (blob, blob_len) = put_blob(&store, "x").await;
    let queue = Queue::new(store.clone(), queue::Options::default());
    let message = Message {
        id: QueueId(1),
        reverse_path: ReversePath::Address(EmailAddress::parse("alice@gmail.com").unwrap()),
        blob,
        blob_len,
        prefix: Vec::new(),
        received_at: START,
        message_id: None,
        login: None,
        body: Body::SevenBit,
        smtputf8: false,
        envid: None,
        ret: None,
        require_tls: false,
        deliver_by: None,
        priority: mail::delivery::Priority::NORMAL,
    };
    let new = NewErrand {
        recipient: EmailAddress::parse("bob@example.com").unwrap(),
        original_recipient: None,
        notify: notify.map(|n| Notify::parse(n).unwrap()),
        next_attempt: START,
    };
    let mut batch = Batch::new();
    queue.accept(&mut batch, &message, &[new]).unwrap();
    let store: &dyn Store = store.as_ref();
    store.commit(batch).await.unwrap();
    let errand = queue.show(QueueId(1)).await.unwrap().unwrap().errands.remove(0);
    (errand, message)
}

fn replies() -> Arc<Replies> {
    Replies::built_in()
}

fn refused(code: u16) -> Fate {
    Err(Failure::of_peer("mx.example.com", code, None, "the words"))
}

fn short(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered(_) => "delivered",
        Outcome::Relayed(_) => "relayed",
        Outcome::Deferred { .. } => "deferred",
        Outcome::Bounced(_) => "bounced",
        Outcome::Expired(_) => "expired",
        Outcome::Dropped { .. } => "dropped",
    }
}

#[tokio::test]
async fn outcome_and_report_by_fate_age_and_wish() {
    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;
    for (code, age_secs, notify, from_somebody, outcome, report) in [
        (250, 0, None, true, "relayed", None),
        (250, 9 * DAY, None, true, "relayed", None),
        (550, 0, None, true, "bounced", Some("failed")),
        (550, 0, None, false, "bounced", None),
        (550, 0, Some("NEVER"), true, "bounced", None),
        (550, 0, Some("SUCCESS,FAILURE"), true, "bounced", Some("failed")),
        (550, 0, Some("DELAY"), true, "bounced", None),
        (450, 0, None, true, "deferred", None),
        (450, 5 * HOUR, None, true, "deferred", Some("delayed")),
        (450, 5 * HOUR, Some("failure"), true, "deferred", None),
        (
            450,
            5 * HOUR,
            Some("failure,delay"),
            true,
            "deferred",
            Some("delayed"),
        ),
        (450, 5 * HOUR, None, false, "deferred", None),
        (450, 5 * DAY, None, true, "expired", Some("failed")),
        (450, 5 * DAY, None, false, "expired", None),
    ] {
        let fate = match code {
            250 => Ok(Taken {
                host: "mx.example.com".to_owned(),
                reply: Reply::default(),
                passed_on: PassedOn::default(),
                by_lmtp: false,
            }),
            code => refused(code),
        };
        let (errand, mut message) = errand(notify).await;
        if !from_somebody {
            message.reverse_path = ReversePath::Null;
        }
        let now = START.plus(Duration::from_secs(age_secs));
        let decision = decide(
            &fate,
            &errand,
            &message,
            &Schedule::default(),
            &replies(),
            (now, 0.5),
        );
        let what = format!("{code} after {age_secs} s, {notify:?}, {from_somebody}");
        assert_eq!(short(&decision.outcome), outcome, "{what}");
        let told = decision.report.as_ref().map(|told| told.kind.action());
        assert_eq!(told, report, "{what}");
        if let Outcome::Deferred { next, delay_told, .. } = decision.outcome {
            assert!(next > now, "{what}");
            assert_eq!(delay_told, report.is_some(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_deferral_says_when_and_until_when() {
    let (mut errand, message) = errand(None).await;
    errand.attempts = 2;
    let schedule = Schedule::default();
    let decision = decide(
        &refused(451),
        &errand,
        &message,
        &schedule,
        &replies(),
        (START, 0.5),
    );
    let Event::Deferred {
        next_attempt,
        expires,
        reply,
        remedy: Some(_),
        ..
    } = decision.event
    else {
        panic!("a deferral with a remedy");
    };
    assert_eq!(next_attempt.since(START).as_secs(), 675, "the third interval");
    assert_eq!(expires, schedule.expires(START));
    assert_eq!((reply.code, reply.text.as_str()), (451, "the words"));

    // Told once.
    errand.delay_told = true;
    let late = START.plus(Duration::from_secs(20_000));
    let decision = decide(
        &refused(451),
        &errand,
        &message,
        &schedule,
        &replies(),
        (late, 0.5),
    );
    assert_eq!(decision.report, None);
    errand.delay_told = false;
    let decision = decide(
        &refused(451),
        &errand,
        &message,
        &schedule,
        &replies(),
        (late, 0.5),
    );
    let Some(Told {
        kind: Kind::Delayed { until },
        failure,
    }) = decision.report
    else {
        panic!("a notice");
    };
    assert_eq!(until, schedule.expires(START));
    let (failure, explanation) = failure.unwrap();
    assert_eq!(failure.status, EnhancedStatus::new(4, 3, 0));
    assert_eq!(explanation.class.name, "not-now");
    let Outcome::Deferred { last, .. } = decision.outcome else {
        panic!("deferred");
    };
    assert_eq!(last.class.as_deref(), Some("not-now"));
}

/// RFC 3461 §5.2.2, RFC 2852 §4.1: who tells of a hand-over.
#[tokio::test]
async fn who_tells_of_a_hand_over() {
    let deadline = |mode, trace| {
        Some(Deadline {
            at: START.plus(Duration::from_secs(60)),
            mode,
            trace,
        })
    };
    let (notifies, returns) = (deadline(ByMode::Notify, false), deadline(ByMode::Return, false));
    let traced = deadline(ByMode::Return, true);
    let cases = [
        (Some("SUCCESS"), None, (true, false), false),
        (Some("SUCCESS,FAILURE"), None, (false, false), true),
        (Some("FAILURE"), None, (false, false), false),
        (Some("NEVER"), notifies, (false, false), false),
        (None, None, (false, false), false),
        (None, notifies, (false, false), true),
        (None, notifies, (true, true), false),
        (None, returns, (true, true), false),
        (None, traced, (true, true), true),
        (Some("NEVER"), traced, (true, true), false),
    ];
    let each = |case| [(case, false), (case, true)];
    for ((notify, by, (dsn, deliver_by), told), by_lmtp) in cases.into_iter().flat_map(each) {
        let (errand, mut message) = errand(notify).await;
        message.deliver_by = by;
        let fate = Ok(Taken {
            host: "mx.example.com".to_owned(),
            reply: Reply::default(),
            passed_on: PassedOn { dsn, deliver_by },
            by_lmtp,
        });
        let decision = decide(
            &fate,
            &errand,
            &message,
            &Schedule::default(),
            &replies(),
            (START, 0.5),
        );
        let kind = if by_lmtp { Kind::Delivered } else { Kind::Relayed };
        let report = Told { kind, failure: None };
        let what = format!("{notify:?}, {by:?}, {dsn}, {deliver_by}, {by_lmtp}");
        assert_eq!(decision.report, told.then_some(report), "{what}");
        message.reverse_path = ReversePath::Null;
        let decision = decide(
            &fate,
            &errand,
            &message,
            &Schedule::default(),
            &replies(),
            (START, 0.5),
        );
        assert_eq!(decision.report, None, "{what}");
    }
}

/// RFC 2852: at the deadline the message comes back, or its sender is told once and it goes on.
#[tokio::test]
async fn a_deadline_passes() {
    let schedule = Schedule::default();
    let (mut errand, mut message) = errand(None).await;
    let at = START.plus(Duration::from_secs(60));
    let by = |mode| {
        Some(Deadline {
            at,
            mode,
            trace: false,
        })
    };
    for mode in [ByMode::Return, ByMode::Notify] {
        message.deliver_by = by(mode);
        assert_eq!(overdue(&message, START), None);
        let decision = decide(
            &refused(451),
            &errand,
            &message,
            &schedule,
            &replies(),
            (START, 0.5),
        );
        let Outcome::Deferred { next, .. } = decision.outcome else {
            panic!("it is not over yet");
        };
        assert_eq!((next, decision.report), (at, None), "tried again at the deadline");
    }
    let decision = decide(&refused(451), &errand, &message, &schedule, &replies(), (at, 0.5));
    let Outcome::Deferred {
        next,
        delay_told: false,
        deadline_told: true,
        ..
    } = decision.outcome
    else {
        panic!("{decision:?}");
    };
    assert!(next > at && decision.report.is_some());
    errand.deadline_told = true;
    let decision = decide(&refused(451), &errand, &message, &schedule, &replies(), (at, 0.5));
    assert_eq!(decision.report, None, "told once");

    message.deliver_by = by(ByMode::Return);
    let Some(Err(failure)) = overdue(&message, at) else {
        panic!("it is over");
    };
    assert_eq!(failure.status.to_string(), "5.4.7");
    let decision = decide(&refused(451), &errand, &message, &schedule, &replies(), (at, 0.5));
    assert_eq!(short(&decision.outcome), "expired");
    let (failure, _) = decision.report.unwrap().failure.unwrap();
    assert_eq!(failure.status.to_string(), "5.4.7");
    assert!(failure.words.contains("the words"), "{failure}");
}
