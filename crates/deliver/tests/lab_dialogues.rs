//! Receivers that behave badly, dialogue by dialogue: what they say, what we do, what becomes of the
//! recipient. Time is tokio's paused clock, so minutes cost nothing.
//!
//! The table of all cases is docs/OUTBOUND-CASES.md.
#![allow(clippy::unwrap_used)]

mod common;

use common::Script;
use common::player::Player;
use common::stage::{FIRST, SECOND, Stage, fates, tries};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Up to MAIL, without any extension.
const HELLO: &str = "S: 220 mx.example.com\nC: EHLO mail.gmail.com\nS: 250 mx.example.com\n";
/// Up to DATA.
const ENVELOPE: &str = "C: MAIL FROM:<alice@gmail.com>\nS: 250 ok\nC: RCPT TO:<bob@example.com>\nS: 250 ok\n";
const GOOD_END: &str = "C: DATA\nS: 354 go\nC.\nS: 250 2.0.0 taken\nC: QUIT\nS: 221 bye";

/// One attempt at this receiver; the second exchanger is a good one.
async fn attempt_at(transcripts: &[&str]) -> (deliver::attempt::Attempted, Arc<Player>, usize, u64) {
    let stage = Stage::new(&["bob@example.com"]).await;
    let player = stage.net.play(FIRST, transcripts);
    let second = stage.net.put(SECOND, Script::default());
    let before = Instant::now();
    let attempted = stage.attempt().await;
    let secs = before.elapsed().as_secs();
    assert_eq!(player.faults(), Vec::<String>::new(), "{transcripts:?}");
    (attempted, player, second.messages().len(), secs)
}

/// A case: what it is, the receiver's part, the fate, the first line of what was tried, and whether the
/// next exchanger was sent to.
type Case<'a> = (&'a str, String, &'a str, &'a str, bool);

async fn hold(cases: &[Case<'_>]) {
    for (what, transcript, fate, tried, next) in cases {
        let (attempted, _, sent_to_next, _) = attempt_at(&[transcript]).await;
        assert_eq!(fates(&attempted), [*fate], "{what}: {:?}", tries(&attempted));
        assert_eq!(
            tries(&attempted)[0],
            format!("mx.example.com clear {tried}"),
            "{what}"
        );
        assert_eq!(sent_to_next, usize::from(*next), "{what}");
    }
}

/// RFC 5321 §4.5.3.2: each step has its time, and the next exchanger is tried when it is over; but not
/// behind the end mark, where the message may have been taken.
#[tokio::test(start_paused = true)]
async fn each_step_has_its_time() {
    let upto = |part: &str| format!("{HELLO}{part}(silent)");
    let pipelining = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250 PIPELINING\n";
    for (what, transcript, secs, tried, next) in [
        ("the greeting", "(silent)".to_owned(), 300, "the greeting", true),
        (
            "EHLO",
            "S: 220 mx\nC: EHLO\n(silent)".to_owned(),
            300,
            "EHLO",
            true,
        ),
        ("MAIL", upto("C: MAIL\n"), 300, "MAIL FROM", true),
        (
            "RCPT",
            upto("C: MAIL\nS: 250 ok\nC: RCPT\n"),
            300,
            "RCPT TO",
            true,
        ),
        ("DATA", upto(&format!("{ENVELOPE}C: DATA\n")), 120, "DATA", true),
        (
            "the 354 of a group",
            format!("{pipelining}C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\n(silent)"),
            120,
            "DATA",
            true,
        ),
        (
            "the end mark",
            upto(&format!("{ENVELOPE}C: DATA\nS: 354 go\nC.\n")),
            600,
            "the end of the message",
            false,
        ),
        (
            "one octet",
            "S! 2\n(silent)".to_owned(),
            300,
            "the greeting",
            true,
        ),
    ] {
        let (attempted, _, sent_to_next, waited) = attempt_at(&[&transcript]).await;
        let tried = format!("mx.example.com clear failed at {tried}");
        assert_eq!(tries(&attempted)[0], tried, "{what}");
        assert_eq!(waited, secs, "{what}");
        assert_eq!(sent_to_next, usize::from(next), "{what}");
        assert_eq!(
            fates(&attempted),
            [if next { "taken" } else { "4.4.2" }],
            "{what}"
        );
    }
    // Nobody waits for the answer to QUIT.
    let quiet = format!("{HELLO}{ENVELOPE}C: DATA\nS: 354 go\nC.\nS: 250 taken\nC: QUIT\n(silent)");
    let (attempted, _, _, waited) = attempt_at(&[&quiet]).await;
    assert_eq!((fates(&attempted), waited), (vec!["taken".to_owned()], 0));
}

/// A receiver that does not read: each piece of the message has three minutes. One that hangs up in the
/// middle of it has not got it, so the next exchanger is asked.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_does_not_read_the_message_or_hangs_up_in_it() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    let store = store::MemoryStore::new();
    let text = format!("Subject: long\r\n\r\n{}", "x".repeat(70).repeat(3_000));
    (stage.letter.blob, stage.letter.blob_len) = common::put_blob(&store, &text).await;
    stage.courier.store = store;
    for (end, secs) in [("(silent)", 180), ("C: Received\n(closes)", 0)] {
        stage
            .net
            .play(FIRST, &[&format!("{HELLO}{ENVELOPE}C: DATA\nS: 354 go\n{end}")]);
        let second = stage.net.put(SECOND, Script::default());
        let before = Instant::now();
        let attempted = stage.attempt().await;
        assert_eq!(
            tries(&attempted)[0],
            "mx.example.com clear failed at the message",
            "{end}"
        );
        assert_eq!(
            (fates(&attempted)[0].as_str(), second.messages().len()),
            ("taken", 1),
            "{end}"
        );
        assert_eq!(before.elapsed().as_secs(), secs, "{end}");
    }
}

/// Slow but in time: nothing is given up. A receiver that feeds us octet by octet has no more than the
/// attempt's own time.
#[tokio::test(start_paused = true)]
async fn a_slow_receiver_is_waited_for() {
    let slow = format!("(slowly 200)\n{HELLO}{ENVELOPE}{GOOD_END}");
    let (attempted, player, to_next, waited) = attempt_at(&[&slow]).await;
    // 354 has two minutes, so it is the next one that takes it.
    assert_eq!((fates(&attempted), to_next), (vec!["taken".to_owned()], 1));
    assert_eq!(
        waited,
        4 * 200 + 120,
        "{:?} {:?}",
        player.lines(),
        tries(&attempted)
    );

    let slow = format!(
        "(slowly 200)\n{HELLO}{ENVELOPE}(slowly 100)\nC: DATA\nS: 354 go\nC.\n(slowly 590)\nS: 250 taken\n"
    );
    let (attempted, _, to_next, waited) = attempt_at(&[&slow]).await;
    assert_eq!((fates(&attempted), to_next), (vec!["taken".to_owned()], 0));
    assert_eq!(waited, 4 * 200 + 100 + 590, "{:?}", tries(&attempted));

    let mut drip = "S! 220-\n".to_owned();
    drip += &"(wait 250)\nS! x\n".repeat(50);
    let (attempted, _, to_next, waited) = attempt_at(&[&drip]).await;
    assert_eq!((fates(&attempted), to_next), (vec!["4.4.2".to_owned()], 0));
    assert_eq!(waited, 25 * 60, "the attempt's own time");
}

/// What is no reply, at whatever step, is nobody's fault but that server's: the next one is asked, and
/// nothing is bounced. Nothing of it grows in memory.
#[tokio::test(start_paused = true)]
async fn garbage_in_place_of_replies() {
    let protocol = |stage: &str| format!("failed at {stage}");
    let (greeting, ehlo, rcpt) = (protocol("the greeting"), protocol("EHLO"), protocol("RCPT TO"));
    let end = protocol("the end of the message");
    let at_end = |words: &str| format!("{HELLO}{ENVELOPE}C: DATA\nS: 354 go\nC.\n{words}\n(silent)");
    let at_rcpt = |words: &str| format!("{HELLO}C: MAIL\nS: 250 ok\nC: RCPT\n{words}\n(silent)");
    hold(&[
        (
            "no code",
            "S: hello there\n(silent)".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "a code of two digits",
            "S: 22 x\n(silent)".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "a code of four digits",
            "S: 2200 x\n(silent)".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "a code of no class",
            "S: 999 x\n(silent)".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "an empty line",
            "S! \\r\\n\n(silent)".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "a bare LF",
            "S! 220 x\\n\n(silent)".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "a bare CR",
            "S! 220 x\\ry\\r\\n\n(silent)".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "NUL",
            "S! 220 x\\0y\\r\\n\n(silent)".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "TLS without being asked",
            "S! \\x16\\x03\\x01\\x02\\x00\\r\\n\n(silent)".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "a long line",
            "S! 220 \nS* 10000 x\n(silent)".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "a line without end",
            "S! 220 \nS~ x".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "a reply without end",
            "S~ 220-x\\r\\n".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "megabytes of banner",
            "S* 100000 220-welcome to the mail exchanger\\r\\n\nS: 220 x".to_owned(),
            "taken",
            &greeting,
            true,
        ),
        (
            "another code within a reply",
            "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 550 no\n(silent)".to_owned(),
            "taken",
            &ehlo,
            true,
        ),
        ("garbage at RCPT", at_rcpt("S: \u{fffd}"), "taken", &rcpt, true),
        ("354 at RCPT", at_rcpt("S: 354 go"), "taken", &rcpt, true),
        ("334 at RCPT", at_rcpt("S: 334 x"), "taken", &rcpt, true),
        // Behind the end mark nobody knows: later, and not elsewhere.
        (
            "garbage behind the end mark",
            at_end("S: thanks"),
            "4.5.0",
            &end,
            false,
        ),
        (
            "354 behind the end mark",
            at_end("S: 354 go on"),
            "4.5.0",
            &end,
            false,
        ),
        (
            "no line ending behind the end mark",
            at_end("S! 250 taken"),
            "4.4.2",
            &end,
            false,
        ),
    ])
    .await;
}

/// Words beyond ASCII and control characters in an otherwise good reply are no reason to refuse it;
/// what is kept of them is readable.
#[tokio::test(start_paused = true)]
async fn eight_bit_words_in_a_reply() {
    let words =
        format!("{HELLO}C: MAIL\nS: 250 ok\nC: RCPT\nS! 550 5.1.1 n\\xe9ant \\x07\\r\\n\nC: RSET\nS: 250 ok");
    let (attempted, ..) = attempt_at(&[&words]).await;
    let failure = attempted.fates[0].as_ref().unwrap_err();
    assert_eq!(failure.reply(), "550 5.1.1 n\u{fffd}ant ?");
}

/// A well-formed reply that answers nothing, or something else.
#[tokio::test(start_paused = true)]
async fn replies_that_do_not_belong_there() {
    let at = |stage: &str| format!("failed at {stage}");
    let (ehlo, mail, rcpt, data, text) = (
        at("EHLO"),
        at("MAIL FROM"),
        at("RCPT TO"),
        at("DATA"),
        at("the message"),
    );
    let early_end = format!("{HELLO}{ENVELOPE}C: DATA\nS: 354 go\nS: 250 2.0.0 taken\n(silent)");
    hold(&[
        (
            "a reply to EHLO before it",
            "S! 220 mx\\r\\n250 mx\\r\\n\n(silent)".to_owned(),
            "taken",
            &ehlo,
            true,
        ),
        (
            "all replies at once",
            "S! 220 x\\r\\n250 x\\r\\n250 x\\r\\n250 x\\r\\n354 x\\r\\n250 taken\\r\\n\n(silent)".to_owned(),
            "taken",
            &ehlo,
            true,
        ),
        (
            "a second reply to EHLO",
            "S: 220 mx\nC: EHLO\nS! 250 mx\\r\\n250 mx\\r\\n\n(silent)".to_owned(),
            "taken",
            &mail,
            true,
        ),
        (
            "a second reply to MAIL",
            format!("{HELLO}C: MAIL\nS! 250 ok\\r\\n250 ok\\r\\n\n(silent)"),
            "taken",
            &rcpt,
            true,
        ),
        (
            "250 to DATA",
            format!("{HELLO}{ENVELOPE}C: DATA\nS: 250 ok\n(silent)"),
            "taken",
            &data,
            true,
        ),
        ("taken before it was sent", early_end, "taken", &text, true),
    ])
    .await;
}

/// 421 may come at every step. It puts off everybody; the next exchanger may take it.
#[tokio::test(start_paused = true)]
async fn four_two_one_at_every_step() {
    let closing = "S: 421 4.3.2 going down\n(closes)";
    let at = |part: &str| format!("{HELLO}{part}{closing}");
    hold(&[
        (
            "the greeting",
            closing.to_owned(),
            "taken",
            "the greeting 421",
            true,
        ),
        (
            "EHLO",
            format!("S: 220 mx\nC: EHLO\n{closing}"),
            "taken",
            "EHLO 421",
            true,
        ),
        ("MAIL", at("C: MAIL\n"), "taken", "MAIL FROM 421", true),
        (
            "RCPT",
            at("C: MAIL\nS: 250 ok\nC: RCPT\n"),
            "taken",
            "RCPT TO 421",
            true,
        ),
        (
            "DATA",
            at(&format!("{ENVELOPE}C: DATA\n")),
            "taken",
            "DATA 421",
            true,
        ),
        (
            "the end mark",
            at(&format!("{ENVELOPE}C: DATA\nS: 354 go\nC.\n")),
            "taken",
            "the end of the message 421",
            true,
        ),
        (
            "between two commands",
            format!("{HELLO}C: MAIL\nS! 250 ok\\r\\n421 4.3.2 going down\\r\\n\n(closes)"),
            "taken",
            "RCPT TO 421",
            true,
        ),
    ])
    .await;
}

/// Receivers that hang up: before the end mark nobody has the message, behind it somebody may.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_up() {
    let at = |part: &str| format!("{HELLO}{part}(closes)");
    let data = format!("{ENVELOPE}C: DATA\n");
    hold(&[
        (
            "at once",
            "(closes)".to_owned(),
            "taken",
            "failed at the greeting",
            true,
        ),
        (
            "behind the greeting",
            "S: 220 mx\n(closes)".to_owned(),
            "taken",
            "failed at EHLO",
            true,
        ),
        (
            "behind MAIL",
            at("C: MAIL\n"),
            "taken",
            "failed at MAIL FROM",
            true,
        ),
        (
            "behind RCPT",
            at("C: MAIL\nS: 250 ok\nC: RCPT\n"),
            "taken",
            "failed at RCPT TO",
            true,
        ),
        ("behind DATA", at(&data), "taken", "failed at DATA", true),
        // A small message had left with its end mark by then.
        (
            "in a small message",
            at(&format!("{data}S: 354 go\nC: Received\n")),
            "4.4.2",
            "failed at the end of the message",
            false,
        ),
        (
            "behind the end mark",
            at(&format!("{data}S: 354 go\nC.\n")),
            "4.4.2",
            "failed at the end of the message",
            false,
        ),
        (
            "with half of its answer",
            at(&format!("{data}S: 354 go\nC.\nS! 250 2.0\n")),
            "4.4.2",
            "failed at the end of the message",
            false,
        ),
    ])
    .await;
}

/// A refusal that comes while the message is still being sent is heard, although the receiver closed.
#[tokio::test(start_paused = true)]
async fn a_refusal_in_the_middle_of_the_message_is_heard() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    let store = store::MemoryStore::new();
    let text = format!("Subject: long\r\n\r\n{}", "x".repeat(70).repeat(3_000));
    (stage.letter.blob, stage.letter.blob_len) = common::put_blob(&store, &text).await;
    stage.courier.store = store;
    let transcript =
        format!("{HELLO}{ENVELOPE}C: DATA\nS: 354 go\nC: Received\nS: 552 5.3.4 too large\n(closes)");
    stage.net.play(FIRST, &[&transcript]);
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["5.3.4"], "{:?}", tries(&attempted));
}

/// CHUNKING (RFC 3030): one flight for a small message; a receiver that offers it and does not know the
/// command gets the message by DATA, in the same attempt and from then on.
#[tokio::test(start_paused = true)]
async fn chunking_and_a_receiver_that_only_says_so() {
    let hello = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250-PIPELINING\nS: 250 CHUNKING\n";
    let flight = "C: MAIL FROM:<alice@gmail.com>\nC: RCPT TO:<bob@example.com>\nC: BDAT 83 LAST\nC# 83\n";
    let good = format!("{hello}{flight}S: 250 ok\nS: 250 ok\nS: 250 2.0.0 taken\nC: QUIT\nS: 221 bye");
    let (attempted, player, ..) = attempt_at(&[&good]).await;
    assert_eq!(tries(&attempted), ["mx.example.com clear accepted 250"]);
    let text = &player.messages()[0];
    assert!(text.ends_with("\r\n.how are you?\r\n"), "dots stay: {text:?}");

    let unknown = format!("{hello}{flight}S: 250 ok\nS: 250 ok\nS: 500 5.5.1 what?\n(closes)");
    let by_data =
        format!("{hello}C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC.\nS: 250 taken");
    let stage = Stage::new(&["bob@example.com"]).await;
    let player = stage.net.play(FIRST, &[&unknown, &by_data]);
    let attempted = stage.attempt().await;
    assert_eq!(fates(&attempted), ["taken"]);
    assert_eq!(
        tries(&attempted),
        [
            "mx.example.com clear failed at the message",
            "mx.example.com clear accepted 250"
        ]
    );
    let told = format!("{:?}", attempted.events[0]);
    assert!(
        told.contains("offers CHUNKING and refused BDAT, so the message is to go by DATA: 500 5.5.1 what?"),
        "{told}"
    );
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(fates(&stage.attempt().await), ["taken"], "remembered for a day");
    let by_bdat = player
        .lines()
        .iter()
        .filter(|line| line.starts_with("BDAT"))
        .count();
    assert_eq!((by_bdat, player.faults()), (1, Vec::new()));
}

/// Where a session broke while a message went by BDAT, the next try goes by DATA.
#[tokio::test(start_paused = true)]
async fn after_a_break_in_bdat_the_next_try_goes_by_data() {
    let hello = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250-PIPELINING\nS: 250 CHUNKING\n";
    let broken = format!("{hello}C: MAIL\nC: RCPT\nC: BDAT 83 LAST\nC# 83\nS: 250 ok\nS: 250 ok\n(closes)");
    let by_data =
        format!("{hello}C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC.\nS: 250 taken");
    let stage = Stage::new(&["bob@example.com"]).await;
    let player = stage.net.play(FIRST, &[&broken, &by_data]);
    stage.net.put(SECOND, Script::default());
    assert_eq!(fates(&stage.attempt().await), ["4.4.2"], "it may have arrived");
    assert_eq!(fates(&stage.attempt().await), ["taken"]);
    assert_eq!(player.faults(), Vec::<String>::new());
}
