//! Exactly-once accounting: more than a thousand cuts at random places of the dialogue, in both
//! directions, with and without TLS, with kills of the service and a store that refuses now and then.
//! Nothing is lost, nothing is bounced wrongly, and a second copy comes only where the answer to the
//! first one was cut or could not be recorded (RFC 1047).
//!
//! The long form is `cargo run --release -p deliver --example cuts -- --cuts 100000`.
#![allow(clippy::unwrap_used)]

mod common;
mod cutting;

use common::certificates;
use cutting::ledger::{Account, Book, Told};
use cutting::net::{Whose, Wire};
use cutting::{Run, run};
use std::collections::BTreeMap;

#[tokio::test(start_paused = true)]
async fn a_thousand_cuts_lose_nothing_and_bounce_nothing_wrongly() {
    let dir = tempfile::tempdir().unwrap();
    let tls = certificates(dir.path()).server_config();
    let mut all = Run::default();
    let mut seed = 1;
    while all.cut() < 1_000 {
        let one = run(seed, &tls).await;
        assert!(one.account.wrong.is_empty(), "{:#?}", one.account.wrong);
        all.add(&one);
        seed += 1;
    }
    println!("{}", all.in_words());
    let account = &all.account;
    assert_eq!(account.recipients, account.arrived + account.bounced);
    // The run must have met what it is about.
    let ours = all.cuts.iter().filter(|((whose, ..), _)| *whose == Whose::Ours);
    let ours: u64 = ours.map(|(_, count)| count).sum();
    assert!(ours > 100 && all.cut() - ours > 100, "{:?}", all.cuts);
    for stage in [
        "the greeting",
        "EHLO",
        "STARTTLS",
        "MAIL",
        "RCPT",
        "the message",
        "the end",
    ] {
        assert!(all.cuts.keys().any(|(_, _, at)| *at == stage), "none at {stage}");
    }
    assert!(account.twice_reply_cut > 0 && account.bounced > 0);
    assert!(all.kills > 0 && all.refused > 0);
}

/// The account notices each way of breaking the promise.
#[test]
fn the_account_notices_what_is_wrong() {
    let told = |ends, reported| Told { ends, reported };
    for (recipient, copies, told, killed, wrong) in [
        ("ok@d.example", 1, told(1, 0), false, ""),
        ("ok@d.example", 2, told(1, 0), false, ""),
        ("ok@d.example", 0, told(1, 0), false, "never got the message"),
        ("ok@d.example", 0, told(1, 1), false, "never got the message"),
        ("ok@d.example", 1, told(1, 1), false, "was told that it failed"),
        ("ok@d.example", 1, told(0, 0), false, "ended 0 times"),
        ("ok@d.example", 1, told(2, 0), false, "ended 2 times"),
        ("no@d.example", 0, told(1, 1), false, ""),
        ("no@d.example", 0, told(1, 0), false, "the sender was not told"),
        ("no@d.example", 0, told(1, 2), false, "was reported 2 times"),
        ("no@d.example", 0, told(1, 2), true, ""),
        ("no@d.example", 1, told(1, 1), false, "is nobody, and got mail"),
    ] {
        let book = Book::default();
        book.sends(recipient, "text");
        for _ in 0..copies {
            book.take(&[recipient.to_owned()], "text");
        }
        let account = book.check(&BTreeMap::from([(recipient.to_owned(), told.clone())]), killed);
        let found = account.wrong.join("; ");
        let case = format!("{recipient} {copies} {told:?}: {found}");
        assert!(
            found.contains(wrong) && found.is_empty() == wrong.is_empty(),
            "{case}"
        );
        // Nobody answered, so each further copy is one of RFC 1047.
        let beyond = u64::try_from(copies).unwrap().saturating_sub(1);
        assert_eq!(account.twice_reply_cut, beyond, "{case}");
    }
    let book = Book::default();
    book.sends("ok@d.example", "text");
    book.take(&["ok@d.example".to_owned()], "half of");
    book.take(&["stranger@d.example".to_owned()], "text");
    let account = book.check(&BTreeMap::new(), false);
    assert_eq!(
        account.wrong.len(),
        3,
        "other octets, never written to, no end: {account:?}"
    );
    // One that was answered is not sent again, unless the answer could not be recorded.
    for (heard, killed, wrong) in [(17, false, 1), (17, true, 0), (16, false, 0)] {
        let book = Book::default();
        book.sends("ok@d.example", "text");
        let taken = book.take(&["ok@d.example".to_owned()], "text");
        book.replied(&Wire::with_heard(heard), &taken, 17);
        if killed {
            book.killed(["ok@d.example"].into_iter());
        }
        book.take(&["ok@d.example".to_owned()], "text");
        let account = book.check(&BTreeMap::from([("ok@d.example".to_owned(), told(1, 0))]), killed);
        assert_eq!(account.wrong.len(), wrong, "{heard} {killed}: {account:?}");
        assert_eq!(account.twice_unrecorded, u64::from(killed));
    }
    let mut sum = Account::default();
    sum.add(&account);
    sum.add(&account);
    assert_eq!((sum.recipients, sum.wrong.len()), (2, 6));
}
