//! Starting with a full queue: after a regular end, with nothing of the store in the system's
//! memory, and after a process was killed in the middle of its work.

use crate::load::{When, World};
use crate::machine;
use crate::measure::median;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Rounds of work after which the victim says that it is at work.
const ROUNDS_BEFORE: usize = 20;
/// Messages that the victim accepts in a round.
const ROUND: u64 = 200;

/// One way to start: medians, in milliseconds.
#[derive(Clone, Default)]
pub(crate) struct Start {
    pub(crate) how: &'static str,
    /// Opening the store.
    pub(crate) open: f64,
    /// Ending the leases of the earlier run.
    pub(crate) recover: f64,
    /// The first due errands.
    pub(crate) pick: f64,
    /// All three.
    pub(crate) all: f64,
    /// Leases that were ended (the last sample's).
    pub(crate) leases: usize,
}

/// Closes the world and measures starts.
pub(crate) async fn measure(world: World, folder: &Path, samples: usize) -> Result<Vec<Start>, String> {
    world.store.close();
    drop(world);
    let samples = samples.min(5);
    let mut starts = Vec::new();
    for how in [
        "after a regular end",
        "the same, files not in memory",
        "after a kill",
    ] {
        let mut figures: [Vec<f64>; 4] = Default::default();
        let mut leases = 0;
        for run in 0..samples {
            match how {
                "after a kill" => kill_one(folder)?,
                "the same, files not in memory" => machine::forget(folder),
                _ => {}
            }
            let (sample, ended) = one(folder, run as u64 + 1).await?;
            leases = ended;
            for (figures, figure) in figures.iter_mut().zip(sample) {
                figures.push(figure);
            }
        }
        let [open, recover, pick, all] = figures.map(median);
        starts.push(Start {
            how,
            open,
            recover,
            pick,
            all,
            leases,
        });
    }
    Ok(starts)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

async fn one(folder: &Path, run: u64) -> Result<([f64; 4], usize), String> {
    let begun = Instant::now();
    let world = World::go_on(folder, run)?;
    let opened = begun.elapsed();
    let ended = world.queue.recover(world.now).await.map_err(|e| e.to_string())?;
    let recovered = begun.elapsed();
    let far = world.now.plus(Duration::from_secs(365 * 86_400));
    let due = world.queue.due(far, 1_000).await.map_err(|e| e.to_string())?;
    let all = begun.elapsed();
    if due.is_empty() {
        return Err("nothing is due after the start: the queue is lost".to_owned());
    }
    world.store.close();
    let figures = [opened, recovered - opened, all - recovered, all].map(millis);
    Ok((figures, ended))
}

/// Lets another process work on the store and kills it.
fn kill_one(folder: &Path) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    let program = std::env::current_exe().map_err(text)?;
    let mut victim = Command::new(program)
        .arg("--victim")
        .arg("--dir")
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let out = victim.stdout.take().ok_or("the victim has no output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).map_err(text)?;
    victim.kill().map_err(text)?;
    victim.wait().map_err(text)?;
    if line.trim() == "at work" {
        Ok(())
    } else {
        Err("the process that was to be killed ended by itself".to_owned())
    }
}

/// Works until killed: accepts and claims without end.
pub(crate) async fn be_killed(folder: &Path) -> Result<(), String> {
    let mut world = World::go_on(folder, 1_000 + u64::from(std::process::id()))?;
    let text = |e: queue::Error| e.to_string();
    let mut rounds = 0;
    loop {
        world.accept(ROUND, When::Spread).await?;
        if rounds % 10 == 0 {
            let far = world.now.plus(Duration::from_secs(365 * 86_400));
            let due = world.queue.due(far, 10).await.map_err(text)?;
            if let Some(last) = due.last() {
                world.now = world.now.max(last.at);
            }
            world.queue.claim(&due, world.now).await.map_err(text)?;
        }
        rounds += 1;
        if rounds == ROUNDS_BEFORE {
            println!("at work");
        }
    }
}
