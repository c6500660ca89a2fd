//! Plays the client session against a transcript.
//!
//! `S:` is said by the server, `C:` expected from the client; `(TLS)` is a handshake; `>` is the
//! message as it leaves, with escapes; `(lost)` is the end of the connection.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use mail::{EmailAddress, Recipient, ReversePath};
use smtp::client::{CannotSend, Client, Failure, Options, Outgoing, PassedOn, Step, Verdict, Wishes};

pub fn outgoing(message: &[u8]) -> Outgoing {
    let to = |a: &str| Recipient::Address(EmailAddress::parse(a).unwrap());
    Outgoing {
        sender: ReversePath::Address(EmailAddress::parse("alice@gmail.com").unwrap()),
        recipients: vec![to("bob@example.com"), to("eve@example.com")],
        size_octets: message.len() as u64,
        eight_bit: false,
        binary: false,
        smtputf8: false,
        wishes: Wishes::default(),
    }
}

pub struct Played {
    pub cannot: Option<CannotSend>,
    pub verdicts: Vec<Verdict>,
    pub passed_on: PassedOn,
    pub failure: Option<Failure>,
}

/// Plays a transcript; what the client says beyond it or otherwise fails the test.
pub fn play(outgoing: &Outgoing, message: &[u8], transcript: &str) -> Played {
    play_with(Options::new("gmail.com"), outgoing, message, transcript)
}

/// The same with other options.
pub fn play_with(options: Options, outgoing: &Outgoing, message: &[u8], transcript: &str) -> Played {
    let mut client = Client::new(options, false, None);
    let mut played = Played {
        cannot: None,
        verdicts: Vec::new(),
        passed_on: PassedOn::default(),
        failure: None,
    };
    let (mut said, mut sent) = (Vec::new(), false);
    for line in transcript.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let mut input = Vec::new();
        if let Some(words) = line.strip_prefix("S: ") {
            assert_eq!(said.escape_ascii().to_string(), "", "before {line}");
            input = format!("{words}\r\n").into_bytes();
        } else if line == "(TLS)" {
            client.tls_started();
        } else if line == "(lost)" {
            client.lost();
        } else {
            let expected = match line.strip_prefix("C: ") {
                Some(words) => format!("{words}\r\n").into_bytes(),
                None => unescaped(line.strip_prefix("> ").unwrap()),
            };
            let told = said.escape_ascii().to_string();
            assert!(said.starts_with(&expected), "expected {line}, heard {told}");
            said.drain(..expected.len());
        }
        let mut rest = &input[..];
        loop {
            match client.step(&mut rest) {
                Step::Read | Step::StartTls => break,
                Step::Ready if sent => client.quit(),
                Step::Ready => {
                    sent = true;
                    played.cannot = client.send(outgoing.clone()).err();
                }
                Step::Body => {
                    message.chunks(3).for_each(|piece| client.body(piece));
                    client.body_end();
                }
                Step::Sent(outcome) => {
                    played.verdicts = outcome.recipients;
                    played.passed_on = outcome.passed_on;
                }
                Step::Failed(failure) => {
                    played.failure = Some(failure);
                    break;
                }
                Step::Closed => break,
            }
        }
        said.extend(client.take_output());
    }
    assert_eq!(said.escape_ascii().to_string(), "", "at the end");
    played
}

fn unescaped(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r").replace("\\n", "\n").into_bytes()
}

/// A client that has heard the greeting and these offers.
pub fn greeted(offers: &[&str]) -> Client {
    let mut client = Client::new(Options::new("gmail.com"), false, None);
    let offers: Vec<String> = offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
    let ehlo = format!("{}250 HELP\r\n", offers.concat());
    assert_eq!(
        hear(&mut client, &["220 mx\r\n", &format!("250-mx\r\n{ehlo}")]),
        Step::Ready
    );
    client
}

/// Says these to the client, each when it has sent what it wants; what it sends is thrown away.
pub fn hear(client: &mut Client, said: &[&str]) -> Step {
    let mut step = Step::Read;
    for words in said {
        let _ = client.take_output();
        step = client.step(&mut words.as_bytes());
    }
    let _ = client.take_output();
    step
}
