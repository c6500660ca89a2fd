//! What the client says of the sender's wishes, and to whom: transcripts of both sides.
#![allow(clippy::unwrap_used)]

mod transcript;

use mail::delivery::{DeliverBy, Notify, OriginalRecipient, Priority, Ret};
use smtp::client::{CannotSend, Failure, Outgoing, PassedOn, RecipientWishes, Stage, Step, Verdict, Wishes};
use transcript::{greeted, hear, outgoing, play};

/// All that can be asked.
fn wishes() -> Wishes {
    let of = |notify, orcpt| RecipientWishes {
        notify: Notify::parse(notify),
        original_recipient: OriginalRecipient::parse(orcpt),
    };
    Wishes {
        envid: Some("QQ 3+1=4".to_owned()),
        ret: Some(Ret::Headers),
        recipients: vec![
            of("SUCCESS,FAILURE", "rfc822;Bob+2Btag@example.com"),
            of("NEVER", "utf-8;\u{e9}ve@example.com"),
        ],
        require_tls: false,
        deliver_by: DeliverBy::parse("120;RT"),
        priority: Priority::new(-3).unwrap(),
    }
}

#[test]
fn a_server_that_offers_all_hears_all() {
    let message = outgoing(b"x\r\n");
    let all = Outgoing {
        wishes: wishes(),
        ..message
    };
    let played = play(
        &all,
        b"x\r\n",
        r"
        S: 220 mx.example.com
        C: EHLO gmail.com
        S: 250-mx.example.com
        S: 250-PIPELINING
        S: 250-DSN
        S: 250-DELIVERBY 60
        S: 250 MT-PRIORITY MIXER
        C: MAIL FROM:<alice@gmail.com> RET=HDRS ENVID=QQ+203+2B1+3D4 BY=120;RT MT-PRIORITY=-3
        C: RCPT TO:<bob@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2Btag@example.com
        C: RCPT TO:<eve@example.com> NOTIFY=NEVER ORCPT=utf-8;\x{E9}ve@example.com
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 354 go
        > x\r\n.\r\n
        S: 250 taken
        C: QUIT
        S: 221 bye
        ",
    );
    assert!(played.verdicts.iter().all(Verdict::is_accepted));
    let all_of_it = PassedOn {
        dsn: true,
        deliver_by: true,
    };
    assert_eq!(played.passed_on, all_of_it);
}

#[test]
fn a_server_that_offers_nothing_hears_nothing() {
    let quiet = Outgoing {
        wishes: Wishes {
            deliver_by: DeliverBy::parse("-5;N"),
            ..wishes()
        },
        ..outgoing(b"x\r\n")
    };
    let played = play(
        &quiet,
        b"x\r\n",
        r"
        S: 220 mx.example.com
        C: EHLO gmail.com
        S: 250 mx.example.com
        C: MAIL FROM:<alice@gmail.com>
        S: 250 ok
        C: RCPT TO:<bob@example.com>
        S: 250 ok
        C: RCPT TO:<eve@example.com>
        S: 550 no
        C: DATA
        S: 354 go
        > x\r\n.\r\n
        S: 250 taken
        C: QUIT
        S: 221 bye
        ",
    );
    assert!(played.verdicts[0].is_accepted() && !played.verdicts[1].is_accepted());
    assert_eq!(played.passed_on, PassedOn::default());
}

#[test]
fn what_must_not_be_dropped_keeps_the_message_here() {
    let needing = |change: fn(&mut Outgoing)| {
        let mut message = outgoing(b"x\r\n");
        change(&mut message);
        message
    };
    let tls = needing(|m| m.wishes.require_tls = true);
    let binary = needing(|m| m.binary = true);
    let by = needing(|m| m.wishes.deliver_by = DeliverBy::parse("59;R"));
    let international = needing(|m| m.smtputf8 = true);
    for (message, offered, cannot) in [
        (&tls, "250 REQUIRETLS", CannotSend::NeedsTls),
        (&binary, "250 BINARYMIME", CannotSend::NeedsBinaryMime),
        (&binary, "250 CHUNKING", CannotSend::NeedsBinaryMime),
        (&by, "250 SIZE", CannotSend::NeedsDeliverBy),
        (&by, "250 DELIVERBY 60", CannotSend::TooLate),
        (&international, "250 8BITMIME", CannotSend::NeedsSmtpUtf8),
    ] {
        let transcript =
            format!("S: 220 mx\nC: EHLO gmail.com\nS: 250-mx\nS: {offered}\nC: QUIT\nS: 221 bye");
        assert_eq!(play(message, b"", &transcript).cannot, Some(cannot));
    }
}

#[test]
fn requiretls_goes_inside_tls_to_who_promises_the_same() {
    let message = Outgoing {
        wishes: Wishes {
            require_tls: true,
            ..Wishes::default()
        },
        ..outgoing(b"x\r\n")
    };
    let before = "S: 220 mx\nC: EHLO gmail.com\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n(TLS)\nC: EHLO gmail.com\nS: 250-mx\n";
    let refused = play(&message, b"", &format!("{before}S: 250 DSN\nC: QUIT\nS: 221 bye"));
    assert_eq!(refused.cannot, Some(CannotSend::NeedsRequireTls));
    let rest = "S: 250 REQUIRETLS\nC: MAIL FROM:<alice@gmail.com> REQUIRETLS\nS: 250 ok\nC: RCPT TO:<bob@example.com>\nS: 550 no\nC: RCPT TO:<eve@example.com>\nS: 550 no\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye";
    let asked = play(&message, b"", &format!("{before}{rest}"));
    assert_eq!((asked.cannot, asked.verdicts.len()), (None, 2));
}

#[test]
fn a_binary_message_goes_octet_for_octet_behind_its_length() {
    let body = b"a\n.\nb\r.\rc\r\n.\r\nQUIT\r\n\0";
    let message = Outgoing {
        binary: true,
        ..outgoing(body)
    };
    let before = r"
        S: 220 mx
        C: EHLO gmail.com
        S: 250-mx
        S: 250-PIPELINING
        S: 250-CHUNKING
        S: 250-SIZE
        S: 250 BINARYMIME
        C: MAIL FROM:<alice@gmail.com> SIZE=21 BODY=BINARYMIME
        C: RCPT TO:<bob@example.com>
        C: RCPT TO:<eve@example.com>
        C: BDAT 21 LAST
        > a\n.\nb\r.\rc\r\n.\r\nQUIT\r\n";
    let answers = "S: 250 ok\nS: 550 no\nS: 250 ok";
    let good = play(
        &message,
        body,
        &format!("{before}\0\n{answers}\nS: 250 taken\nC: QUIT\nS: 221 bye"),
    );
    assert!(!good.verdicts[0].is_accepted() && good.verdicts[1].is_accepted());
    let bad = play(
        &message,
        body,
        &format!("{before}\0\n{answers}\nS: 554 no\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye"),
    );
    assert!(matches!(
        bad.verdicts[1],
        Verdict::Permanent {
            stage: Stage::EndOfMessage,
            ..
        }
    ));
    // One octet more or less than announced would make the rest a command: the session ends instead.
    for wrong in [&body[..20], b"a\n.\nb\r.\rc\r\n.\r\nQUIT\r\n\0\0"] {
        let mut client = greeted(&["CHUNKING", "BINARYMIME"]);
        client.send(message.clone()).unwrap();
        assert_eq!(hear(&mut client, &["250 ok\r\n"; 3]), Step::Body);
        let mut input = &b""[..];
        wrong.chunks(5).for_each(|piece| client.body(piece));
        client.body_end();
        let Step::Sent(outcome) = client.step(&mut input) else {
            panic!("no outcome");
        };
        assert!(
            outcome
                .recipients
                .iter()
                .all(|v| matches!(v, Verdict::Unanswered(_)))
        );
        assert_eq!(client.step(&mut input), Step::Failed(Failure::Miscounted));
    }
}

#[test]
fn no_body_can_end_the_data() {
    for body in [
        "a\n.\nMAIL FROM:<m@x.y>\n",
        "a\r.\rMAIL FROM:<m@x.y>\r",
        "a\r\n.\nMAIL",
        "a\n.\r\nMAIL",
        "a\r\n.\rMAIL",
        "a\r.\r\nMAIL",
        ".\r\nMAIL",
        "a\r\r\n.\r\nMAIL",
        "a\r\n.\r\nMAIL",
    ] {
        let mut client = greeted(&[]);
        client.send(outgoing(body.as_bytes())).unwrap();
        assert_eq!(hear(&mut client, &["250 ok\r\n"; 3]), Step::Read);
        assert_eq!(hear(&mut client, &["354 go\r\n"]), Step::Body);
        // However it is cut.
        body.as_bytes().chunks(1).for_each(|piece| client.body(piece));
        client.body_end();
        let sent = String::from_utf8(client.take_output()).unwrap();
        let content = sent.strip_suffix("\r\n.\r\n").unwrap();
        let bare = content.replace("\r\n", "");
        assert!(!bare.contains(['\r', '\n']), "{body:?} left as {sent:?}");
        let lines = content.split("\r\n");
        assert!(lines.clone().all(|line| line != "."), "{body:?} left as {sent:?}");
        assert!(
            lines.clone().any(|line| line == ".."),
            "{body:?} left as {sent:?}"
        );
    }
}
