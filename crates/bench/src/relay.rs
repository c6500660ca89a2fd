//! Relaying, end to end: messages are handed in, the server sends them on to a sink, and the clock runs until
//! the sink has the last one. And what a destination that is dead, with a long queue, costs the others.
//!
//! Each round takes every server in turn (A B A B); each measurement has a fresh server with an empty queue.
//! Promises: a rate counts what the sink has read and answered with 250, by the time from the first message
//! handed in; CPU covers all the server's processes until they are quiet.
//! Never: an address that is not on loopback; a figure for messages that did not arrive.

mod far;
mod told;

use crate::account::Account;
use crate::args::{Relay, Way};
use crate::load::{self, Load, LoadReport};
use crate::measure::{fresh, wait_until_quiet};
use crate::problem::{Outcome, Problem};
use crate::target::postfix::{self, Postfix, Relaying};
use crate::target::posthaste::{Installation, Posthaste};
use crate::target::{Launch, Running, Target};
use crate::{compare, crowd};
use far::Far;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Messages before the clock starts.
const WARM_UP: u64 = 200;
/// Octets of a message for the dead destination: it is the number that matters.
const DEAD_OCTETS: usize = 1024;
/// How long the sink may stay without a new message before the rest counts as missing.
const STALLED: Duration = Duration::from_secs(60);

/// What is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// Messages.
    pub messages: u64,
    /// Domains that they go to.
    pub domains: u16,
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The server.
    pub target: String,
    /// What was asked of it.
    pub cell: Cell,
    /// The round, from 1.
    pub round: u16,
    /// Messages a second that the server accepted.
    pub accepted_per_second: f64,
    /// From the first message handed in until the sink had the last, in seconds.
    pub seconds: f64,
    /// Messages a second that came through in that time.
    pub relayed_per_second: f64,
    /// CPU time of all the server's processes until quiet, for 1,000 messages that came through.
    pub cpu_seconds_per_1000: f64,
    /// Messages that the server did not accept.
    pub refused: u64,
    /// Messages that it accepted and that did not reach the sink in time.
    pub missing: u64,
    /// Connections that the sink saw.
    pub connections: u64,
}

/// One experiment with a dead destination.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dead {
    /// The server.
    pub target: String,
    /// The round, from 1.
    pub round: u16,
    /// Messages that were queued for the dead destination.
    pub queued: u64,
    /// Messages a second to living destinations before.
    pub before: f64,
    /// The same while the others wait in the queue.
    pub after: f64,
    /// Messages for living destinations that did not arrive.
    pub missing: u64,
    /// CPU seconds for 1,000 messages of the dead destination, accepting and trying them, until quiet (60 s
    /// at most).
    pub cpu_seconds_per_1000: f64,
}

/// All that one run found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Found {
    /// The machine, in words.
    pub machine: Vec<String>,
    /// The servers, and what was on and off.
    pub notes: Vec<String>,
    /// The measurements.
    pub runs: Vec<Run>,
    /// The experiments with a dead destination.
    pub dead: Vec<Dead>,
}

/// A kind of server that relays.
enum Server {
    Posthaste {
        server: Posthaste,
        settings: Vec<String>,
        version: String,
    },
    Postfix(Postfix),
}

/// A server that runs, and how messages are handed in.
struct Started {
    running: Running,
    unix: Option<PathBuf>,
}

impl Server {
    fn name(&self) -> &str {
        match self {
            Self::Posthaste { .. } => "posthaste",
            Self::Postfix(postfix) => postfix.name(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Posthaste {
                settings, version, ..
            } => format!(
                "posthaste: {version}, defaults but for {}; messages come through the socket of `posthaste sendmail`, \
                 from a domain of which it has no keys, so nothing is judged and nothing is signed; MX and addresses \
                 come from a DNS server on loopback (outside its CPU figure).",
                settings.join(", ")
            ),
            Self::Postfix(postfix) => postfix.describe(),
        }
    }

    fn start(&self, folder: &Path, account: &Account) -> Outcome<Started> {
        let launch = Launch {
            account,
            strace: None,
        };
        match self {
            Self::Postfix(postfix) => Ok(Started {
                running: postfix.start(folder, &launch)?,
                unix: None,
            }),
            Self::Posthaste { server, settings, .. } => {
                let socket = folder.join("sendmail.sock");
                let mut settings = settings.clone();
                settings.push(format!("sendmail.socket=\"{}\"", socket.display()));
                Ok(Started {
                    running: server.start_with(folder, &launch, &settings)?,
                    unix: Some(socket),
                })
            }
        }
    }
}

/// The order and what serves it.
struct Bench<'a> {
    order: &'a Relay,
    folder: &'a Path,
    far: Far,
    servers: Vec<Server>,
}

/// Does the whole of it.
///
/// # Errors
/// When Posthaste cannot be set up or a server does not start. Postfix may be missing.
pub fn run(order: &Relay) -> Outcome<Found> {
    if order.messages.contains(&0) || order.domains.contains(&0) || order.probe == 0 {
        return Err(Problem(
            "--messages, --domains and --probe must be at least 1".into(),
        ));
    }
    crowd::raise_descriptor_limit();
    let workshop = compare::workshop(order.dir.as_deref())?;
    let folder = workshop.path();
    let most = order.domains.iter().copied().max().unwrap_or(1);
    let far = Far::open(most)?;
    let servers = servers(order, folder, &far)?;
    let bench = Bench {
        order,
        folder,
        far,
        servers,
    };
    let mut found = Found {
        machine: compare::machine(folder),
        notes: bench.servers.iter().map(Server::describe).collect(),
        ..Found::default()
    };
    found.notes.push(format!(
        "{} sessions hand in messages of {} octets; generator, sink, DNS and servers share the cores; {} rounds, servers \
         in turn, a fresh server and an empty queue each time.",
        order.sessions, order.size, order.rounds
    ));
    let cells = bench.cells();
    let steps = (cells.len() + usize::from(order.dead > 0)) * bench.servers.len() * usize::from(order.rounds);
    let bar = ProgressBar::new(steps as u64);
    for round in 1..=order.rounds {
        for cell in &cells {
            for server in &bench.servers {
                found.runs.push(bench.measure(server, *cell, round)?);
                bar.inc(1);
            }
        }
        for server in bench.servers.iter().filter(|_| order.dead > 0) {
            found.dead.push(bench.with_dead(server, round)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(found)
}

fn servers(order: &Relay, folder: &Path, far: &Far) -> Outcome<Vec<Server>> {
    let zone = far.zone();
    let installation = Installation::prepare_beside(&order.posthaste, folder, 1, Some(("sink", &zone)))?;
    let mut settings = vec![format!("deliver.port={}", far.port())];
    settings.extend(order.settings.iter().cloned());
    let mut servers = vec![Server::Posthaste {
        version: installation.version().to_owned(),
        server: Posthaste::new(&Rc::new(installation), Way::Plain),
        settings,
    }];
    let wanted: Vec<&String> = order.postfix.iter().filter(|v| *v != "none").collect();
    if !wanted.is_empty() && !postfix::is_there() {
        eprintln!("bench: {}", postfix::HOW_TO_INSTALL);
        return Ok(servers);
    }
    for word in wanted {
        let tuned = match word.as_str() {
            "default" => false,
            "tuned" => true,
            other => return Err(Problem(format!("--postfix {other}: default, tuned or none"))),
        };
        servers.push(Server::Postfix(Postfix::relaying(Relaying {
            transport: far.transport(),
            tuned,
        })));
    }
    Ok(servers)
}

impl Bench<'_> {
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &domains in self.order.domains.iter().filter(|_| !self.order.dead_only) {
            for &messages in &self.order.messages {
                cells.push(Cell { messages, domains });
            }
        }
        cells
    }

    fn load(&self, started: &Started, messages: u64, size: usize, rcpt: &str, users: u64) -> Load {
        Load {
            to: started.running.address,
            unix: started.unix.clone(),
            sessions: self.order.sessions.into(),
            messages,
            size,
            per_connection: 0,
            recipients: 1,
            from: "load@sender.example".into(),
            rcpt: rcpt.to_owned(),
            users,
            pipelining: false,
            timeout: Duration::from_secs(60),
            tls: None,
            letters: None,
        }
    }

    /// Sends messages to that many living domains; what was accepted, how many reached the sink, and the time
    /// from the first one to the last.
    fn relay(&self, started: &Started, cell: Cell) -> Outcome<(LoadReport, u64, Duration)> {
        let rcpt = if cell.domains == 1 {
            "user%d@d0.sink.example"
        } else {
            "user@d%d.sink.example"
        };
        let users = if cell.domains == 1 {
            100
        } else {
            u64::from(cell.domains)
        };
        let order = self.load(started, cell.messages, self.order.size as usize, rcpt, users);
        self.far.forget();
        let begun = Instant::now();
        let report = load::run(&order)?;
        let (arrived, last) = self.far.wait_for(report.accepted, STALLED);
        Ok((report, arrived, last.map_or(Duration::ZERO, |last| last - begun)))
    }

    fn warmed_up(&self, server: &Server, account: &Account, place: &Path) -> Outcome<Started> {
        let started = server.start(place, account)?;
        let cell = Cell {
            messages: WARM_UP,
            domains: 1,
        };
        let (report, arrived, _) = self.relay(&started, cell)?;
        if arrived == 0 {
            return Err(Problem(format!(
                "{}: nothing came through ({} of {WARM_UP} were accepted; {:?})",
                server.name(),
                report.accepted,
                report.errors
            )));
        }
        wait_until_quiet(account, started.running.root());
        Ok(started)
    }

    fn measure(&self, server: &Server, cell: Cell, round: u16) -> Outcome<Run> {
        let place = fresh(self.folder)?;
        let account = Account::open(server.name());
        let started = self.warmed_up(server, &account, place.path())?;
        let root = started.running.root();
        let cpu = account.cpu(root);
        let connections = self.far.connections();
        let (report, arrived, took) = self.relay(&started, cell)?;
        let connections = self.far.connections() - connections;
        wait_until_quiet(&account, root);
        let cpu = account.cpu(root).saturating_sub(cpu);
        started.running.stop()?;
        Ok(Run {
            target: server.name().to_owned(),
            cell,
            round,
            accepted_per_second: report.per_second,
            seconds: took.as_secs_f64(),
            relayed_per_second: per_second(arrived, took),
            cpu_seconds_per_1000: cpu.as_secs_f64() * 1000.0 / arrived.max(1) as f64,
            refused: report.failed + report.unsent,
            missing: report.accepted.saturating_sub(arrived),
            connections,
        })
    }

    fn with_dead(&self, server: &Server, round: u16) -> Outcome<Dead> {
        let place = fresh(self.folder)?;
        let account = Account::open(server.name());
        let started = self.warmed_up(server, &account, place.path())?;
        let root = started.running.root();
        let cell = Cell {
            messages: self.order.probe,
            domains: self.far.domains().min(100),
        };
        let (report, arrived, took) = self.relay(&started, cell)?;
        let before = per_second(arrived, took);
        let mut missing = report.accepted.saturating_sub(arrived);
        wait_until_quiet(&account, root);
        let cpu = account.cpu(root);
        let order = self.load(
            &started,
            self.order.dead,
            DEAD_OCTETS,
            "user%d@dead.sink.example",
            1_000,
        );
        let queued = load::run(&order)?.accepted;
        wait_until_quiet(&account, root);
        let cpu = account.cpu(root).saturating_sub(cpu);
        let (report, arrived, took) = self.relay(&started, cell)?;
        missing += report.accepted.saturating_sub(arrived);
        started.running.stop()?;
        Ok(Dead {
            target: server.name().to_owned(),
            round,
            queued,
            before,
            after: per_second(arrived, took),
            missing,
            cpu_seconds_per_1000: cpu.as_secs_f64() * 1000.0 / queued.max(1) as f64,
        })
    }
}

fn per_second(messages: u64, took: Duration) -> f64 {
    match took.is_zero() {
        true => 0.0,
        false => messages as f64 / took.as_secs_f64(),
    }
}
