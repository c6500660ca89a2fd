//! The policies of our own domains, served over TLS and fetched as other servers fetch them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{authority, certificates, client, domain, now};
use directory::{Directory, DomainChange, MtaSts, MtaStsMode, SystemRandom};
use mtasts::{Fetch, Mode, Policy, hosted};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::MemoryStore;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use web::{Answer, Ask, Client, PolicyFetcher, PolicyHost};

const PATH: &str = "/.well-known/mta-sts.txt";

/// A server of example.com and example.net, whose certificate is good for their policy hosts.
struct World {
    directory: Directory,
    client: Client,
    address: SocketAddr,
    _stop: watch::Sender<bool>,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority("Lab");
        let names = [
            "mail.example.com",
            "mta-sts.example.com",
            "mta-sts.example.net",
            "mta-sts.example.org",
        ];
        let certificates = certificates(folder.path(), &authority, &names);
        let options = directory::Options::default();
        let directory = Directory::new(MemoryStore::new(), options, Arc::new(SystemRandom)).unwrap();
        for name in ["example.com", "example.net"] {
            directory.add_domain(&domain(name), now()).await.unwrap();
        }
        let host = PolicyHost::new(directory.clone(), domain("mail.example.com"), certificates);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(web::serve(Arc::new(host), listener.into(), stopped));
        Self {
            directory,
            client: client(folder.path(), &authority, &names),
            address,
            _stop: stop,
            _folder: folder,
        }
    }

    async fn publish(&self, name: &str, sts: Option<MtaSts>) {
        let change = DomainChange {
            mta_sts: Some(sts),
            ..DomainChange::default()
        };
        self.directory.set_domain(&domain(name), &change).await.unwrap();
    }

    async fn ask(&self, host: &str, path: &str, body: Option<(String, Vec<u8>)>) -> Answer {
        let ask = Ask {
            host: domain(host),
            port: self.address.port(),
            path: path.to_owned(),
            body,
            headers: Vec::new(),
            answer_octets_max: 100_000,
            within: Duration::from_secs(60),
        };
        self.client.ask(&ask).await.unwrap()
    }

    async fn fetch(&self, name: &str) -> Result<Policy, String> {
        let fetcher = PolicyFetcher::new(self.client.clone()).at_port(self.address.port());
        let body = fetcher.fetch(&domain(name)).await.map_err(|fault| fault.words)?;
        Policy::parse(&body).map_err(|fault| fault.to_string())
    }
}

#[tokio::test]
async fn a_policy_is_served_as_it_is_set() {
    let world = World::new().await;
    assert!(world.fetch("example.com").await.unwrap_err().contains("404"));
    world
        .publish("example.com", Some(MtaSts::new(MtaStsMode::Testing)))
        .await;
    let testing = world.fetch("example.com").await.unwrap();
    assert_eq!(testing.mode, Mode::Testing);
    assert!(testing.matches(&domain("mail.example.com")));
    assert_eq!(testing.max_age_secs, 604_800);
    let enforce = MtaSts {
        mode: MtaStsMode::Enforce,
        max_age_secs: 86_400,
        mx: vec!["*.backup.example".to_owned()],
    };
    world.publish("example.com", Some(enforce)).await;
    let enforced = world.fetch("example.com").await.unwrap();
    assert!(enforced.matches(&domain("mx1.backup.example")));
    assert!(!enforced.matches(&domain("mail.example.com")));
    assert_ne!(hosted::id_of(&testing), hosted::id_of(&enforced));
    assert!(
        world.fetch("example.net").await.is_err(),
        "each domain has its own"
    );
    world.publish("example.com", None).await;
    assert!(world.fetch("example.com").await.is_err());
}

#[tokio::test]
async fn nothing_else_is_served() {
    let world = World::new().await;
    world
        .publish("example.com", Some(MtaSts::new(MtaStsMode::Enforce)))
        .await;
    let policy_host = "mta-sts.example.com";
    for (host, path, body, status) in [
        (policy_host, PATH, None, 200),
        (policy_host, "/.well-known/mta-sts.txt?x=y", None, 200),
        (policy_host, "/", None, 404),
        (policy_host, "/.well-known/../.well-known/mta-sts.txt", None, 404),
        ("mail.example.com", PATH, None, 404),
        ("mta-sts.example.net", PATH, None, 404),
        ("mta-sts.example.org", PATH, None, 404),
        (
            policy_host,
            PATH,
            Some(("text/plain".to_owned(), b"x".to_vec())),
            405,
        ),
    ] {
        let answer = world.ask(host, path, body).await;
        assert_eq!(answer.status, status, "{host}{path}");
        assert_eq!(answer.content_type, "text/plain");
    }
}
