//! Content filters over sockets, played by a script: each verdict, each change, each fault.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Setup, Talker, World, domain};
use dns::table::TableResolver;
use journey::Event;
use mail::QueueId;
use mailbox::Role as Folder;
use milter::{Answer, Command};
use receive::{Filter, FilterAddress, OnFailure, When};
use smtp::Role;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GOOD: &str = "From: alice@gmail.com\nSubject: hi\nMessage-ID: <1@gmail.com>\n\nhello";

/// What a filter answers to a command: packets, or one of these.
#[derive(Clone)]
enum Act {
    Say(Vec<Answer>),
    /// Octets that are no packet.
    Raw(&'static [u8]),
    /// Ends the connection.
    Die,
    /// Says nothing any more.
    Sleep,
    /// Says that it works on it, for ever.
    Dawdle,
}

type Script = Arc<dyn Fn(&Command) -> Option<Act> + Send + Sync>;

/// A filter that a script plays, and all that it heard.
struct Scripted {
    address: String,
    heard: Arc<Mutex<Vec<Command>>>,
}

impl Scripted {
    /// Answers as the script says, else "go on".
    fn new(script: impl Fn(&Command) -> Option<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("inet:127.0.0.1:{}", listener.local_addr().unwrap().port());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (script, to) = (Arc::new(script) as Script, heard.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, to) = (script.clone(), to.clone());
                std::thread::spawn(move || play(stream, &script, &to));
            }
        });
        Self { address, heard }
    }

    /// Says this at the end of each message.
    fn at_end(answers: Vec<Answer>) -> Self {
        Self::new(move |c| (*c == Command::EndOfMessage).then(|| Act::Say(answers.clone())))
    }

    fn filter(&self, name: &str) -> Filter {
        Filter::new(name, FilterAddress::parse(&self.address).unwrap())
    }

    fn heard(&self, what: impl Fn(&Command) -> bool) -> usize {
        self.heard.lock().unwrap().iter().filter(|c| what(c)).count()
    }
}

fn read_command(stream: &mut TcpStream) -> Option<Command> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut packet = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut packet).ok()?;
    let packet = milter::packet::Packet {
        kind: packet[0],
        data: packet[1..].to_vec(),
    };
    Some(Command::decode(&packet).expect("a command"))
}

fn play(mut stream: TcpStream, script: &Script, heard: &Mutex<Vec<Command>>) {
    while let Some(command) = read_command(&mut stream) {
        heard.lock().unwrap().push(command.clone());
        let all = Answer::Negotiate {
            version: 6,
            actions: 0x1ff,
            steps: 0x800,
            macros: Vec::new(),
        };
        let act = script(&command).unwrap_or(match &command {
            Command::Negotiate { .. } => Act::Say(vec![all]),
            other if other.kind().is_some() => Act::Say(vec![Answer::Continue]),
            _ => Act::Say(Vec::new()),
        });
        let mut out = Vec::new();
        match act {
            Act::Say(answers) => answers.iter().for_each(|a| a.encode(&mut out)),
            Act::Raw(octets) => out.extend_from_slice(octets),
            Act::Die => return,
            Act::Sleep => {
                let _ = stream.read(&mut [0; 1]);
                return;
            }
            Act::Dawdle => {
                let mut progress = Vec::new();
                Answer::Progress.encode(&mut progress);
                while stream.write_all(&progress).is_ok() {
                    // Paced by the reader's buffer alone would be a flood; a read that times out is a pause.
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
                    if matches!(stream.read(&mut [0; 64]), Ok(0)) {
                        return;
                    }
                }
                return;
            }
        }
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

/// A world with bob, and a server with these filters.
struct House {
    world: World,
    bob: mail::AccountId,
    server: common::Serving,
}

fn house(filters: Vec<Filter>) -> House {
    let world = World::new();
    let bob = world.account("bob@example.com", None);
    world.account("carol@example.com", None);
    let setup = Setup {
        filters,
        ..Setup::default()
    };
    let server = world.serve(setup);
    House { world, bob, server }
}

/// The last replies to MAIL, RCPT and the end of the message, up to the first refusal.
fn send(talker: &mut Talker, to: &[&str], message: &str) -> String {
    let said = talker.ask("MAIL FROM:<alice@gmail.com>");
    if !said.starts_with("250 ") {
        return format!("MAIL {said}");
    }
    let mut taken = 0;
    let mut last = String::new();
    for to in to {
        last = talker.ask(&format!("RCPT TO:<{to}>"));
        taken += usize::from(last.starts_with("250 "));
    }
    if taken == 0 {
        // With its end a transaction's refusals are recorded.
        talker.ask("RSET");
        return format!("RCPT {last}");
    }
    assert!(talker.ask("DATA").starts_with("354 "));
    format!(
        "DATA {}",
        talker.ask(&format!("{}\r\n.", message.replace('\n', "\r\n")))
    )
}

fn talker(house: &House) -> Talker {
    let mut talker = Talker::connect(house.server.address);
    talker.reply();
    talker.ask("EHLO client.example.net");
    talker
}

fn sent(house: &House, to: &[&str]) -> String {
    send(&mut talker(house), to, GOOD)
}

fn inbox(house: &House) -> Vec<String> {
    let all = house.world.messages(house.bob, Folder::Inbox);
    all.into_iter().map(|m| String::from_utf8(m).unwrap()).collect()
}

fn events(house: &House, reply: &str) -> Vec<Event> {
    let id = reply
        .split(|c: char| !c.is_ascii_alphanumeric())
        .rev()
        .find_map(QueueId::parse)
        .unwrap_or_else(|| panic!("no id in {reply}"));
    let records = house
        .world
        .runtime
        .block_on(house.world.journey.events(id))
        .unwrap();
    records.into_iter().map(|r| r.event).collect()
}

fn field(name: &str, value: &str) -> Answer {
    Answer::AddHeader(name.into(), value.into())
}

#[test]
fn a_filter_sees_everything_and_its_changes_come_true() {
    let filter = Scripted::at_end(vec![
        Answer::Progress,
        Answer::InsertHeader(0, b"X-First".to_vec(), b"1".to_vec()),
        field("X-Spam", "no\nBcc: hidden@x.y"),
        Answer::ChangeHeader(1, b"Subject".to_vec(), b"[ok] hi".to_vec()),
        Answer::ReplaceBody(b"new\nbody".to_vec()),
        Answer::AddRecipient(b"<carol@example.com>".to_vec()),
        Answer::ChangeSender(b"<other@gmail.com>".to_vec(), vec![]),
        Answer::Accept,
    ]);
    let house = house(vec![filter.filter("scripted")]);
    let mut talker = talker(&house);
    let reply = send(&mut talker, &["bob@example.com", "nobody@example.com"], GOOD);
    assert!(
        reply.starts_with("DATA 250 2.0.0 OK, message queued as "),
        "{reply}"
    );
    let text = inbox(&house).remove(0);
    assert!(text.starts_with("Return-Path: <other@gmail.com>\r\n"), "{text}");
    let expected = "X-First: 1\r\nFrom: alice@gmail.com\r\nSubject: [ok] hi\r\nMessage-ID: <1@gmail.com>\r\n\
        X-Spam: no\r\n\tBcc: hidden@x.y\r\n\r\nnew\r\nbody\r\n";
    assert!(text.ends_with(expected), "{text}");
    let told = events(&house, &reply);
    let Some(Event::Filtered {
        filter: name,
        verdict,
        changes,
    }) = told.iter().find(|e| matches!(e, Event::Filtered { .. }))
    else {
        panic!("{told:#?}")
    };
    assert_eq!(
        (name.as_str(), verdict.as_str(), changes.len()),
        ("scripted", "accepted", 6)
    );
    assert!(
        told.iter()
            .any(|e| matches!(e, Event::Accepted { local: 2, queued: 0 })),
        "{told:#?}"
    );

    // One connection for the session; the second message goes over it.
    assert!(send(&mut talker, &["bob@example.com"], GOOD).starts_with("DATA 250 "));
    let macros = filter.heard.lock().unwrap().iter().find_map(|c| match c {
        Command::Macros(b'M', pairs) => Some(pairs.clone()),
        _ => None,
    });
    assert!(
        macros
            .unwrap()
            .iter()
            .any(|(n, v)| n == "i" && QueueId::parse(v).is_some())
    );
    assert_eq!(filter.heard(|c| matches!(c, Command::Connect { .. })), 1);
    assert_eq!(filter.heard(|c| matches!(c, Command::Mail(..))), 2);
    assert_eq!(
        filter.heard(|c| matches!(c, Command::Rcpt(to, _) if to == "<nobody@example.com>")),
        1
    );
    assert_eq!(filter.heard(|c| *c == Command::Body(b"hello\r\n".to_vec())), 2);
    assert_eq!(
        filter.heard(|c| *c == Command::Header(b"Subject".to_vec(), b"hi".to_vec())),
        2
    );
}

#[test]
fn verdicts_at_each_stage() {
    let reply = |text: &str| Answer::Reply(text.into());
    let at = |kind: u8, answer: Answer| {
        Scripted::new(move |c| (c.octet() == kind).then(|| Act::Say(vec![answer.clone()])))
    };
    for (stage, answer, expected) in [
        (b'C', Answer::Reject, "MAIL 550 5.7.1 "),
        (
            b'C',
            reply("554 5.7.0 go\r\naway"),
            "MAIL 554-5.7.0 go\n554 5.7.0 away",
        ),
        (b'H', Answer::TempFail, "MAIL 451 4.7.1 "),
        (b'M', Answer::Reject, "MAIL 550 5.7.1 A content filter"),
        (b'M', Answer::Shutdown, "MAIL 421 4.7.1 "),
        (
            b'R',
            reply("450 4.2.0 greylisted, come again"),
            "RCPT 450 4.2.0 greylisted, come again (reference ",
        ),
        (b'T', Answer::Reject, "DATA 550 5.7.1 "),
        (b'L', Answer::TempFail, "DATA 451 4.7.1 "),
        (b'N', reply("550 no"), "DATA 550 5.7.1 no (reference "),
        (
            b'B',
            reply("552 5.7.1 \u{1b}[2Jno"),
            "DATA 552 5.7.1 ?[2Jno (reference ",
        ),
        (b'E', Answer::Reject, "DATA 550 5.7.1 "),
        (b'C', Answer::Accept, "DATA 250 "),
        (b'M', Answer::Accept, "DATA 250 "),
        (b'R', Answer::Accept, "DATA 250 "),
        (b'L', Answer::Accept, "DATA 250 "),
    ] {
        let filter = at(stage, answer.clone());
        let house = house(vec![filter.filter("judge")]);
        let said = sent(&house, &["bob@example.com"]);
        assert!(said.starts_with(expected), "{} {answer:?}: {said}", stage as char);
        let taken = usize::from(expected == "DATA 250 ");
        assert_eq!(inbox(&house).len(), taken, "{} {answer:?}", stage as char);
        if taken == 0 && !expected.contains('\n') {
            let told = events(&house, &said);
            let by_filter = told
                .iter()
                .any(|e| matches!(e, Event::Refused { rule, .. } if rule == "the filter judge refused it"));
            assert!(by_filter, "{told:#?}");
        }
    }
}

#[test]
fn a_refused_recipient_is_refused_alone() {
    let filter = Scripted::new(|c| match c {
        Command::Rcpt(to, _) if to.contains("carol") => Some(Act::Say(vec![Answer::Reject])),
        _ => None,
    });
    let house = house(vec![filter.filter("f")]);
    let said = sent(&house, &["bob@example.com", "carol@example.com"]);
    assert!(said.starts_with("DATA 250 "), "{said}");
    assert_eq!(inbox(&house).len(), 1);
    let told = events(&house, &said);
    assert!(
        told.iter()
            .any(|e| matches!(e, Event::Refused { stage, .. } if stage == "RCPT"))
    );
    assert!(told.iter().any(|e| matches!(e, Event::Accepted { local: 1, .. })));
}

#[test]
fn discard_is_accepted_and_told() {
    for stage in [b'M', b'R', b'B', b'E'] {
        let filter = Scripted::new(move |c| (c.octet() == stage).then(|| Act::Say(vec![Answer::Discard])));
        let house = house(vec![
            filter.filter("sink"),
            Scripted::at_end(vec![Answer::Reject]).filter("next"),
        ]);
        let said = sent(&house, &["bob@example.com"]);
        assert!(
            said.starts_with("DATA 250 2.0.0 OK, message queued as "),
            "{said}"
        );
        assert!(inbox(&house).is_empty());
        let told = events(&house, &said);
        let dropped = told
            .iter()
            .any(|e| matches!(e, Event::Dropped { recipient: None, by } if by == "the filter sink"));
        assert!(dropped, "{told:#?}");
    }
}

#[test]
fn removing_every_recipient_is_discarding() {
    let gone = Answer::RemoveRecipient(b"<bob@example.com>".to_vec());
    let filter = Scripted::at_end(vec![gone.clone(), Answer::Accept]);
    let first = house(vec![filter.filter("f")]);
    assert!(sent(&first, &["bob@example.com"]).starts_with("DATA 250 "));
    assert!(inbox(&first).is_empty());
    // But not when somebody was to get it who is not there.
    let unknown = Answer::AddRecipient(b"<nobody@example.com>".to_vec());
    let filter = Scripted::at_end(vec![gone, unknown, Answer::Accept]);
    let second = house(vec![filter.filter("f")]);
    for to in [
        &["bob@example.com"][..],
        &["bob@example.com", "carol@example.com"],
    ] {
        let said = sent(&second, to);
        assert!(said.starts_with("DATA 451 4.7.1 "), "{said}");
    }
    // A copy for nobody is left out, and all others get theirs.
    let copy = Answer::AddRecipient(b"<nobody@example.com>".to_vec());
    let third = house(vec![Scripted::at_end(vec![copy, Answer::Accept]).filter("f")]);
    assert!(sent(&third, &["bob@example.com"]).starts_with("DATA 250 "));
    assert_eq!(inbox(&third).len(), 1);
}

#[test]
fn a_field_that_no_packet_can_hold_is_refused_and_nothing_is_lost() {
    let filter = Scripted::at_end(vec![Answer::Continue]);
    let house = house(vec![filter.filter("f")]);
    let folded = "\n ".to_owned() + &"x".repeat(900);
    let message = format!("From: alice@gmail.com\nSubject: hi{}\n\nhello", folded.repeat(80));
    let mut talker = talker(&house);
    let said = send(&mut talker, &["bob@example.com"], &message);
    assert!(said.starts_with("DATA 554 5.6.0 "), "{said}");
    assert!(inbox(&house).is_empty());
    let said = send(&mut talker, &["bob@example.com"], GOOD);
    assert!(said.starts_with("DATA 250 "), "{said}");
    assert_eq!(inbox(&house).len(), 1);
}

#[test]
fn quarantine_is_junk_here_and_refused_elsewhere() {
    let answers = vec![Answer::Quarantine(b"smells\r\nodd".to_vec()), Answer::Continue];
    let filter = Scripted::at_end(answers.clone());
    let first = house(vec![filter.filter("q")]);
    let said = sent(&first, &["bob@example.com"]);
    assert!(said.starts_with("DATA 250 "), "{said}");
    assert!(inbox(&first).is_empty());
    assert_eq!(first.world.messages(first.bob, Folder::Junk).len(), 1);
    let told = events(&first, &said);
    assert!(
        told.iter()
            .any(|e| matches!(e, Event::DeliveredLocal { why: Some(why), .. }
            if why == "the filter q asked for quarantine: smells  odd")),
        "{told:#?}"
    );
    let copy = Answer::AddRecipient(b"<x@elsewhere.example>".to_vec());
    let filter = Scripted::at_end([vec![copy], answers].concat());
    let second = house(vec![filter.filter("q")]);
    let said = sent(&second, &["bob@example.com"]);
    assert!(said.starts_with("DATA 550 5.7.1 "), "{said}");
    assert!(second.world.queued().is_empty());
}

#[test]
fn a_copy_may_go_elsewhere() {
    let copy =
        Answer::AddRecipientWithParameters(b"<x@elsewhere.example>".to_vec(), b"NOTIFY=NEVER".to_vec());
    let house = house(vec![Scripted::at_end(vec![copy, Answer::Accept]).filter("copy")]);
    assert!(sent(&house, &["bob@example.com"]).starts_with("DATA 250 "));
    assert_eq!(inbox(&house).len(), 1);
    assert_eq!(house.world.queued()[0].0, ["x@elsewhere.example"]);
}

#[test]
fn filters_see_what_the_ones_before_them_left() {
    let first = Scripted::at_end(vec![field("X-One", "1"), Answer::Accept]);
    let second = Scripted::at_end(vec![field("X-Two", "2"), Answer::Accept]);
    let house = house(vec![first.filter("one"), second.filter("two")]);
    assert!(sent(&house, &["bob@example.com"]).starts_with("DATA 250 "));
    assert_eq!(
        second.heard(|c| *c == Command::Header(b"X-One".to_vec(), b"1".to_vec())),
        1
    );
    assert!(inbox(&house)[0].contains("X-One: 1\r\nX-Two: 2\r\n"));
}

#[test]
fn faults_at_each_stage_are_what_on_failure_says() {
    let quick = |filter: &Scripted, on_failure| Filter {
        on_failure,
        connect_timeout: Duration::from_millis(500),
        command_timeout: Duration::from_millis(150),
        content_timeout: Duration::from_millis(150),
        ..filter.filter("broken")
    };
    let acts = [
        Act::Die,
        Act::Sleep,
        Act::Dawdle,
        Act::Raw(b"HTTP/1.1 200 OK\r\n\r\n"),
        Act::Raw(b"\0\0\0\x01c\0\0\0\x01c"),
        Act::Say(vec![
            Answer::ReplaceBody(b"x".to_vec()),
            Answer::AddRecipient(b"<x>".to_vec()),
        ]),
        Act::Say(vec![Answer::Reply(b"250 fine".to_vec())]),
        Act::Say(vec![field("A", "b"); 1_001]),
    ];
    for (i, act) in acts.iter().enumerate() {
        for stage in b"OCHMRTLNBE" {
            let (stage, act) = (*stage, act.clone());
            let filter = Scripted::new(move |c| (c.octet() == stage).then(|| act.clone()));
            let house = house(vec![quick(&filter, OnFailure::Defer)]);
            let said = sent(&house, &["bob@example.com"]);
            let what = format!("act {i} at {}: {said}", stage as char);
            assert!(
                said.contains(" 451 4.7.1 A content filter of this server cannot be asked"),
                "{what}"
            );
            assert!(inbox(&house).is_empty(), "{what}");
            let told = events(&house, &said);
            let named = told.iter().any(
                |e| matches!(e, Event::Refused { rule, .. } if rule.starts_with("the filter broken failed: ")),
            );
            assert!(named, "{what} {told:#?}");
        }
        // What is left of a filter that is not needed.
        let act = act.clone();
        let filter = Scripted::new(move |c| (*c == Command::EndOfMessage).then(|| act.clone()));
        let lenient = house(vec![quick(&filter, OnFailure::Accept)]);
        let said = sent(&lenient, &["bob@example.com"]);
        assert!(said.starts_with("DATA 250 "), "act {i}: {said}");
        assert_eq!(inbox(&lenient).len(), 1, "once");
        assert!(inbox(&lenient)[0].ends_with("\r\n\r\nhello\r\n"), "unchanged");
        let strict = house(vec![quick(&filter, OnFailure::Refuse)]);
        assert!(sent(&strict, &["bob@example.com"]).starts_with("DATA 550 5.7.1 "));
    }
}

#[test]
fn a_filter_that_is_not_there() {
    let nowhere = |on_failure| Filter {
        on_failure,
        ..Filter::new("gone", FilterAddress::Unix("/nonexistent/filter.sock".into()))
    };
    for (on_failure, expected) in [
        (OnFailure::Defer, "MAIL 451 4.7.1 "),
        (OnFailure::Refuse, "MAIL 550 5.7.1 "),
        (OnFailure::Accept, "DATA 250 "),
    ] {
        let house = house(vec![nowhere(on_failure)]);
        let said = sent(&house, &["bob@example.com"]);
        assert!(said.starts_with(expected), "{said}");
    }
    // For other services it does not matter.
    let other = Filter {
        roles: vec![Role::Submission],
        ..nowhere(OnFailure::Defer)
    };
    assert!(sent(&house(vec![other]), &["bob@example.com"]).starts_with("DATA 250 "));
}

#[test]
fn a_filter_that_left_between_messages_is_asked_anew() {
    let filter = Scripted::new(|c| match c {
        Command::EndOfMessage => Some(Act::Say(vec![Answer::Accept])),
        _ => None,
    });
    let dying = Scripted::new(|c| (*c == Command::Abort).then_some(Act::Die));
    let house = house(vec![filter.filter("f"), dying.filter("g")]);
    let mut talker = talker(&house);
    talker.ask("MAIL FROM:<a@b.c>");
    talker.ask("RSET");
    assert!(send(&mut talker, &["bob@example.com"], GOOD).starts_with("DATA 250 "));
    assert_eq!(filter.heard(|c| *c == Command::Abort), 1);
    assert_eq!(dying.heard(|c| matches!(c, Command::Connect { .. })), 2);
}

#[test]
fn before_sees_what_our_judging_refuses_and_after_does_not() {
    for (when, heard) in [(When::Before, 1), (When::After, 0)] {
        let filter = Scripted::at_end(vec![Answer::Accept]);
        let world = World::new();
        let bob = world.account("bob@example.com", None);
        let resolver = TableResolver::new()
            .with_txt("gmail.com", "v=spf1 -all")
            .with_txt("_dmarc.gmail.com", "v=DMARC1; p=reject");
        let setup = Setup {
            filters: vec![Filter {
                when,
                ..filter.filter("f")
            }],
            policy: judge::Policy::default(),
            resolver,
            ..Setup::default()
        };
        let server = world.serve(setup);
        let house = House { world, bob, server };
        let said = sent(&house, &["bob@example.com"]);
        assert!(said.starts_with("DATA 550 5.7."), "{said}");
        assert_eq!(filter.heard(|c| *c == Command::EndOfMessage), heard);
    }
}

#[test]
fn submissions_are_filtered_before_they_are_signed() {
    let filter = Scripted::at_end(vec![field("X-Seen", "yes"), Answer::Accept]);
    let world = World::new();
    world.account("bob@example.com", Some("secret"));
    let key = judge::dkim::SigningKey::generate(judge::dkim::KeyKind::Ed25519).unwrap();
    let stored = directory::SigningKey {
        selector: "ed".into(),
        algorithm: directory::SigningAlgorithm::Ed25519Sha256,
        pkcs8_pem: key.to_pkcs8_pem().unwrap(),
        created: world.clock.now(),
    };
    let name = domain("example.com");
    let added = world.directory.add_signing_key(&name, stored);
    world.runtime.block_on(added).unwrap();
    let setup = Setup {
        role: Role::Submission,
        filters: vec![filter.filter("f")],
        ..Setup::default()
    };
    let server = world.serve(setup);
    let mut talker = Talker::connect(server.address).into_tls();
    // bob@example.com, secret
    assert!(
        talker
            .ask("AUTH PLAIN AGJvYkBleGFtcGxlLmNvbQBzZWNyZXQ=")
            .starts_with("235 ")
    );
    talker.ask("MAIL FROM:<bob@example.com>");
    talker.ask("RCPT TO:<x@elsewhere.example>");
    talker.ask("DATA");
    let reply = talker.ask("From: bob@example.com\r\nBcc: z@x.y\r\n\r\nhi\r\n.");
    assert!(reply.starts_with("250 "), "{reply}");
    let text = String::from_utf8(world.queued().remove(0).1).unwrap();
    assert!(text.contains("X-Seen: yes\r\n"), "{text}");
    assert!(text.contains("DKIM-Signature: "), "{text}");
    assert!(
        mail::header::first(text.as_bytes(), "DKIM-Signature")
            .unwrap()
            .offset
            < text.find("X-Seen").unwrap()
    );
    assert_eq!(
        filter.heard(|c| matches!(c, Command::Header(n, _) if n == b"Bcc")),
        0
    );
    assert_eq!(
        filter.heard(|c| matches!(c, Command::Header(n, _) if n == b"Date")),
        1
    );
    let known = filter.heard(|c| {
        matches!(c, Command::Macros(b'M', pairs)
            if pairs.contains(&("{auth_authen}".to_owned(), "bob@example.com".to_owned()))
            && pairs.iter().any(|(n, v)| n == "{tls_version}" && v.starts_with("TLS")))
    });
    assert_eq!(known, 1);
}
