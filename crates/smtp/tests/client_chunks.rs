//! Messages that leave by BDAT (RFC 3030): transcripts of both sides.
#![allow(clippy::unwrap_used)]

mod transcript;

use smtp::client::{
    CHUNK_OCTETS, CHUNKS_OUTSTANDING_MAX, Client, Failure, Options, Outgoing, Stage, Step,
    TOGETHER_OCTETS_MAX, Verdict,
};
use std::cmp::Ordering;
use std::collections::VecDeque;
use transcript::{greeted, hear, outgoing, play, play_with};

const TEXT: &[u8] = b".a\nb\r..\r\nc";
/// The same as it leaves: lines that end with CRLF, dots as they are.
const LINES: &str = r".a\r\nb\r\n..\r\nc\r\n";

fn too_large_to_go_together() -> Outgoing {
    Outgoing {
        size_octets: TOGETHER_OCTETS_MAX + 1,
        ..outgoing(TEXT)
    }
}

const CHUNKING: &str = "S: 220 mx\nC: EHLO gmail.com\nS: 250-mx\nS: 250-PIPELINING\nS: 250 CHUNKING\n";
const ENVELOPE: &str =
    "C: MAIL FROM:<alice@gmail.com>\nC: RCPT TO:<bob@example.com>\nC: RCPT TO:<eve@example.com>\n";
const END: &str = "C: QUIT\nS: 221 bye";

/// What was decided for each, in short.
fn fates(verdicts: &[Verdict]) -> Vec<String> {
    let short = |verdict: &Verdict| match verdict {
        Verdict::Accepted(reply) => format!("{}", reply.code),
        Verdict::Transient { stage, reply } | Verdict::Permanent { stage, reply } => {
            format!("{} at {stage}", reply.code)
        }
        Verdict::Unanswered(failure) => format!("{failure}"),
    };
    verdicts.iter().map(short).collect()
}

#[test]
fn a_small_message_leaves_together_with_its_envelope() {
    for (answers, wanted) in [
        (
            "S: 250 ok\nS: 250 ok\nS: 550 no\nS: 250 taken\n",
            ["250", "550 at RCPT TO"],
        ),
        // Nobody will take it; the chunk is on its way all the same and is refused (RFC 3030 §2).
        (
            "S: 250 ok\nS: 450 later\nS: 550 no\nS: 503 5.5.1 nobody\nC: RSET\nS: 250 ok\n",
            ["450 at RCPT TO", "550 at RCPT TO"],
        ),
        (
            "S: 550 not you\nS: 503 5.5.1 x\nS: 503 5.5.1 x\nS: 503 5.5.1 x\nC: RSET\nS: 250 ok\n",
            ["550 at MAIL FROM", "550 at MAIL FROM"],
        ),
        (
            "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 554 5.7.1 spam\nC: RSET\nS: 250 ok\n",
            ["554 at the end of the message", "554 at the end of the message"],
        ),
        (
            "S: 250 ok\nS: 250 ok\nS: 550 no\nS: 452 4.3.1 full\nC: RSET\nS: 250 ok\n",
            ["452 at the end of the message", "550 at RCPT TO"],
        ),
    ] {
        let transcript = format!("{CHUNKING}{ENVELOPE}C: BDAT 14 LAST\n> {LINES}\n{answers}{END}");
        let played = play(&outgoing(TEXT), TEXT, &transcript);
        assert_eq!(fates(&played.verdicts), wanted, "{answers}");
        assert_eq!(played.failure, None, "{answers}");
    }
}

#[test]
fn a_larger_one_waits_for_the_answers_to_its_envelope() {
    let answers = "S: 250 ok\nS: 250 ok\nS: 550 no\n";
    let size = TOGETHER_OCTETS_MAX + 1;
    assert!(size > TEXT.len() as u64);
    let taken = format!("{CHUNKING}{ENVELOPE}{answers}C: BDAT 14 LAST\n> {LINES}\nS: 250 taken\n{END}");
    let played = play(&too_large_to_go_together(), TEXT, &taken);
    assert_eq!(fates(&played.verdicts), ["250", "550 at RCPT TO"]);
    // Nobody will take it, and nothing of it leaves.
    let nobody = format!("{CHUNKING}{ENVELOPE}S: 250 ok\nS: 450 a\nS: 550 b\nC: RSET\nS: 250 ok\n{END}");
    let played = play(&too_large_to_go_together(), TEXT, &nobody);
    assert_eq!(fates(&played.verdicts), ["450 at RCPT TO", "550 at RCPT TO"]);
}

#[test]
fn without_pipelining_each_command_waits() {
    let transcript = format!(
        "S: 220 mx\nC: EHLO gmail.com\nS: 250-mx\nS: 250 CHUNKING\nC: MAIL FROM:<alice@gmail.com>\nS: 250 ok\nC: RCPT TO:<bob@example.com>\nS: 250 ok\nC: RCPT TO:<eve@example.com>\nS: 250 ok\nC: BDAT 14 LAST\n> {LINES}\nS: 250 taken\n{END}"
    );
    let played = play(&outgoing(TEXT), TEXT, &transcript);
    assert_eq!(fates(&played.verdicts), ["250", "250"]);
}

#[test]
fn where_it_is_not_wanted_or_not_offered_it_goes_by_data() {
    let mut options = Options::new("gmail.com");
    options.chunking = false;
    let by_data = "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\n> ..a\\r\\nb\\r\\n...\\r\\nc\\r\\n.\\r\\n\nS: 250 taken\n";
    let transcript = format!("{CHUNKING}{ENVELOPE}C: DATA\n{by_data}{END}");
    let played = play_with(options, &outgoing(TEXT), TEXT, &transcript);
    assert_eq!(fates(&played.verdicts), ["250", "250"]);
    let unoffered = transcript.replace("S: 250-PIPELINING\nS: 250 CHUNKING\n", "S: 250 PIPELINING\n");
    let played = play(&outgoing(TEXT), TEXT, &unoffered);
    assert_eq!(fates(&played.verdicts), ["250", "250"]);
}

/// A server that does not know the command it offers: the octets of the chunk may have been taken for
/// commands, so nothing more is said there; and that is no verdict on the message.
#[test]
fn a_server_that_refuses_the_command_itself_is_left() {
    for refusal in [
        "500 5.5.1 what",
        "502 no",
        "503 5.5.1 DATA first",
        "554 5.5.2 syntax",
        "501 5.5.4 x",
    ] {
        let answers = format!("S: 250 ok\nS: 250 ok\nS: 550 no\nS: {refusal}\n");
        let transcript = format!("{CHUNKING}{ENVELOPE}C: BDAT 14 LAST\n> {LINES}\n{answers}");
        let played = play(&outgoing(TEXT), TEXT, &transcript);
        assert!(
            matches!(&played.failure, Some(Failure::ChunkingDenied { .. })),
            "{refusal}: {:?}",
            played.failure
        );
        let verdicts = &played.verdicts;
        assert!(matches!(
            &verdicts[0],
            Verdict::Unanswered(Failure::ChunkingDenied { .. })
        ));
        assert_eq!(fates(&verdicts[1..]), ["550 at RCPT TO"], "{refusal}");
    }
    // A binary message has no other way: there it is a verdict.
    let binary = Outgoing {
        binary: true,
        ..outgoing(TEXT)
    };
    let offers = CHUNKING.replace("S: 250-PIPELINING\n", "S: 250-PIPELINING\nS: 250-BINARYMIME\n");
    let envelope = ENVELOPE.replace("gmail.com>\n", "gmail.com> BODY=BINARYMIME\n");
    let answers = "S: 250 ok\nS: 250 ok\nS: 550 no\nS: 502 5.5.1 what\nC: RSET\nS: 250 ok\n";
    let transcript = format!("{offers}{envelope}C: BDAT 10 LAST\n> .a\\nb\\r..\\r\\nc\n{answers}{END}");
    let played = play(&binary, TEXT, &transcript);
    assert_eq!(
        fates(&played.verdicts),
        ["502 at the end of the message", "550 at RCPT TO"]
    );
}

/// RFC 1047: from the moment in which the whole message left it may have been taken, whichever reply is
/// awaited; before that, and when its last octets could not be written, it cannot.
#[test]
fn what_a_lost_connection_means() {
    let begun = |outgoing: Outgoing| {
        let mut client = greeted(&["PIPELINING", "CHUNKING"]);
        client.send(outgoing).unwrap();
        client
    };
    let unanswered = |client: &mut Client| match client.step(&mut &b""[..]) {
        Step::Sent(outcome) => match &outcome.recipients[0] {
            Verdict::Unanswered(Failure::Lost { stage }) => *stage,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let mut client = begun(outgoing(TEXT));
    assert_eq!(client.step(&mut &b""[..]), Step::Body);
    client.body(TEXT);
    client.lost();
    assert_eq!(unanswered(&mut client), Stage::Body, "before it left");

    for heard in ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n450 later\r\n"] {
        let mut client = begun(outgoing(TEXT));
        client.body(TEXT);
        client.body_end();
        assert_eq!(hear(&mut client, &[heard]), Step::Read);
        client.lost();
        assert_eq!(unanswered(&mut client), Stage::EndOfMessage, "{heard:?}");
    }
    let mut client = begun(outgoing(TEXT));
    client.body(TEXT);
    client.body_end();
    client.unwritten();
    client.lost();
    assert_eq!(unanswered(&mut client), Stage::Body, "not all of it left");

    let mut client = begun(too_large_to_go_together());
    assert_eq!(hear(&mut client, &["250 ok\r\n"]), Step::Read);
    client.lost();
    assert_eq!(unanswered(&mut client), Stage::RcptTo, "only the envelope left");
}

/// On a connection that lay idle nothing of the message leaves before the server has shown itself.
#[test]
fn behind_a_rest_the_envelope_goes_alone() {
    let mut client = greeted(&["PIPELINING", "CHUNKING"]);
    client.rested();
    client.send(outgoing(TEXT)).unwrap();
    assert_eq!(client.step(&mut &b""[..]), Step::Read);
    assert_eq!(hear(&mut client, &["250 ok\r\n250 ok\r\n250 ok\r\n"]), Step::Body);
    client.body(TEXT);
    client.body_end();
    assert!(matches!(hear(&mut client, &["250 taken\r\n"]), Step::Sent(_)));
    assert_eq!(client.step(&mut &b""[..]), Step::Ready);
    // The next one follows at once.
    client.send(outgoing(TEXT)).unwrap();
    assert_eq!(client.step(&mut &b""[..]), Step::Body);
}

/// A large message in chunks: so many at a time, their lengths add up, and a refusal ends it early.
#[test]
fn a_large_message_goes_chunk_by_chunk() {
    let piece = vec![b'x'; 64 * 1024];
    let pieces = 3 * CHUNKS_OUTSTANDING_MAX * CHUNK_OCTETS / piece.len();
    for (refused_from, wanted) in [(usize::MAX, "250"), (1, "552 at the message")] {
        let mut client = greeted(&["PIPELINING", "CHUNKING"]);
        client.send(too_large_to_go_together()).unwrap();
        assert_eq!(hear(&mut client, &["250 ok\r\n250 ok\r\n550 no\r\n"]), Step::Body);
        let (mut given, mut lengths, mut answers) = (0, Vec::new(), VecDeque::new());
        let mut heard: &[u8] = b"";
        let outcome = loop {
            match client.step(&mut heard) {
                Step::Body if given < pieces => {
                    given += 1;
                    client.body(&piece);
                }
                Step::Body => client.body_end(),
                // The server is slow: it answers when nothing more comes.
                Step::Read => heard = answers.pop_front().unwrap(),
                Step::Sent(outcome) => break outcome,
                other => panic!("{other:?}"),
            }
            let said = client.take_output();
            if said.starts_with(b"BDAT ") {
                let end = said.iter().position(|b| *b == b'\n').unwrap() + 1;
                let line = String::from_utf8(said[..end].to_vec()).unwrap();
                let announced: usize = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
                assert_eq!(announced, said.len() - end, "{line}");
                assert!(announced <= CHUNK_OCTETS + piece.len(), "{line}");
                answers.push_back(match lengths.len().cmp(&refused_from) {
                    Ordering::Less => &b"250 2.0.0 go on\r\n"[..],
                    Ordering::Equal => b"552 5.3.4 too much\r\n",
                    Ordering::Greater => b"503 5.5.1 no\r\n",
                });
                lengths.push(announced);
                assert!(
                    answers.len() <= CHUNKS_OUTSTANDING_MAX + 1,
                    "the last one comes in any case"
                );
            } else if !said.is_empty() {
                assert_eq!(said.escape_ascii().to_string(), "RSET\\r\\n");
                answers.push_back(b"250 ok\r\n");
            }
        };
        assert_eq!(fates(&outcome.recipients), [wanted, "550 at RCPT TO"]);
        if refused_from == usize::MAX {
            let all: usize = lengths.iter().sum();
            assert_eq!(all, pieces * piece.len() + 2, "and the missing line ending");
        } else {
            assert_eq!(
                lengths.len(),
                CHUNKS_OUTSTANDING_MAX + refused_from,
                "no more than were on their way"
            );
        }
        assert_eq!(client.step(&mut &b""[..]), Step::Ready);
    }
}
