//! The load against the bare receiver and against the sink, on loopback, with small counts.
//!
//! Promises: what one side says it sent is what the other says it took. Never: looks at a time.
#![allow(clippy::unwrap_used)]

use bench::bare;
use bench::hub::Bell;
use bench::load::{self, Load, LoadReport};
use bench::sink::{self, Until};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

fn order(to: SocketAddr) -> Load {
    Load {
        to,
        unix: None,
        sessions: 4,
        messages: 60,
        size: 4096,
        per_connection: 0,
        recipients: 1,
        from: "load@sender.example".into(),
        rcpt: "user%d@bench.example".into(),
        users: 10,
        pipelining: false,
        timeout: Duration::from_secs(30),
        tls: None,
        letters: None,
    }
}

/// Every way of sending that the generator knows.
fn orders(to: SocketAddr) -> Vec<Load> {
    let plain = order(to);
    vec![
        Load {
            sessions: 1,
            ..plain.clone()
        },
        Load {
            pipelining: true,
            recipients: 3,
            ..plain.clone()
        },
        Load {
            per_connection: 1,
            ..plain.clone()
        },
        Load {
            per_connection: 7,
            size: 100_000,
            pipelining: true,
            ..plain.clone()
        },
        plain,
    ]
}

fn assert_all_went(report: &LoadReport, order: &Load) {
    assert_eq!(report.errors.len(), 0, "{report:?}");
    assert_eq!(
        (report.accepted, report.failed, report.unsent),
        (order.messages, 0, 0),
        "{report:?}"
    );
    assert_eq!(report.opened, order.sessions);
    let connections_min = order
        .messages
        .checked_div(order.per_connection)
        .unwrap_or(order.sessions as u64);
    assert!(report.connections >= connections_min, "{report:?}");
    let latency = report.latency_ms.unwrap();
    assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.max);
}

#[test]
fn the_bare_receiver_commits_every_message() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let bell = Bell::new().unwrap();
    let server = std::thread::spawn({
        let (folder, bell) = (folder.path().to_owned(), bell.clone());
        move || bare::serve(listener, &folder, bell).unwrap()
    });
    let mut sent = 0;
    for order in orders(to) {
        let report = load::run(&order).unwrap();
        assert_all_went(&report, &order);
        sent += report.accepted;
    }
    bell.end();
    let report = server.join().unwrap();
    assert_eq!(report.messages, sent);
    assert!(report.groups > 0 && report.groups <= sent);
    let written = std::fs::read(folder.path().join("bare.log")).unwrap();
    let ids = memchr::memmem::find_iter(&written, b"\r\nMessage-ID: <").count();
    assert_eq!(ids as u64, sent, "the file holds each message once");
}

#[test]
fn the_sink_counts_every_message_and_octet() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let all = orders(to);
    let until = Until {
        messages: Some(all.iter().map(|o| o.messages).sum()),
        idle: None,
    };
    let octets: u64 = all.iter().map(|o| o.messages * o.size as u64).sum();
    let server = std::thread::spawn(move || sink::serve(listener, until, Bell::new().unwrap()).unwrap());
    for order in &all {
        assert_all_went(&load::run(order).unwrap(), order);
    }
    let report = server.join().unwrap();
    assert_eq!((Some(report.messages), report.octets), (until.messages, octets));
}

/// A server that refuses what `refuse` begins with, and says 250 to the rest.
fn grumbler(refuse: &'static str, with: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let lines = BufReader::new(socket.try_clone().unwrap()).lines();
            let _ = socket.write_all(b"220 hello\r\n");
            let mut in_data = false;
            for line in lines.map_while(Result::ok) {
                if in_data && line != "." {
                    continue;
                }
                let answer = match line.as_str() {
                    line if line.starts_with(refuse) => with,
                    "DATA" => "354 go on",
                    _ => "250 ok",
                };
                in_data = answer.starts_with('3');
                if socket.write_all(format!("{answer}\r\n").as_bytes()).is_err()
                    || with.starts_with("421") && answer == with
                {
                    break;
                }
            }
        }
    });
    to
}

#[test]
fn refusals_are_counted_by_reply_and_end_nothing() {
    for (refuse, with, kind) in [
        ("RCPT", "550 5.1.1 no such user", "550 5.1.1 no such user"),
        ("DATA", "451 4.3.0 later", "451 4.3.0 later"),
        (".", "452 4.3.1 disk full", "452 4.3.1 disk full"),
        ("RCPT", "421 4.3.2 going down", "421 4.3.2 going down"),
    ] {
        let order = Load {
            sessions: 1,
            messages: 5,
            ..order(grumbler(refuse, with))
        };
        let report = load::run(&order).unwrap();
        assert_eq!((report.accepted, report.failed), (0, 5), "{report:?}");
        assert_eq!(report.errors.get(kind), Some(&5), "{report:?}");
    }
}

#[test]
fn a_far_address_and_a_message_without_room_are_refused() {
    let far = Load {
        to: "192.0.2.1:25".parse().unwrap(),
        ..order("127.0.0.1:1".parse().unwrap())
    };
    assert!(load::run(&far).unwrap_err().to_string().contains("loopback"));
    let small = Load {
        size: 100,
        ..order("127.0.0.1:1".parse().unwrap())
    };
    assert!(load::run(&small).is_err());
}

#[test]
fn nobody_there_is_an_answer_too() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let report = load::run(&order(gone)).unwrap();
    assert_eq!((report.opened, report.accepted, report.unsent), (0, 0, 60));
    assert!(report.errors.keys().any(|kind| kind.starts_with("connect")));
}
