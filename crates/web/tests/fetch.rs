//! Policies fetched over real sockets and real TLS, from hosts that do it well and that do not.
#![allow(clippy::unwrap_used)]

mod common;

use common::{authority, certificates, client, domain, says};
use mtasts::{FaultKind, Fetch};
use std::time::Duration;
use web::{Ask, AskError, PolicyFetcher};

const HOST: &str = "mta-sts.example.com";
const POLICY: &str = "version: STSv1\nmode: none\nmax_age: 86400\n";

fn ok(more: &str, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: Text/Plain; charset=utf-8\r\n{more}\r\n");
    [head.as_bytes(), body.as_bytes()].concat()
}

#[tokio::test]
async fn what_policy_hosts_answer() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority("Lab");
    let certificates = certificates(folder.path(), &authority, &[HOST]);
    let client = client(folder.path(), &authority, &[HOST]);
    let chunked = "5\r\nversi\r\n24\r\non: STSv1\nmode: none\nmax_age: 86400\n\r\n0\r\n\r\n";
    let long = "x".repeat(64 * 1024 + 1);
    let redirect = "HTTP/1.1 302 Found\r\nLocation: https://example.com/policy\r\nContent-Length: 0\r\n\r\n";
    for (what, answer, wanted) in [
        ("with a length", ok("Content-Length: 41\r\n", POLICY), Ok(())),
        ("in chunks", ok("Transfer-Encoding: chunked\r\n", chunked), Ok(())),
        ("to the end", ok("", POLICY), Ok(())),
        (
            "a redirect",
            redirect.as_bytes().to_vec(),
            Err("redirects must not be followed"),
        ),
        (
            "nothing there",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            Err("was answered with 404"),
        ),
        (
            "a page",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi".to_vec(),
            Err("must be text/plain"),
        ),
        ("too long", ok("", &long), Err("longer than 65536")),
        (
            "cut off",
            ok("Content-Length: 100\r\n", POLICY),
            Err("did not answer as HTTP asks"),
        ),
        (
            "no HTTP",
            b"220 mx.example.com ESMTP\r\n".to_vec(),
            Err("did not answer as HTTP asks"),
        ),
        ("nothing", Vec::new(), Err("did not answer as HTTP asks")),
        (
            "an endless head",
            vec![b'a'; 100_000],
            Err("did not answer as HTTP asks"),
        ),
    ] {
        let at = says(certificates.clone(), answer).await;
        let fetcher = PolicyFetcher::new(client.clone()).at_port(at.port());
        let fetched = fetcher.fetch(&domain("example.com")).await;
        match (fetched, wanted) {
            (Ok(body), Ok(())) => assert_eq!(body, POLICY.as_bytes(), "{what}"),
            (Err(fault), Err(part)) => {
                assert_eq!(fault.kind, FaultKind::Fetch, "{what}");
                assert!(fault.words.contains(part), "{what}: {fault}");
                assert!(fault.words.contains(HOST), "{what}: {fault}");
            }
            (fetched, _) => panic!("{what}: {fetched:?}"),
        }
    }
}

#[tokio::test]
async fn the_certificate_must_be_for_the_policy_host() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority("Ours"), authority("Theirs"));
    let client = client(folder.path(), &ours, &[HOST]);
    let at_other_name = certificates(folder.path(), &ours, &["example.com", "mail.example.com"]);
    let by_stranger = certificates(other.path(), &theirs, &[HOST]);
    for (certificates, part) in [(at_other_name, "another name"), (by_stranger, "issuer")] {
        let at = says(certificates, ok("", POLICY)).await;
        let fetcher = PolicyFetcher::new(client.clone()).at_port(at.port());
        let fault = fetcher.fetch(&domain("example.com")).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Certificate);
        assert!(fault.words.contains(part), "{fault}");
    }
}

#[tokio::test]
async fn hosts_that_cannot_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority("Lab");
    let client = client(folder.path(), &authority, &[HOST]);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let ask = |host: &str, port, within| Ask {
        host: domain(host),
        port,
        path: "/".to_owned(),
        body: None,
        headers: Vec::new(),
        answer_octets_max: 1_000,
        within,
    };
    let minute = Duration::from_secs(60);
    let nowhere = client.ask(&ask("mta-sts.example.net", port, minute)).await;
    assert!(matches!(nowhere, Err(AskError::Dns(_))), "{nowhere:?}");
    let late = client.ask(&ask(HOST, port, Duration::from_millis(50))).await;
    assert!(matches!(late, Err(AskError::TimedOut { .. })), "{late:?}");
    drop(silent);
    let refused = client.ask(&ask(HOST, port, minute)).await;
    assert!(matches!(refused, Err(AskError::Connect(_))), "{refused:?}");
}
