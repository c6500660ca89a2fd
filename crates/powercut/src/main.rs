//! `powercut`: runs the proof, shows how far it is, and says how to repeat what failed.
//!
//! Ends with 0 when nothing is broken, 1 when something is, 2 when it was asked wrongly.

use clap::{Args, Parser, Subcommand, ValueEnum};
use powercut::era::Setting;
use powercut::letter::Size;
use powercut::run::{self, Outcome};
use powercut::{Failure, hardship};
use std::io::{ErrorKind, IsTerminal, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use store::simulated::Sabotage;

/// The proof of power loss: docs/DURABILITY.md.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Cuts the power at random points under load, during recovery, and when all is quiet.
    Run {
        /// Seeds, as in 1..8 (both included).
        #[arg(long, value_parser = seeds, default_value = "1..8", conflicts_with = "seed")]
        seeds: RangeInclusive<u64>,
        /// Cuts in all, shared among the seeds.
        #[arg(long, default_value_t = 10_000, conflicts_with = "seed")]
        cuts: u64,
        /// Repeats one life of this seed.
        #[arg(long, requires = "life")]
        seed: Option<u64>,
        /// Which life.
        #[arg(long, requires = "seed")]
        life: Option<u64>,
        /// Writes the disk that the repeated life found into this folder.
        #[arg(long, requires = "life")]
        dump: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Cuts the first life of each seed at every disk operation, and the next one in its recovery.
    Every {
        /// Seeds, as in 1..2 (both included).
        #[arg(long, value_parser = seeds, default_value = "1..1")]
        seeds: RangeInclusive<u64>,
        /// Only at this operation.
        #[arg(long)]
        operation: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// Disks that fail without a cut: an error at any operation, failed syncs, no room, a flipped bit.
    Hardship {
        /// The seed of the life that meets the errors.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only every n-th operation fails.
        #[arg(long, default_value_t = 1)]
        step: usize,
    },
}

#[derive(Args)]
struct Common {
    /// Breaks something on purpose, to see that it is found.
    #[arg(long)]
    sabotage: Option<Broken>,
    /// Threads; the result does not depend on them.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, |n| n.get()))]
    threads: usize,
    /// The result as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Shows the server's own log at this level (error, warn, info, debug).
    #[arg(long)]
    log: Option<String>,
}

/// What is broken on purpose.
#[derive(Clone, Copy, ValueEnum)]
enum Broken {
    /// The disk answers a sync and does nothing.
    DropSync,
    /// The disk answers the sync of a folder and does nothing.
    DropDirSync,
    /// The disk answers a sync when a part has landed; the rest lands with the next.
    Reorder,
    /// The server answers 250 before the message is durable.
    EarlyAck,
}

impl Common {
    fn setting(&self) -> Setting {
        Setting {
            sabotage: match self.sabotage {
                Some(Broken::DropSync) => Some(Sabotage::DropSync),
                Some(Broken::DropDirSync) => Some(Sabotage::DropDirSync),
                Some(Broken::Reorder) => Some(Sabotage::Reorder),
                Some(Broken::EarlyAck) | None => None,
            },
            hasty: matches!(self.sabotage, Some(Broken::EarlyAck)),
        }
    }

    /// The option, as it has to be repeated.
    fn told(&self) -> String {
        let name = self.sabotage.and_then(|broken| broken.to_possible_value());
        name.map_or_else(String::new, |name| format!(" --sabotage {}", name.get_name()))
    }

    fn start_log(&self) {
        if let Some(level) = &self.log {
            let filter = tracing_subscriber::EnvFilter::new(level);
            let log = tracing_subscriber::fmt().with_env_filter(filter).without_time();
            log.with_writer(std::io::stderr).init();
        }
    }
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| {
        let text = text.trim_start_matches('=');
        text.parse::<u64>().map_err(|_| format!("{text} is not a number"))
    };
    let (first, last) = (number(first)?, number(last)?);
    match first <= last {
        true => Ok(first..=last),
        false => Err("the first seed is above the last".to_owned()),
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run {
            seed: Some(seed),
            life: Some(life),
            dump,
            common,
            ..
        } => repeat(seed, life, dump, &common),
        Command::Run {
            seeds, cuts, common, ..
        } => {
            common.start_log();
            let bar = Bar::new(cuts, common.json);
            let outcome = run::random(seeds, cuts, common.setting(), common.threads, &|n| bar.show(n));
            bar.clear();
            told(&outcome, &common, &bar, |seed, life| {
                format!("powercut run --seed {seed} --life {life}")
            })
        }
        Command::Hardship { seed, step } => hardships(seed, step),
        Command::Every {
            seeds,
            operation,
            common,
        } => {
            common.start_log();
            let all = match operation {
                Some(_) => seeds.clone().count() as u64,
                None => seeds.clone().map(run::operations_of).sum(),
            };
            let bar = Bar::new(all, common.json);
            let outcome = run::every(seeds, operation, common.setting(), common.threads, &|n| {
                bar.show(n)
            });
            bar.clear();
            told(&outcome, &common, &bar, |seed, operation| {
                format!("powercut every --seeds {seed} --operation {operation}")
            })
        }
    }
}

fn repeat(seed: u64, life: u64, dump: Option<PathBuf>, common: &Common) -> ExitCode {
    common.start_log();
    let (era, ended) = run::repeat(seed, life, common.setting());
    if let Some(folder) = dump {
        for (path, octets) in era.disk.all_files() {
            let to = folder.join(path.strip_prefix("/").unwrap_or(&path));
            let made = to.parent().map_or(Ok(()), std::fs::create_dir_all);
            if let Err(error) = made.and_then(|()| std::fs::write(&to, octets)) {
                eprintln!("powercut: {}: {error}", to.display());
                return ExitCode::from(2);
            }
        }
        println!("the disk that life {life} found is in {}", folder.display());
    }
    match ended {
        Ok(end) => {
            println!(
                "seed {seed}, life {}: all is there, whole, once ({end:?})",
                era.life
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("seed {seed}, life {}: {failure}", era.life);
            ExitCode::from(1)
        }
    }
}

/// One of the scenes, to be played.
type Scene<'a> = &'a dyn Fn() -> Result<(), Failure>;

fn hardships(seed: u64, step: usize) -> ExitCode {
    let error = |kind| hardship::error_at_every(seed, kind, step).map(|_| ());
    let all: [(&str, Scene); 6] = [
        (
            "after a failed sync nothing is acknowledged",
            &hardship::failed_sync,
        ),
        (
            "a full disk: 452, reading and deleting go on, recovers by itself",
            &hardship::full_disk,
        ),
        ("a flipped bit in the log is found, named, contained", &|| {
            hardship::flipped_bit(Size::Small)
        }),
        ("a flipped bit in a large message is, too", &|| {
            hardship::flipped_bit(Size::Large)
        }),
        ("an input/output error at every operation", &|| {
            error(ErrorKind::Other)
        }),
        ("no room at every operation", &|| error(ErrorKind::StorageFull)),
    ];
    let mut broken = false;
    for (what, scene) in all {
        let ended = scene();
        broken |= ended.is_err();
        match ended {
            Ok(()) => println!("ok      {what}"),
            Err(failure) => println!("BROKEN  {what}: {failure}"),
        }
    }
    ExitCode::from(u8::from(broken))
}

fn told(outcome: &Outcome, common: &Common, bar: &Bar, again: impl Fn(u64, u64) -> String) -> ExitCode {
    let broken = !outcome.found.is_empty();
    if common.json {
        println!("{}", serde_json::to_string(outcome).unwrap_or_default());
    } else {
        let (counts, tally) = (&outcome.counts, &outcome.counts.tally);
        println!(
            "{} cuts ({} in recovery, {} at rest, {} after an orderly end), {} kills, {} disk operations, {:.1} s",
            counts.cuts,
            counts.cuts_in_recovery,
            counts.cuts_when_quiet,
            counts.cuts_when_closed,
            counts.kills,
            counts.operations,
            bar.since.elapsed().as_secs_f64()
        );
        println!(
            "{} groups synced, {} segments of the log recycled, {} emptied by copying",
            counts.groups, counts.segments_recycled, counts.segments_collected
        );
        println!(
            "{} messages acknowledged, {} relayed, {} reported as failed, {} deleted; {} compared whole after a cut",
            tally.acknowledged, tally.relayed, tally.reported, tally.expunged, tally.compared
        );
        println!(
            "not acknowledged when the power went: {} there, {} not; relayed again (RFC 1047): {} after a cut, {} after the next server hung up",
            tally.unacknowledged_kept,
            tally.unacknowledged_gone,
            tally.relayed_again_after_cut,
            tally.relayed_again_after_hang_up
        );
        for found in &outcome.found {
            println!("seed {}, {}: {}", found.seed, found.life, found.failure);
            println!("  again: {}{}", again(found.seed, found.life), common.told());
        }
        if !broken {
            println!("nothing lost, nothing twice, nothing half");
        }
    }
    ExitCode::from(u8::from(broken))
}

/// How far it is, on a terminal.
struct Bar {
    all: u64,
    shown: bool,
    since: Instant,
}

impl Bar {
    fn new(all: u64, json: bool) -> Self {
        Self {
            all: all.max(1),
            shown: !json && std::io::stderr().is_terminal(),
            since: Instant::now(),
        }
    }

    fn show(&self, done: u64) {
        const WIDTH: u64 = 40;
        if !self.shown || !done.is_multiple_of(20) {
            return;
        }
        let filled = (done * WIDTH / self.all).min(WIDTH) as usize;
        let bar = "#".repeat(filled) + &".".repeat(WIDTH as usize - filled);
        let mut out = std::io::stderr();
        // A bar that can't be shown is none.
        let _ = write!(out, "\r[{bar}] {done}/{}", self.all).and_then(|()| out.flush());
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
