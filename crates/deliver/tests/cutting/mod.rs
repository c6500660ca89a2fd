//! One run with cut connections: a seeded world of a few domains, messages, kills and refusals of the
//! store; and the account of it.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod ledger;
pub mod net;

use crate::common::world::{Over, World, domain};
use dns::table::TableResolver;
use journey::Event;
use ledger::{Account, Book, Told};
use mail::QueueId;
use net::{CutCounts, Cutting, CuttingDialer, Dice, Host, How, SeededRandom, Whose};
use queue::{Filter, NewErrand};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Domains of a run, each with two exchangers.
const DOMAINS: u64 = 4;
/// Messages of a run.
const MESSAGES: u64 = 30;
/// From then on nothing goes wrong any more, so that no errand expires.
const CALM_AFTER: Duration = Duration::from_secs(36 * 3_600);

/// What one run or several came to.
#[derive(Clone, Default, Debug)]
pub struct Run {
    pub seeds: u64,
    pub messages: u64,
    pub account: Account,
    pub cuts: CutCounts,
    pub kills: u64,
    /// Commits that the store refused.
    pub refused: u64,
}

impl Run {
    pub fn cut(&self) -> u64 {
        self.cuts.values().sum()
    }

    pub fn add(&mut self, other: &Run) {
        self.seeds += other.seeds;
        self.messages += other.messages;
        self.account.add(&other.account);
        for (what, count) in &other.cuts {
            *self.cuts.entry(*what).or_default() += count;
        }
        self.kills += other.kills;
        self.refused += other.refused;
    }

    /// The counts, for people.
    pub fn in_words(&self) -> String {
        let a = &self.account;
        let of = |whose, how| -> u64 {
            let these = self.cuts.iter().filter(|((w, h, _), _)| (*w, *h) == (whose, how));
            these.map(|(_, count)| count).sum()
        };
        let mut text = format!(
            "{} runs, {} messages, {} cuts:\n",
            self.seeds,
            self.messages,
            self.cut()
        );
        for (whose, name) in [
            (Whose::Ours, "our octets lost"),
            (Whose::Theirs, "the server's replies lost"),
        ] {
            let [reset, end, silence] = [How::Reset, How::End, How::Silence].map(|how| of(whose, how));
            text += &format!("  {name}: {reset} by a reset, {end} by an end, {silence} in silence\n");
        }
        let mut stages: BTreeMap<&str, u64> = BTreeMap::new();
        for ((_, _, stage), count) in &self.cuts {
            *stages.entry(stage).or_default() += count;
        }
        let stages: Vec<String> = stages.iter().map(|(stage, n)| format!("{stage} {n}")).collect();
        text += &format!("  by how far the server had come: {}\n", stages.join(", "));
        text += &format!(
            "{} kills of the service, {} commits refused\n",
            self.kills, self.refused
        );
        text += &format!(
            "{} recipients: {} got the message, {} were bounced and told, {} wrong\n",
            a.recipients,
            a.arrived,
            a.bounced,
            a.wrong.len()
        );
        text + &format!(
            "copies beyond one: {} because the answer was cut (RFC 1047), {} because the service was killed before it was recorded; reports told twice after a kill: {}\n",
            a.twice_reply_cut, a.twice_unrecorded, a.reported_twice
        )
    }
}

/// Four domains with two exchangers each, of many kinds.
fn hosts(
    dice: &mut Dice,
    tls: &Arc<rustls::ServerConfig>,
) -> (TableResolver, HashMap<std::net::SocketAddr, Arc<Host>>) {
    let (mut zones, mut hosts) = (TableResolver::new(), HashMap::new());
    for d in 0..DOMAINS {
        for n in 0..2 {
            let ip = Ipv4Addr::new(192, 0, 2, (10 * d + n + 1) as u8);
            let name = format!("mx{n}.d{d}.example");
            let preference = if dice.percent(50) { 10 } else { 10 + n as u16 };
            zones = zones
                .with_mx(&format!("d{d}.example"), preference, Some(domain(&name)))
                .with_address(&name, ip);
            let host = Host {
                pipelining: dice.percent(70),
                chunking: dice.percent(50),
                tls: dice.percent(50).then(|| Arc::clone(tls)),
            };
            hosts.insert((ip, 25).into(), Arc::new(host));
        }
    }
    (zones, hosts)
}

/// A text of many lengths, with dots at the beginnings of lines.
fn text(dice: &mut Dice, no: u64) -> String {
    let len = match dice.below(10) {
        0 => 300_000 + dice.below(300_000),
        1..4 => dice.below(30_000),
        _ => dice.below(1_500),
    };
    let mut text = format!("message {no}\r\n.\r\n..two\r\n");
    while (text.len() as u64) < len {
        text += &".".repeat(dice.below(3) as usize);
        text += &"x".repeat(dice.below(76) as usize);
        text += "\r\n";
    }
    text
}

/// Recipients of message `no`: their names say what becomes of them.
fn recipients(dice: &mut Dice, no: u64) -> Vec<String> {
    let domains = [dice.below(DOMAINS), dice.below(DOMAINS)];
    let count = 1 + dice.below(5);
    let one = |n: u64| {
        let kind = match dice.below(10) {
            0 => "no",
            1 | 2 => "later",
            _ => "ok",
        };
        let domain = domains[dice.below(2) as usize];
        format!("{kind}-{no}-{n}@d{domain}.example")
    };
    (0..count).map(one).collect()
}

/// A world under way.
struct Life {
    world: World,
    net: Arc<Cutting>,
    ids: Mutex<Vec<QueueId>>,
    kills: AtomicU64,
}

impl Life {
    async fn submit_all(&self, mut dice: Dice) {
        for no in 0..MESSAGES {
            let to = recipients(&mut dice, no);
            let text = text(&mut dice, no);
            let whole = |text: &str| {
                format!(
                    "Received: by mail.gmail.com\r\nFrom: alice@gmail.com\r\nSubject: Hello!\r\nMessage-ID: <1@gmail.com>\r\n\r\n{text}"
                )
            };
            to.iter().for_each(|to| self.net.book.sends(to, &whole(&text)));
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            let nothing = |_: &mut queue::Message, _: &mut Vec<NewErrand>| {};
            let id = self
                .world
                .submit_asking("alice@gmail.com", &to, &text, nothing)
                .await;
            self.ids.lock().unwrap().push(id);
            sleep(Duration::from_secs(dice.below(1_200))).await;
        }
    }

    /// Kills the service now and then, and when a server says that it is the moment; starts it again.
    async fn kill_now_and_then(&self, mut dice: Dice) {
        let (_stop, stopped) = watch::channel(false);
        let start = || tokio::spawn(deliver::run(Arc::clone(&self.world.ctx), stopped.clone()));
        let mut service = start();
        loop {
            tokio::select! {
                () = self.net.kill.notified() => {}
                () = sleep(Duration::from_secs(60 * (30 + dice.below(600)))) => {}
            }
            // Until the service has gone a little further, or not.
            for _ in 0..dice.below(6) {
                tokio::task::yield_now().await;
            }
            if self.net.is_calm() {
                continue;
            }
            service.abort();
            let _ = service.await;
            self.kills.fetch_add(1, Ordering::Relaxed);
            let listed = self.world.queue.list(&Filter::default(), 1_000).await.unwrap();
            let errands = listed.iter().flat_map(|message| &message.errands);
            let open = errands.filter(|errand| errand.state.is_open());
            let open: Vec<String> = open.map(|errand| errand.recipient.to_string()).collect();
            self.net.book.killed(open.iter().map(String::as_str));
            sleep(Duration::from_secs(dice.below(600))).await;
            service = start();
        }
    }

    /// The journeys of messages with a recipient that stands in these words.
    async fn journeys_of(&self, words: &[String]) -> Vec<String> {
        let mut journeys = Vec::new();
        let ids = self.ids.lock().unwrap().clone();
        for (no, id) in ids.into_iter().enumerate() {
            if words.iter().any(|words| words.contains(&format!("-{no}-"))) {
                journeys.push(format!("message {no}: {:#?}", self.world.told(id).await));
            }
        }
        journeys
    }

    /// What the journeys and the sender's INBOX say of each recipient.
    async fn told(&self) -> BTreeMap<String, Told> {
        let mut told: BTreeMap<String, Told> = BTreeMap::new();
        let ids = self.ids.lock().unwrap().clone();
        for id in ids {
            for event in self.world.told(id).await {
                if let Event::Relayed { recipient, .. }
                | Event::Bounced { recipient, .. }
                | Event::Expired { recipient, .. } = event
                {
                    told.entry(recipient.to_string()).or_default().ends += 1;
                }
            }
        }
        for report in self.world.inbox().await {
            for part in report.split("Final-Recipient: rfc822; ").skip(1) {
                let mut lines = part.lines();
                let recipient = lines.next().unwrap_or("").to_owned();
                if lines.take(2).any(|line| line == "Action: failed") {
                    told.entry(recipient).or_default().reported += 1;
                }
            }
        }
        told
    }
}

/// Plays one seed. Needs tokio's paused clock.
pub async fn run(seed: u64, tls: &Arc<rustls::ServerConfig>) -> Run {
    let mut dice = Dice::new(seed);
    let mut apart = || Dice::new(dice.throw());
    let (mut of_hosts, of_net, of_service, of_store, of_mail, of_kills) =
        (apart(), apart(), apart(), apart(), apart(), apart());
    let (zones, hosts) = hosts(&mut of_hosts, tls);
    let book = Arc::new(Book::default());
    let calm_at = Instant::now() + CALM_AFTER;
    let net = Arc::new(Cutting::new(hosts, of_net, book, calm_at));
    let over = Over {
        net: Arc::default(),
        dialer: Arc::new(CuttingDialer(Arc::clone(&net))),
        random: Arc::new(SeededRandom(Mutex::new(of_service))),
        queue: queue::Options::default(),
    };
    let (kills, refusals) = (dice.percent(50), [0, 3, 15][dice.below(3) as usize]);
    let sole_worker = dice.percent(70);
    let mut world = World::over(zones, Vec::new(), over, |options| {
        options.sole_worker = sole_worker
    })
    .await;
    world.stop().await;
    let refused = Arc::new(AtomicU64::new(0));
    let (counted, calm, mut of_store) = (Arc::clone(&refused), Arc::clone(&net), of_store);
    let refuses = move || {
        let refuses = of_store.percent(refusals) && !calm.is_calm();
        counted.fetch_add(u64::from(refuses), Ordering::Relaxed);
        refuses
    };
    *world.moody.refuse_when.lock().unwrap() = Some(Box::new(refuses));
    let life = Life {
        world,
        net,
        ids: Mutex::default(),
        kills: AtomicU64::new(0),
    };
    let all_gone = async {
        life.submit_all(of_mail).await;
        let is_empty = || async { life.world.queue.stats().await.unwrap().messages == 0 };
        life.world.until("an empty queue", is_empty).await;
    };
    if kills {
        tokio::select! {
            () = all_gone => {}
            () = life.kill_now_and_then(of_kills) => {}
        }
    } else {
        let (_stop, stopped) = watch::channel(false);
        let service = tokio::spawn(deliver::run(Arc::clone(&life.world.ctx), stopped));
        all_gone.await;
        service.abort();
    }
    let kills = life.kills.load(Ordering::Relaxed);
    let mut account = life.net.book.check(&life.told().await, kills > 0);
    let ledger = life.world.queue.ledger().await.unwrap();
    if ledger.accounted_for() != ledger.accepted() || ledger.expired != 0 {
        account.wrong.push(format!("the queue's own ledger: {ledger:?}"));
    }
    let journeys = life.journeys_of(&account.wrong).await;
    account.wrong.extend(journeys);
    account
        .wrong
        .iter_mut()
        .for_each(|wrong| wrong.insert_str(0, &format!("seed {seed}: ")));
    Run {
        seeds: 1,
        messages: MESSAGES,
        account,
        cuts: life.net.cuts.counts(),
        kills,
        refused: refused.load(Ordering::Relaxed),
    }
}
