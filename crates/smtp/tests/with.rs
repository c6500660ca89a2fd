//! The word behind `with` in Received, for each way in (RFC 3848, RFC 6531 §4.3).
#![allow(clippy::unwrap_used)]

use smtp::server::{Options, Question, Role, Server, Step};
use std::sync::Arc;

/// What the envelope says for a message that came so.
fn with(role: Role, hello: &str, tls: bool, login: bool, utf8: bool) -> &'static str {
    let mut options = Options::new("mail.example.com");
    options.allow_plaintext_auth = true;
    options.auth_required = false;
    let mut server = Server::new(Arc::new(options), role, tls, None);
    let login = if login { "AUTH PLAIN AGEAYg==\r\n" } else { "" };
    let utf8 = if utf8 { " SMTPUTF8" } else { "" };
    let said = format!("{hello} c\r\n{login}MAIL FROM:<a@b.c>{utf8}\r\nRCPT TO:<d@e.f>\r\nDATA\r\n");
    let mut input = said.as_bytes();
    loop {
        match server.step(&mut input) {
            Step::Ask(Question::Authenticate { token, request, .. }) => {
                let login = request.user().unwrap().to_owned();
                server.authenticated(token, Ok(login).into());
            }
            Step::Ask(Question::Sender { token, .. }) => server.sender(token, Ok(())),
            Step::Ask(Question::Recipient { token, .. }) => server.recipient(token, Ok(())),
            Step::Ask(Question::Begin { envelope, .. }) => return envelope.protocol,
            other => panic!("{other:?} {}", server.output().escape_ascii()),
        }
    }
}

#[test]
fn each_way_has_its_word() {
    for (role, hello, tls, login, plain, utf8) in [
        (Role::Mta, "HELO", false, false, "SMTP", None),
        (Role::Mta, "EHLO", false, false, "ESMTP", Some("UTF8SMTP")),
        (Role::Mta, "EHLO", true, false, "ESMTPS", Some("UTF8SMTPS")),
        (Role::Submission, "EHLO", false, true, "ESMTPA", Some("UTF8SMTPA")),
        (
            Role::Submission,
            "EHLO",
            true,
            true,
            "ESMTPSA",
            Some("UTF8SMTPSA"),
        ),
        (Role::Lmtp, "LHLO", false, false, "LMTP", Some("UTF8LMTP")),
        (Role::Lmtp, "LHLO", true, false, "LMTPS", Some("UTF8LMTPS")),
    ] {
        assert_eq!(with(role, hello, tls, login, false), plain);
        if let Some(utf8) = utf8 {
            assert_eq!(with(role, hello, tls, login, true), utf8);
        }
    }
}
