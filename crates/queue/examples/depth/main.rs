//! What a queued message costs when a thousand, and when a million others wait with it.
//!
//! `cargo run -p queue --release --example depth -- --messages 1000000 [--json] [--dir FOLDER] [--keep]`
//!
//! Fills the queue of a real store step by step (1,000, 10,000, 100,000, …). At each step it measures,
//! as medians of several samples: accepting, finding what is due, claiming, releasing and settling;
//! whole lives of errands with all CPU time and all octets written; memory and disk. At the end it
//! closes the store, opens it again, kills a process that works on it, and opens it again.
//!
//! Promises: a clock that it moves by itself, so due times are days apart and nothing sleeps; the
//! folder is removed at the end, whatever the end is, unless `--keep` is given.
//! Never: a folder that it did not make itself.

mod load;
mod machine;
mod measure;
mod start;
mod table;

use load::World;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Octets of disk that a queued message is expected to need at most: bytes, log, index with its free room.
const DISK_PER_MESSAGE: u64 = 8 * 1024;
/// Octets of disk that are needed however few messages there are.
const DISK_BASE: u64 = 512 << 20;
/// The marker in a folder that this program made.
const MARKER: &str = "made-by-depth";

/// What is asked for.
pub(crate) struct Asked {
    messages: u64,
    samples: usize,
    json: bool,
    keep: bool,
    folder: PathBuf,
    /// Hidden: be the process that is killed.
    victim: bool,
}

const USAGE: &str = "depth [--messages N] [--samples N] [--json] [--dir FOLDER] [--keep]
  --messages N  the deepest queue (1000000); also every power of ten from 1,000 below it
  --samples N   samples of each figure (9)
  --json        one JSON object instead of the tables
  --dir FOLDER  where the store goes; must not exist (default: in the temporary folder)
  --keep        leave the store there";

fn asked() -> Result<Option<Asked>, String> {
    let mut asked = Asked {
        messages: 1_000_000,
        samples: 9,
        json: false,
        keep: false,
        folder: std::env::temp_dir().join(format!("queue-depth-{}", std::process::id())),
        victim: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "--messages" => asked.messages = number(&word, &value()?)?.max(1_000),
            "--samples" => asked.samples = number(&word, &value()?)?.max(1) as usize,
            "--dir" => asked.folder = value()?.into(),
            "--json" => asked.json = true,
            "--keep" => asked.keep = true,
            "--victim" => asked.victim = true,
            "--help" => return Ok(None),
            _ => return Err(format!("{word} is not known\n{USAGE}")),
        }
    }
    Ok(Some(asked))
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.replace(['_', ','], "")
        .parse()
        .map_err(|e| format!("{name}: {e}"))
}

/// The folder; it goes when this goes.
struct Folder<'a> {
    path: &'a Path,
    keep: bool,
}

impl<'a> Folder<'a> {
    fn make(path: &'a Path, keep: bool) -> Result<Self, String> {
        std::fs::create_dir(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let folder = Self { path, keep };
        std::fs::write(path.join(MARKER), b"").map_err(|e| e.to_string())?;
        Ok(folder)
    }
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("the store is kept in {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(self.path) {
            eprintln!("{} could not be removed: {error}", self.path.display());
        }
    }
}

/// The depths at which is measured: powers of ten from 1,000, and the deepest.
fn depths(deepest: u64) -> Vec<u64> {
    let tens = std::iter::successors(Some(1_000_u64), |n| n.checked_mul(10));
    let mut depths: Vec<u64> = tens.take_while(|n| *n < deepest).collect();
    depths.push(deepest);
    depths
}

async fn run(asked: &Asked) -> Result<(), String> {
    let needed = DISK_BASE + asked.messages * DISK_PER_MESSAGE;
    let parent = asked
        .folder
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let free = machine::disk_free(parent)?;
    if free < needed {
        return Err(format!(
            "{} messages need about {} of disk and {} has {}: ask for fewer, or name a --dir with more room",
            table::grouped(asked.messages),
            table::octets(needed),
            parent.display(),
            table::octets(free)
        ));
    }
    let folder = Folder::make(&asked.folder, asked.keep)?;
    eprintln!("the store is in {}", folder.path.display());
    let mut world = World::open(folder.path)?;
    let mut rows = Vec::new();
    for depth in depths(asked.messages) {
        let filled = world.fill_to(depth).await?;
        let row = measure::at(&mut world, depth, filled, asked.samples).await?;
        if !asked.json {
            table::progress_row(&row);
        }
        rows.push(row);
    }
    let starts = start::measure(world, folder.path, asked.samples).await?;
    if asked.json {
        println!("{}", table::json(&rows, &starts));
    } else {
        table::print(&rows, &starts);
    }
    Ok(())
}

fn main() -> ExitCode {
    let asked = match asked() {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let done = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|e| e.to_string())
        .and_then(|runtime| {
            runtime.block_on(async {
                if asked.victim {
                    start::be_killed(&asked.folder).await
                } else {
                    run(&asked).await
                }
            })
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
