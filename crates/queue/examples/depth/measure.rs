//! The figures at one depth. Every figure is the median of samples; the depth stays the same, since
//! for each errand that ends another message is accepted.

use crate::load::{Filled, When, World, all};
use crate::machine::{self, Memory};
use mail::Timestamp;
use queue::{Claim, Due, Filter, LastOutcome, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Errands in one sample: what the delivery service takes at once at most.
const SAMPLE: usize = 200;
/// Rounds of lives in one sample of lives: long enough for the index to be written several times.
const LIFE_ROUNDS: u64 = 20;
/// Settlements under way at the same time.
const SETTLERS: usize = 64;

/// The figures at one depth. Times in microseconds.
#[derive(Clone, Default)]
pub(crate) struct Row {
    pub(crate) depth: u64,
    pub(crate) filled: Filled,
    /// New mail while so many others wait: it is accepted, found and relayed at once.
    pub(crate) new: Costs,
    /// The backlog itself: the errands that come due next, and as many accepted in their place.
    pub(crate) backlog: Costs,
    /// When the next errand is due, as the delivery service asks.
    pub(crate) next_due: f64,
    /// Giving back one claim.
    pub(crate) release: f64,
    /// The first page of a listing (100 messages), and the totals.
    pub(crate) list: f64,
    pub(crate) stats: f64,
    pub(crate) memory: Memory,
    pub(crate) disk: u64,
}

/// What errands cost. Microseconds an errand, but for `pick`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Costs {
    /// Accepting one message, when many are accepted at the same time.
    pub(crate) accept: f64,
    /// Finding one sample of due errands, wall and CPU.
    pub(crate) pick: f64,
    pub(crate) pick_cpu: f64,
    pub(crate) claim: f64,
    pub(crate) settle: f64,
    /// A whole life: accepted, found, claimed, relayed; all threads, the index's upkeep included.
    pub(crate) life: f64,
    pub(crate) life_cpu: f64,
    /// Octets written to disk for a whole life.
    pub(crate) life_written: f64,
}

/// Measures at the depth that the queue has now.
pub(crate) async fn at(world: &mut World, depth: u64, filled: Filled, samples: usize) -> Result<Row, String> {
    let backlog = costs(world, When::Spread, samples).await?;
    let new = costs(world, When::AtOnce, samples).await?;
    let mut others = Vec::new();
    for _ in 0..samples {
        others.push(others_sample(world).await?);
    }
    let [next_due, release, list, stats] = medians(&others);
    Ok(Row {
        depth,
        filled,
        new,
        backlog,
        next_due,
        release,
        list,
        stats,
        memory: machine::memory(),
        disk: machine::disk_used(&world.folder),
    })
}

async fn costs(world: &mut World, when: When, samples: usize) -> Result<Costs, String> {
    let (mut single, mut lives) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        single.push(single_sample(world, when).await?);
    }
    for _ in 0..samples.min(5) {
        lives.push(lives_sample(world, when).await?);
    }
    let [accept, pick, pick_cpu, claim, settle] = medians(&single);
    let [life, life_cpu, life_written] = medians(&lives);
    Ok(Costs {
        accept,
        pick,
        pick_cpu,
        claim,
        settle,
        life,
        life_cpu,
        life_written,
    })
}

fn medians<const N: usize>(samples: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|i| median(samples.iter().map(|sample| sample[i]).collect()))
}

/// The middle one; 0 of none.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Microseconds since then, for each of a sample.
fn each(begun: Instant) -> f64 {
    micros(begun.elapsed()) / SAMPLE as f64
}

fn text(error: queue::Error) -> String {
    error.to_string()
}

/// Moves the clock to where a sample of the backlog is due; new mail is due as it is.
async fn come_due(world: &mut World, when: When) -> Result<(), String> {
    if when == When::AtOnce {
        return Ok(());
    }
    let far = world.now.plus(Duration::from_secs(365 * 86_400));
    let due = world.queue.due(far, SAMPLE).await.map_err(text)?;
    let last = due.last().ok_or("the queue ran dry")?;
    world.now = world.now.max(last.at);
    Ok(())
}

async fn claimed(world: &World, due: &[Due]) -> Result<Vec<Claim>, String> {
    let claims = world.queue.claim(due, world.now).await.map_err(text)?;
    if claims.len() == due.len() {
        return Ok(claims);
    }
    Err(format!("{} of {} could be claimed", claims.len(), due.len()))
}

/// One sample of every step of an errand's life.
async fn single_sample(world: &mut World, when: When) -> Result<[f64; 5], String> {
    let begun = Instant::now();
    world.accept(SAMPLE as u64, when).await?;
    let accept = each(begun);
    come_due(world, when).await?;
    let (begun, cpu) = (Instant::now(), machine::cpu_thread());
    let due = world.queue.due(world.now, SAMPLE).await.map_err(text)?;
    let pick = micros(begun.elapsed());
    let pick_cpu = micros(machine::cpu_thread().saturating_sub(cpu));
    let begun = Instant::now();
    let claims = claimed(world, &due).await?;
    let claim = each(begun);
    let begun = Instant::now();
    settle(world, claims).await?;
    let settle = each(begun);
    Ok([accept, pick, pick_cpu, claim, settle])
}

/// One sample of what does not change the depth.
async fn others_sample(world: &mut World) -> Result<[f64; 4], String> {
    let begun = Instant::now();
    world.queue.next_due_after(world.now).await.map_err(text)?;
    let next_due = micros(begun.elapsed());
    come_due(world, When::Spread).await?;
    let due = world.queue.due(world.now, SAMPLE).await.map_err(text)?;
    let claims = claimed(world, &due).await?;
    let begun = Instant::now();
    many(world, claims, |world, claim| async move {
        world.0.release(&claim, world.1).await.map_err(text)
    })
    .await?;
    let release = each(begun);
    let begun = Instant::now();
    let page = world
        .queue
        .list_page(&Filter::default(), 100)
        .await
        .map_err(text)?;
    let list = micros(begun.elapsed());
    if page.listed.len() != 100 {
        return Err(format!("a page of 100 has {} messages", page.listed.len()));
    }
    let begun = Instant::now();
    world.queue.stats().await.map_err(text)?;
    let stats = micros(begun.elapsed());
    Ok([next_due, release, list, stats])
}

async fn settle(world: &World, claims: Vec<Claim>) -> Result<(), String> {
    many(world, claims, |world, claim| async move {
        let outcome = Outcome::Relayed(LastOutcome {
            at: world.1,
            host: Some("mx1.example.net".to_owned()),
            reply: "250 2.0.0 Ok: queued as 4bXyZ12345".to_owned(),
            status: None,
            class: None,
        });
        let settled = world.0.settle_now(&claim, &outcome, &|_| {}).await;
        settled.map(drop).map_err(text)
    })
    .await
}

/// Does something with every claim, many at a time.
async fn many<F>(
    world: &World,
    claims: Vec<Claim>,
    what: impl Fn((queue::Queue, Timestamp), Claim) -> F + Copy + Send + 'static,
) -> Result<(), String>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let claims = Arc::new(claims);
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..SETTLERS.min(claims.len()) {
        let (claims, next) = (claims.clone(), next.clone());
        let (queue, now) = (world.queue.clone(), world.now);
        tasks.spawn(async move {
            while let Some(claim) = claims.get(next.fetch_add(1, Ordering::Relaxed)) {
                what((queue.clone(), now), claim.clone()).await?;
            }
            Ok(())
        });
    }
    all(tasks).await
}

/// One sample of whole lives.
async fn lives_sample(world: &mut World, when: When) -> Result<[f64; 3], String> {
    let (begun, cpu, written) = (Instant::now(), machine::cpu_process(), machine::written());
    for _ in 0..LIFE_ROUNDS {
        world.accept(SAMPLE as u64, when).await?;
        come_due(world, when).await?;
        let due = world.queue.due(world.now, SAMPLE).await.map_err(text)?;
        let claims = claimed(world, &due).await?;
        settle(world, claims).await?;
    }
    let lives = (LIFE_ROUNDS * SAMPLE as u64) as f64;
    Ok([
        micros(begun.elapsed()) / lives,
        micros(machine::cpu_process().saturating_sub(cpu)) / lives,
        (machine::written() - written) as f64 / lives,
    ])
}
