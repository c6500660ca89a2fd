//! A probe: walks the way of a message up to RCPT, takes the question back and leaves. No message is
//! ever sent.
//!
//! Promises: the same hosts in the same order, with the same TLS, login and source as a delivery; each
//! step with the time that it took and what the server said; an end that says whether mail would be
//! taken now. Passwords are never shown.

use crate::attempt::{Options, manner, strongest};
use crate::conversation::{self, Broken, Handshake, Talk};
use crate::dial::{Dialer, Stream};
use crate::failure::Failure;
use crate::heard::{failure_of, of_peer, session_failure, session_stage, told};
use crate::plan::{Hop, Plan};
use crate::race;
use crate::security::Level;
use crate::sts;
use journey::{Reply, TlsUsed};
use mail::{EmailAddress, EnhancedStatus, Recipient, ReversePath};
use serde::Serialize;
use smtp::client::{Failure as SessionFailure, Outcome, Outgoing, Stage, TlsWish, Verdict, Wishes};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Octets that the message would have, for servers that are told sizes.
const SIZE_OCTETS: u64 = 1_024;
/// A TLS handshake that failed.
const TLS_FAILED: EnhancedStatus = EnhancedStatus::new(4, 7, 5);
/// Lines of one conversation that are kept at most.
const LINES_MAX: usize = 1_000;

/// What a probe works with.
pub struct Prober<'a> {
    /// Connections.
    pub dialer: &'a dyn Dialer,
    /// TLS.
    pub tls: &'a tls::Client,
    /// As for a delivery.
    pub options: &'a Options,
}

/// One step of a conversation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// What was done: `connect`, `greeting`, `EHLO`, `STARTTLS`, `TLS handshake`, `AUTH`, `MAIL FROM`, …
    pub what: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// Whether it went well.
    pub good: bool,
    /// What the server said, line by line; or what went wrong.
    pub said: Vec<String>,
}

/// One server that was spoken to, or could not be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Walk {
    /// Its name.
    pub host: String,
    /// Where it is.
    pub address: SocketAddr,
    /// Its MX preference, when it has one.
    pub preference: Option<u16>,
    /// The TLS of the connection.
    pub tls: Option<TlsUsed>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Why it ended without an answer to RCPT.
    pub failure: Option<String>,
}

/// What a probe came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probed {
    /// The servers, in the order in which they were tried.
    pub walks: Vec<Walk>,
    /// The answer to RCPT of a server that takes mail for the recipient; or why none does now.
    pub verdict: Result<Reply, Failure>,
}

impl Prober<'_> {
    /// Walks the hosts of a plan until one has answered for good, as a delivery would.
    pub async fn probe(&self, plan: &Plan, sender: &ReversePath, recipient: &EmailAddress) -> Probed {
        let question = Outgoing {
            sender: sender.clone(),
            recipients: vec![Recipient::Address(recipient.clone())],
            size_octets: SIZE_OCTETS,
            eight_bit: false,
            binary: false,
            smtputf8: false,
            wishes: Wishes::default(),
        };
        let mut left: Vec<&Hop> = plan.hops.iter().collect();
        let mut walks = Vec::new();
        let mut failures = Vec::new();
        let mut deferral = None;
        while let Some(first) = left.first().copied() {
            let of_host = left.iter().take_while(|hop| hop.is_beside(first));
            let of_host: Vec<&Hop> = of_host.copied().collect();
            let began = Instant::now();
            let level = match plan.security(first, false) {
                Ok(decision) => decision.level,
                Err(failure) => {
                    walks.push(unreached(first, began, &failure));
                    failures.push(failure);
                    left.drain(..of_host.len());
                    continue;
                }
            };
            let (stagger, within) = (self.options.stagger, self.options.connect_timeout);
            let raced = race::race(self.dialer, &of_host, &plan.departures, stagger, within).await;
            for (hop, broken) in &raced.failed {
                let failure = failure_of(hop, broken);
                walks.push(unreached(hop, began, &failure));
                failures.push(failure);
            }
            let is_used = |hop: &Hop| raced.dialled.iter().any(|d| d.address == hop.address);
            let Some((hop, io)) = raced.won else {
                left.retain(|hop| !is_used(hop));
                continue;
            };
            let connect = step("connect", began, true, Vec::new());
            match self
                .ask(plan, hop, io, connect, &question, &level, &mut walks)
                .await
            {
                Ok(reply) => {
                    let verdict = Ok(reply);
                    return Probed { walks, verdict };
                }
                Err(Said::No(failure)) => {
                    let verdict = Err(failure);
                    return Probed { walks, verdict };
                }
                Err(Said::Later(failure)) => {
                    deferral.get_or_insert(failure);
                    left.retain(|hop| !is_used(hop));
                }
                Err(Said::Nothing(mut failure)) => {
                    // Under another name the same machine may do, where it failed for its name's sake.
                    let by_name = failure.status == TLS_FAILED;
                    left.retain(|hop| !is_used(hop) || (by_name && hop.host != first.host));
                    sts::explain(plan, &level, std::slice::from_mut(&mut failure));
                    failures.push(failure);
                }
            }
        }
        Probed {
            walks,
            verdict: Err(deferral.unwrap_or_else(|| strongest(failures))),
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "each is decided by another part of the probe"
    )]
    /// Asks one server; in clear after a TLS handshake that failed, where the policy lets it.
    async fn ask(
        &self,
        plan: &Plan,
        hop: &Hop,
        io: Box<dyn Stream>,
        connect: Step,
        question: &Outgoing,
        level: &Level,
        walks: &mut Vec<Walk>,
    ) -> Result<Reply, Said> {
        let wish = level.wish();
        let asked = self
            .converse(plan, hop, io, connect, question, (level, wish), walks)
            .await;
        let handshake_failed = match &asked {
            Err(Broken::Handshake(_) | Broken::Resumption(_)) => true,
            Err(Broken::Session(f)) => session_stage(f) == Some(Stage::StartTls),
            _ => false,
        };
        if !handshake_failed || wish != TlsWish::IfOffered {
            return answer(hop, asked);
        }
        let began = Instant::now();
        let (stagger, within) = (self.options.stagger, self.options.connect_timeout);
        let mut raced = race::race(self.dialer, &[hop], &plan.departures, stagger, within).await;
        let asked = match (raced.won, raced.failed.pop()) {
            (Some((_, io)), _) => {
                let connect = step("connect again, without TLS", began, true, Vec::new());
                let never = (level, TlsWish::Never);
                self.converse(plan, hop, io, connect, question, never, walks)
                    .await
            }
            (None, Some((_, broken))) => {
                walks.push(unreached(hop, began, &failure_of(hop, &broken)));
                Err(broken)
            }
            (None, None) => asked,
        };
        answer(hop, asked)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "each is decided by another part of the probe"
    )]
    async fn converse(
        &self,
        plan: &Plan,
        hop: &Hop,
        io: Box<dyn Stream>,
        connect: Step,
        question: &Outgoing,
        (level, wish): (&Level, TlsWish),
        walks: &mut Vec<Walk>,
    ) -> Result<Outcome, Broken> {
        let notes = Arc::new(Notes::default());
        let mut manner = manner(self.options, plan, hop, level, wish);
        manner.tap = Some(notes.clone());
        manner.name = "probe".to_owned();
        // Each step by itself, so that each has its own time.
        manner.client.pipelining = false;
        let (talk, handshake) = conversation::begin(io, self.tls, hop, &manner);
        let began = Instant::now();
        let mut used = None;
        let asked = talk.ask(&handshake, &mut used, question.clone(), &notes).await;
        let mut steps = vec![connect];
        steps.extend(notes.steps(began));
        let failure = asked
            .as_ref()
            .err()
            .map(|broken| failure_of(hop, broken).to_string());
        if failure.is_some() && !matches!(asked, Err(Broken::Cannot(_))) {
            // The step that got no answer, or the wrong one.
            steps
                .iter_mut()
                .last()
                .into_iter()
                .for_each(|step| step.good = false);
        }
        walks.push(Walk {
            tls: used,
            steps,
            failure,
            ..walk(hop)
        });
        asked
    }
}

/// What a server that takes no mail now said.
enum Said {
    /// No, for good.
    No(Failure),
    /// Later.
    Later(Failure),
    /// Nothing that counts; another server may be asked.
    Nothing(Failure),
}

fn answer(hop: &Hop, asked: Result<Outcome, Broken>) -> Result<Reply, Said> {
    let outcome = asked.map_err(|broken| Said::Nothing(failure_of(hop, &broken)))?;
    let host = hop.host.to_string();
    match outcome.recipients.into_iter().next() {
        Some(Verdict::Accepted(reply)) => Ok(told(&reply)),
        Some(Verdict::Permanent { reply, .. }) => Err(Said::No(of_peer(&host, &reply))),
        Some(Verdict::Transient { reply, .. }) => Err(Said::Later(of_peer(&host, &reply))),
        Some(Verdict::Unanswered(failure)) => Err(Said::Nothing(session_failure(hop, &failure))),
        None => {
            let lost = SessionFailure::Lost { stage: Stage::RcptTo };
            Err(Said::Nothing(session_failure(hop, &lost)))
        }
    }
}

fn walk(hop: &Hop) -> Walk {
    Walk {
        host: hop.host.to_string(),
        address: hop.address,
        preference: hop.preference,
        tls: None,
        steps: Vec::new(),
        failure: None,
    }
}

fn unreached(hop: &Hop, began: Instant, failure: &Failure) -> Walk {
    Walk {
        steps: vec![step("connect", began, false, vec![failure.words.clone()])],
        failure: Some(failure.to_string()),
        ..walk(hop)
    }
}

fn step(what: &str, began: Instant, good: bool, said: Vec<String>) -> Step {
    Step {
        what: what.to_owned(),
        ms: millis(began.elapsed()),
        good,
        said,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Talk {
    /// Asks and leaves.
    async fn ask(
        mut self,
        handshake: &Handshake<'_>,
        used: &mut Option<TlsUsed>,
        question: Outgoing,
        notes: &Notes,
    ) -> Result<Outcome, Broken> {
        use smtp::client::Step;
        let mut question = Some(question);
        let mut told = None;
        let lost = || Broken::Session(SessionFailure::Lost { stage: Stage::RcptTo });
        loop {
            match self.step() {
                Step::Read => self.exchange().await,
                Step::StartTls => {
                    if let Err(e) = self.flush().await {
                        self.lost_while_writing(&e).await;
                        continue;
                    }
                    notes.begin("TLS handshake");
                    let shaken = handshake.shake(self.io).await;
                    let (io, shaken) = shaken.inspect_err(|e| {
                        if let Broken::Handshake(why) | Broken::Resumption(why) = e {
                            notes.end(false, why.to_string());
                        }
                    })?;
                    notes.end(true, in_words(&shaken.tls));
                    (self.io, *used) = (io, Some(shaken.tls));
                    self.client.tls_started();
                }
                Step::Ready => match question.take() {
                    Some(question) => {
                        if let Err(cannot) = self.client.ask(question) {
                            told = Some(Err(Broken::Cannot(cannot)));
                            self.client.quit();
                        }
                    }
                    None => self.client.quit(),
                },
                // Nobody asks for a message where none was announced.
                Step::Body => return told.unwrap_or_else(|| Err(lost())),
                Step::Sent(outcome) => told = Some(Ok(outcome)),
                Step::Failed(failure) => return told.unwrap_or(Err(Broken::Session(failure))),
                Step::Closed => return told.unwrap_or_else(|| Err(lost())),
            }
        }
    }
}

fn in_words(tls: &TlsUsed) -> String {
    let verified = match &tls.verified {
        Some(by) => format!("certificate verified by {by}"),
        None => "certificate not verified".to_owned(),
    };
    format!("{}, {}, {verified}", tls.version, tls.cipher)
}

/// What was heard of a conversation, with times.
#[derive(Default)]
struct Notes {
    heard: Mutex<Vec<Heard>>,
}

struct Heard {
    at: Instant,
    what: What,
}

enum What {
    /// We said a command, or did something else.
    Began(String),
    /// The server said a line.
    Line(String),
    /// Something else ended.
    Ended(bool, String),
}

impl Notes {
    fn note(&self, what: What) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < LINES_MAX {
            let at = Instant::now();
            heard.push(Heard { at, what });
        }
    }

    fn begin(&self, what: &str) {
        self.note(What::Began(what.to_owned()));
    }

    fn end(&self, good: bool, how: String) {
        self.note(What::Ended(good, how));
    }

    /// The steps; the first one, the greeting, began when the connection was there.
    fn steps(&self, began: Instant) -> Vec<Step> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps: Vec<Step> = Vec::new();
        let mut since = began;
        let new = |what: &str| Step {
            what: what.to_owned(),
            ms: 0,
            good: false,
            said: Vec::new(),
        };
        steps.push(new("greeting"));
        for Heard { at, what } in heard.iter() {
            if let What::Began(what) = what {
                steps.push(new(what));
                since = *at;
                continue;
            }
            let Some(step) = steps.last_mut() else { continue };
            step.ms = millis(at.saturating_duration_since(since));
            match what {
                What::Began(_) => {}
                What::Line(line) => {
                    step.good = matches!(line.as_bytes().first(), Some(b'2' | b'3'));
                    step.said.push(line.clone());
                }
                What::Ended(good, how) => {
                    step.good = *good;
                    step.said.push(how.clone());
                }
            }
        }
        if let Some(last) = steps.last_mut().filter(|step| step.said.is_empty()) {
            last.ms = millis(since.elapsed());
        }
        steps
    }
}

impl smtp::Tap for Notes {
    fn line(&self, _: &str, from_client: bool, line: &str) {
        if !from_client {
            return self.note(What::Line(line.to_owned()));
        }
        let verb = match line.split([' ', ':']).next() {
            Some("MAIL") => "MAIL FROM",
            Some("RCPT") => "RCPT TO",
            Some(verb @ ("EHLO" | "LHLO" | "HELO" | "STARTTLS" | "AUTH" | "RSET" | "QUIT")) => verb,
            // A login goes on, or a remark about TLS.
            _ => return,
        };
        self.begin(verb);
    }
}
