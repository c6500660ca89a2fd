//! One attempt's surroundings: a courier, a plan, a letter; and what came of it in short.

use super::{Net, StartTls, certificates, put_blob};
use deliver::attempt::{Attempted, Courier, Letter, Options};
use deliver::plan::{By, Hop, Plan};
use deliver::pool::{Keep, Pool};
use deliver::{ServerName, TlsPolicy};
use journey::{AttemptOutcome, Event};
use mail::{EmailAddress, ReversePath};
use std::sync::Arc;
use store::MemoryStore;

pub const TEXT: &str = "From: alice@gmail.com\r\nSubject: Hello!\r\n\r\nHi Bob,\r\n.how are you?\r\n";
pub const FIRST: &str = "192.0.2.1:25";
pub const SECOND: &str = "192.0.2.2:25";

/// A courier, a plan of two hops and a letter, over a network in memory.
pub struct Stage {
    pub net: Arc<Net>,
    pub courier: Courier,
    pub plan: Plan,
    pub letter: Letter,
    pub dir: tempfile::TempDir,
    pub certificates: tls::Certificates,
}

impl Stage {
    pub async fn new(recipients: &[&str]) -> Self {
        let net = Arc::new(Net::default());
        let store = MemoryStore::new();
        let (blob, blob_len) = put_blob(&store, TEXT).await;
        let dir = tempfile::tempdir().unwrap();
        let address = |text: &&str| EmailAddress::parse(text).unwrap();
        Self {
            certificates: certificates(dir.path()),
            courier: Courier {
                dialer: net.clone(),
                tls: tls::Client::new(&tls::Roots::public()).unwrap(),
                store,
                tap: None,
                chunking: deliver::chunking::Chunking::default(),
                // Each attempt meets the servers as they are then.
                pool: Pool::new(Keep {
                    messages_max: 1,
                    ..Keep::default()
                }),
                families: deliver::race::Families::default(),
                options: Options::new("mail.gmail.com"),
            },
            net,
            plan: Plan {
                by: By::Mx,
                hops: [("mx.example.com", FIRST), ("mx2.example.com", SECOND)]
                    .map(|(host, at)| Hop {
                        host: ServerName::parse(host).unwrap(),
                        address: at.parse().unwrap(),
                        preference: Some(10),
                    })
                    .into(),
                tls: TlsPolicy::Opportunistic,
                lmtp: false,
                login: None,
                evidence: deliver::security::Evidence::default(),
                mta_sts: mtasts::Found::default(),
                left_out: Vec::new(),
                departures: deliver::source::Departures::default(),
                notes: Vec::new(),
            },
            letter: Letter {
                name: "test".to_owned(),
                sender: ReversePath::Address(address(&"alice@gmail.com")),
                recipients: recipients.iter().map(address).collect(),
                prefix: b"Received: by us\r\n".to_vec(),
                blob,
                blob_len,
                eight_bit: false,
                binary: false,
                smtputf8: false,
                wishes: smtp::client::Wishes::default(),
            },
            dir,
        }
    }

    pub async fn attempt(&self) -> Attempted {
        self.courier.attempt(&self.plan, &self.letter).await
    }

    pub fn tls(&self) -> StartTls {
        StartTls::Good(self.certificates.server_config())
    }
}

/// The fates in short: `taken`, or the status.
pub fn fates(attempted: &Attempted) -> Vec<String> {
    let short = |fate: &deliver::attempt::Fate| match fate {
        Ok(_) => "taken".to_owned(),
        Err(failure) => failure.status.to_string(),
    };
    attempted.fates.iter().map(short).collect()
}

/// What was tried, in short: host, whether there was TLS, and the outcome.
pub fn tries(attempted: &Attempted) -> Vec<String> {
    let short = |event: &Event| match event {
        Event::Attempt {
            host, tls, outcome, ..
        } => {
            let outcome = match outcome {
                AttemptOutcome::Accepted { reply } => format!("accepted {}", reply.code),
                AttemptOutcome::Refused { stage, reply } => format!("{stage} {}", reply.code),
                AttemptOutcome::Failed { stage, .. } => format!("failed at {stage}"),
                AttemptOutcome::Unknown => "unknown".to_owned(),
            };
            let tls = if tls.is_some() { "TLS" } else { "clear" };
            format!("{host} {tls} {outcome}")
        }
        other => format!("{other:?}"),
    };
    attempted.events.iter().map(short).collect()
}
