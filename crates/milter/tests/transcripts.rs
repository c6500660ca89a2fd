//! Whole conversations, octet by octet, as filters that exist hold them.
#![allow(clippy::unwrap_used)]

use milter::{Answer, Asked, Change, Client, Command, Family, Fault, Kind, Limits, Macros, Step, Verdict};

fn macros() -> Macros {
    let mut macros = Macros::default();
    for (name, value) in [
        ("j", "mail.example.com"),
        ("client_addr", "192.0.2.1"),
        ("i", "0Q1"),
        ("mail_addr", "a@b.c"),
        ("rcpt_addr", "d@e.f"),
    ] {
        macros.set(name, Some(value));
    }
    macros
}

fn octets(answers: &[Answer]) -> Vec<u8> {
    let mut out = Vec::new();
    answers.iter().for_each(|answer| answer.encode(&mut out));
    out
}

/// A client that has agreed on these bits.
fn agreed(version: u32, actions: u32, steps: u32) -> Client {
    let mut client = Client::new(Limits::default());
    assert_eq!(
        client.take_output(),
        b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff",
        "everything is offered"
    );
    client.feed(&octets(&[Answer::Negotiate {
        version,
        actions,
        steps,
        macros: vec![],
    }]));
    assert_eq!(client.step(), Ok(Step::Verdict(Verdict::Continue)));
    client
}

/// Asks and answers; gives what went out and what came of it.
fn ask(client: &mut Client, command: &Command, answers: &[Answer]) -> (Vec<u8>, Result<Step, Fault>) {
    let asked = client.ask(command, &macros()).unwrap();
    let out = client.take_output();
    if asked == Asked::Nothing {
        assert!(answers.is_empty(), "nobody waits for an answer");
        return (out, Ok(Step::Read));
    }
    client.feed(&octets(answers));
    (out, client.step())
}

const GO_ON: Result<Step, Fault> = Ok(Step::Verdict(Verdict::Continue));

#[test]
fn the_whole_way_of_a_message() {
    let mut client = agreed(6, 0x1ff, 0);
    let connect = Command::Connect {
        host: "client.example.net".into(),
        from: Family::Inet([192, 0, 2, 1].into(), 1_025),
    };
    let (out, step) = ask(&mut client, &connect, &[Answer::Continue]);
    assert_eq!(
        out,
        b"\0\0\0\x2dDCj\0mail.example.com\0{client_addr}\x00192.0.2.1\0\
          \0\0\0\x21Cclient.example.net\x004\x04\x01192.0.2.1\0"
    );
    assert_eq!(step, GO_ON);
    let (out, step) = ask(&mut client, &Command::Helo("x".into()), &[Answer::Continue]);
    assert_eq!((&out[..], step), (&b"\0\0\0\x03Hx\0"[..], GO_ON));
    let mail = Command::Mail("<a@b.c>".into(), vec!["SIZE=9".into(), "BODY=8BITMIME".into()]);
    let (out, step) = ask(&mut client, &mail, &[Answer::Continue]);
    assert_eq!(
        out,
        b"\0\0\0\x1aDMi\x000Q1\0{mail_addr}\0a@b.c\0\0\0\0\x1eM<a@b.c>\0SIZE=9\0BODY=8BITMIME\0"
    );
    assert_eq!(step, GO_ON);
    let rcpt = Command::Rcpt("<d@e.f>".into(), vec![]);
    let (_, step) = ask(
        &mut client,
        &rcpt,
        &[Answer::Reply(b"550 5.7.1 not you".to_vec())],
    );
    assert!(matches!(step, Ok(Step::Verdict(Verdict::Reply(reply))) if reply.code == 550));
    assert_eq!(ask(&mut client, &rcpt, &[Answer::Continue]).1, GO_ON);
    assert_eq!(ask(&mut client, &Command::Data, &[Answer::Continue]).1, GO_ON);
    let field = Command::header(&client, b"Subject", b" one\r\n\ttwo").unwrap();
    let (out, step) = ask(&mut client, &field, &[Answer::Continue]);
    assert_eq!(
        (&out[..], step),
        (&b"\0\0\0\x12LSubject\0one\n\ttwo\0"[..], GO_ON)
    );
    assert_eq!(
        ask(&mut client, &Command::EndOfHeader, &[Answer::Continue]).1,
        GO_ON
    );
    let body = Command::Body(b"hi\r\n".to_vec());
    assert_eq!(ask(&mut client, &body, &[Answer::Continue]).1, GO_ON);
    let changes = [
        Answer::AddHeader(b"X-Spam".to_vec(), b"no\nBcc: x".to_vec()),
        Answer::RemoveRecipient(b"<d@e.f>".to_vec()),
        Answer::ReplaceBody(b"new".to_vec()),
        Answer::ReplaceBody(b"er\r\n".to_vec()),
        Answer::Accept,
    ];
    let (out, step) = ask(&mut client, &Command::EndOfMessage, &changes);
    assert_eq!(out, b"\0\0\0\x08DEi\x000Q1\0\0\0\0\x01E");
    assert_eq!(step, Ok(Step::Verdict(Verdict::Accept)));
    let taken = client.take_changes();
    assert_eq!(taken.len(), 3);
    assert!(matches!(&taken[0], Change::AddHeader { value, .. } if value == b" no\r\n\tBcc: x"));
    assert_eq!(taken[2], Change::ReplaceBody(b"newer\r\n".to_vec()));
    assert_eq!(ask(&mut client, &Command::Abort, &[]).0, b"\0\0\0\x01A");
    assert_eq!(
        ask(&mut client, &Command::QuitNewConnection, &[]).0,
        b"\0\0\0\x01K"
    );
    assert_eq!(ask(&mut client, &Command::Quit, &[]).0, b"\0\0\0\x01Q");
    assert_eq!(client.ask(&Command::Data, &macros()), Err(Fault::OutOfTurn));
}

#[test]
fn what_is_spared_and_what_is_not_answered() {
    // No HELO, no DATA; fields, and the end of the header section, are not answered; skip.
    let mut client = agreed(6, 1, 0x2 | 0x200 | 0x80 | 0x40000 | 0x400 | 0x10_0000);
    assert!(!client.wants(Kind::Helo) && client.wants(Kind::Body));
    assert_eq!(ask(&mut client, &Command::Helo("x".into()), &[]).0, b"");
    assert_eq!(ask(&mut client, &Command::Data, &[]).0, b"");
    let field = Command::header(&client, b"A", b" b").unwrap();
    assert_eq!(
        ask(&mut client, &field, &[]).0,
        b"\0\0\0\x06LA\0 b\0",
        "the space is kept"
    );
    assert_eq!(ask(&mut client, &Command::EndOfHeader, &[]).0.last(), Some(&b'N'));
    let body = Command::Body(b"x".to_vec());
    assert_eq!(ask(&mut client, &body, &[Answer::Skip]).1, GO_ON);
    assert_eq!(ask(&mut client, &body, &[]).0, b"", "the rest is skipped");
    let add = Answer::AddHeader(b"B".to_vec(), b"c".to_vec());
    let (_, step) = ask(&mut client, &Command::EndOfMessage, &[add, Answer::Continue]);
    assert_eq!(step, GO_ON);
    assert!(matches!(&client.take_changes()[0], Change::AddHeader { value, .. } if value == b"c"));
    let mail = Command::Mail("<>".into(), vec![]);
    assert_eq!(ask(&mut client, &mail, &[Answer::Continue]).1, GO_ON);
    assert!(client.wants(Kind::Body), "the next message's body is not skipped");

    let old = agreed(2, 0x3f, 0x7f);
    assert!(!old.wants(Kind::Data) && !old.wants(Kind::Unknown));
    assert!(
        Command::header(&old, b"A", &[b'x'; 65_534]).is_none(),
        "it fits no packet"
    );
}

#[test]
fn a_filter_may_choose_its_macros() {
    let mut client = Client::new(Limits::default());
    client.feed(&octets(&[Answer::Negotiate {
        version: 6,
        actions: 0x100,
        steps: 0,
        macros: vec![(2, b"{client_addr} j".to_vec()), (3, b"".to_vec())],
    }]));
    assert_eq!(client.step(), GO_ON);
    let _ = client.take_output();
    let (out, _) = ask(
        &mut client,
        &Command::Mail("<>".into(), vec![]),
        &[Answer::Continue],
    );
    assert!(out.starts_with(b"\0\0\0\x2dDM{client_addr}\x00192.0.2.1\0j\0mail.example.com\0"));
    let (out, _) = ask(
        &mut client,
        &Command::Rcpt("<a@b.c>".into(), vec![]),
        &[Answer::Continue],
    );
    assert!(out[4] == b'R', "no macros are told");
}

#[test]
fn progress_restarts_patience_and_pieces_come_as_they_like() {
    let mut client = agreed(6, 0, 0);
    assert_eq!(client.ask(&Command::EndOfMessage, &macros()), Ok(Asked::Answer));
    assert_eq!(client.ask(&Command::Abort, &macros()), Err(Fault::OutOfTurn));
    let mut steps = Vec::new();
    for octet in octets(&[Answer::Progress, Answer::Progress, Answer::TempFail]) {
        client.feed(&[octet]);
        steps.push(client.step().unwrap());
    }
    steps.retain(|s| *s != Step::Read);
    assert_eq!(
        steps,
        [Step::Progress, Step::Progress, Step::Verdict(Verdict::TempFail)]
    );
}

#[test]
fn lies_have_names() {
    let field = || Answer::AddHeader(b"A".to_vec(), b"b".to_vec());
    let mail = Command::Mail("<>".into(), vec![]);
    for (actions, command, answers, expected) in [
        (
            0,
            &Command::EndOfMessage,
            vec![field()],
            Fault::NotAgreed("a new field"),
        ),
        (
            0x1ff,
            &mail,
            vec![field()],
            Fault::Unexpected("a change before the end of the message"),
        ),
        (0x1ff, &mail, vec![Answer::Skip], Fault::Unexpected("skip")),
        (
            0x1ff,
            &mail,
            vec![Answer::Continue, Answer::Continue],
            Fault::Unexpected("octets behind its answer"),
        ),
        (
            0x1ff,
            &mail,
            vec![Answer::Reply(b"250 ok".to_vec())],
            Fault::BadReply,
        ),
        (
            0x1ff,
            &mail,
            vec![Answer::ConnectionFailed],
            Fault::ConnectionFailed,
        ),
        (
            0x1ff,
            &Command::Helo("x".into()),
            vec![Answer::Discard],
            Fault::Unexpected("discard, where there is no message"),
        ),
        (
            0x1ff,
            &Command::EndOfMessage,
            vec![field(); 1_001],
            Fault::TooManyChanges(1_000),
        ),
        (
            0x1ff,
            &Command::EndOfMessage,
            vec![Answer::AddHeader(b"A".to_vec(), vec![b'x'; 65_000]); 5],
            Fault::BadField("a line over 998 octets without a space"),
        ),
        (
            0x1ff,
            &Command::EndOfMessage,
            vec![Answer::Quarantine(vec![b'x'; 65_000]); 5],
            Fault::TooManyOctets(256 * 1024),
        ),
        (
            0x1ff,
            &Command::EndOfMessage,
            vec![Answer::ReplaceBody(vec![0; 65_535]); 600],
            Fault::TooManyOctets(35_882_577),
        ),
        (
            0x1ff,
            &Command::EndOfMessage,
            vec![Answer::AddRecipient(b"<x>".to_vec())],
            Fault::BadAddress,
        ),
    ] {
        let mut client = agreed(6, actions, 0);
        assert_eq!(
            ask(&mut client, command, &answers).1,
            Err(expected.clone()),
            "{expected}"
        );
        assert_eq!(client.ask(&mail, &macros()), Err(Fault::OutOfTurn), "it is over");
    }
    for (octets, expected) in [
        (&b"\xff\xff\xff\xff"[..], Fault::PacketTooLong(u32::MAX)),
        (b"\0\0\0\0", Fault::EmptyPacket),
        (b"\0\0\0\x01Z", Fault::UnknownAnswer(b'Z')),
        (b"\0\0\0\x02cx", Fault::Malformed("data where none belongs")),
        (b"\0\0\0\x03hab", Fault::Malformed("a field without its end")),
        (b"\0\0\0\x05O\0\0\0\x06", Fault::Malformed("a negotiation")),
        (
            b"\0\0\0\x01c",
            Fault::Unexpected("another answer than the negotiation's"),
        ),
        (b"\0\0\0\x0dO\0\0\0\x01\0\0\0\0\0\0\0\0", Fault::Version(1)),
        (b"\0\0\0\x0dO\0\0\0\x07\0\0\0\0\0\0\0\0", Fault::Version(7)),
        (
            b"\0\0\0\x0dO\0\0\0\x06\0\0\x02\0\0\0\0\0",
            Fault::NotOffered("actions", 0x200),
        ),
        (
            b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\x20\0\0\0",
            Fault::NotOffered("protocol steps", 0x2000_0000),
        ),
        (b"HTTP/1.1 200 OK", Fault::PacketTooLong(0x4854_5450)),
    ] {
        let mut client = Client::new(Limits::default());
        client.feed(octets);
        assert_eq!(client.step(), Err(expected));
    }
}

#[test]
fn commands_and_answers_read_back() {
    let mut out = Vec::new();
    let commands = [
        Command::offer(),
        Command::Macros(
            b'M',
            vec![("i".into(), "x".into()), ("{a}".into(), String::new())],
        ),
        Command::Connect {
            host: "h".into(),
            from: Family::Unknown,
        },
        Command::Connect {
            host: "h".into(),
            from: Family::Unix("/s".into()),
        },
        Command::Connect {
            host: "h".into(),
            from: Family::Inet("2001:db8::1".parse().unwrap(), 25),
        },
        Command::Unknown("XYZZY".into()),
        Command::Header(b"A".to_vec(), b"b\n c".to_vec()),
        Command::Body(vec![0, 1, 2]),
        Command::EndOfMessage,
        Command::QuitNewConnection,
    ];
    commands.iter().for_each(|c| c.encode(&mut out));
    let mut packets = milter::packet::Packets::default();
    packets.feed(&out);
    for command in &commands {
        let packet = packets.next(65_536).unwrap().unwrap();
        assert_eq!(Command::decode(&packet).as_ref(), Some(command));
    }
    assert!(packets.is_empty());
}
