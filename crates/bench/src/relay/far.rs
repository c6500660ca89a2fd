//! The other side of a relay: domains on addresses of loopback, a sink that serves them all, and one that is
//! dead.
//!
//! Promises: what was answered with 250 is counted, with the time of the last one.
//! Never: keeps a message; listens anywhere but on 127.0.0.0/8.

use crate::hub::{Bell, Hub, Keeper};
use crate::problem::{Outcome, Problem, Trying};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Domains at most: each takes a listener.
pub(super) const DOMAINS_MAX: u16 = 10_000;
/// Where nobody listens.
const DEAD: Ipv4Addr = Ipv4Addr::new(127, 78, 0, 1);

/// The sink and its names.
#[derive(Debug)]
pub(super) struct Far {
    domains: u16,
    port: u16,
    tally: Arc<Tally>,
    bell: Bell,
    hub: Option<JoinHandle<Outcome<()>>>,
}

#[derive(Debug, Default)]
struct Tally {
    messages: AtomicU64,
    connections: AtomicU64,
    last: Mutex<Option<Instant>>,
}

struct Counter {
    buffer: Vec<u8>,
    tally: Arc<Tally>,
}

impl Keeper for Counter {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn took(&mut self, _: u64, _: bool) -> bool {
        self.buffer.clear();
        *self.tally.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.tally.messages.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn opened(&mut self) {
        self.tally.connections.fetch_add(1, Ordering::SeqCst);
    }
}

impl Far {
    /// Serves this many domains.
    ///
    /// # Errors
    /// When there are too many, or loopback does not give the addresses.
    pub(super) fn open(domains: u16) -> Outcome<Self> {
        if domains > DOMAINS_MAX {
            return Err(Problem(format!("--domains {domains}: at most {DOMAINS_MAX}")));
        }
        let first = TcpListener::bind((address(0), 0)).trying(|| address(0).to_string())?;
        let port = first.local_addr().trying(|| "the sink".into())?.port();
        let bell = Bell::new()?;
        let tally = Arc::new(Tally::default());
        let counter = Counter {
            buffer: Vec::new(),
            tally: Arc::clone(&tally),
        };
        let mut hub = Hub::new(first, bell.clone(), counter)?;
        for n in 1..domains {
            let at = SocketAddr::from((address(n), port));
            hub.also(TcpListener::bind(at).trying(|| at.to_string())?)?;
        }
        let hub = std::thread::spawn(move || hub.run().map(drop));
        Ok(Self {
            domains,
            port,
            tally,
            bell,
            hub: Some(hub),
        })
    }

    /// How many domains there are.
    pub(super) fn domains(&self) -> u16 {
        self.domains
    }

    /// The port of all of them.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> u64 {
        self.tally.connections.load(Ordering::SeqCst)
    }

    /// Counts messages from 0 again.
    pub(super) fn forget(&self) {
        *self.tally.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.tally.messages.store(0, Ordering::SeqCst);
    }

    /// Waits until so many messages are there, or none has come for so long. How many there are, and
    /// when the last one came.
    pub(super) fn wait_for(&self, messages: u64, stalled: Duration) -> (u64, Option<Instant>) {
        let begun = Instant::now();
        loop {
            let there = self.tally.messages.load(Ordering::SeqCst);
            let last = *self.tally.last.lock().unwrap_or_else(PoisonError::into_inner);
            if there >= messages || last.unwrap_or(begun).max(begun).elapsed() > stalled {
                return (there, last);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The zone of the domains d0, d1 and so on below sink.example, and of dead.sink.example.
    pub(super) fn zone(&self) -> String {
        let mut text =
            "$ORIGIN sink.example.\n$TTL 3600\n@ IN SOA ns hostmaster 1 3600 600 86400 3600\n@ IN NS ns\n\
                        ns IN A 127.0.0.1\n"
                .to_owned();
        for (name, at) in self.names() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} IN MX 10 mx.{name}\nmx.{name} IN A {at}");
        }
        text
    }

    /// The same as a transport map of Postfix.
    pub(super) fn transport(&self) -> String {
        let line = |(name, at)| format!("{name}.sink.example smtp:[{at}]:{}\n", self.port);
        self.names().map(line).collect()
    }

    fn names(&self) -> impl Iterator<Item = (String, Ipv4Addr)> {
        let living = (0..self.domains).map(|n| (format!("d{n}"), address(n)));
        living.chain([("dead".to_owned(), DEAD)])
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.bell.end();
        if let Some(hub) = self.hub.take() {
            let _ = hub.join();
        }
    }
}

/// The address of a domain.
fn address(n: u16) -> Ipv4Addr {
    Ipv4Addr::new(127, 77, (n / 250) as u8, (n % 250) as u8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    #[test]
    fn every_domain_is_served_and_the_dead_one_is_not() {
        let far = Far::open(300).unwrap();
        assert!(
            far.zone()
                .contains("d299 IN MX 10 mx.d299\nmx.d299 IN A 127.77.1.50\n")
        );
        let line = format!("d0.sink.example smtp:[127.77.0.1]:{}\n", far.port());
        assert!(far.transport().starts_with(&line));
        for n in [0, 1, 299] {
            let mut to = TcpStream::connect((address(n), far.port())).unwrap();
            to.write_all(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n")
                .unwrap();
            to.write_all(b"Subject: x\r\n\r\n.\r\nQUIT\r\n").unwrap();
            let mut said = String::new();
            to.read_to_string(&mut said).unwrap();
            assert!(said.contains("250 2.0.0 taken"), "{said}");
        }
        assert!(TcpStream::connect((DEAD, far.port())).is_err());
        let (there, last) = far.wait_for(3, Duration::from_secs(30));
        assert_eq!((there, last.is_some(), far.connections()), (3, true, 3));
        far.forget();
        assert_eq!(far.wait_for(0, Duration::ZERO), (0, None));
        assert!(Far::open(DOMAINS_MAX + 1).is_err());
    }
}
