//! Dialogues between a client and the session machine, written as the RFCs write them.
//!
//! `C:` lines are sent, `S:` lines must come; `S: *` stands for any one line; `=` lines tell the
//! driver's part.
#![allow(clippy::unwrap_used)]

use mail::{Uid, UidValidity};
use pop3::{Entry, LoginRefusal, Maildrop, Options, Question, Session, Step};
use std::collections::VecDeque;

const ONE: &str = "From: alice@gmail.com\r\nSubject: Hello!\r\n\r\nHi Bob,\r\n.how are you?\r\n";
const TWO: &str = "From: carol@example.net\r\n\r\n1\r\n2\r\n3\r\n";

struct Peer {
    session: Session,
    lines: VecDeque<String>,
    removed: Option<Vec<usize>>,
    commit_works: bool,
    ended: bool,
}

impl Peer {
    fn new(options: Options, tls: bool) -> Self {
        let mut peer = Self {
            session: Session::new(options, tls),
            lines: VecDeque::new(),
            removed: None,
            commit_works: true,
            ended: false,
        };
        peer.run();
        peer
    }

    fn send(&mut self, text: &str) {
        self.session.receive(text.as_bytes());
        self.run();
    }

    fn run(&mut self) {
        loop {
            let step = self.session.step();
            let output = String::from_utf8(self.session.take_output()).unwrap();
            self.lines
                .extend(output.split_terminator("\r\n").map(str::to_owned));
            match step {
                Step::NeedInput => break,
                Step::Flush => {}
                Step::StartTls => self.session.tls_started(),
                Step::Close => {
                    self.ended = true;
                    break;
                }
                Step::Ask(question) => self.answer(question),
            }
        }
        let output = String::from_utf8(self.session.take_output()).unwrap();
        self.lines
            .extend(output.split_terminator("\r\n").map(str::to_owned));
    }

    fn answer(&mut self, question: Question) {
        match question {
            Question::Login { token, request, .. } => {
                let sasl::Request::Password(credentials) = request else {
                    return self
                        .session
                        .login(token, Err(LoginRefusal::WrongCredentials).into());
                };
                let verdict = match (credentials.login.as_str(), credentials.password.expose()) {
                    ("bob@example.com", "secret word") => Ok(Maildrop {
                        uid_validity: UidValidity(42),
                        entries: [ONE, TWO]
                            .iter()
                            .zip([3, 8])
                            .map(|(m, uid)| Entry {
                                uid: Uid(uid),
                                octets: m.len() as u64,
                            })
                            .collect(),
                    }),
                    ("bob@example.com", "main") => Err(LoginRefusal::NeedsAppPassword),
                    ("busy@example.com", _) => Err(LoginRefusal::InUse),
                    ("down@example.com", _) => Err(LoginRefusal::Unavailable),
                    _ => Err(LoginRefusal::WrongCredentials),
                };
                self.session.login(token, verdict.into());
            }
            Question::Message { token, index } => {
                let mut writer = self.session.begin_message(token);
                for piece in [ONE, TWO][index].as_bytes().chunks(5) {
                    self.session.message_piece(&mut writer, piece);
                }
                self.session.end_message(writer);
            }
            Question::Commit { token, deleted } => {
                self.session.committed(token, self.commit_works);
                self.removed = Some(deleted);
            }
        }
    }
}

fn dialogue_with(mut peer: Peer, script: &str) -> Peer {
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if let Some(sent) = line.strip_prefix("C:") {
            assert_eq!(
                peer.lines.pop_front(),
                None,
                "unexpected from the server before C:{sent}"
            );
            peer.send(&format!("{}\r\n", sent.strip_prefix(' ').unwrap_or(sent)));
        } else if let Some(wanted) = line.strip_prefix("S:") {
            let got = peer
                .lines
                .pop_front()
                .unwrap_or_else(|| panic!("nothing, but wanted{wanted}"));
            let wanted = wanted.strip_prefix(' ').unwrap_or(wanted);
            assert!(
                got == wanted
                    || wanted.strip_suffix('*').is_some_and(|w| got.starts_with(w))
                    || (wanted == "+" && got == "+ "),
                "wanted {wanted:?}, got {got:?}"
            );
        } else if line == "= closed" {
            assert!(peer.ended, "the server should have closed");
        } else {
            panic!("what is {line:?}?");
        }
    }
    assert!(peer.lines.is_empty(), "left over: {:?}", peer.lines);
    peer
}

fn inside_tls() -> Peer {
    Peer::new(Options::default(), true)
}

fn outside_tls() -> Peer {
    Peer::new(Options::default(), false)
}

/// RFC 1939 §10, with our texts.
#[test]
fn the_example_session() {
    let peer = dialogue_with(
        inside_tls(),
        "S: +OK localhost POP3 server ready
         C: USER bob@example.com
         S: +OK*
         C: PASS secret word
         S: +OK the maildrop has 2 messages (102 octets)
         C: STAT
         S: +OK 2 102
         C: LIST
         S: +OK 2 messages
         S: 1 66
         S: 2 36
         S: .
         C: RETR 1
         S: +OK 66 octets
         S: From: alice@gmail.com
         S: Subject: Hello!
         S:
         S: Hi Bob,
         S: ..how are you?
         S: .
         C: DELE 1
         S: +OK message 1 deleted
         C: RETR 1
         S: -ERR that message is deleted*
         C: STAT
         S: +OK 1 36
         C: QUIT
         S: +OK localhost POP3 server signing off
         = closed",
    );
    assert_eq!(peer.removed, Some(vec![0]));
}

#[test]
fn listing_top_and_reset() {
    dialogue_with(
        inside_tls(),
        "S: +OK*
         C: USER bob@example.com
         S: +OK*
         C: PASS secret word
         S: +OK*
         C: UIDL
         S: +OK 2 messages
         S: 1 42.3
         S: 2 42.8
         S: .
         C: UIDL 2
         S: +OK 2 42.8
         C: LIST 3
         S: -ERR no such message
         C: LIST 0
         S: -ERR no such message
         C: TOP 2 2
         S: +OK*
         S: From: carol@example.net
         S:
         S: 1
         S: 2
         S: .
         C: DELE 2
         S: +OK*
         C: UIDL
         S: +OK 1 messages
         S: 1 42.3
         S: .
         C: DELE 2
         S: -ERR*
         C: RSET
         S: +OK the maildrop has 2 messages (102 octets)
         C: NOOP
         S: +OK",
    );
}

#[test]
fn a_connection_that_breaks_removes_nothing() {
    let peer = dialogue_with(
        inside_tls(),
        "S: +OK*
         C: USER bob@example.com
         S: +OK*
         C: PASS secret word
         S: +OK*
         C: DELE 1
         S: +OK*",
    );
    assert_eq!(peer.removed, None, "only QUIT removes (RFC 1939 §6)");
}

#[test]
fn a_removal_that_fails_is_told() {
    let mut peer = inside_tls();
    peer.commit_works = false;
    dialogue_with(
        peer,
        "S: +OK*
         C: USER bob@example.com
         S: +OK*
         C: PASS secret word
         S: +OK*
         C: DELE 1
         S: +OK*
         C: QUIT
         S: -ERR [SYS/TEMP]*
         = closed",
    );
}

/// RFC 2595 §4: no password outside TLS; STLS goes away once it is used.
#[test]
fn stls_comes_before_the_password() {
    dialogue_with(
        outside_tls(),
        "S: +OK*
         C: CAPA
         S: +OK*
         S: TOP
         S: UIDL
         S: RESP-CODES
         S: AUTH-RESP-CODE
         S: PIPELINING
         S: EXPIRE NEVER
         S: STLS
         S: IMPLEMENTATION Posthaste
         S: .
         C: USER bob@example.com
         S: -ERR login only inside TLS: send STLS first*
         C: AUTH PLAIN AGJvYkBleGFtcGxlLmNvbQBzZWNyZXQgd29yZA==
         S: -ERR login only inside TLS*
         C: STLS
         S: +OK begin TLS negotiation
         C: CAPA
         S: +OK*
         S: TOP
         S: UIDL
         S: RESP-CODES
         S: AUTH-RESP-CODE
         S: PIPELINING
         S: EXPIRE NEVER
         S: USER
         S: SASL SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN
         S: IMPLEMENTATION Posthaste
         S: .
         C: STLS
         S: -ERR TLS is active already
         C: PASS secret word
         S: -ERR not now: USER first
         C: USER bob@example.com
         S: +OK*
         C: PASS secret word
         S: +OK the maildrop has 2 messages*",
    );
}

#[test]
fn a_user_named_before_tls_is_forgotten() {
    let options = Options {
        login_without_tls: true,
        ..Options::default()
    };
    dialogue_with(
        Peer::new(options, false),
        "S: +OK*
         C: USER bob@example.com
         S: +OK*
         C: STLS
         S: +OK*
         C: PASS secret word
         S: -ERR not now: USER first",
    );
}

#[test]
fn nothing_may_follow_stls_in_clear() {
    let mut peer = outside_tls();
    peer.send("STLS\r\nUSER mallory@example.com\r\n");
    dialogue_with(
        peer,
        "S: +OK*
         S: -ERR nothing may follow STLS*
         = closed",
    );
}

/// RFC 5034 §4 and §6.
#[test]
fn auth_plain() {
    dialogue_with(
        inside_tls(),
        "S: +OK*
         C: AUTH CRAM-MD5
         S: -ERR this way to authenticate is not offered here; use one of: SCRAM-SHA-256 *
         C: AUTH PLAIN
         S: +
         C: *
         S: -ERR cancelled
         C: AUTH PLAIN ====
         S: -ERR*
         C: AUTH PLAIN
         S: +
         C: AGJvYkBleGFtcGxlLmNvbQBzZWNyZXQgd29yZA==
         S: +OK the maildrop has 2 messages*",
    );
    dialogue_with(
        inside_tls(),
        "S: +OK*
         C: auth plain AGJvYkBleGFtcGxlLmNvbQBzZWNyZXQgd29yZA==
         S: +OK the maildrop has 2 messages*",
    );
}

/// RFC 3206 and RFC 2449 §8: the codes tell a wrong password from a server in trouble.
#[test]
fn refused_logins() {
    dialogue_with(
        inside_tls(),
        "S: +OK*
         C: USER busy@example.com
         S: +OK*
         C: PASS x
         S: -ERR [IN-USE]*
         C: USER down@example.com
         S: +OK*
         C: PASS x
         S: -ERR [SYS/TEMP]*
         C: USER bob@example.com
         S: +OK*
         C: PASS main
         S: -ERR [AUTH] this account has a second factor: mail programs need an app password*
         C: USER nobody@example.com
         S: +OK*
         C: PASS x
         S: -ERR [AUTH] user name or password is wrong
         C: USER bob@example.com
         S: +OK*
         C: PASS wrong
         S: -ERR [AUTH] too many failed logins; closing
         = closed",
    );
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    let mut peer = inside_tls();
    peer.send(
        "USER bob@example.com\r\nPASS secret word\r\nSTAT\r\nDELE 2\r\nLIST\r\nQUIT\r\nNOOP after the end\r\n",
    );
    let peer = dialogue_with(
        peer,
        "S: +OK*
         S: +OK now the password
         S: +OK the maildrop*
         S: +OK 2 102
         S: +OK message 2 deleted
         S: +OK 1 messages
         S: 1 66
         S: .
         S: +OK localhost POP3 server signing off
         = closed",
    );
    assert_eq!(peer.removed, Some(vec![1]));
}

#[test]
fn bad_input_is_answered_and_in_the_end_closed() {
    let mut peer = inside_tls();
    peer.lines.clear();
    peer.send(&"x".repeat(100_000));
    assert!(peer.lines.is_empty(), "no answer before the line ends");
    peer.send("\r\n");
    assert_eq!(peer.lines.pop_front().unwrap(), "-ERR the line is too long");
    peer.send("NOOP\nSTAT\0\r\n");
    for _ in 0..2 {
        assert!(
            peer.lines
                .pop_front()
                .unwrap()
                .starts_with("-ERR a line ends with CR LF")
        );
    }
    for _ in 0..6 {
        peer.send("XYZZY\r\n");
        assert_eq!(peer.lines.pop_front().unwrap(), "-ERR unknown command");
    }
    peer.send("XYZZY\r\n");
    assert!(peer.lines.pop_front().unwrap().contains("closing"));
    assert!(peer.ended);
}

#[test]
fn a_listing_of_many_messages_is_written_in_pieces() {
    let mut session = Session::new(Options::default(), true);
    session.receive(b"USER bob@example.com\r\nPASS x\r\nLIST\r\n");
    let Step::Ask(Question::Login { token, .. }) = session.step() else {
        panic!("a login");
    };
    let entry = |n| Entry {
        uid: Uid(n),
        octets: 1000,
    };
    session.login(
        token,
        Ok(Maildrop {
            uid_validity: UidValidity(1),
            entries: (1..=100_000).map(entry).collect(),
        })
        .into(),
    );
    let mut all = Vec::new();
    let mut flushes = 0;
    while let Step::Flush = session.step() {
        let piece = session.take_output();
        assert!(piece.len() < 20_000, "{} octets at once", piece.len());
        all.extend(piece);
        flushes += 1;
    }
    all.extend(session.take_output());
    assert!(flushes > 50);
    assert!(all.ends_with(b"100000 1000\r\n.\r\n"));
}

proptest::proptest! {
    #[test]
    fn anything_is_answered(words in proptest::collection::vec(proptest::prop_oneof![
        proptest::strategy::Just(&b"USER ab\r\n"[..]), proptest::strategy::Just(&b"PASS x\r\n"[..]),
        proptest::strategy::Just(&b"RETR 1\r\n"[..]), proptest::strategy::Just(&b"TOP 2 1\r\n"[..]),
        proptest::strategy::Just(&b"DELE 3\r\n"[..]), proptest::strategy::Just(&b"LIST\r\n"[..]),
        proptest::strategy::Just(&b"QUIT\r\n"[..]), proptest::strategy::Just(&b"AUTH PLAIN\r\n"[..]),
        proptest::strategy::Just(&b"STLS\r\n"[..]), proptest::strategy::Just(&b"CAPA\r\n"[..]),
        proptest::strategy::Just(&b"\r"[..]), proptest::strategy::Just(&b"\n"[..]), proptest::strategy::Just(&b"\0zz"[..]),
    ], 0..30), choice: u8) {
        let mut data = vec![choice];
        data.extend(words.concat());
        pop3::fuzz::server(&data);
    }

    #[test]
    fn any_bytes_are_answered(data: Vec<u8>) {
        pop3::fuzz::server(&data);
    }
}

#[test]
fn a_login_that_has_ended_removes_nothing() {
    const OVER: &str = "-ERR [AUTH] this login has ended; nothing was removed; log in again";
    for (asked, next) in [
        (None, "QUIT\r\n"),
        (None, "DELE 2\r\n"),
        (None, "no command\r\n"),
        (Some("RETR 1\r\n"), ""),
        (Some("QUIT\r\n"), ""),
    ] {
        let mut peer = Peer::new(Options::default(), true);
        peer.session.login_ended();
        peer.send("USER bob@example.com\r\nPASS secret word\r\nDELE 2\r\n");
        assert_eq!(
            peer.lines.len(),
            4,
            "without a login nothing ends: {:?}",
            peer.lines
        );
        peer.lines.clear();
        if let Some(asked) = asked {
            peer.session.receive(asked.as_bytes());
            assert!(matches!(peer.session.step(), Step::Ask(_)));
        }
        peer.session.login_ended();
        assert!(!peer.ended);
        peer.send(next);
        assert_eq!(Vec::from(peer.lines), [OVER], "{asked:?} {next:?}");
        assert!(peer.ended);
        assert_eq!(peer.removed, None);
    }
}
