//! The load: many SMTP sessions on one thread, at a very low cost in CPU.
//!
//! Promises: exactly the number of messages asked for is offered, each once; a message counts as accepted
//! only after its final 250; latency runs from MAIL written to that 250 read. The first connection of each
//! session is opened before the clock starts.
//! Never: an address that is not on loopback; a message offered again after its bytes were sent.

mod conversation;
mod line;

use crate::corpus::{Corpus, Dice, Heading, Letter, SIZE_OCTETS_MIN};
use crate::problem::{Outcome, Problem, Trying, only_loopback};
use crate::quantile::Latency;
use conversation::{Conversation, Errand, Step};
use rustix::event::{Timespec, epoll};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections that are being opened at the same time: more would overflow short listen queues.
const OPENING_MAX: usize = 16;
/// How often one session tries to get a connection before it gives up.
const TRIES_MAX: u32 = 3;
/// How long a greeting may take.
const OPENING_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the answers to QUIT are waited for in the end.
const LEAVING_TIME_MAX: Duration = Duration::from_secs(3);
/// Kinds of errors that are told apart; the rest is counted together.
const KINDS_MAX: usize = 20;

/// What is sent where.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server; loopback only.
    pub to: SocketAddr,
    /// Its Unix socket, to use in place of `to`.
    pub unix: Option<PathBuf>,
    /// Sessions at the same time.
    pub sessions: usize,
    /// Messages in all.
    pub messages: u64,
    /// Octets of each message, header included.
    pub size: usize,
    /// Messages on one connection; 0 keeps it for all of them.
    pub per_connection: u64,
    /// Recipients of each message.
    pub recipients: u64,
    /// The sender.
    pub from: String,
    /// The recipients; `%d` becomes the user's number.
    pub rcpt: String,
    /// User numbers run from 0 up to this.
    pub users: u64,
    /// MAIL, RCPT and DATA in one write (RFC 2920).
    pub pipelining: bool,
    /// How long one answer may take.
    pub timeout: Duration,
    /// STARTTLS with these settings, on every connection.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Letters to send in turn instead of new ones: signed beforehand.
    pub letters: Option<Arc<Signed>>,
}

/// Letters that were written and signed beforehand, and the text that their bodies are cut from.
#[derive(Debug)]
pub struct Signed {
    /// The text.
    pub corpus: Corpus,
    /// The letters; at least one.
    pub letters: Vec<Letter>,
}

/// TLS that takes any certificate, as mail servers do among themselves (RFC 7435).
///
/// # Errors
/// When the TLS library refuses its own defaults.
pub fn any_tls() -> Outcome<Arc<rustls::ClientConfig>> {
    let client = tls::Client::new(&tls::Roots::public()).trying(|| "TLS".into())?;
    Ok(client.config(tls::Verification::Opportunistic).0)
}

impl Load {
    /// Refuses what cannot be sent.
    ///
    /// # Errors
    /// A far address, no sessions, messages too small for their header, no recipients.
    pub fn check(&self) -> Outcome<()> {
        only_loopback(self.to)?;
        if self.size < SIZE_OCTETS_MIN {
            return Err(Problem(format!(
                "--size {}: a message needs at least {SIZE_OCTETS_MIN} octets for its header",
                self.size
            )));
        }
        if self.sessions == 0 || self.recipients == 0 || self.users == 0 {
            return Err(Problem(
                "--sessions, --recipients and --users must be at least 1".into(),
            ));
        }
        if self.recipients > self.users {
            return Err(Problem(format!(
                "--recipients {} is more than --users {}: a message would name someone twice",
                self.recipients, self.users
            )));
        }
        Ok(())
    }
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadReport {
    /// Sessions asked for.
    pub sessions: usize,
    /// Sessions that got their first connection before the clock started.
    pub opened: usize,
    /// Connections in all.
    pub connections: u64,
    /// Messages asked for.
    pub messages: u64,
    /// Octets of each message.
    pub size: usize,
    /// Messages with a final 250.
    pub accepted: u64,
    /// Messages without one: refused, or cut off.
    pub failed: u64,
    /// Messages that no session was left to send.
    pub unsent: u64,
    /// From the start of the clock to the last final reply.
    pub seconds: f64,
    /// Accepted messages a second.
    pub per_second: f64,
    /// MAIL written to final 250 read.
    pub latency_ms: Option<Latency>,
    /// Errors by reply.
    pub errors: BTreeMap<String, u64>,
    /// What the generator itself took.
    pub generator_cpu_seconds: f64,
}

/// The parts that all sessions share while a load runs.
struct Desk<'a> {
    load: &'a Load,
    corpus: Corpus,
    dice: Dice,
    date: String,
    run: String,
    next: u64,
    again: Vec<u64>,
    accepted: u64,
    failed: u64,
    connections: u64,
    latencies: Vec<Duration>,
    errors: BTreeMap<String, u64>,
    last: Instant,
}

impl Desk<'_> {
    /// The text that bodies are cut from.
    fn corpus(&self) -> &Corpus {
        self.load
            .letters
            .as_ref()
            .map_or(&self.corpus, |signed| &signed.corpus)
    }

    /// The number of a message that is still to be sent.
    fn claim(&mut self) -> Option<u64> {
        if let Some(number) = self.again.pop() {
            return Some(number);
        }
        (self.next < self.load.messages).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn errand(&mut self, number: u64) -> Errand {
        let user = |n: u64| {
            self.load.rcpt.replace(
                "%d",
                &((number * self.load.recipients + n) % self.load.users).to_string(),
            )
        };
        let to: Vec<String> = (0..self.load.recipients).map(user).collect();
        if let Some(signed) = &self.load.letters {
            let letter = signed.letters[number as usize % signed.letters.len()].clone();
            return Errand::new(number, &self.load.from, &to, letter);
        }
        let heading = Heading {
            from: &self.load.from,
            to: &to[0],
            date: &self.date,
            run: &self.run,
            number,
        };
        let mut head = String::with_capacity(SIZE_OCTETS_MIN);
        let letter = Letter::write(&heading, self.load.size, &self.corpus, &mut self.dice, &mut head);
        Errand::new(number, &self.load.from, &to, letter)
    }

    fn count_error(&mut self, kind: String) {
        if self.errors.len() >= KINDS_MAX && !self.errors.contains_key(&kind) {
            *self.errors.entry("others".into()).or_default() += 1;
        } else {
            *self.errors.entry(kind).or_default() += 1;
        }
    }
}

/// Sends the load and answers when every message has had its final reply or nobody is left to send it.
///
/// # Errors
/// What [`Load::check`] refuses; a kernel that refuses epoll. Errors of the server are in the report.
pub fn run(load: &Load) -> Outcome<LoadReport> {
    load.check()?;
    let cpu = thread_cpu();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let desk = Desk {
        load,
        corpus: Corpus::new(load.size),
        dice: Dice::new(now.as_nanos() as u64),
        date: mail::date::rfc5322(mail::Timestamp::from_secs(now.as_secs() as i64)),
        run: format!("{:x}.{:x}", now.as_micros(), std::process::id()),
        next: 0,
        again: Vec::new(),
        accepted: 0,
        failed: 0,
        connections: 0,
        latencies: Vec::with_capacity(load.messages.min(1 << 24) as usize),
        errors: BTreeMap::new(),
        last: Instant::now(),
    };
    let mut hall = Hall {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC).trying(|| "epoll".into())?,
        seats: (0..load.sessions).map(|_| Seat::default()).collect(),
        opening: 0,
        desk,
    };
    hall.open_all()?;
    let opened = hall.seats.iter().filter(|seat| seat.ready()).count();
    let start = Instant::now();
    hall.desk.last = start;
    hall.send_all()?;
    hall.leave()?;
    let Desk {
        accepted,
        failed,
        connections,
        mut latencies,
        errors,
        last,
        ..
    } = hall.desk;
    let seconds = (last - start).as_secs_f64();
    Ok(LoadReport {
        sessions: load.sessions,
        opened,
        connections,
        messages: load.messages,
        size: load.size,
        accepted,
        failed,
        unsent: load.messages - accepted - failed,
        seconds,
        per_second: if seconds > 0.0 {
            accepted as f64 / seconds
        } else {
            0.0
        },
        latency_ms: Latency::of(&mut latencies),
        errors,
        generator_cpu_seconds: (thread_cpu() - cpu).as_secs_f64(),
    })
}

/// CPU time of this thread so far.
fn thread_cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// One session: its present connection, if any, and how it has fared.
#[derive(Default)]
struct Seat {
    talk: Option<Conversation>,
    tries: u32,
    used: u64,
    given_up: bool,
}

impl Seat {
    fn ready(&self) -> bool {
        self.talk.as_ref().is_some_and(Conversation::is_idle)
    }
}

/// All sessions and what they share.
struct Hall<'a> {
    epoll: std::os::fd::OwnedFd,
    seats: Vec<Seat>,
    opening: usize,
    desk: Desk<'a>,
}

impl Hall<'_> {
    /// Opens every session's first connection, a few at a time.
    fn open_all(&mut self) -> Outcome<()> {
        loop {
            for at in 0..self.seats.len() {
                let seat = &self.seats[at];
                if self.opening < OPENING_MAX && seat.talk.is_none() && !seat.given_up {
                    self.open(at);
                }
            }
            if self.seats.iter().all(|seat| seat.ready() || seat.given_up) {
                return Ok(());
            }
            self.wait(false)?;
        }
    }

    /// Sends until nothing is left to be sent and no answer is awaited.
    fn send_all(&mut self) -> Outcome<()> {
        for at in 0..self.seats.len() {
            self.proceed(at);
        }
        while self.desk.accepted + self.desk.failed < self.desk.load.messages {
            if self.seats.iter().all(|seat| seat.given_up) {
                break;
            }
            self.wait(true)?;
        }
        Ok(())
    }

    /// Says goodbye on every connection that is free, and waits a moment for the answers.
    fn leave(&mut self) -> Outcome<()> {
        let begun = Instant::now();
        for at in 0..self.seats.len() {
            if self.seats[at].ready() {
                self.say_goodbye(at);
            } else {
                self.seats[at].talk = None;
            }
        }
        while self.seats.iter().any(|seat| seat.talk.is_some()) && begun.elapsed() < LEAVING_TIME_MAX {
            self.wait(false)?;
        }
        Ok(())
    }

    fn say_goodbye(&mut self, at: usize) {
        if let Some(talk) = &mut self.seats[at].talk {
            talk.say_goodbye(self.desk.corpus(), &self.epoll, at as u64);
        }
    }

    fn open(&mut self, at: usize) {
        self.seats[at].used = 0;
        let load = self.desk.load;
        let unix = load.unix.as_deref();
        match Conversation::open(load.to, unix, load.tls.clone(), &self.epoll, at as u64) {
            Ok(talk) => {
                self.seats[at].talk = Some(talk);
                self.opening += 1;
            }
            Err(error) => {
                self.desk.count_error(format!("connect: {error}"));
                self.failed_to_open(at);
            }
        }
    }

    fn failed_to_open(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        seat.talk = None;
        seat.tries += 1;
        seat.given_up = seat.tries >= TRIES_MAX;
    }

    /// Waits for the next events and follows them; `sending` once the clock runs.
    fn wait(&mut self, sending: bool) -> Outcome<()> {
        let mut room = [const {
            epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }
        }; 256];
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let count = match epoll::wait(&self.epoll, &mut room, Some(&second)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(Problem(format!("epoll: {error}"))),
        };
        for event in &room[..count] {
            let at = event.data.u64() as usize;
            self.follow(at, sending);
        }
        if count == 0 {
            self.expire(sending);
        }
        Ok(())
    }

    /// One session has something to read or room to write.
    fn follow(&mut self, at: usize, sending: bool) {
        let Some(talk) = self.seats[at].talk.as_mut() else {
            return;
        };
        let was_opening = talk.is_opening();
        let corpus = self.desk.corpus();
        let steps = talk.advance(corpus, &self.epoll, at as u64);
        for step in steps {
            self.take(at, step, was_opening);
        }
        if sending {
            self.proceed(at);
        }
    }

    fn take(&mut self, at: usize, step: Step, was_opening: bool) {
        match step {
            Step::Opened => {
                self.opening -= 1;
                self.desk.connections += 1;
                self.seats[at].tries = 0;
            }
            Step::Accepted { latency } => {
                self.seats[at].used += 1;
                self.desk.accepted += 1;
                self.desk.latencies.push(latency);
                self.desk.last = Instant::now();
            }
            Step::Refused { kind } => {
                self.desk.failed += 1;
                self.desk.last = Instant::now();
                self.desk.count_error(kind);
            }
            Step::Ended { kind, errand } => {
                self.seats[at].talk = None;
                if was_opening {
                    self.opening -= 1;
                    self.desk.count_error(kind);
                    self.failed_to_open(at);
                } else if let Some(errand) = errand {
                    // A server may close a connection that has carried its fill: nothing was sent yet.
                    if errand.untouched && self.seats[at].used > 0 {
                        self.desk.again.push(errand.number);
                    } else {
                        self.desk.failed += 1;
                        self.desk.last = Instant::now();
                        self.desk.count_error(kind);
                    }
                }
            }
        }
    }

    /// Gives an idle session its next message, or the connection that it lacks.
    fn proceed(&mut self, at: usize) {
        let load = self.desk.load;
        let seat = &mut self.seats[at];
        if seat.given_up {
            return;
        }
        if seat.ready() && load.per_connection > 0 && seat.used >= load.per_connection {
            seat.used = 0;
            self.say_goodbye(at);
            return;
        }
        if seat.talk.is_none() {
            let work_left = self.desk.next < load.messages || !self.desk.again.is_empty();
            if work_left && self.opening < OPENING_MAX.max(load.sessions) {
                self.open(at);
            }
            return;
        }
        if !seat.ready() {
            return;
        }
        let Some(number) = self.desk.claim() else {
            return;
        };
        let errand = self.desk.errand(number);
        if let Some(talk) = &mut self.seats[at].talk {
            talk.send(
                errand,
                load.pipelining,
                self.desk.corpus(),
                &self.epoll,
                at as u64,
            );
        }
    }

    /// Ends what has waited too long, and gives sessions without a connection another chance.
    fn expire(&mut self, sending: bool) {
        let timeout = self.desk.load.timeout;
        for at in 0..self.seats.len() {
            if let Some(talk) = &mut self.seats[at].talk
                && !talk.is_idle()
            {
                let was_opening = talk.is_opening();
                let patience = if was_opening {
                    timeout.min(OPENING_TIME_MAX)
                } else {
                    timeout
                };
                if talk.silent_for() < patience {
                    continue;
                }
                let step = talk.give_up(format!("no answer within {} s", patience.as_secs()));
                self.take(at, step, was_opening);
            }
            if sending {
                self.proceed(at);
            }
        }
    }
}
