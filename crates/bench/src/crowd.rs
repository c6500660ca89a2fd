//! `bench crowd`: many idle sessions, many active ones, slow ones, and more than the server takes.
//!
//! Promises: the idle sessions come from many addresses of 127.0.0.0/8, within the default limits by
//! address and by network, have said EHLO (inside TLS if so wanted) and are asked at the end whether
//! they still live; memory is the server's `RssAnon` before and after they came.
//! Never: an address beyond loopback.

mod talk;

use crate::account::Account;
use crate::args::Way;
use crate::problem::{Outcome, Problem, Trying};
use crate::procfs;
use crate::quantile::Latency;
use crate::table::{Table, figure};
use crate::target::Launch;
use crate::target::posthaste::{Installation, Posthaste};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use talk::{Door, Slow, Talk};
use tokio::task::JoinSet;

/// Sessions that are opened at the same time.
const OPENING_AT_ONCE: usize = 64;
/// Sessions from one address, and addresses of one /24: below the defaults of 100 and 1,000.
const PER_ADDRESS: u32 = 50;
const PER_NETWORK: u32 = 10;
/// How long the server may settle before its memory is read.
const SETTLING: Duration = Duration::from_secs(2);
/// Connections beyond the limit that are tried.
const OVER: usize = 100;

/// What is to be measured.
pub struct Crowd {
    /// Where.
    pub to: SocketAddr,
    /// The server's process.
    pub pid: u32,
    /// Idle sessions.
    pub idle: usize,
    /// Active sessions.
    pub active: usize,
    /// Slow ones, of three kinds.
    pub slow: usize,
    /// All sessions but the slow ones turn on TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// How long each phase of active sessions lasts.
    pub phase: Duration,
    /// How long an active session rests between two messages.
    pub pause: Duration,
    /// `smtp.connections_max` of the server, to go beyond it; `None` leaves that out.
    pub connections_max: Option<usize>,
    /// Users user0 to user(n-1)@bench.example.
    pub users: usize,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct CrowdReport {
    /// Whether the sessions were inside TLS.
    pub tls: bool,
    /// Idle sessions that were greeted.
    pub idle_open: usize,
    /// Idle sessions that were refused or broke off while they opened.
    pub idle_refused: usize,
    /// Seconds that opening them took.
    pub opening_seconds: f64,
    /// The server's memory before they came, in octets.
    pub before_octets: u64,
    /// With them.
    pub with_idle_octets: u64,
    /// What each takes.
    pub octets_per_idle: f64,
    /// The active sessions before the crowd came.
    pub alone: Phase,
    /// The same beside the idle crowd.
    pub beside_idle: Phase,
    /// The same beside the idle crowd and the slow ones.
    pub beside_slow: Phase,
    /// Beyond the limit of all connections.
    pub over: Option<Over>,
    /// Idle sessions that answered at the end.
    pub idle_alive: usize,
}

/// Active sessions for a while.
#[derive(Debug, Default, Serialize)]
pub struct Phase {
    /// Sessions.
    pub sessions: usize,
    /// Messages with a 250.
    pub accepted: u64,
    /// Messages with another answer.
    pub refused: u64,
    /// Sessions that did not open or broke off.
    pub broken: u64,
    /// The first answer that was not 250.
    pub first_refusal: Option<String>,
    /// From MAIL to the 250, in milliseconds.
    pub latency_ms: Option<Latency>,
}

/// What those beyond the limit heard.
#[derive(Debug, Default, Serialize)]
pub struct Over {
    /// Connections that were tried.
    pub tried: usize,
    /// That were greeted.
    pub greeted: usize,
    /// That heard 421.
    pub told_421: usize,
    /// Anything else.
    pub other: usize,
    /// What the first of them heard.
    pub words: Option<String>,
}

/// Measures.
///
/// # Errors
/// When the server cannot be reached or its process is not there.
pub fn run(crowd: Crowd) -> Outcome<CrowdReport> {
    crate::problem::only_loopback(crowd.to)?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .trying(|| "the runtime".into())?;
    runtime.block_on(measure(Arc::new(crowd)))
}

/// Starts a server of its own, with the limits that it has by default, and measures it.
///
/// # Errors
/// As [`run`]; when the server does not start.
pub fn run_on_own(program: &Path, folder: &Path, crowd: Crowd) -> Outcome<CrowdReport> {
    let users = 10;
    let installation = Rc::new(Installation::prepare(program, folder, users)?);
    let server = Posthaste::new(&installation, Way::Plain);
    let account = Account::tree();
    let launch = Launch {
        account: &account,
        strace: None,
    };
    let connections_max = crowd.idle + crowd.active + crowd.slow + OVER;
    let running = server.start_with(
        folder,
        &launch,
        &[
            format!("smtp.connections_max={connections_max}"),
            "smtp.connections_per_address_max=100".to_owned(),
            "smtp.connections_per_network_max=1000".to_owned(),
        ],
    )?;
    let report = run(Crowd {
        to: running.address,
        pid: running.root(),
        connections_max: Some(connections_max),
        users: users.into(),
        ..crowd
    });
    running.stop()?;
    report
}

impl CrowdReport {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let kib = |octets: f64| figure(Some(octets / 1024.0));
        let mut out = format!(
            "{} idle sessions{} ({} refused) in {} s: {} KiB each; RssAnon {} KiB before, {} KiB with them\n",
            self.idle_open,
            if self.tls { " inside TLS" } else { "" },
            self.idle_refused,
            figure(Some(self.opening_seconds)),
            kib(self.octets_per_idle),
            kib(self.before_octets as f64),
            kib(self.with_idle_octets as f64),
        );
        let mut table = Table::new(
            1,
            [
                "active", "sessions", "accepted", "refused", "broken", "p50 ms", "p99 ms", "max ms",
            ],
        );
        for (name, phase) in [
            ("alone", &self.alone),
            ("beside the idle", &self.beside_idle),
            ("beside idle and slow", &self.beside_slow),
        ] {
            let at = phase.latency_ms;
            table.row([
                name.to_owned(),
                phase.sessions.to_string(),
                phase.accepted.to_string(),
                phase.refused.to_string(),
                phase.broken.to_string(),
                figure(at.map(|l| l.p50)),
                figure(at.map(|l| l.p99)),
                figure(at.map(|l| l.max)),
            ]);
        }
        out.push_str(&table.text());
        for phase in [&self.alone, &self.beside_idle, &self.beside_slow] {
            if let Some(words) = &phase.first_refusal {
                out.push_str(&format!("first refusal: {words}\n"));
            }
        }
        if let Some(over) = &self.over {
            out.push_str(&format!(
                "beyond the limit: {} tried, {} greeted, {} heard 421, {} else; {}\n",
                over.tried,
                over.greeted,
                over.told_421,
                over.other,
                over.words.as_deref().unwrap_or("nobody was refused"),
            ));
        }
        out.push_str(&format!(
            "{} of the idle ones answer at the end\n",
            self.idle_alive
        ));
        out
    }
}

async fn measure(crowd: Arc<Crowd>) -> Outcome<CrowdReport> {
    let alone = active(&crowd).await;
    tokio::time::sleep(SETTLING).await;
    let before_octets = private_octets(crowd.pid)?;
    let began = Instant::now();
    let (mut idle, idle_refused) = open_idle(&crowd).await;
    let opening_seconds = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLING).await;
    let with_idle_octets = private_octets(crowd.pid)?;
    let beside_idle = active(&crowd).await;
    let mut slow = JoinSet::new();
    for n in 0..crowd.slow {
        let from = source(20_000 + n as u32);
        slow.spawn(talk::be_slow(crowd.to, from, Slow::ALL[n % Slow::ALL.len()]));
    }
    let beside_slow = active(&crowd).await;
    slow.shutdown().await;
    let over = match crowd.connections_max {
        Some(max) => Some(go_over(&crowd, max).await),
        None => None,
    };
    let mut idle_alive = 0;
    for talk in &mut idle {
        let answer = talk.ask("NOOP").await;
        idle_alive += usize::from(answer.is_ok_and(|a| a.starts_with("250")));
    }
    let grown = with_idle_octets.saturating_sub(before_octets) as f64;
    Ok(CrowdReport {
        tls: crowd.tls.is_some(),
        idle_open: idle.len(),
        idle_refused,
        opening_seconds,
        before_octets,
        with_idle_octets,
        octets_per_idle: grown / (idle.len().max(1) as f64),
        alone,
        beside_idle,
        beside_slow,
        over,
        idle_alive,
    })
}

/// The n-th session's address.
fn source(n: u32) -> IpAddr {
    let address = n / PER_ADDRESS;
    let network = address / PER_NETWORK;
    let [_, _, high, low] = network.to_be_bytes();
    Ipv4Addr::new(127, 1 + high, low, 1 + (address % PER_NETWORK) as u8).into()
}

fn door(crowd: &Crowd, n: u32) -> Door {
    Door {
        to: crowd.to,
        from: source(n),
        tls: crowd.tls.clone(),
    }
}

async fn open_idle(crowd: &Arc<Crowd>) -> (Vec<Talk>, usize) {
    let (mut idle, mut refused, mut next) = (Vec::with_capacity(crowd.idle), 0, 0);
    let mut opening = JoinSet::new();
    loop {
        while next < crowd.idle && opening.len() < OPENING_AT_ONCE {
            opening.spawn(Talk::greeted(door(crowd, next as u32)));
            next += 1;
        }
        match opening.join_next().await {
            None => return (idle, refused),
            Some(Ok(Ok(talk))) => idle.push(talk),
            Some(_) => refused += 1,
        }
    }
}

/// Active sessions for one phase.
async fn active(crowd: &Arc<Crowd>) -> Phase {
    let until = Instant::now() + crowd.phase;
    let mut sessions = JoinSet::new();
    for n in 0..crowd.active {
        // Spread over the pause, so that they do not all send at once.
        let first = crowd.pause.mul_f64(n as f64 / crowd.active as f64);
        let door = door(crowd, 40_000 + n as u32);
        let to = format!("user{}@bench.example", n % crowd.users.max(1));
        let pause = crowd.pause;
        sessions.spawn(async move {
            tokio::time::sleep(first).await;
            let mut share = Share::default();
            let spoken = speak(door, &to, pause, until, &mut share).await;
            (share, spoken)
        });
    }
    let mut phase = Phase {
        sessions: crowd.active,
        ..Phase::default()
    };
    let mut took = Vec::new();
    while let Some(ended) = sessions.join_next().await {
        let Ok((share, spoken)) = ended else { continue };
        phase.accepted += share.took.len() as u64;
        phase.refused += share.refused;
        took.extend(share.took);
        let first = phase.first_refusal.take();
        phase.first_refusal = first.or(share.first_refusal);
        if let Err(problem) = spoken {
            phase.broken += 1;
            phase.first_refusal.get_or_insert(problem.to_string());
        }
    }
    phase.latency_ms = Latency::of(&mut took);
    phase
}

/// What one active session did.
#[derive(Default)]
struct Share {
    took: Vec<Duration>,
    refused: u64,
    first_refusal: Option<String>,
}

async fn speak(
    door: Door,
    to: &str,
    pause: Duration,
    until: Instant,
    share: &mut Share,
) -> std::io::Result<()> {
    let mut talk = Talk::greeted(door).await?;
    while Instant::now() < until {
        let began = Instant::now();
        let answer = talk.send("crowd@sender.example", to).await?;
        if answer.starts_with("250") {
            share.took.push(began.elapsed());
        } else {
            share.refused += 1;
            share.first_refusal.get_or_insert(answer);
        }
        tokio::time::sleep(pause).await;
    }
    talk.ask("QUIT").await.map(|_| ())
}

/// Fills the server up and tries some more.
async fn go_over(crowd: &Arc<Crowd>, max: usize) -> Over {
    let (mut over, mut held) = (Over::default(), Vec::new());
    let free = max.saturating_sub(crowd.idle);
    for n in 0..free + OVER {
        over.tried += 1;
        let plain = Door {
            tls: None,
            ..door(crowd, 60_000 + n as u32)
        };
        match Talk::connect(&plain).await {
            Ok((talk, greeting)) if greeting.starts_with("220") => {
                over.greeted += 1;
                held.push(talk);
            }
            Ok((_, told)) => {
                over.told_421 += usize::from(told.starts_with("421"));
                over.other += usize::from(!told.starts_with("421"));
                over.words.get_or_insert(told);
            }
            Err(error) => {
                over.other += 1;
                over.words.get_or_insert(error.to_string());
            }
        }
    }
    over
}

/// The server's resident memory that no file is behind.
fn private_octets(pid: u32) -> Outcome<u64> {
    let file = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&file).trying(|| file.clone())?;
    procfs::kib_line(&status, "RssAnon").ok_or_else(|| Problem(format!("{file} has no RssAnon")))
}

/// As many descriptors as the system allows.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_stay_within_the_default_limits() {
        use std::collections::HashMap;
        let (mut addresses, mut networks) = (HashMap::new(), HashMap::new());
        for n in 0..61_000 {
            let IpAddr::V4(ip) = source(n) else { panic!() };
            let [a, b, c, _] = ip.octets();
            assert_eq!(a, 127);
            *addresses.entry(ip).or_insert(0) += 1;
            *networks.entry((b, c)).or_insert(0) += 1;
        }
        assert!(addresses.values().all(|n| *n <= 100));
        assert!(networks.values().all(|n| *n <= 1_000));
    }
}
