//! TLS reports that arrive: read when they are signed, about us and at the right address; the mail goes
//! to its mailbox whatever they are.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Serving, Setup, Talker, World, address, domain};
use dns::table::TableResolver;
use judge::dkim::{KeyKind, Signer, SigningKey};
use mail::{AccountId, Timestamp};
use mailbox::Role as Folder;
use std::sync::Arc;
use tlsrpt::message::Letter;
use tlsrpt::{Day, Kept, Report};

const US: &str = "example.com";
const THEM: &str = "sender.example";
/// The day that the reports are about.
const DAY: Day = Day(20_779);

struct Post {
    world: World,
    server: Serving,
    signer: Signer,
    postmaster: AccountId,
}

impl Post {
    fn new(change: impl FnOnce(&mut Setup)) -> Self {
        let world = World::new();
        let postmaster = world.account("postmaster@example.com", None);
        world.account("mia@example.com", None);
        let key = SigningKey::generate(KeyKind::Ed25519).unwrap();
        let record = key.dns_record_value().unwrap();
        let resolver = TableResolver::new().with_txt("s1._domainkey.sender.example", record);
        let mut setup = Setup {
            resolver,
            ..Setup::default()
        };
        change(&mut setup);
        let server = world.serve(setup);
        Self {
            world,
            server,
            signer: Signer::new(domain(THEM), "s1", Arc::new(key)).unwrap(),
            postmaster,
        }
    }

    /// Sends a message; the reply must be positive.
    fn send(&self, to: &str, message: &str) {
        let mut talker = Talker::connect(self.server.address);
        talker.reply();
        talker.ask("EHLO mail.sender.example");
        assert!(talker.ask("MAIL FROM:<>").starts_with("250 "));
        assert!(talker.ask(&format!("RCPT TO:<{to}>")).starts_with("250 "));
        assert!(talker.ask("DATA").starts_with("354 "));
        let reply = talker.ask(&format!("{message}\r\n."));
        assert!(reply.starts_with("250 "), "{reply}");
    }

    fn signed(&self, message: &str) -> String {
        let now = Timestamp::from_secs(1_795_439_000);
        self.signer.sign(message.as_bytes(), now).unwrap() + message
    }

    fn kept(&self) -> Vec<Kept> {
        let kept = tlsrpt::received(self.world.store.as_ref(), None, 10);
        self.world.runtime.block_on(kept).unwrap()
    }
}

/// A report about a domain, as mail without a signature.
fn report_about(about: &str) -> String {
    let json = include_str!("../../tlsrpt/tests/data/rfc8460-appendix-b.json");
    let mut report = Report::parse(json.as_bytes()).unwrap();
    report.range.start = DAY.start();
    report.policies[0].policy.domain = about.to_owned();
    let message = Letter {
        report: &report,
        domain: &domain(about),
        submitter: &domain(THEM),
        from: &address("tlsrpt-noreply@sender.example"),
        to: &address("postmaster@example.com"),
        host_name: &domain("mail.sender.example"),
        id: "0000000000001",
        now: Timestamp::from_secs(1_795_439_000),
    }
    .to_message();
    String::from_utf8(message).unwrap().trim_end().to_owned()
}

#[test]
fn a_signed_report_is_kept_and_its_mail_too() {
    let post = Post::new(|_| {});
    post.send("postmaster@example.com", &post.signed(&report_about(US)));
    let kept = post.kept();
    assert_eq!(kept.len(), 1);
    let one = &kept[0];
    assert_eq!((one.domain.as_str(), one.signed_by.as_str()), (US, THEM));
    assert_eq!(one.report.organization, "Company-X");
    assert_eq!(one.report.totals().failed, 303);
    assert_eq!(Day::of(one.report.range.start), DAY);
    let stored = post.world.messages(post.postmaster, Folder::Inbox);
    assert_eq!(stored.len(), 1);
    // The same report again is the same.
    post.send("POSTMASTER@example.com", &post.signed(&report_about(US)));
    assert_eq!(post.kept().len(), 1);
    assert_eq!(post.world.messages(post.postmaster, Folder::Inbox).len(), 2);
}

#[test]
fn what_does_not_count_is_delivered_all_the_same() {
    let post = Post::new(|_| {});
    let forged = post
        .signed(&report_about(US))
        .replace("Report-ID: <", "Report-ID: <x");
    let broken = report_about(US).replace("H4sI", "H4sJ");
    let ordinary = "From: <mia@sender.example>\r\nSubject: Hi\r\n\r\nHi";
    for (what, to, message) in [
        ("not signed", "postmaster@example.com", report_about(US)),
        ("the signature is wrong", "postmaster@example.com", forged),
        (
            "another address",
            "mia@example.com",
            post.signed(&report_about(US)),
        ),
        (
            "another domain",
            "postmaster@example.com",
            post.signed(&report_about("other.example")),
        ),
        ("not gzip", "postmaster@example.com", post.signed(&broken)),
        ("no report", "postmaster@example.com", post.signed(ordinary)),
    ] {
        post.send(to, &message);
        assert!(post.kept().is_empty(), "{what}");
    }
    assert_eq!(post.world.messages(post.postmaster, Folder::Inbox).len(), 5);
}

#[test]
fn reading_can_be_turned_off() {
    let post = Post::new(|setup| setup.options.read_tls_reports = false);
    post.send("postmaster@example.com", &post.signed(&report_about(US)));
    assert!(post.kept().is_empty());
    assert_eq!(post.world.messages(post.postmaster, Folder::Inbox).len(), 1);
}
