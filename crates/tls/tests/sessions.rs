//! Sessions that are resumed: when, for whom, and what they are taken to prove. Real handshakes in memory.
#![allow(clippy::unwrap_used)]

use dns::Tlsa;
use mail::{Domain, Timestamp};
use rustls::{ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use std::net::SocketAddr;
use std::path::Path;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tls::sessions::{KEPT_FOR, LINES_MAX};
use tls::{
    CertificateSource, Certificates, Client, Dane, DaneUsage, Flaw, Meeting, Roots, Verdict, Verification,
};

const HOST: &str = "mail.example.com";

fn at(n: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], n))
}

fn certificates(dir: &Path) -> Certificates {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    let source = CertificateSource::SelfSigned {
        dir: dir.to_owned(),
        host_name: Domain::parse(HOST).unwrap(),
        addresses: Vec::new(),
    };
    Certificates::open(source, Timestamp::from_secs(since.as_secs() as i64)).unwrap()
}

/// A server's settings that know this version alone; they keep their own sessions.
fn only(server: &Certificates, version: &'static rustls::SupportedProtocolVersion) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap();
    let resolver = Arc::clone(&server.server_config().cert_resolver);
    Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver))
}

/// Octets from one side to the other.
fn carry(
    from: &mut dyn FnMut(&mut Vec<u8>),
    to: &mut dyn FnMut(&[u8]) -> Result<(), rustls::Error>,
) -> Result<(), rustls::Error> {
    let mut wire = Vec::new();
    from(&mut wire);
    to(&wire)
}

/// A handshake under way.
struct Pair {
    meeting: Meeting,
    client: ClientConnection,
    server: ServerConnection,
}

impl Pair {
    fn new(meeting: Meeting, server: Arc<ServerConfig>) -> Self {
        Self {
            client: ClientConnection::new(Arc::clone(&meeting.config), meeting.name.clone()).unwrap(),
            server: ServerConnection::new(server).unwrap(),
            meeting,
        }
    }

    /// What the client has goes over, and what the server answers comes back.
    fn turn(&mut self) -> Result<(), rustls::Error> {
        let (client, server) = (&mut self.client, &mut self.server);
        carry(
            &mut |wire| {
                while client.wants_write() {
                    client.write_tls(wire).unwrap();
                }
            },
            &mut |mut wire| {
                while !wire.is_empty() {
                    server.read_tls(&mut wire).unwrap();
                    server.process_new_packets()?;
                }
                Ok(())
            },
        )?;
        carry(
            &mut |wire| {
                while server.wants_write() {
                    server.write_tls(wire).unwrap();
                }
            },
            &mut |mut wire| {
                while !wire.is_empty() {
                    client.read_tls(&mut wire).unwrap();
                    client.process_new_packets()?;
                }
                Ok(())
            },
        )
    }

    /// To the end. `resumed`, as server and client say it, and the verdict.
    fn end(mut self) -> Result<(bool, Option<Verdict>), (Option<Flaw>, bool)> {
        while self.client.is_handshaking() || self.server.is_handshaking() {
            if let Err(e) = self.turn() {
                let again = self.meeting.failed(&std::io::Error::other(e));
                return Err((self.meeting.verdict.flaw(), again));
            }
        }
        let resumed = self.meeting.succeeded(&self.client);
        // The tickets come behind the handshake.
        self.turn().unwrap();
        assert_eq!(
            self.server.handshake_kind() == Some(HandshakeKind::Resumed),
            resumed,
            "both sides say the same"
        );
        Ok((resumed, self.meeting.verdict.verdict()))
    }
}

/// A client, and a time that goes on as it is told.
struct Side {
    client: Client,
    now: Instant,
}

impl Side {
    fn new(roots: &Roots) -> Self {
        Self {
            client: Client::new(roots).unwrap(),
            now: Instant::now(),
        }
    }

    fn meet(
        &self,
        server: &Arc<ServerConfig>,
        asks: &Verification,
        (name, port): (&str, u16),
    ) -> Result<(bool, Option<Verdict>), (Option<Flaw>, bool)> {
        let meeting = self.client.meet(asks.clone(), name, at(port), self.now).unwrap();
        Pair::new(meeting, Arc::clone(server)).end()
    }
}

fn dane(records: &[Tlsa]) -> Verification {
    let base = Domain::parse(HOST).unwrap();
    Verification::Dane(Arc::new(Dane::new(records, base, &[]).unwrap()))
}

fn roots(dir: &Path) -> Roots {
    Roots::public().with_file(&dir.join("certificate.pem")).unwrap()
}

#[test]
fn a_second_connection_resumes_and_keeps_the_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let server = certificates(dir.path());
    let pin = server.tlsa(&Domain::parse(HOST).unwrap()).unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for (asks, roots) in [
            (Verification::Opportunistic, Roots::public()),
            (Verification::Opportunistic, roots(dir.path())),
            (Verification::Required, roots(dir.path())),
            (dane(from_ref(&pin)), Roots::public()),
        ] {
            let config = only(&server, version);
            let side = Side::new(&roots);
            let (resumed, first) = side.meet(&config, &asks, (HOST, 25)).unwrap();
            assert!(!resumed && first.is_some());
            for _ in 0..6 {
                let again = side.meet(&config, &asks, (HOST, 25)).unwrap();
                assert_eq!(again, (true, first.clone()), "{version:?} {asks:?}");
            }
        }
    }
}

#[test]
fn what_asks_something_else_does_not_resume() {
    let dir = tempfile::tempdir().unwrap();
    let server = certificates(dir.path());
    let config = server.server_config();
    let side = Side::new(&roots(dir.path()));
    let pin = server.tlsa(&Domain::parse(HOST).unwrap()).unwrap();
    let wrong = Tlsa {
        data: vec![7; 32],
        ..pin.clone()
    };
    let meets = [
        (Verification::Opportunistic, (HOST, 25), Verdict::Verified),
        (Verification::Required, (HOST, 25), Verdict::Verified),
        (Verification::Required, (HOST, 587), Verdict::Verified),
        (Verification::Required, ("localhost", 25), Verdict::Verified),
        (dane(from_ref(&pin)), (HOST, 25), Verdict::Dane(DaneUsage::Ee)),
        (
            dane(&[pin.clone(), wrong.clone()]),
            (HOST, 25),
            Verdict::Dane(DaneUsage::Ee),
        ),
    ];
    for round in 0..3 {
        for (asks, to, verdict) in &meets {
            let met = side.meet(&config, asks, *to).unwrap();
            assert_eq!(met, (round > 0, Some(verdict.clone())), "{asks:?} {to:?}");
        }
    }
    // The same records in another order ask the same.
    let turned = dane(&[wrong, pin]);
    assert!(side.meet(&config, &turned, (HOST, 25)).unwrap().0);
    // Another client believes other authorities.
    let other = Side::new(&Roots::public());
    assert_eq!(
        other.meet(&config, &Verification::Required, (HOST, 25)),
        Err((Some(Flaw::UnknownIssuer), false))
    );
}

#[test]
fn records_that_changed_are_looked_at_anew() {
    let dir = tempfile::tempdir().unwrap();
    let server = certificates(dir.path());
    let config = server.server_config();
    let side = Side::new(&Roots::public());
    let old = server.tlsa(&Domain::parse(HOST).unwrap()).unwrap();
    let new = Tlsa {
        data: vec![7; 32],
        ..old.clone()
    };
    assert!(!side.meet(&config, &dane(from_ref(&old)), (HOST, 25)).unwrap().0);
    assert!(side.meet(&config, &dane(from_ref(&old)), (HOST, 25)).unwrap().0);
    // The domain pins another key now: the server, which still has a session of ours, is refused.
    for _ in 0..2 {
        assert_eq!(
            side.meet(&config, &dane(from_ref(&new)), (HOST, 25)),
            Err((Some(Flaw::NoTlsaMatches), false))
        );
    }
    // And it takes nothing away from what the old records ask.
    assert!(side.meet(&config, &dane(&[old]), (HOST, 25)).unwrap().0);
}

#[test]
fn nothing_is_believed_for_longer_than_an_hour_without_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let server = certificates(dir.path());
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = only(&server, version);
        let mut side = Side::new(&Roots::public());
        let resumes = |side: &Side| {
            side.meet(&config, &Verification::Opportunistic, (HOST, 25))
                .unwrap()
                .0
        };
        assert!(!resumes(&side));
        side.now += KEPT_FOR - Duration::from_secs(1);
        assert!(resumes(&side), "{version:?}");
        // What that one gave is as old as the first.
        side.now += Duration::from_secs(1);
        assert!(!resumes(&side), "{version:?}");
        assert!(resumes(&side), "{version:?}");
    }
}

#[test]
fn handshakes_at_the_same_time_have_each_their_own_verdict() {
    let (known, unknown) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = certificates(known.path()).server_config();
    let two = certificates(unknown.path()).server_config();
    let side = Side::new(&roots(known.path()));
    let meet = || {
        side.client
            .meet(Verification::Opportunistic, HOST, at(25), side.now)
            .unwrap()
    };
    let mut pairs = [Pair::new(meet(), one), Pair::new(meet(), two)];
    // Both certificates are seen before the first handshake is told of its end.
    pairs.iter_mut().for_each(|pair| pair.turn().unwrap());
    let verdicts = pairs.map(|pair| pair.end().unwrap().1.unwrap());
    assert_eq!(verdicts[0], Verdict::Verified);
    assert!(matches!(&verdicts[1], Verdict::Unverified(_)));
}

#[test]
fn a_server_that_forgot_shakes_hands_anew_and_a_failure_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let server = certificates(dir.path());
    let side = Side::new(&Roots::public());
    let asks = Verification::Opportunistic;
    for _ in 0..3 {
        let config = only(&server, &rustls::version::TLS13);
        assert!(!side.meet(&config, &asks, (HOST, 25)).unwrap().0);
    }
    // A handshake that fails for no reason of a certificate: the session may have been at fault.
    let config = only(&server, &rustls::version::TLS13);
    side.meet(&config, &asks, (HOST, 25)).unwrap();
    let meeting = side.client.meet(asks.clone(), HOST, at(25), side.now).unwrap();
    let _begun = Pair::new(meeting, Arc::clone(&config));
    let meeting = side.client.meet(asks.clone(), HOST, at(25), side.now).unwrap();
    let mut pair = Pair::new(meeting, Arc::clone(&config));
    pair.turn().unwrap();
    let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    assert!(pair.meeting.failed(&reset()));
    assert!(!side.meet(&config, &asks, (HOST, 25)).unwrap().0);
    // Without a session to blame there is nothing to try again.
    let meeting = side.client.meet(asks, HOST, at(26), side.now).unwrap();
    assert!(!meeting.failed(&reset()));
}

#[test]
fn servers_are_forgotten_that_were_met_longest_ago() {
    let dir = tempfile::tempdir().unwrap();
    let config = certificates(dir.path()).server_config();
    let mut side = Side::new(&Roots::public());
    let asks = Verification::Opportunistic;
    side.meet(&config, &asks, (HOST, 1)).unwrap();
    for n in 0..LINES_MAX as u16 - 1 {
        side.now += Duration::from_millis(1);
        drop(side.client.meet(asks.clone(), HOST, at(100 + n), side.now));
    }
    // It was met again before the one that is too many came.
    side.now += Duration::from_millis(1);
    assert!(side.meet(&config, &asks, (HOST, 1)).unwrap().0);
    side.now += Duration::from_millis(1);
    side.meet(&config, &asks, (HOST, 2)).unwrap();
    assert!(side.meet(&config, &asks, (HOST, 1)).unwrap().0);
    assert!(side.meet(&config, &asks, (HOST, 2)).unwrap().0);
    for n in 0..LINES_MAX as u16 {
        side.now += Duration::from_millis(1);
        drop(side.client.meet(asks.clone(), HOST, at(10_000 + n), side.now));
    }
    assert!(!side.meet(&config, &asks, (HOST, 1)).unwrap().0);
}
