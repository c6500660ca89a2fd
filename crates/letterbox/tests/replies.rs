//! What other servers' replies mean: `replies.txt` holds them as they are given, one a line.
#![allow(clippy::unwrap_used)]

use letterbox::Failure;
use letterbox::explain::Replies;
use mail::EnhancedStatus;
use std::collections::BTreeSet;

/// Replies that the table is to hold at least.
const REPLIES_MIN: usize = 80;

/// One line: the class, the server, the reply, and the blocklist where it names one.
struct Line {
    class: String,
    failure: Failure,
    list: Option<String>,
}

fn lines() -> Vec<Line> {
    let text = include_str!("replies.txt");
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let line = |line: &str| {
        let mut parts = line.split(" | ").map(|part| part.trim().to_owned());
        let (class, host, reply) = (
            parts.next().unwrap(),
            parts.next().unwrap(),
            parts.next().unwrap(),
        );
        let (code, words) = reply.split_once(' ').unwrap();
        let status = EnhancedStatus::parse_prefix(words).map(|(status, _)| status);
        Line {
            class,
            failure: Failure::of_peer(host, code.parse().unwrap(), status, words),
            list: parts.next(),
        }
    };
    lines.map(line).collect()
}

#[test]
fn real_replies_are_understood() {
    let replies = Replies::built_in();
    let lines = lines();
    assert!(lines.len() >= REPLIES_MIN, "{}", lines.len());
    let mut wrong = Vec::new();
    for line in &lines {
        let explanation = replies.explain(&line.failure);
        let list = explanation.listing.as_ref().map(|listing| listing.name.clone());
        if explanation.class.name != line.class || (line.list.is_some() && list != line.list) {
            let (got, wanted) = (&explanation.class.name, &line.class);
            wrong.push(format!(
                "{got} ({list:?}), not {wanted} ({:?}): {}",
                line.list, line.failure
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_class_that_a_server_can_tell_is_in_the_table() {
    let told: BTreeSet<String> = lines().into_iter().map(|line| line.class).collect();
    // What only we find, or what hardly any server words.
    let ours = [
        "bad-address",
        "binary",
        "dns-trouble",
        "no-connection",
        "no-route",
        "out-of-time",
        "require-tls",
        "security",
        "store-fault",
        "tls-failed",
    ];
    let replies = Replies::built_in();
    let missing: Vec<&str> = replies
        .classes()
        .map(|class| class.name.as_str())
        .filter(|name| !told.contains(*name) && !ours.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Whatever a stranger says, there is an answer.
#[test]
fn any_words_have_a_class() {
    let replies = Replies::built_in();
    for words in [
        "",
        " ",
        "\u{0}\r\n",
        "@",
        "://",
        "* * *",
        &"é".repeat(5_000),
        &"a@".repeat(5_000),
    ] {
        for code in [0, 199, 421, 450, 550, 999] {
            let failure = Failure::of_peer("", code, None, words);
            assert!(!replies.explain(&failure).remedy().is_empty());
        }
    }
}

#[test]
fn a_listing_has_its_page() {
    let words = "5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org";
    let failure = Failure::of_peer("mx.example.com", 554, Some(EnhancedStatus::new(5, 7, 1)), words);
    let remedy = Replies::built_in().explain(&failure).remedy();
    assert!(remedy.contains("https://check.spamhaus.org/"), "{remedy}");
}
