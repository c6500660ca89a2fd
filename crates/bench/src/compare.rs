//! Posthaste, Postfix, the bare receiver and the disk in one run, in turn.
//!
//! Each round takes every cell on every server before the next cell (A B A B), so that noise of the machine
//! falls on all alike; each single measurement has a fresh server to itself. What strace and a private file
//! system count comes after, in runs of its own.
//! Promises: all figures of one table come from one run. Never: leaves a server, a mount or a folder behind.

use crate::args::{Compare, Variant};
use crate::disk::{self, DiskRow};
use crate::measure::{self, Cell, Counts, Manner, Measurement};
use crate::problem::{Outcome, Problem, Trying};
use crate::target::postfix::{self, Postfix};
use crate::target::{
    Target,
    bare::Bare,
    posthaste::{Installation, Posthaste},
};
use crate::tracer::Tracer;
use crate::volume::Volume;
use crate::{account::Account, syncs};
use clap::ValueEnum as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// All that one run found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Comparison {
    /// The machine, in words.
    pub machine: Vec<String>,
    /// The servers, and what was on and off.
    pub notes: Vec<String>,
    /// The timed runs.
    pub measurements: Vec<Measurement>,
    /// The counting runs.
    pub counts: Vec<Counts>,
    /// The disk probe, once a round.
    pub disk: Vec<DiskRow>,
}

/// The order, settled.
struct Plan {
    cells: Vec<Cell>,
    rounds: u16,
    time: Duration,
    manner: Manner,
    counting: bool,
}

impl Plan {
    fn of(order: &Compare) -> Outcome<Self> {
        let (sessions, sizes): (&[u16], &[u16]) = if order.quick {
            (&[1, 64], &[10])
        } else {
            (&order.sessions, &order.sizes)
        };
        if sessions.iter().chain(sizes).any(|n| *n == 0) || sessions.is_empty() || sizes.is_empty() {
            return Err(Problem("--sessions and --sizes must be at least 1".into()));
        }
        let cells = sizes
            .iter()
            .flat_map(|size| {
                sessions.iter().map(|sessions| Cell {
                    size: usize::from(*size) * 1024,
                    sessions: usize::from(*sessions),
                })
            })
            .collect();
        Ok(Self {
            cells,
            rounds: if order.quick { 1 } else { order.rounds },
            time: Duration::from_millis(if order.quick { 1000 } else { order.millis }),
            manner: Manner {
                per_connection: order.per_connection,
                pipelining: order.pipelining,
                users: order.accounts.into(),
            },
            counting: !order.no_counts,
        })
    }

    fn steps(&self, targets: usize) -> usize {
        let timed = self.cells.len() * (targets + 1) * usize::from(self.rounds);
        timed
            + if self.counting {
                self.cells.len() * targets
            } else {
                0
            }
    }
}

/// Does the whole comparison.
///
/// # Errors
/// When Posthaste cannot be set up, the disk refuses, or `interrupted` has become true. Postfix may be
/// missing, and a single measurement that fails is a note in the result.
pub fn run(order: &Compare, interrupted: &AtomicBool) -> Outcome<Comparison> {
    let plan = Plan::of(order)?;
    let workshop = workshop(order.dir.as_deref())?;
    let folder = workshop.path();
    let bar = bar();
    bar.set_message("setting up Posthaste and its accounts");
    let targets = targets(order, &plan, folder, &bar)?;
    bar.set_length(plan.steps(targets.len()) as u64);
    let tracer = Tracer::open(folder);
    let mut found = Comparison {
        machine: machine(folder),
        notes: notes(&plan, &targets),
        ..Comparison::default()
    };
    for round in 1..=plan.rounds {
        for &cell in &plan.cells {
            bar.set_message(format!("round {round}: disk, {}", words(cell)));
            for recycled in [false, true] {
                let time = plan.time.min(Duration::from_millis(500));
                found.disk.push(disk::group_commit(
                    folder,
                    cell.sessions,
                    cell.size,
                    recycled,
                    time,
                )?);
            }
            bar.inc(1);
            for target in &targets {
                bar.set_message(format!("round {round}: {}, {}", target.name(), words(cell)));
                let tracer = tracer.as_ref().ok();
                let one = measure::once(
                    target.as_ref(),
                    folder,
                    cell,
                    plan.manner,
                    round,
                    plan.time,
                    tracer,
                )?;
                found.measurements.push(one);
                bar.inc(1);
            }
        }
    }
    let strace = order.strace || (tracer.is_err() && syncs::strace_is_there());
    found
        .notes
        .push(sync_words(tracer.err(), strace && plan.counting));
    if plan.counting {
        count(&plan, strace, &targets, folder, &bar, interrupted, &mut found)?;
    }
    found.notes.extend(errors(&found.measurements));
    found
        .machine
        .push(format!("load average at the end: {}", load_average()));
    bar.finish_and_clear();
    Ok(found)
}

/// The folder to work in, removed in the end.
///
/// # Errors
/// When it cannot be made.
pub fn workshop(dir: Option<&Path>) -> Outcome<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let base = dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let base = base.canonicalize().trying(|| base.display().to_string())?;
    tempfile::Builder::new()
        .prefix("posthaste-bench-")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in(&base)
        .trying(|| base.display().to_string())
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    // A template of our own that is wrong would only cost the looks.
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (about {eta} left) {msg}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn targets(order: &Compare, plan: &Plan, folder: &Path, bar: &ProgressBar) -> Outcome<Vec<Box<dyn Target>>> {
    let installation = Rc::new(Installation::prepare(&order.posthaste, folder, order.accounts)?);
    let mut targets: Vec<Box<dyn Target>> = Vec::new();
    for way in &order.ways {
        targets.push(Box::new(Posthaste::new(&installation, *way)));
    }
    let wanted: Vec<&String> = order.postfix.iter().filter(|v| *v != "none").collect();
    if !wanted.is_empty() && !postfix::is_there() {
        bar.suspend(|| eprintln!("bench: {}", postfix::HOW_TO_INSTALL));
    } else {
        let sessions_max = plan.cells.iter().map(|c| c.sessions).max().unwrap_or(1) as u16;
        for word in wanted {
            let variant = Variant::from_str(word, true)
                .map_err(|_| Problem(format!("--postfix {word}: default, nodelay, tls or none")))?;
            targets.push(Box::new(Postfix::new(
                variant,
                order.postfix_deliver,
                order.accounts,
                sessions_max,
            )));
        }
    }
    let program = std::env::current_exe().trying(|| "this program's own path".into())?;
    targets.push(Box::new(Bare::of(program)));
    Ok(targets)
}

/// The runs that count syncs and octets.
fn count(
    plan: &Plan,
    strace: bool,
    targets: &[Box<dyn Target>],
    folder: &Path,
    bar: &ProgressBar,
    interrupted: &AtomicBool,
    found: &mut Comparison,
) -> Outcome<()> {
    let volume = match Volume::mount(folder) {
        Ok(volume) => {
            found.notes.push(
                "written and flushes: runs of their own on a private ext4 on a loop device, nobody else's writes \
                 in them; the file system's own journal is."
                    .into(),
            );
            Some(volume)
        }
        Err(problem) => {
            found.notes.push(format!(
                "written: the whole device's count in the timed runs, the smallest of the rounds, others' writes \
                 included, because a private file system could not be had ({problem})."
            ));
            None
        }
    };
    for &cell in &plan.cells {
        for target in targets {
            bar.set_message(format!("counting: {}, {}", target.name(), words(cell)));
            let rate = found
                .measurements
                .iter()
                .filter(|m| m.target == target.name() && m.cell == cell)
                .map(|m| m.load.per_second)
                .fold(0.0, f64::max);
            let messages = measure::messages_for(cell, rate, plan.time.min(Duration::from_millis(1500)));
            let private = volume.as_ref().map(Volume::folder);
            let target = target.as_ref();
            let counts = measure::count(target, folder, private, cell, plan.manner, messages, strace);
            check(interrupted)?;
            match counts {
                Ok(counts) => found.counts.push(counts),
                Err(problem) => found.notes.push(missing(target, cell, &problem)),
            }
            bar.inc(1);
        }
    }
    Ok(())
}

/// How syncs were counted, for the foot of the table.
fn sync_words(untraced: Option<Problem>, strace: bool) -> String {
    let calls = syncs::CALLS.join(", ");
    let traced = match untraced {
        None => format!("syncs/msg: entries into {calls}, counted by the kernel in the timed runs."),
        Some(problem) => format!("syncs/msg: not counted in the timed runs ({problem})."),
    };
    let straced = if strace {
        " By strace: runs of their own; strace stops the server at each of these calls, which changes how \
         messages group."
    } else {
        ""
    };
    traced + straced
}

fn check(interrupted: &AtomicBool) -> Outcome<()> {
    if interrupted.load(Ordering::SeqCst) {
        return Err(Problem(
            "interrupted: servers, mounts and folders are removed".into(),
        ));
    }
    Ok(())
}

fn missing(target: &dyn Target, cell: Cell, problem: &Problem) -> String {
    format!("not measured: {}, {}: {problem}", target.name(), words(cell))
}

/// What went wrong in the loads, added up by server, cell and reply.
fn errors(measurements: &[Measurement]) -> Vec<String> {
    let mut sums: BTreeMap<(String, Cell, &String), u64> = BTreeMap::new();
    for m in measurements {
        for (kind, count) in &m.load.errors {
            *sums.entry((m.target.clone(), m.cell, kind)).or_default() += count;
        }
    }
    sums.into_iter()
        .map(|((target, cell, kind), count)| format!("errors: {target}, {}: {count} × {kind}", words(cell)))
        .collect()
}

fn words(cell: Cell) -> String {
    format!("{} sessions, {} KiB", cell.sessions, cell.size / 1024)
}

fn notes(plan: &Plan, targets: &[Box<dyn Target>]) -> Vec<String> {
    let mut notes: Vec<String> = targets.iter().map(|t| t.describe()).collect();
    notes.push(format!(
        "load: one generator thread on the same cores; {} messages on a connection, one recipient, {}; {} rounds, \
         servers in turn, about {} ms each after a warm-up, a fresh server and an empty store each time.",
        if plan.manner.per_connection == 0 {
            "all".to_owned()
        } else {
            plan.manner.per_connection.to_string()
        },
        if plan.manner.pipelining {
            "pipelined"
        } else {
            "not pipelined"
        },
        plan.rounds,
        plan.time.as_millis()
    ));
    notes.push(format!(
        "CPU and memory: all the server's processes, from a {}; CPU until they are quiet; memory that no file is \
         behind, at its peak.",
        Account::open("words").words()
    ));
    notes
}

/// What one must know about the machine.
pub fn machine(folder: &Path) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let model = cpu_info
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = crate::procfs::kib_line(&read("/proc/meminfo"), "MemTotal").unwrap_or(0) >> 20;
    let mounts = read("/proc/mounts");
    let file_system = mounts
        .lines()
        .filter_map(|l| {
            let mut fields = l.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(place, _)| folder.starts_with(place))
        .max_by_key(|(place, _)| place.len())
        .map_or("unknown", |(_, kind)| kind);
    vec![
        format!("{model}, {cores} cores, {memory} MiB"),
        format!(
            "Linux {}, measured on {file_system}",
            read("/proc/sys/kernel/osrelease").trim()
        ),
        format!("load average at the start: {}", load_average()),
    ]
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
