//! A client that asks whether a recipient is taken, and sends no message.
#![allow(clippy::unwrap_used)]

use mail::{EmailAddress, Recipient, ReversePath};
use smtp::client::{Client, Failure, Options, Outgoing, Step, Verdict, Wishes};

fn question() -> Outgoing {
    let to = |a: &str| Recipient::Address(EmailAddress::parse(a).unwrap());
    Outgoing {
        sender: ReversePath::Null,
        recipients: vec![to("bob@example.com"), to("eve@example.com")],
        size_octets: 1_024,
        eight_bit: false,
        binary: false,
        smtputf8: false,
        wishes: Wishes::default(),
    }
}

/// What the client says, and what it is told, when the server's lines are these.
fn asked(lines: &[&str]) -> (String, Vec<Verdict>, Option<Failure>) {
    let mut client = Client::new(Options::new("gmail.com"), false, None);
    let mut lines = lines.iter();
    let (mut said, mut verdicts, mut failure, mut asked) = (Vec::new(), Vec::new(), None, false);
    let mut input = Vec::new();
    loop {
        let mut rest = &input[..];
        let step = client.step(&mut rest);
        input = rest.to_vec();
        said.extend(client.take_output());
        match step {
            Step::Ready if !asked => {
                asked = true;
                client.ask(question()).unwrap();
            }
            Step::Ready => client.quit(),
            Step::Sent(outcome) => verdicts = outcome.recipients,
            Step::Failed(why) => failure = Some(why),
            Step::Closed => return (String::from_utf8(said).unwrap(), verdicts, failure),
            Step::Read => {
                let line = lines.next().expect("it waits for more");
                input.extend(format!("{line}\r\n").bytes());
            }
            other => panic!("{other:?}"),
        }
        said.extend(client.take_output());
        if failure.is_some() {
            return (String::from_utf8(said).unwrap(), verdicts, failure);
        }
    }
}

const HELLO: [&str; 3] = ["220 mx.example.com", "250-mx.example.com", "250 PIPELINING"];

#[test]
fn no_message_follows_and_the_question_is_taken_back() {
    let (said, verdicts, failure) = asked(&[
        HELLO[0],
        HELLO[1],
        HELLO[2],
        "250 2.1.0 ok",
        "250 2.1.5 ok",
        "550 5.1.1 nobody",
        "250 2.0.0 reset",
        "221 2.0.0 bye",
    ]);
    assert_eq!(
        said,
        "EHLO gmail.com\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<eve@example.com>\r\nRSET\r\nQUIT\r\n"
    );
    assert!(matches!(&verdicts[0], Verdict::Accepted(reply) if reply.code == 250));
    assert!(matches!(&verdicts[1], Verdict::Permanent { reply, .. } if reply.code == 550));
    assert_eq!(failure, None);
}

#[test]
fn a_sender_that_is_refused_is_told_for_all() {
    let (said, verdicts, _) = asked(&[HELLO[0], HELLO[1], "250 mx", "550 5.7.1 not you", "221 2.0.0 bye"]);
    assert!(said.ends_with("MAIL FROM:<>\r\nQUIT\r\n"), "{said}");
    assert!(verdicts.iter().all(|v| matches!(v, Verdict::Permanent { .. })));
}
