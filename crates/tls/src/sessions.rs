//! TLS sessions towards others that are resumed, and what each of them proved.
//!
//! A resumed session shows no certificate, and rustls asks no verifier about it. So a session is kept
//! together with the verdict of the handshake that began it, and only for connections that ask the same:
//! the same requirement (its TLSA records, the names that count), the same name, the same address
//! ([`Client::meet`]). What a session that was resumed gives on carries the first verdict and its time on, so
//! that nothing is believed for longer than [`KEPT_FOR`] without a certificate being seen.
//!
//! Two things keep other requirements apart: they have another `Line`, and rustls itself resumes a session
//! only under the very verifier that it began under. Promises: bounded by [`LINES_MAX`] and
//! [`TICKETS_MAX`]; a ticket goes out once (RFC 8446 §C.4). Never: a session on disk.

use crate::client::{Client, Flaw, Judge, Refused, Verdict, VerdictHandle, Verification};
use crate::error::TlsError;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long after a handshake in which the certificate was seen its session may be resumed.
pub const KEPT_FOR: Duration = Duration::from_secs(3_600);
/// Servers, by requirement, name and address, whose sessions are kept at most. The one that was met longest
/// ago is forgotten first.
pub const LINES_MAX: usize = 1_024;
/// Tickets of one server that are kept at most; servers usually give two at a time. A ticket has 65,535
/// octets at most, and so has the chain that comes with it; a few thousand are usual.
pub const TICKETS_MAX: usize = 4;
/// Chains whose verdict is remembered at most while handshakes of one line are under way.
const SEEN_MAX: usize = 64;

/// What was found, and what kind of thing is wrong.
type Found = (Verdict, Option<Flaw>);
/// A chain's digest.
type Digest = [u8; 32];

/// What connections must have in common to share sessions.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    verification: Verification,
    name: ServerName<'static>,
    address: SocketAddr,
}

/// The sessions of a client, by what they were begun for.
#[derive(Default)]
pub(crate) struct Sessions {
    lines: Mutex<HashMap<Key, Arc<Line>>>,
}

impl Sessions {
    fn line(&self, key: Key, judge: impl FnOnce() -> Judge, now: Instant) -> Arc<Line> {
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get(&key) {
            lock(&line.kept).met = Some(now);
            return Arc::clone(line);
        }
        if lines.len() >= LINES_MAX {
            let met = |line: &Arc<Line>| lock(&line.kept).met;
            lines
                .retain(|_, line| met(line).is_some_and(|met| now.saturating_duration_since(met) < KEPT_FOR));
            if lines.len() >= LINES_MAX {
                // Half of them at once, so that not each new one looks through all.
                let mut times: Vec<Option<Instant>> = lines.values().map(met).collect();
                times.sort_unstable();
                let middle = times[times.len() / 2];
                lines.retain(|_, line| met(line) > middle);
            }
        }
        let line = Arc::new(Line {
            name: key.name.clone(),
            verifier: Arc::new(Shared {
                judge: judge(),
                seen: Mutex::default(),
            }),
            kept: Mutex::new(Kept {
                met: Some(now),
                ..Kept::default()
            }),
        });
        lines.insert(key, Arc::clone(&line));
        line
    }
}

/// The sessions that may be resumed by connections that ask the same.
#[derive(Debug)]
struct Line {
    name: ServerName<'static>,
    verifier: Arc<Shared>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tickets: VecDeque<(Tls13ClientSessionValue, Arc<OnceLock<Proof>>)>,
    tls12: Option<(Tls12ClientSessionValue, Arc<OnceLock<Proof>>)>,
    /// The group that the server chose last.
    group: Option<NamedGroup>,
    /// When a connection asked for it last.
    met: Option<Instant>,
}

/// What the handshake came to in which a certificate was seen.
#[derive(Clone, Debug)]
struct Proof {
    found: Found,
    at: Instant,
}

/// One handshake with a server, which may resume an earlier session.
pub struct Meeting {
    /// For the connection.
    pub config: Arc<ClientConfig>,
    /// The name that the connection is for.
    pub name: ServerName<'static>,
    /// Tells the verdict, once [`Meeting::succeeded`] or [`Meeting::failed`] has heard of the end.
    pub verdict: VerdictHandle,
    store: Arc<Offer>,
}

impl Meeting {
    /// The handshake is done. Answers whether an earlier session was resumed; then the verdict is that
    /// session's.
    pub fn succeeded(&self, connection: &ClientConnection) -> bool {
        let offer = &self.store;
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let proof = if resumed {
            lock(&offer.offered).clone()
        } else {
            let chain = connection.peer_certificates().unwrap_or_default();
            let found = offer.line.verifier.verdict_on(chain, &offer.line.name);
            found.map(|found| Proof { found, at: offer.at })
        };
        if let Some(proof) = proof {
            self.verdict.set(proof.found.clone());
            // What it gives from now on proves as much, and what it gave already.
            let _ = offer.proof.set(proof);
        }
        resumed
    }

    /// The handshake failed. Answers whether an earlier session had been offered although nothing was wrong
    /// with a certificate: then it may have been the session, which is forgotten, and a handshake without one
    /// may do.
    pub fn failed(&self, error: &std::io::Error) -> bool {
        let offered = lock(&self.store.offered).is_some();
        if offered {
            let mut kept = lock(&self.store.line.kept);
            kept.tickets.clear();
            kept.tls12 = None;
        }
        let error = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        let found = error.and_then(Refused::of);
        let certificate_refused = found.is_some();
        if let Some((why, flaw)) = found {
            self.verdict.set((Verdict::Unverified(why), Some(flaw)));
        }
        offered && !certificate_refused
    }
}

impl Client {
    /// A handshake with the host at this address at `now`, which resumes an earlier session with it if one is
    /// kept that was begun for the same requirement.
    ///
    /// # Errors
    /// When `host` is no name or address that a handshake takes.
    pub fn meet(
        &self,
        verification: Verification,
        host: &str,
        address: SocketAddr,
        now: Instant,
    ) -> Result<Meeting, TlsError> {
        let name = crate::server_name(host)?;
        let key = Key {
            verification: verification.clone().in_order(),
            name: name.clone(),
            address,
        };
        let line = self.sessions.line(key, || self.judge(verification), now);
        let store = Arc::new(Offer {
            line: Arc::clone(&line),
            at: now,
            offered: Mutex::default(),
            proof: Arc::default(),
        });
        let mut config = self.base.clone();
        config.dangerous().set_certificate_verifier(line.verifier.clone());
        config.resumption = Resumption::store(store.clone());
        Ok(Meeting {
            config: Arc::new(config),
            name,
            verdict: VerdictHandle::default(),
            store,
        })
    }
}

/// What one connection may resume, and what it gives.
#[derive(Debug)]
struct Offer {
    line: Arc<Line>,
    at: Instant,
    /// Of the session that was offered to the server.
    offered: Mutex<Option<Proof>>,
    /// What this connection's sessions prove; not known before its handshake is done.
    proof: Arc<OnceLock<Proof>>,
}

impl Offer {
    /// What a session proves, if it may still be offered.
    fn fresh(&self, proof: &OnceLock<Proof>) -> Option<Proof> {
        let proof = proof.get()?;
        (self.at.saturating_duration_since(proof.at) < KEPT_FOR).then(|| proof.clone())
    }
}

impl ClientSessionStore for Offer {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        lock(&self.line.kept).group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        lock(&self.line.kept).group
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        if name == self.line.name {
            lock(&self.line.kept).tls12 = Some((value, Arc::clone(&self.proof)));
        }
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let mut kept = lock(&self.line.kept);
        let (value, proof) = kept.tls12.as_ref().filter(|_| *name == self.line.name)?;
        let Some(proof) = self.fresh(proof) else {
            kept.tls12 = None;
            return None;
        };
        let value = value.clone();
        *lock(&self.offered) = Some(proof);
        Some(value)
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        lock(&self.line.kept).tls12 = None;
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        if name != self.line.name {
            return;
        }
        let mut kept = lock(&self.line.kept);
        if kept.tickets.len() >= TICKETS_MAX {
            kept.tickets.pop_front();
        }
        kept.tickets.push_back((value, Arc::clone(&self.proof)));
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut kept = lock(&self.line.kept);
        while let Some((value, proof)) = kept.tickets.pop_back().filter(|_| *name == self.line.name) {
            if let Some(proof) = self.fresh(&proof) {
                *lock(&self.offered) = Some(proof);
                return Some(value);
            }
        }
        None
    }
}

/// Judges for all connections of a line, and remembers what it said of which chain until they ask.
#[derive(Debug)]
struct Shared {
    judge: Judge,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    verdicts: VecDeque<(Digest, Found)>,
    /// When it judged last.
    at: Option<UnixTime>,
}

impl Shared {
    /// What was said of a chain that this has just let pass.
    fn verdict_on(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Option<Found> {
        let (end_entity, others) = chain.split_first()?;
        let seen = lock(&self.seen);
        let of_chain = digest_of(end_entity, others);
        if let Some((_, found)) = seen.verdicts.iter().find(|(digest, _)| *digest == of_chain) {
            return Some(found.clone());
        }
        // So many other chains came meanwhile that it was forgotten: it is judged once more.
        let at = seen.at?;
        drop(seen);
        Some(self.judge.judge(end_entity, others, name, &[], at).0)
    }
}

fn digest_of(end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Digest {
    let mut octets = Vec::new();
    for certificate in std::iter::once(end_entity).chain(others) {
        octets.extend((certificate.len() as u64).to_be_bytes());
        octets.extend_from_slice(certificate);
    }
    let mut out = Digest::default();
    out.copy_from_slice(digest(&SHA256, &octets).as_ref());
    out
}

impl ServerCertVerifier for Shared {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = self
            .judge
            .judge(end_entity, intermediates, server_name, ocsp_response, now);
        let (found, result) = judged;
        result?;
        let of_chain = digest_of(end_entity, intermediates);
        let mut seen = lock(&self.seen);
        seen.at = Some(now);
        seen.verdicts.retain(|(digest, _)| *digest != of_chain);
        if seen.verdicts.len() >= SEEN_MAX {
            seen.verdicts.pop_front();
        }
        seen.verdicts.push_back((of_chain, found));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge
            .webpki
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge
            .webpki
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.webpki.supported_verify_schemes()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
