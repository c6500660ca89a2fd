//! The client session talks to the server session, and to servers that misbehave.
#![allow(clippy::unwrap_used)]

use mail::{EmailAddress, QueueId, Recipient, ReversePath, Secret};
use smtp::client::{
    self, CannotSend, Client, Failure, Outcome, Outgoing, ReplyError, Stage, TlsWish, Verdict,
};
use smtp::server::{Options, Question, Role, Server, Step};
use smtp::{Tap, replies};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Tap for Heard {
    fn line(&self, _: &str, from_client: bool, line: &str) {
        let who = if from_client { "C" } else { "S" };
        self.0.lock().unwrap().push(format!("{who}: {line}"));
    }
}

fn to(addresses: &[&str]) -> Outgoing {
    Outgoing {
        sender: ReversePath::Address(EmailAddress::parse("alice@gmail.com").unwrap()),
        recipients: addresses
            .iter()
            .map(|a| Recipient::Address(EmailAddress::parse(a).unwrap()))
            .collect(),
        size_octets: 20,
        eight_bit: false,
        binary: false,
        smtputf8: false,
        wishes: client::Wishes::default(),
    }
}

/// Answers of a small server: addresses that begin with `no` are unknown, with `later` put off.
fn answer(server: &mut Server, question: Question, body: &mut Vec<u8>, got: &mut Vec<Vec<u8>>) {
    match question {
        Question::Authenticate { token, request, .. } => {
            let answer = match request {
                sasl::Request::Password(credentials) if credentials.password.expose() == "geheim" => {
                    sasl::Answer::Accepted(credentials.login, None)
                }
                _ => sasl::Answer::Refused(replies::AUTH_FAILED),
            };
            server.authenticated(token, answer);
        }
        Question::Xclient { token, .. } => server.xclient(token, Ok(None)),
        Question::Sender { token, .. } => server.sender(token, Ok(())),
        Question::Recipient { token, rcpt } => {
            let name = rcpt.recipient.to_string();
            let verdict = if name.starts_with("<no") {
                Err(replies::unknown_user(&rcpt.recipient))
            } else if name.starts_with("<later") {
                Err(replies::LOOKUP_FAILED)
            } else {
                Ok(())
            };
            server.recipient(token, verdict);
        }
        Question::Begin { token, .. } => server.begin(token, Ok(())),
        Question::Message { token, .. } => {
            got.push(std::mem::take(body));
            server.message(token, &replies::queued(QueueId(got.len() as u64)));
        }
    }
}

/// Runs one message through both machines. Gives outcome, the server's messages, and how the
/// client ended.
fn through(
    client: &mut Client,
    server: &mut Server,
    outgoing: &Outgoing,
    message: &[u8],
) -> (Option<Outcome>, Vec<Vec<u8>>, client::Step) {
    let mut outcome = None;
    let (mut body, mut got) = (Vec::new(), Vec::new());
    let mut handshakes = 0;
    for _ in 0..100 {
        let said = client.take_output();
        let mut input = &said[..];
        loop {
            match server.step(&mut input) {
                Step::Read | Step::Close => break,
                Step::Ask(question) => answer(server, question, &mut body, &mut got),
                Step::Chunk(octets) => body.extend_from_slice(octets),
                Step::Dropped(_) => body.clear(),
                Step::StartTls => {
                    handshakes += 1;
                    break;
                }
            }
        }
        let said = server.take_output();
        let mut input = &said[..];
        loop {
            match client.step(&mut input) {
                client::Step::Read => break,
                client::Step::StartTls => {
                    assert_eq!(handshakes, 1);
                    client.tls_started();
                    server.tls_started();
                    break;
                }
                client::Step::Ready if outcome.is_some() => client.quit(),
                client::Step::Ready => client.send(outgoing.clone()).unwrap(),
                client::Step::Body => {
                    message.chunks(3).for_each(|piece| client.body(piece));
                    client.body_end();
                }
                client::Step::Sent(o) => outcome = Some(o),
                end => return (outcome, got, end),
            }
        }
    }
    panic!("the two talk without end");
}

fn server(role: Role, tap: Option<(Arc<dyn Tap>, String)>) -> Server {
    Server::new(Arc::new(Options::new("mail.example.com")), role, false, tap)
}

#[test]
fn one_message_each_way_of_talking() {
    for (pipelining, chunking) in [(true, true), (true, false), (false, true), (false, false)] {
        for tls in [TlsWish::Never, TlsWish::IfOffered, TlsWish::Required] {
            let mut options = client::Options::new("gmail.com");
            options.pipelining = pipelining;
            options.chunking = chunking;
            options.tls = tls;
            let mut client = Client::new(options, false, None);
            let mut server = server(Role::Mta, None);
            let outgoing = to(&["bob@example.com", "nobody@example.com", "later@example.com"]);
            let (outcome, got, end) = through(&mut client, &mut server, &outgoing, b"a\r\n.b\r\n..\r\n");
            assert_eq!(end, client::Step::Closed);
            assert_eq!(got, [b"a\r\n.b\r\n..\r\n".to_vec()]);
            assert_eq!(client.is_tls(), tls != TlsWish::Never);
            let outcome = outcome.unwrap();
            assert_eq!(outcome.by_chunks, chunking);
            let verdicts = outcome.recipients;
            assert!(matches!(&verdicts[0], Verdict::Accepted(r) if r.lines[0].contains("queued as")));
            assert!(
                matches!(&verdicts[1], Verdict::Permanent { stage: Stage::RcptTo, reply } if reply.status.unwrap().to_string() == "5.1.1")
            );
            assert!(
                matches!(&verdicts[2], Verdict::Transient { stage: Stage::RcptTo, reply } if reply.code == 451)
            );
        }
    }
}

#[test]
fn nobody_is_left() {
    for (pipelining, chunking) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut options = client::Options::new("gmail.com");
        options.pipelining = pipelining;
        options.chunking = chunking;
        let mut client = Client::new(options, false, None);
        let outgoing = to(&["nobody@example.com", "none@example.com"]);
        let (outcome, got, end) = through(&mut client, &mut server(Role::Mta, None), &outgoing, b"x\r\n");
        assert_eq!((got.len(), end), (0, client::Step::Closed));
        for verdict in outcome.unwrap().recipients {
            assert!(
                matches!(
                    verdict,
                    Verdict::Permanent {
                        stage: Stage::RcptTo,
                        ..
                    }
                ),
                "{verdict:?}"
            );
        }
    }
}

#[test]
fn logins_and_what_a_tap_hears() {
    let heard = Arc::new(Heard::default());
    let tap = || Some((heard.clone() as Arc<dyn Tap>, "1".to_owned()));
    let mut options = client::Options::new("laptop.example.net");
    options.login = Some(("alice@gmail.com".to_owned(), Secret::new("geheim")));
    options.chunking = false;
    let mut client = Client::new(options.clone(), false, None);
    let (outcome, ..) = through(
        &mut client,
        &mut server(Role::Submission, tap()),
        &to(&["bob@example.com"]),
        b"Subject: hi\r\n\r\nyou\r\n",
    );
    assert!(outcome.unwrap().recipients[0].is_accepted());
    let lines = std::mem::take(&mut *heard.0.lock().unwrap());
    for expected in [
        "C: AUTH PLAIN ***",
        "C: (TLS handshake happens)",
        "C: Subject: hi",
        "C: .",
    ] {
        assert!(lines.iter().any(|l| l == expected), "{expected} in {lines:#?}");
    }
    let secret = smtp::sasl::encode("\0alice@gmail.com\0geheim");
    assert!(!lines.iter().any(|l| l.contains(&secret)));

    options.login = Some(("alice@gmail.com".to_owned(), Secret::new("wrong")));
    let mut client = Client::new(options.clone(), false, tap());
    let (_, _, end) = through(
        &mut client,
        &mut server(Role::Submission, None),
        &to(&["bob@example.com"]),
        b"",
    );
    assert!(
        matches!(end, client::Step::Failed(Failure::Refused { stage: Stage::Auth, reply }) if reply.code == 535)
    );
    assert!(heard.0.lock().unwrap().contains(&"C: AUTH PLAIN ***".to_owned()));

    options.tls = TlsWish::Never;
    let mut client = Client::new(options, false, None);
    let (_, _, end) = through(
        &mut client,
        &mut server(Role::Submission, None),
        &to(&["bob@example.com"]),
        b"",
    );
    assert_eq!(end, client::Step::Failed(Failure::AuthNeedsTls));
}

/// The steps of a client to which `said` comes, one piece per round.
fn steps(options: client::Options, said: &[&str]) -> (Vec<client::Step>, String) {
    let mut client = Client::new(options, false, None);
    let mut seen = Vec::new();
    let mut sent = String::new();
    for piece in said.iter().map(|p| p.as_bytes()).chain([&b""[..]]) {
        let mut input = piece;
        if piece.is_empty() {
            client.lost();
        }
        loop {
            let step = client.step(&mut input);
            sent.push_str(&String::from_utf8(client.take_output()).unwrap());
            match step {
                client::Step::Read => break,
                client::Step::Ready if seen.iter().any(|s| matches!(s, client::Step::Sent(_))) => {
                    client.quit();
                }
                client::Step::Ready => client.send(to(&["a@b.c", "d@e.f"])).unwrap(),
                client::Step::Body => {
                    client.body(b"x");
                    client.body_end();
                }
                step => {
                    let over = matches!(
                        step,
                        client::Step::Failed(_) | client::Step::Closed | client::Step::StartTls
                    );
                    seen.push(step);
                    if over {
                        return (seen, sent);
                    }
                }
            }
        }
    }
    (seen, sent)
}

#[test]
fn servers_that_misbehave() {
    let plain = client::Options::new("x.example");
    let mut required = plain.clone();
    required.tls = TlsWish::Required;
    let (seen, _) = steps(required, &["220 x\r\n", "250 x\r\n"]);
    assert_eq!(seen, [client::Step::Failed(Failure::TlsNotOffered)]);
    let (seen, _) = steps(
        plain.clone(),
        &["220 x\r\n", "250-x\r\n250 STARTTLS\r\n", "220 go\r\n250 evil\r\n"],
    );
    assert_eq!(seen, [client::Step::Failed(Failure::DataBehindStartTls)]);
    let (seen, _) = steps(plain.clone(), &["hello\r\n"]);
    assert_eq!(
        seen,
        [client::Step::Failed(Failure::Protocol {
            stage: Stage::Greeting,
            error: ReplyError::Syntax
        })]
    );
    let (seen, sent) = steps(plain.clone(), &["220 x\r\n", "502 what\r\n", "250 x\r\n"]);
    assert_eq!(
        sent,
        "EHLO x.example\r\nHELO x.example\r\nMAIL FROM:<alice@gmail.com>\r\n"
    );
    assert!(matches!(
        &seen[..],
        [
            client::Step::Sent(_),
            client::Step::Failed(Failure::Lost {
                stage: Stage::MailFrom
            })
        ]
    ));
}

/// A reply to a command that was not sent yet would shift all that follow.
#[test]
fn an_early_reply_ends_the_session() {
    let ehlo = "250-x\r\n250 PIPELINING\r\n";
    for (said, stage) in [
        (&["220 x\r\n250 x\r\n"][..], Stage::Ehlo),
        (&["220 x\r\n", "250 x\r\n250 ok\r\n"], Stage::MailFrom),
        (&["220 x\r\n", "250 x\r\n", "250 ok\r\n250 ok\r\n"], Stage::RcptTo),
        (
            &[
                "220 x\r\n",
                ehlo,
                "250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n250 taken\r\n",
            ],
            Stage::Body,
        ),
    ] {
        let (seen, _) = steps(client::Options::new("x.example"), said);
        let last = seen.last().unwrap();
        let at = match last {
            client::Step::Failed(Failure::Unexpected { stage, .. } | Failure::Refused { stage, .. }) => {
                *stage
            }
            other => panic!("{said:?}: {other:?}"),
        };
        assert_eq!(at, stage, "{said:?}");
        for step in &seen {
            if let client::Step::Sent(outcome) = step {
                assert!(!outcome.recipients.iter().any(Verdict::is_accepted), "{said:?}");
            }
        }
    }
    // 421 may come at any time, also right behind an answer.
    let (seen, _) = steps(
        client::Options::new("x.example"),
        &["220 x\r\n", "250 x\r\n", "250 ok\r\n421 4.3.2 going down\r\n"],
    );
    assert!(
        matches!(&seen[0], client::Step::Sent(outcome) if outcome.recipients.iter().all(|v| matches!(v, Verdict::Transient { .. }))),
        "{seen:?}"
    );
}

#[test]
fn the_connection_is_lost_after_the_message() {
    let (seen, sent) = steps(
        client::Options::new("x.example"),
        &[
            "220 x\r\n",
            "250-x\r\n250 PIPELINING\r\n",
            "250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n",
        ],
    );
    assert!(sent.ends_with("DATA\r\nx\r\n.\r\n"), "{sent}");
    let client::Step::Sent(outcome) = &seen[0] else {
        panic!("{seen:?}")
    };
    assert_eq!(
        outcome.recipients[0],
        Verdict::Unanswered(Failure::Lost {
            stage: Stage::EndOfMessage
        })
    );
    assert!(matches!(outcome.recipients[1], Verdict::Permanent { .. }));
}

#[test]
fn all_refused_but_354_gets_an_empty_message() {
    let (seen, sent) = steps(
        client::Options::new("x.example"),
        &[
            "220 x\r\n",
            "250-x\r\n250 PIPELINING\r\n",
            "250 ok\r\n550 no\r\n450 later\r\n354 go\r\n",
            "554 empty\r\n",
            "221 bye\r\n",
        ],
    );
    assert!(sent.ends_with("DATA\r\n.\r\nQUIT\r\n"), "{sent}");
    assert!(
        matches!(&seen[..], [client::Step::Sent(o), client::Step::Closed] if matches!(o.recipients[..], [Verdict::Permanent { .. }, Verdict::Transient { .. }]))
    );
}

#[test]
fn a_421_puts_off_everybody() {
    let (seen, _) = steps(
        client::Options::new("x.example"),
        &["220 x\r\n", "250 x\r\n", "250 ok\r\n", "421 4.3.2 going down\r\n"],
    );
    let client::Step::Sent(outcome) = &seen[0] else {
        panic!("{seen:?}")
    };
    assert!(
        outcome
            .recipients
            .iter()
            .all(|v| matches!(v, Verdict::Transient { reply, .. } if reply.code == 421))
    );
    assert!(matches!(seen[1], client::Step::Failed(_)));
}

#[test]
fn what_this_server_cannot_carry() {
    let mut client = Client::new(client::Options::new("x.example"), false, None);
    assert_eq!(client.send(to(&["a@b.c"])), Err(CannotSend::NotReady));
    assert_eq!(client.step(&mut &b"220 x\r\n"[..]), client::Step::Read);
    let _ = client.take_output();
    let ehlo = &mut &b"250-x\r\n250 SIZE 10\r\n"[..];
    assert_eq!(client.step(ehlo), client::Step::Ready);
    assert_eq!(
        client.send(to(&["a@b.c"])),
        Err(CannotSend::TooLarge { max_octets: 10 })
    );
    assert_eq!(client.send(to(&["\u{e9}@b.c"])), Err(CannotSend::NeedsSmtpUtf8));
}
