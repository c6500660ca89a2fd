//! The input path under a fuzzer: any bytes, and what must hold whatever they are.

use crate::{Entry, LoginRefusal, Maildrop, Options, Question, Session, Step};
use mail::{Uid, UidValidity};

const MESSAGE: &[u8] = b"From: a@example.com\r\n\r\n.dot\r\nno end";

/// Runs a session over `data`: the first octet chooses TLS and how the rest is cut into reads.
///
/// # Panics
/// When a promise is broken: a reply that is no reply, a line that is too long, output without bound,
/// or an outcome that depends on how the input was cut.
pub fn server(data: &[u8]) {
    let Some((choice, input)) = data.split_first() else {
        return;
    };
    let tls = choice & 1 == 1;
    let cut = usize::from(choice >> 1) + 1;
    let in_pieces = run(tls, input, cut);
    check(&in_pieces);
    // What is buffered behind STLS is judged by when it came, as it must be.
    if !input.to_ascii_uppercase().windows(4).any(|w| w == b"STLS") {
        assert_eq!(
            run(tls, input, usize::MAX),
            in_pieces,
            "the cut changed the outcome"
        );
    }
}

fn run(tls: bool, input: &[u8], cut: usize) -> Vec<u8> {
    let options = Options {
        login_without_tls: true,
        ..Options::default()
    };
    let mut session = Session::new(options, tls);
    let mut written = Vec::new();
    for piece in input.chunks(cut) {
        session.receive(piece);
        if !steps(&mut session, &mut written) {
            break;
        }
    }
    written.extend(session.take_output());
    written
}

/// Steps until input is needed; `false` when the session has ended.
fn steps(session: &mut Session, written: &mut Vec<u8>) -> bool {
    loop {
        let step = session.step();
        let output = session.take_output();
        assert!(output.len() < 64 * 1024, "output without bound");
        written.extend(output);
        match step {
            Step::NeedInput => return true,
            Step::Flush => {}
            Step::StartTls => session.tls_started(),
            Step::Close => return false,
            Step::Ask(question) => answer(session, question),
        }
    }
}

fn answer(session: &mut Session, question: Question) {
    match question {
        Question::Login { token, request, .. } => {
            let entry = |n| Entry {
                uid: Uid(n),
                octets: MESSAGE.len() as u64,
            };
            let user = request.user().unwrap_or_default().to_owned();
            let answer = match (&request, user.len() % 4) {
                (sasl::Request::Salt { .. }, _) => sasl::Answer::Salted(sasl::Salted {
                    salt: b"salt".to_vec(),
                    iterations: 1,
                    nonce: "server".to_owned(),
                }),
                // Nobody here knows a key.
                (sasl::Request::Proof { .. }, _) => sasl::Answer::Refused(LoginRefusal::WrongCredentials),
                (_, 0) => sasl::Answer::Refused(LoginRefusal::Forbidden(user)),
                (_, 1) => sasl::Answer::Refused(LoginRefusal::NeedsAppPassword),
                _ => sasl::Answer::Accepted(
                    Maildrop {
                        uid_validity: UidValidity(7),
                        entries: (1..=3).map(entry).collect(),
                    },
                    None,
                ),
            };
            session.login(token, answer);
        }
        Question::Message { token, index: 2 } => session.refuse_message(token),
        Question::Message { token, index } => {
            assert!(index < 3, "a message that is not there");
            let mut writer = session.begin_message(token);
            session.message_piece(&mut writer, MESSAGE);
            session.end_message(writer);
        }
        Question::Commit { token, deleted } => {
            assert!(deleted.iter().all(|i| *i < 3));
            session.committed(token, deleted.len() != 2);
        }
    }
}

/// Every line is a reply or part of a multi-line response, ends with CR LF and is short.
fn check(written: &[u8]) {
    assert!(written.starts_with(b"+OK "), "the greeting");
    assert!(written.ends_with(b"\r\n"), "an unfinished line");
    let mut in_multi_line = false;
    for line in written.split_inclusive(|b| *b == b'\n') {
        assert!(line.ends_with(b"\r\n"), "a bare LF");
        // RFC 2449 §4: a response line has 512 octets at most.
        assert!(line.len() <= 512, "a reply of {} octets", line.len());
        if in_multi_line {
            in_multi_line = line != b".\r\n";
            continue;
        }
        let is_reply = [&b"+OK"[..], b"-ERR", b"+ "].iter().any(|p| line.starts_with(p));
        assert!(is_reply, "no reply: {}", line.escape_ascii());
        let ends = |with: &[u8]| line.ends_with(with);
        in_multi_line = line.starts_with(b"+OK")
            && (ends(b" follows\r\n") || (ends(b" messages\r\n")) || ends(b" octets\r\n"));
    }
    assert!(!in_multi_line, "a multi-line response without its end");
}
