//! The client speaks LMTP (RFC 2033): transcripts of both sides.
#![allow(clippy::unwrap_used)]

mod transcript;

use smtp::client::{Failure, Options, Outgoing, Stage, Verdict};
use transcript::{Played, outgoing, play_with};

const TEXT: &[u8] = b".a\nb";
const LINES: &str = r"..a\r\nb\r\n.\r\n";
/// Three recipients, the second of whom is not known; then the message.
const TOLD: &str = "S: 220 box LMTP\nC: LHLO gmail.com\nS: 250-box\nS: 250-PIPELINING\nS: 250 CHUNKING\n\
     C: MAIL FROM:<alice@gmail.com>\nC: RCPT TO:<bob@example.com>\nC: RCPT TO:<eve@example.com>\n\
     C: RCPT TO:<zoe@example.com>\nC: DATA\n";
const ANSWERED: &str = "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 nobody\nS: 250 ok\nS: 354 go on\n";
const END: &str = "C: QUIT\nS: 221 bye";

fn lmtp() -> Options {
    Options {
        lmtp: true,
        ..Options::new("gmail.com")
    }
}

fn to_three() -> Outgoing {
    let mut outgoing = outgoing(TEXT);
    let zoe = mail::EmailAddress::parse("zoe@example.com").unwrap();
    outgoing.recipients.push(mail::Recipient::Address(zoe));
    outgoing
}

fn play(transcript: &str) -> Played {
    play_with(lmtp(), &to_three(), TEXT, transcript)
}

/// What was decided for each, in short.
fn fates(played: &Played) -> Vec<String> {
    let short = |verdict: &Verdict| match verdict {
        Verdict::Accepted(reply) => reply.to_string(),
        Verdict::Transient { stage, reply } | Verdict::Permanent { stage, reply } => {
            format!("{} at {stage}", reply.code)
        }
        Verdict::Unanswered(failure) => format!("{failure}"),
    };
    played.verdicts.iter().map(short).collect()
}

#[test]
fn each_accepted_recipient_has_its_own_answer() {
    let unknown = "550 at RCPT TO";
    for (replies, wanted) in [
        ("S: 250 one\nS: 250 three\n", ["250 one", unknown, "250 three"]),
        (
            "S: 250 one\nS: 452 4.2.2 full\n",
            ["250 one", unknown, "452 at the end of the message"],
        ),
        (
            "S: 554 5.6.0 no\nS: 250 three\n",
            ["554 at the end of the message", unknown, "250 three"],
        ),
    ] {
        let played = play(&format!("{TOLD}{ANSWERED}> {LINES}\n{replies}{END}"));
        assert_eq!(fates(&played), wanted, "{replies}");
        assert_eq!(played.failure, None, "the session can go on: {replies}");
    }
}

#[test]
fn only_who_has_no_answer_is_left_unknown() {
    let lost = "the connection was lost at the end of the message";
    for (replies, wanted) in [
        ("(lost)", [lost, "550 at RCPT TO", lost]),
        ("S: 250 one\n(lost)", ["250 one", "550 at RCPT TO", lost]),
        (
            "S: 552 5.2.2 full\n(lost)",
            ["552 at the end of the message", "550 at RCPT TO", lost],
        ),
    ] {
        let played = play(&format!("{TOLD}{ANSWERED}> {LINES}\n{replies}"));
        assert_eq!(fates(&played), wanted, "{replies}");
        let stage = Stage::EndOfMessage;
        assert_eq!(played.failure, Some(Failure::Lost { stage }), "{replies}");
    }
    // 421 is the answer for one recipient and the end of the session (RFC 5321 §3.8).
    let played = play(&format!("{TOLD}{ANSWERED}> {LINES}\nS: 421 4.3.2 going down\n"));
    let fates = fates(&played);
    assert_eq!(fates[0], "421 at the end of the message");
    assert!(
        fates[2].starts_with("at the end of the message the server said: 421"),
        "{fates:?}"
    );
}

#[test]
fn a_message_that_nobody_takes_has_no_answer() {
    // RFC 2033 §4.2: DATA fails with 503 then.
    let refused = "S: 250 ok\nS: 550 no\nS: 450 later\nS: 550 no\nS: 503 5.5.1 nobody\n";
    let played = play(&format!("{TOLD}{refused}C: RSET\nS: 250 ok\n{END}"));
    assert_eq!(
        fates(&played),
        ["550 at RCPT TO", "450 at RCPT TO", "550 at RCPT TO"]
    );
    // A server that asks for it all the same would leave us waiting for ever.
    let asked = "S: 250 ok\nS: 550 no\nS: 450 later\nS: 550 no\nS: 354 go on\n";
    let played = play(&format!("{TOLD}{asked}"));
    assert!(
        matches!(
            played.failure,
            Some(Failure::Unexpected {
                stage: Stage::Data,
                ..
            })
        ),
        "{:?}",
        played.failure
    );
}

#[test]
fn replies_that_come_before_the_message_end_the_session() {
    // Taken for the answers they would make a refused message pass for an accepted one.
    let mut client = smtp::client::Client::new(lmtp(), false, None);
    let mut hear = |said: &str| {
        let step = client.step(&mut said.as_bytes());
        (step, client.take_output())
    };
    hear("220 box\r\n");
    hear("250-box\r\n250 PIPELINING\r\n");
    client.send(to_three()).unwrap();
    let _ = client.take_output();
    let answers = "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n";
    assert_eq!(client.step(&mut answers.as_bytes()), smtp::client::Step::Body);
    client.body(TEXT);
    client.body_end();
    let early = client.step(&mut b"250 one\r\n250 two\r\n250 three\r\n".as_slice());
    let smtp::client::Step::Sent(outcome) = early else {
        panic!("{early:?}");
    };
    assert!(outcome.recipients.iter().all(|verdict| !verdict.is_accepted()));
}

#[test]
fn a_server_of_smtp_is_not_spoken_to() {
    let played = play("S: 220 mx ESMTP\nC: LHLO gmail.com\nS: 500 5.5.1 what\n");
    assert!(
        matches!(
            played.failure,
            Some(Failure::Refused {
                stage: Stage::Ehlo,
                ..
            })
        ),
        "no HELO: {:?}",
        played.failure
    );
}

#[test]
fn lhlo_is_said_again_inside_tls() {
    let played = play(
        "S: 220 box\nC: LHLO gmail.com\nS: 250-box\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go on\n(TLS)\n\
         C: LHLO gmail.com\nS: 250 box\nC: MAIL FROM:<alice@gmail.com>\nS: 550 not you\n\
         C: QUIT\nS: 221 bye",
    );
    assert_eq!(played.verdicts.len(), 3);
    assert_eq!(played.failure, None);
}

#[test]
fn a_binary_message_goes_by_chunks_with_an_answer_for_each() {
    let binary = Outgoing {
        binary: true,
        size_octets: 4,
        ..outgoing(b"a\nb\r")
    };
    let hello = "S: 220 box\nC: LHLO gmail.com\nS: 250-box\nS: 250-CHUNKING\nS: 250 BINARYMIME\n\
         C: MAIL FROM:<alice@gmail.com> BODY=BINARYMIME\nS: 250 ok\nC: RCPT TO:<bob@example.com>\nS: 250 ok\n\
         C: RCPT TO:<eve@example.com>\nS: 250 ok\n";
    let chunk = "C: BDAT 4 LAST\n> a\\nb\\r\n";
    let played = play_with(
        lmtp(),
        &binary,
        b"a\nb\r",
        &format!("{hello}{chunk}S: 250 one\nS: 452 4.2.2 full\n{END}"),
    );
    assert_eq!(fates(&played), ["250 one", "452 at the end of the message"]);
    assert_eq!(played.failure, None);
}
