//! The whole session machine under bytes of strangers: bounded memory, no panic, whole lines.
#![allow(clippy::unwrap_used)]

use imap::{Event, Options, Session};
use proptest::prelude::*;

const LINES: [&str; 44] = [
    "a LOGIN u p\r\n",
    "a SELECT INBOX\r\n",
    "a EXAMINE INBOX\r\n",
    "a NOOP\r\n",
    "a STARTTLS\r\n",
    "a AUTHENTICATE PLAIN\r\n",
    "AGEAYg==\r\n",
    "a AUTHENTICATE LOGIN YQ==\r\n",
    "*\r\n",
    "a IDLE\r\n",
    "DONE\r\n",
    "a APPEND INBOX {4+}\r\nabcd\r\n",
    "a APPEND INBOX (\\Seen) {4}\r\n",
    "abcd",
    "\r\n",
    "a APPEND {5+}\r\nINBOX {3+}\r\nabc\r\n",
    "a APPEND x {9999999+}\r\n",
    "a LOGIN {1}\r\nu {1+}\r\np\r\n",
    "a X {2000+}\r\n",
    "a FETCH 1:* (FLAGS BODY[] ENVELOPE BODYSTRUCTURE)\r\n",
    "a UID FETCH 1:* BODY[2.HEADER.FIELDS (a)]<1.5>\r\n",
    "a FETCH 9 FLAGS\r\n",
    "a STORE 1:2 +FLAGS (\\Deleted)\r\n",
    "a UID STORE 2 FLAGS.SILENT x\r\n",
    "a EXPUNGE\r\n",
    "a UID EXPUNGE 1:9\r\n",
    "a MOVE 1 x\r\n",
    "a COPY 1:3 x\r\n",
    "a SEARCH OR SEEN NOT 1:*\r\n",
    "a SEARCH CHARSET UTF-8 TEXT {2+}\r\n\u{fc}\r\n",
    "a LIST \"\" *\r\n",
    "a LSUB \"\" %\r\n",
    "a STATUS INBOX (MESSAGES)\r\n",
    "a CREATE b\r\n",
    "a DELETE b\r\n",
    "a RENAME b c\r\n",
    "a CLOSE\r\n",
    "a UNSELECT\r\n",
    "a CAPABILITY\r\n",
    "a ID NIL\r\n",
    "a LOGOUT\r\n",
    "a \n",
    "\0{3}\r\n",
    "a NOOP {1}\r\n",
];

proptest! {
    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        imap::fuzz::server(&data);
    }

    #[test]
    fn any_dialogue(control in any::<u8>(), lines in proptest::collection::vec(prop::sample::select(LINES.to_vec()), 0..40)) {
        let mut data = vec![control];
        // Most dialogues should come past the login.
        if control & 0x80 != 0 {
            data.extend_from_slice(b"a LOGIN u p\r\na SELECT INBOX\r\n");
        }
        data.extend(lines.concat().as_bytes());
        imap::fuzz::server(&data);
    }

    /// However the bytes are cut, the client reads the same.
    #[test]
    fn any_split_answers_the_same(lines in proptest::collection::vec(prop::sample::select(LINES.to_vec()), 0..20), piece in 1usize..40) {
        let data = lines.concat();
        prop_assert_eq!(answers(data.as_bytes(), piece), answers(data.as_bytes(), data.len().max(1)));
    }
}

/// What a session without logins says.
fn answers(data: &[u8], piece: usize) -> String {
    let mut session = Session::new(Options::default(), true);
    let mut said = Vec::new();
    for piece in data.chunks(piece) {
        session.feed(piece);
        loop {
            let event = session.step();
            said.extend(session.take_output());
            match event {
                Event::Login { ticket, .. } => {
                    session.login(ticket, sasl::Answer::Refused(imap::Refusal::unavailable()))
                }
                Event::NeedInput | Event::Close => break,
                _ => {}
            }
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let mut session = Session::new(Options::default(), true);
    let floods: [&[u8]; 4] = [b"x", b"a NOOP {5+}\r\n", b"a LOGIN {4000+}\r\n", b"(((((((("];
    for flood in floods {
        for _ in 0..200_000 / flood.len() {
            session.feed(flood);
            while !matches!(session.step(), Event::NeedInput | Event::Close) {
                let _ = session.take_output();
            }
            let _ = session.take_output();
            assert!(session.held() < 20_000, "{}", session.held());
        }
    }
}

#[test]
fn nothing_may_follow_starttls() {
    let mut session = Session::new(Options::default(), false);
    let _ = session.take_output();
    session.feed(b"a STARTTLS\r\nb LOGIN u p\r\n");
    assert!(matches!(session.step(), Event::Close));
    assert_eq!(
        session.take_output(),
        b"* BYE Nothing may follow STARTTLS before the handshake\r\n"
    );
}

#[test]
fn starttls_forgets_and_then_allows_logins() {
    let mut session = Session::new(Options::default(), false);
    session.feed(b"a STARTTLS\r\n");
    assert!(matches!(session.step(), Event::StartTls));
    assert!(session.take_output().ends_with(b"a OK Begin TLS now\r\n"));
    session.tls_started();
    session.feed(b"b CAPABILITY\r\nc STARTTLS\r\nd LOGIN u p\r\n");
    assert!(matches!(session.step(), Event::Login { .. }));
    let said = String::from_utf8(session.take_output()).unwrap();
    assert!(
        said.contains("AUTH=PLAIN") && !said.contains("STARTTLS AUTH") && said.contains("c BAD"),
        "{said}"
    );
}

#[test]
fn the_transcript_holds_no_password() {
    let mut session = Session::new(Options::default(), true);
    session.keep_transcript();
    session.feed(b"a LOGIN bob s3cret\r\n");
    let Event::Login { ticket, .. } = session.step() else {
        panic!()
    };
    session.login(ticket, sasl::Answer::Refused(imap::Refusal::unavailable()));
    session.feed(b"b AUTHENTICATE PLAIN czNjcmV0\r\nc AUTHENTICATE PLAIN\r\nczNjcmV0\r\nd LOGIN bob {6+}\r\ns3cret\r\n");
    loop {
        match session.step() {
            Event::Login { ticket, .. } => {
                session.login(ticket, sasl::Answer::Refused(imap::Refusal::unavailable()))
            }
            Event::NeedInput | Event::Close => break,
            _ => {}
        }
    }
    let shown = String::from_utf8(session.take_transcript()).unwrap();
    assert_eq!(
        shown,
        "a LOGIN …\r\nb AUTHENTICATE PLAIN …\r\nc AUTHENTICATE PLAIN\r\n…\r\nd LOGIN …\r\n"
    );
}
