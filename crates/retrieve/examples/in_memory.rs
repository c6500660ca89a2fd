//! IMAP and POP3 over a store in memory, on loopback, for trying mail clients by hand.
//!
//! `cargo run -p retrieve --example in_memory -- 127.0.0.1:1143 127.0.0.1:1993 127.0.0.1:1110`
//! serves bob@example.com with the password `secret`.
#![allow(clippy::unwrap_used)]

use directory::{Directory, NewAccount, SystemRandom};
use mail::{Clock, Domain, EmailAddress, Secret, Timestamp};
use mailbox::{Delivery, Flags, Mailboxes, Role};
use retrieve::{Context, Options, Protocol, serve};
use std::sync::Arc;
use std::time::SystemTime;
use store::{Batch, MemoryStore, Store};

struct Wall;
impl Clock for Wall {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

#[tokio::main]
async fn main() {
    let store: Arc<dyn Store> = MemoryStore::new();
    let directory = Directory::new(
        store.clone(),
        directory::Options::default(),
        Arc::new(SystemRandom),
    )
    .unwrap();
    let mailboxes = Mailboxes::new(store.clone());
    let now = Wall.now();
    directory
        .add_domain(&Domain::parse("example.com").unwrap(), now)
        .await
        .unwrap();
    let new = NewAccount {
        address: EmailAddress::parse("bob@example.com").unwrap(),
        display_name: String::new(),
        password: Some(directory.hash_password(&Secret::new("secret")).unwrap()),
    };
    let boxes = mailboxes.clone();
    let add = move |batch: &mut Batch, id| boxes.create_defaults(batch, id, now);
    let bob = directory.add_account(new, now, &add).await.unwrap().id;
    let inbox = mailboxes.find(bob, Role::Inbox).await.unwrap().unwrap().place();
    let count: usize = std::env::var("MESSAGES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    for n in 1..=count {
        let text = format!(
            "From: Alice <alice@gmail.com>\r\nTo: bob@example.com\r\nSubject: Hello {n}\r\nDate: Mon, 23 Nov 2026 13:04:13 +0000\r\nMessage-ID: <{n}@gmail.com>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHi Bob {n}\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>Hi Bob {n}</p>\r\n--b--\r\n"
        );
        let mut writer = store.stage(text.len() as u64).await.unwrap();
        writer.write(text.as_bytes()).await.unwrap();
        let staged = writer.finish().await.unwrap();
        let delivery = Delivery {
            blob: staged.id,
            blob_len: staged.len,
            prefix: b"Return-Path: <alice@gmail.com>\r\n".to_vec(),
            flags: Flags::NONE,
            keywords: Vec::new(),
            internal_date: now,
            queue_id: None,
        };
        mailboxes.append(inbox, staged, delivery).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let source = tls::CertificateSource::SelfSigned {
        dir: folder.path().to_owned(),
        host_name: Domain::parse("mail.example.com").unwrap(),
        addresses: Vec::new(),
    };
    let certificates = tls::Certificates::open(source, now).unwrap();
    let options = Options {
        allow_plaintext_auth: true,
        ..Options::default()
    };
    let journey = journey::Journey::new(store.clone());
    let tls = Some(Arc::new(certificates));
    let ctx = Arc::new(Context::new(
        store,
        directory,
        mailboxes,
        journey,
        tls,
        Arc::new(Wall),
        options,
    ));
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    let mut servers = tokio::task::JoinSet::new();
    for (address, protocol) in std::env::args()
        .skip(1)
        .zip([Protocol::Imap, Protocol::Imaps, Protocol::Pop3])
    {
        let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
        println!("{} on {}", protocol.name(), listener.local_addr().unwrap());
        servers.spawn(serve(ctx.clone(), listener, protocol, shutdown.clone()));
    }
    while servers.join_next().await.is_some() {}
}
