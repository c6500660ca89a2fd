//! One attempt: the hops of a plan in their order, until a server has answered for every recipient.
//!
//! Which answers end it, for each recipient: a server that took the message or refused it for good has
//! spoken for its domain. No connection, a refusal before MAIL, 4xx, or a conversation that broke off
//! before the message was sent: the next hop is tried (RFC 5321 §5.1), after a 4xx only so many
//! ([`Options::hops_after_deferral_max`]). A session that broke after the message was sent is not tried
//! elsewhere at once, because the message may have arrived (RFC 1047).
//!
//! A body with octets above 127 is sent as it is to a server without 8BITMIME: converting it would
//! break its signatures, and every server of this century passes it on.

use crate::chunking::Chunking;
use crate::control::Heard;
use crate::conversation::{self, Broken, Connection, Held, Manner, Text};
use crate::dial::{Dialer, Stream};
use crate::failure::Failure;
use crate::health::Health;
use crate::heard::{broken_outcome, failure_of, of_peer, outcome_of, session_failure, session_stage, told};
use crate::lanes::Site;
use crate::plan::{Hop, Plan};
use crate::pool::{Keep, Pool, Terms};
use crate::race::{self, Families, Raced};
use crate::security::Level;
use crate::sts;
use crate::tls_result::{self, TlsResult};
use journey::{AttemptOutcome, Event, Reply};
use mail::delivery::DeliverBy;
use mail::{EmailAddress, EnhancedStatus, Recipient, ReversePath};
use smtp::client::{
    CannotSend, Failure as SessionFailure, Outcome, Outgoing, PassedOn, Stage, TlsWish, Verdict, Wishes,
};
use std::sync::Arc;
use std::time::Duration;
use store::{BlobId, Store};
use tokio::time::{Instant, timeout_at};

/// Recipients of one transaction at most (RFC 5321 §4.5.3.1.8: a server takes at least 100).
pub const RECIPIENTS_MAX: usize = 100;

/// How attempts are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our name for EHLO.
    pub helo: String,
    /// For each connection. Default 30 seconds: there are other addresses and a later attempt.
    pub connect_timeout: Duration,
    /// How long an address has before the next one of the same host is dialled beside it. Default
    /// [`race::STAGGER`].
    pub stagger: Duration,
    /// For a TLS handshake. Default 60 seconds.
    pub handshake_timeout: Duration,
    /// For the steps of the conversation (RFC 5321 §4.5.3.2).
    pub timeouts: smtp::client::Timeouts,
    /// For all hops together. Default 25 minutes; keep it below the queue's lease (30).
    pub attempt_time_max: Duration,
    /// Servers that are asked at once for a recipient after one has put it off (4xx to MAIL, RCPT,
    /// DATA or the message). Those that give no answer do not count. Default 2: another exchanger
    /// often takes what the first cannot, but a large site need not say "later" from every address.
    /// 0: the first 4xx ends the attempt.
    pub hops_after_deferral_max: usize,
    /// How long connections are kept for further messages.
    pub keep: Keep,
}

impl Options {
    /// The defaults, for a host of that name.
    #[must_use]
    pub fn new(helo: impl Into<String>) -> Self {
        Self {
            helo: helo.into(),
            connect_timeout: Duration::from_secs(30),
            stagger: race::STAGGER,
            handshake_timeout: Duration::from_secs(60),
            timeouts: smtp::client::Timeouts::default(),
            attempt_time_max: Duration::from_secs(25 * 60),
            hops_after_deferral_max: 2,
            keep: Keep::default(),
        }
    }
}

/// Makes attempts.
pub struct Courier {
    /// Connections.
    pub dialer: Arc<dyn Dialer>,
    /// TLS.
    pub tls: tls::Client,
    /// Where the messages are.
    pub store: Arc<dyn Store>,
    /// Hears the conversations.
    pub tap: Option<Arc<dyn smtp::Tap>>,
    /// Which servers get no BDAT for a while.
    pub chunking: Chunking,
    /// Connections that wait for the next message.
    pub pool: Arc<Pool>,
    /// What is known of families that do not answer.
    pub families: Families,
    /// How.
    pub options: Options,
}

/// A message for recipients of one destination.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Names the conversation for the tap.
    pub name: String,
    /// The reverse-path.
    pub sender: ReversePath,
    /// The recipients, 1 to [`RECIPIENTS_MAX`].
    pub recipients: Vec<EmailAddress>,
    /// Octets before the blob.
    pub prefix: Vec<u8>,
    /// The message.
    pub blob: BlobId,
    /// Its octets.
    pub blob_len: u64,
    /// Whether it holds octets above 127.
    pub eight_bit: bool,
    /// Whether it goes octet for octet (RFC 3030).
    pub binary: bool,
    /// Whether it needs SMTPUTF8.
    pub smtputf8: bool,
    /// What the sender asked; of a deadline, the time that is left when the attempt begins.
    pub wishes: Wishes,
}

/// A server took the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Its name.
    pub host: String,
    /// Its words.
    pub reply: Reply,
    /// What of the sender's wishes it takes care of now.
    pub passed_on: PassedOn,
    /// Whether it took the message into a mailbox, as a server that speaks LMTP does (RFC 2033 §1).
    pub by_lmtp: bool,
}

/// What became of one recipient.
pub type Fate = Result<Taken, Failure>;

/// What an attempt came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempted {
    /// By recipient, in the letter's order.
    pub fates: Vec<Fate>,
    /// What was tried, for the journey, in order.
    pub events: Vec<Event>,
}

/// Recipients without a final answer yet, and what the hops so far said.
struct Open {
    fates: Vec<Option<Fate>>,
    /// By recipient, what servers said that put it off.
    deferrals: Vec<Vec<Failure>>,
    hops_after_deferral_max: usize,
    failures: Vec<Failure>,
    events: Vec<Event>,
    tls_results: Vec<TlsResult>,
    began: Instant,
    /// The site that it counts for.
    site: Option<Site>,
    /// Connections that were opened.
    opened: usize,
    /// Whether the last server failed for what its name asks of TLS.
    is_by_name: bool,
    by_lmtp: bool,
    health: Health,
}

/// An attempt under way. What a server took is to be recorded before the next one is asked for the
/// others: were it lost, the message would be sent twice.
pub struct UnderWay<'a> {
    courier: &'a Courier,
    plan: &'a Plan,
    letter: &'a Letter,
    deadline: Instant,
    /// What was not dialled yet.
    left: Vec<&'a Hop>,
    /// What the domain's policy leaves out, whose turn has not come yet.
    left_out: Vec<&'a Hop>,
    /// By recipient, whether the caller has its fate.
    told: Vec<bool>,
    open: Open,
}

impl<'a> UnderWay<'a> {
    /// Goes on until more fates are known: recipients by their place in the letter, each told once.
    /// `None`: all are told.
    pub async fn next(&mut self) -> Option<Vec<(usize, Fate)>> {
        loop {
            let decided = self.newly_decided();
            if !decided.is_empty() {
                return Some(decided);
            }
            if self.told.iter().all(|told| *told) {
                return None;
            }
            match self.next_host() {
                hops if hops.is_empty() => {
                    self.pass_by(|_| true);
                    self.open.close();
                }
                hops => {
                    let preference = hops.first().and_then(|hop| hop.preference);
                    self.pass_by(|hop| hop.preference <= preference);
                    self.try_host(&hops).await;
                }
            }
        }
    }

    /// The addresses of the next host that were not dialled yet: the next in order; among those that are
    /// equally preferred one to which a connection is kept.
    fn next_host(&self) -> Vec<&'a Hop> {
        let Some(first) = self.left.first() else {
            return Vec::new();
        };
        let equal = self
            .left
            .iter()
            .take_while(|hop| first.preference.is_some() && hop.preference == first.preference);
        let host = equal
            .copied()
            .find(|hop| self.courier.pool.has(hop.address))
            .unwrap_or(first);
        let of_host = self.left.iter().filter(|hop| hop.is_beside(host));
        of_host.copied().collect()
    }

    /// Ends after this time at the latest.
    #[must_use]
    pub(crate) fn within(mut self, time: Duration) -> Self {
        self.deadline = self.deadline.min(Instant::now() + time);
        self
    }

    /// Counts for this site.
    #[must_use]
    pub(crate) fn at(mut self, site: Site) -> Self {
        self.open.site = Some(site);
        self
    }

    /// Whether all fates are told, so that no connection is used any more.
    pub(crate) fn is_over(&self) -> bool {
        self.told.iter().all(|told| *told)
    }

    /// What the attempt so far says of the site, and how many connections it opened.
    pub(crate) fn heard(&self) -> (Heard, usize) {
        (self.open.health.heard(), self.open.opened)
    }

    /// What was tried since this was asked last, for the journey, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.open.events)
    }

    /// The turn of servers has come that the domain's policy leaves out.
    fn pass_by(&mut self, is_turn: impl Fn(&Hop) -> bool) {
        let (passed, later): (Vec<&Hop>, Vec<&Hop>) = self.left_out.iter().partition(|hop| is_turn(hop));
        self.left_out = later;
        let results = tls_result::of_left_out(self.plan, &passed);
        self.open.tls_results.extend(results);
    }

    /// What the conversations since this was asked last came to as far as TLS goes, in order.
    pub fn take_tls_results(&mut self) -> Vec<TlsResult> {
        std::mem::take(&mut self.open.tls_results)
    }

    fn newly_decided(&mut self) -> Vec<(usize, Fate)> {
        let fates = self.open.fates.iter().zip(&mut self.told).enumerate();
        fates
            .filter(|(_, (_, told))| !**told)
            .filter_map(|(i, (fate, told))| {
                *told = fate.is_some();
                Some((i, fate.clone()?))
            })
            .collect()
    }

    async fn try_host(&mut self, hops: &[&'a Hop]) {
        let tried = self
            .courier
            .try_host(self.plan, hops, self.letter, &mut self.open);
        match timeout_at(self.deadline, tried).await {
            Ok(used) => {
                // Under another name the same machine may do, where it failed for its name's sake.
                let by_name = self.open.is_by_name;
                let is_used = |hop: &Hop, used: &Hop| {
                    hop.address == used.address && (hop.host == used.host || !by_name)
                };
                self.left.retain(|hop| !used.iter().any(|u| is_used(hop, u)));
            }
            Err(_) => {
                let words = format!(
                    "{} took too long; the attempt was given up after {} minutes",
                    hops[0].host,
                    self.open.began.elapsed().as_secs() / 60
                );
                let failure = Failure::ours(451, EnhancedStatus::new(4, 4, 2), words);
                self.open.health.trouble(failure.clone());
                self.open.failures.push(failure);
                self.left.clear();
            }
        }
    }
}

impl Courier {
    /// Tries the hops of a plan until a server has answered for each recipient.
    pub async fn attempt(&self, plan: &Plan, letter: &Letter) -> Attempted {
        let mut under_way = self.begin(plan, letter);
        let mut fates = vec![None; letter.recipients.len()];
        while let Some(decided) = under_way.next().await {
            for (i, fate) in decided {
                fates[i] = Some(fate);
            }
        }
        Attempted {
            fates: fates.into_iter().flatten().collect(),
            events: under_way.take_events(),
        }
    }

    /// The same, hop by hop.
    #[must_use]
    pub fn begin<'a>(&'a self, plan: &'a Plan, letter: &'a Letter) -> UnderWay<'a> {
        let count = letter.recipients.len();
        UnderWay {
            courier: self,
            plan,
            letter,
            deadline: Instant::now() + self.options.attempt_time_max,
            left: plan.hops.iter().collect(),
            left_out: plan.left_out.iter().collect(),
            told: vec![false; count],
            open: Open {
                fates: vec![None; count],
                deferrals: vec![Vec::new(); count],
                hops_after_deferral_max: self.options.hops_after_deferral_max,
                failures: Vec::new(),
                events: Vec::new(),
                tls_results: Vec::new(),
                began: Instant::now(),
                site: None,
                opened: 0,
                is_by_name: false,
                by_lmtp: plan.lmtp,
                health: Health::default(),
            },
        }
    }

    /// Tries one host: over a connection that is kept, or by its addresses. Answers those that need not be
    /// dialled any more.
    async fn try_host<'a>(
        &self,
        plan: &Plan,
        hops: &[&'a Hop],
        letter: &Letter,
        open: &mut Open,
    ) -> Vec<&'a Hop> {
        let Some(first) = hops.first() else {
            return Vec::new();
        };
        // Of one host all addresses are as safe.
        let level = match plan.judge(first, letter.wishes.require_tls) {
            Ok(decision) => decision.level,
            Err(refused) => {
                open.tls_results.extend(tls_result::of_refused(first, &refused));
                let held = Held::not_begun(Broken::Unsafe(refused.failure));
                open.note(plan, first, letter, &held);
                open.take(first, held);
                return hops.to_vec();
            }
        };
        let way = Way {
            plan,
            letter,
            level: &level,
        };
        let before = open.failures.len();
        let hops = self.families.in_order(hops);
        let used = match self.over_kept(way, &hops, open).await {
            Some((hop, held)) => {
                self.conclude(way, hop, held, open).await;
                vec![hop]
            }
            None => self.over_new(way, &hops, open).await,
        };
        sts::explain(plan, &level, &mut open.failures[before..]);
        used
    }

    /// Over new connections: the first address that answers.
    async fn over_new<'a>(&self, way: Way<'_>, hops: &[&'a Hop], open: &mut Open) -> Vec<&'a Hop> {
        let raced = self.race(way.plan, hops, open).await;
        self.families.learn(&raced);
        let mut used: Vec<&Hop> = raced.failed.iter().map(|(hop, _)| *hop).collect();
        for (hop, broken) in raced.failed {
            let held = Held::not_begun(broken);
            open.note(way.plan, hop, way.letter, &held);
            open.take(hop, held);
        }
        let Some((hop, io)) = raced.won else {
            return raced.dialled;
        };
        let held = self.speak(way, hop, io, How::first(way), open).await;
        if self.conclude(way, hop, held, open).await {
            return raced.dialled;
        }
        // An address that was only slower may do better than one that connects and then breaks.
        used.push(hop);
        used
    }

    async fn race<'a>(&self, plan: &Plan, hops: &[&'a Hop], open: &mut Open) -> Raced<'a> {
        let options = &self.options;
        let (stagger, within) = (options.stagger, options.connect_timeout);
        let raced = race::race(self.dialer.as_ref(), hops, &plan.departures, stagger, within).await;
        open.opened += raced.dialled.len();
        raced
    }

    /// Draws the conclusions from a conversation; speaks once more without an earlier session where its
    /// resumption failed, by DATA where only BDAT was refused, and in clear after a TLS handshake that failed,
    /// where the policy lets it. Answers whether the server had its say about the message.
    async fn conclude(&self, way: Way<'_>, hop: &Hop, mut held: Held, open: &mut Open) -> bool {
        let mut how = How::first(way);
        if let Err(Broken::Resumption(why)) = &held.result {
            // What was kept of the server is of no use any more; that says nothing of its TLS, and is no
            // reason to go on in clear.
            tracing::debug!(host = %hop.host, address = %hop.address, %why, "a TLS session was not resumed");
            held = self.speak_again(way, hop, how, open).await;
        }
        loop {
            open.note(way.plan, hop, way.letter, &held);
            if is_chunking_denied(&held) && !how.by_data {
                how.by_data = true;
                open.take(hop, held);
            } else if is_handshake_failed(&held) && how.wish == TlsWish::IfOffered {
                // RFC 7435 §3: opportunistic security never makes mail worse off than without it.
                how.wish = TlsWish::Never;
            } else {
                let answered = is_answered(&held.result);
                open.take(hop, held);
                return answered;
            }
            held = self.speak_again(way, hop, how, open).await;
        }
    }

    /// Sends over a connection that was kept, if there is one. One that is of no use any more shows before
    /// its server has answered MAIL, when nothing was taken: that is no failure.
    async fn over_kept<'a>(&self, way: Way<'_>, hops: &[&'a Hop], open: &Open) -> Option<(&'a Hop, Held)> {
        for hop in hops {
            let manner = self.manner(way, hop, How::first(way), open);
            while let Some(mut connection) = self.pool.take(hop, &manner) {
                connection.take_up(&manner.name);
                let held = self.send(way, hop, &manner, connection, open).await;
                if !is_stale(&held.result) {
                    return Some((hop, held));
                }
                tracing::debug!(host = %hop.host, address = %hop.address, "a kept connection was closed");
            }
        }
        None
    }

    /// The same server once more.
    async fn speak_again(&self, way: Way<'_>, hop: &Hop, how: How, open: &mut Open) -> Held {
        let mut raced = self.race(way.plan, &[hop], open).await;
        match (raced.won, raced.failed.pop()) {
            (Some((_, io)), _) => self.speak(way, hop, io, how, open).await,
            (None, Some((_, broken))) => Held::not_begun(broken),
            (None, None) => Held::not_begun(Broken::ConnectTimeout(self.options.connect_timeout)),
        }
    }

    /// Over a new connection.
    async fn speak(&self, way: Way<'_>, hop: &Hop, io: Box<dyn Stream>, how: How, open: &mut Open) -> Held {
        let manner = self.manner(way, hop, how, open);
        let held = match conversation::open(io, &self.tls, hop, &manner).await {
            Ok(connection) => self.send(way, hop, &manner, connection, open).await,
            Err(held) => *held,
        };
        // Here alone: a connection that is kept for further messages counts once (RFC 8460 §4.4). A session
        // that was not resumed says nothing: the next connection begins without it.
        if !matches!(held.result, Err(Broken::Resumption(_))) {
            let from = self.dialer.leaves_from(hop.address, manner.source);
            let result = tls_result::of(way.plan, (hop, from), way.level, how.wish, &held);
            open.tls_results.extend(result);
        }
        match held.result {
            // What a route requires may be mended there; what the sender requires goes no other way.
            Err(Broken::Session(SessionFailure::TlsNotOffered)) if way.letter.wishes.require_tls => Held {
                result: Err(Broken::Cannot(CannotSend::NeedsTls)),
                ..held
            },
            _ => held,
        }
    }

    async fn send(
        &self,
        way: Way<'_>,
        hop: &Hop,
        manner: &Manner,
        mut connection: Connection,
        open: &Open,
    ) -> Held {
        let letter = way.letter;
        let text = Text {
            prefix: &letter.prefix,
            blob: letter.blob,
            blob_len: letter.blob_len,
            blobs: self.store.as_ref(),
        };
        let result = connection.send(outgoing(letter, open), text).await;
        if let Ok(outcome) = &result {
            self.chunking.learn(hop.address, outcome);
        }
        let (tls, flaw) = connection.tls();
        self.pool.put(hop.address, connection, Terms::of(hop, manner));
        Held { tls, flaw, result }
    }

    fn manner(&self, way: Way<'_>, hop: &Hop, how: How, open: &Open) -> Manner {
        let mut manner = manner(&self.options, way.plan, hop, way.level, how.wish);
        manner.client.chunking = !how.by_data && self.chunking.is_allowed(hop.address);
        manner.tap = self.tap.clone();
        manner.name = format!("{} to {} at {}", way.letter.name, hop.host, hop.place());
        manner.site = open.site.clone();
        manner
    }
}

/// What a host is tried with.
#[derive(Clone, Copy)]
struct Way<'a> {
    plan: &'a Plan,
    letter: &'a Letter,
    level: &'a Level,
}

/// How a conversation is begun.
#[derive(Clone, Copy)]
struct How {
    wish: TlsWish,
    /// Whether the message goes by DATA, whatever is remembered of the server.
    by_data: bool,
}

impl How {
    /// As the policy wants it.
    fn first(way: Way<'_>) -> Self {
        Self {
            wish: way.level.wish(),
            by_data: false,
        }
    }
}

fn helo(options: &Options, plan: &Plan, hop: &Hop) -> String {
    match plan.departures.to(hop) {
        Some(departure) => departure.helo.clone(),
        None => options.helo.clone(),
    }
}

/// How a conversation with a server of the plan is held, unheard by anybody and for no site.
pub(crate) fn manner(options: &Options, plan: &Plan, hop: &Hop, level: &Level, wish: TlsWish) -> Manner {
    let mut client = smtp::client::Options::new(helo(options, plan, hop));
    client.lmtp = plan.lmtp;
    client.tls = wish;
    client.timeouts = options.timeouts;
    client.login = plan.login.as_ref().map(|l| (l.user.clone(), l.password.clone()));
    // In clear a password may only go where nobody listens.
    client.allow_plaintext_auth = *level == Level::Clear && hop.ip().is_none_or(|ip| ip.is_loopback());
    Manner {
        client,
        verification: level.verification(),
        verified_as: level.label(),
        handshake_timeout: options.handshake_timeout,
        source: plan.departures.to(hop).map(|departure| departure.address),
        tap: None,
        name: String::new(),
        site: None,
    }
}

/// Whether a server that had been left waiting answered MAIL with its end, or not at all.
fn is_stale(result: &Result<Outcome, Broken>) -> bool {
    let stale = |verdict: &Verdict| match verdict {
        Verdict::Unanswered(failure) => session_stage(failure) == Some(Stage::MailFrom),
        Verdict::Transient { stage, reply } => *stage == Stage::MailFrom && reply.code == 421,
        Verdict::Accepted(_) | Verdict::Permanent { .. } => false,
    };
    match result {
        Ok(outcome) => outcome.recipients.iter().all(stale),
        Err(Broken::Session(failure)) => session_stage(failure) == Some(Stage::MailFrom),
        Err(_) => false,
    }
}

/// Whether the server had its say about the message, or it cannot go there: another address of the same
/// host would say the same.
fn is_answered(result: &Result<Outcome, Broken>) -> bool {
    match result {
        Ok(outcome) => !outcome
            .recipients
            .iter()
            .any(|verdict| matches!(verdict, Verdict::Unanswered(_))),
        Err(Broken::Cannot(_) | Broken::Unsafe(_) | Broken::Blob(_)) => true,
        Err(
            Broken::Connect(_)
            | Broken::ConnectTimeout(_)
            | Broken::Handshake(_)
            | Broken::Resumption(_)
            | Broken::Session(_),
        ) => false,
    }
}

fn is_handshake_failed(held: &Held) -> bool {
    match &held.result {
        Err(Broken::Handshake(_) | Broken::Resumption(_)) => true,
        Err(Broken::Session(failure)) => session_stage(failure) == Some(Stage::StartTls),
        _ => false,
    }
}

fn is_chunking_denied(held: &Held) -> bool {
    matches!(&held.result, Ok(outcome) if outcome.chunking_denied().is_some())
}

/// The message for those who have no answer yet.
fn outgoing(letter: &Letter, open: &Open) -> Outgoing {
    let recipients = open.waiting().map(|i| letter.recipients[i].clone());
    let wishes = open.waiting().map(|i| letter.wishes.recipients.get(i).cloned());
    let waited = i64::try_from(open.began.elapsed().as_secs()).unwrap_or(i64::MAX);
    Outgoing {
        sender: letter.sender.clone(),
        recipients: recipients.map(Recipient::Address).collect(),
        size_octets: letter.prefix.len() as u64 + letter.blob_len,
        eight_bit: letter.eight_bit,
        binary: letter.binary,
        smtputf8: letter.smtputf8,
        wishes: Wishes {
            recipients: wishes.map(Option::unwrap_or_default).collect(),
            deliver_by: letter.wishes.deliver_by.map(|by| DeliverBy {
                seconds: by.seconds.saturating_sub(waited),
                ..by
            }),
            ..letter.wishes.clone()
        },
    }
}

impl Open {
    fn waiting(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.fates.len()).filter(|i| self.fates[*i].is_none())
    }

    /// Draws the conclusions from a conversation.
    fn take(&mut self, hop: &Hop, held: Held) {
        let host = hop.host.to_string();
        self.is_by_name = matches!(held.result, Err(Broken::Handshake(_) | Broken::Unsafe(_)));
        let (verdicts, passed_on) = match held.result {
            Ok(outcome) => (outcome.recipients, outcome.passed_on),
            Err(broken) => return self.failures.push(failure_of(hop, &broken)),
        };
        let waiting: Vec<usize> = self.waiting().collect();
        let mut elsewhere = None;
        for (i, verdict) in waiting.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Transient { reply, .. } => self.defer(i, of_peer(&host, &reply)),
                Verdict::Accepted(reply) => {
                    self.fates[i] = Some(Ok(Taken {
                        host: host.clone(),
                        reply: told(&reply),
                        passed_on,
                        by_lmtp: self.by_lmtp,
                    }));
                }
                Verdict::Permanent { reply, .. } => {
                    self.fates[i] = Some(Err(of_peer(&host, &reply)));
                }
                Verdict::Unanswered(failure) => {
                    let sent = session_stage(&failure) == Some(Stage::EndOfMessage);
                    let failure = session_failure(hop, &failure);
                    if sent {
                        self.fates[i] = Some(Err(failure));
                    } else {
                        elsewhere = Some(failure);
                    }
                }
            }
        }
        self.failures.extend(elsewhere);
    }

    /// A server has put a recipient off. It goes on to the next hop while it may.
    fn defer(&mut self, i: usize, failure: Failure) {
        self.deferrals[i].push(failure);
        if self.deferrals[i].len() > self.hops_after_deferral_max {
            self.fates[i] = put_off(&self.deferrals[i]);
        }
    }

    /// Whoever has no fate yet is left with what the hops said.
    fn close(&mut self) {
        let otherwise = strongest(std::mem::take(&mut self.failures));
        for (fate, deferrals) in self.fates.iter_mut().zip(&self.deferrals) {
            fate.get_or_insert_with(|| put_off(deferrals).unwrap_or_else(|| Err(otherwise.clone())));
        }
    }

    /// Records a conversation for the journey: one event for recipients with the same outcome.
    fn note(&mut self, plan: &Plan, hop: &Hop, letter: &Letter, held: &Held) {
        self.health.hear(hop, &held.result);
        let waiting: Vec<usize> = self.waiting().collect();
        let mut groups: Vec<(AttemptOutcome, Vec<EmailAddress>)> = Vec::new();
        for (place, i) in waiting.into_iter().enumerate() {
            let outcome = match &held.result {
                Ok(outcome) => match outcome.recipients.get(place) {
                    Some(verdict) => outcome_of(hop, verdict),
                    None => continue,
                },
                Err(broken) => broken_outcome(hop, broken),
            };
            let recipient = letter.recipients[i].clone();
            match groups.iter_mut().find(|(o, _)| *o == outcome) {
                Some((_, recipients)) => recipients.push(recipient),
                None => groups.push((outcome, vec![recipient])),
            }
        }
        let departure = plan.departures.to(hop);
        for (outcome, recipients) in groups {
            self.events.push(Event::Attempt {
                recipients,
                host: hop.host.to_string(),
                ip: hop.ip(),
                port: hop.address.port(),
                source: departure.map(|d| d.address),
                helo: departure.map(|d| d.helo.clone()),
                tls: held.tls.clone(),
                outcome,
            });
        }
    }
}

/// The fate of a recipient that servers put off, in the words of the most preferred one: they tell
/// more than a connection that the next one refused.
fn put_off(deferrals: &[Failure]) -> Option<Fate> {
    deferrals.first().cloned().map(Err)
}

/// What stands for several hops that all failed: only when every one refused for good is it for good.
pub(crate) fn strongest(mut failures: Vec<Failure>) -> Failure {
    let temporary = failures.iter().rposition(|f| !f.is_permanent());
    match temporary {
        Some(i) => failures.swap_remove(i),
        None => failures.pop().unwrap_or_else(|| {
            Failure::ours(
                451,
                EnhancedStatus::new(4, 4, 4),
                "the plan names no server to try",
            )
        }),
    }
}
