//! The figures at one depth. Every figure is the median of samples; the depth stays the same, since
//! for each errand that ends another message is accepted.

use crate::load::{Filled, World, all};
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
    /// Accepting one message, when many are accepted at the same time.
    pub(crate) accept: f64,
    /// Finding one sample of due errands, wall and CPU.
    pub(crate) pick: f64,
    pub(crate) pick_cpu: f64,
    /// When the next errand is due.
    pub(crate) next_due: f64,
    /// Of one errand: claiming, releasing, settling as relayed.
    pub(crate) claim: f64,
    pub(crate) release: f64,
    pub(crate) settle: f64,
    /// A whole life: accepted, found, claimed, relayed; all threads, the index's upkeep included.
    pub(crate) life: f64,
    pub(crate) life_cpu: f64,
    /// Octets written to disk for a whole life.
    pub(crate) life_written: f64,
    /// The first page of a listing (100 messages), and the totals.
    pub(crate) list: f64,
    pub(crate) stats: f64,
    pub(crate) memory: Memory,
    pub(crate) disk: u64,
}

/// Measures at the depth that the queue has now.
pub(crate) async fn at(world: &mut World, depth: u64, filled: Filled, samples: usize) -> Result<Row, String> {
    let mut singles: [Vec<f64>; 9] = Default::default();
    for _ in 0..samples {
        let sample = single(world).await?;
        for (figures, figure) in singles.iter_mut().zip(sample) {
            figures.push(figure);
        }
    }
    let mut lives: [Vec<f64>; 3] = Default::default();
    for _ in 0..samples.min(5) {
        let sample = lives_sample(world).await?;
        for (figures, figure) in lives.iter_mut().zip(sample) {
            figures.push(figure);
        }
    }
    let [
        accept,
        pick,
        pick_cpu,
        next_due,
        claim,
        release,
        settle,
        list,
        stats,
    ] = singles.map(median);
    let [life, life_cpu, life_written] = lives.map(median);
    Ok(Row {
        depth,
        filled,
        accept,
        pick,
        pick_cpu,
        next_due,
        claim,
        release,
        settle,
        life,
        life_cpu,
        life_written,
        list,
        stats,
        memory: machine::memory(),
        disk: machine::disk_used(&world.folder),
    })
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

/// Moves the clock to where a sample of errands is due, and answers them.
async fn come_due(world: &mut World) -> Result<Vec<Due>, String> {
    let far = world.now.plus(Duration::from_secs(365 * 86_400));
    let due = world.queue.due(far, SAMPLE).await.map_err(text)?;
    let last = due.last().ok_or("the queue ran dry")?;
    world.now = world.now.max(last.at);
    Ok(due)
}

async fn claimed(world: &World, due: &[Due]) -> Result<Vec<Claim>, String> {
    let claims = world.queue.claim(due, world.now).await.map_err(text)?;
    if claims.len() == due.len() {
        return Ok(claims);
    }
    Err(format!("{} of {} could be claimed", claims.len(), due.len()))
}

/// One sample of every single operation.
async fn single(world: &mut World) -> Result<[f64; 9], String> {
    come_due(world).await?;
    let (begun, cpu) = (Instant::now(), machine::cpu_thread());
    let due = world.queue.due(world.now, SAMPLE).await.map_err(text)?;
    let pick = micros(begun.elapsed());
    let pick_cpu = micros(machine::cpu_thread().saturating_sub(cpu));
    let begun = Instant::now();
    world.queue.next_due().await.map_err(text)?;
    let next_due = micros(begun.elapsed());
    let begun = Instant::now();
    let claims = claimed(world, &due).await?;
    let claim = each(begun);
    let begun = Instant::now();
    many(world, claims, |world, claim| async move {
        world.0.release(&claim, world.1).await.map_err(text)
    })
    .await?;
    let release = each(begun);
    let due = come_due(world).await?;
    let claims = claimed(world, &due).await?;
    let begun = Instant::now();
    settle(world, claims).await?;
    let settle = each(begun);
    let begun = Instant::now();
    world.accept(SAMPLE as u64).await?;
    let accept = each(begun);
    let begun = Instant::now();
    let listed = world.queue.list(&Filter::default(), 100).await.map_err(text)?;
    let list = micros(begun.elapsed());
    if listed.len() != 100 {
        return Err(format!("a page of 100 has {} messages", listed.len()));
    }
    let begun = Instant::now();
    world.queue.stats().await.map_err(text)?;
    let stats = micros(begun.elapsed());
    Ok([
        accept, pick, pick_cpu, next_due, claim, release, settle, list, stats,
    ])
}

async fn settle(world: &World, claims: Vec<Claim>) -> Result<(), String> {
    many(world, claims, |world, claim| async move {
        let outcome = Outcome::Relayed(LastOutcome {
            at: world.1,
            host: Some("mx1.example.net".to_owned()),
            reply: "250 2.0.0 Ok: queued as 4bXyZ12345".to_owned(),
            status: None,
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
async fn lives_sample(world: &mut World) -> Result<[f64; 3], String> {
    let (begun, cpu, written) = (Instant::now(), machine::cpu_process(), machine::written());
    for _ in 0..LIFE_ROUNDS {
        world.accept(SAMPLE as u64).await?;
        let due = come_due(world).await?;
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
