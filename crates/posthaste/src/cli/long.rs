//! Orders that take long: asked of the running server or carried out here, with a line on standard
//! error that says how far they are.

use super::Failure;
use crate::settings::Settings;
use crate::world::{self, World};
use admin::long::{Far, Said};
use admin::{Request, Response};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Time between two drawings of the line.
const DRAWN_EVERY: Duration = Duration::from_millis(250);

/// Carries out such an order. Octets of a backup go to standard output.
pub fn perform(settings: &Settings, request: Request, quiet: bool) -> Result<Response, Failure> {
    let mut line = Line::new(quiet);
    let mut broken = None;
    let mut listen = |said: Said| match said {
        Said::Far(far) => {
            line.draw(&words(&far));
            true
        }
        Said::Octets(octets) => match std::io::stdout().write_all(&octets) {
            Ok(()) => true,
            Err(error) => {
                broken = Some(error);
                false
            }
        },
    };
    let answer = ask(settings, request, &mut listen);
    line.clear();
    if let Some(error) = broken {
        return Err(Failure::store(format!("standard output: {error}")));
    }
    std::io::stdout().flush()?;
    answer
}

fn ask(
    settings: &Settings,
    request: Request,
    listen: &mut (dyn FnMut(Said) -> bool + Send),
) -> Result<Response, Failure> {
    let socket = admin::control::socket_path(&settings.data, &std::env::temp_dir());
    let asked = admin::long::ask(&socket, &settings.data, &request, listen)
        .map_err(|e| Failure::store(format!("the control socket {}: {e}", socket.display())))?;
    if let Some(answer) = asked {
        return Ok(answer?);
    }
    if !settings.data.join("store").exists() {
        return Err(Failure::store(format!(
            "there is no mail store in {}: name the right --config or --data",
            settings.data.display()
        )));
    }
    world::block_on(async {
        let (world, _) = World::open_told(settings)?;
        let handle = tokio::runtime::Handle::current();
        // On a thread on which blocking is allowed.
        let answer = std::thread::scope(|scope| {
            let work = scope.spawn(|| admin::long::perform(&world.office, request, listen, &handle));
            work.join()
        });
        world.close().await;
        match answer {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::store("the work ended badly; this is a bug")),
        }
    })
}

fn words(far: &Far) -> String {
    format!("{} {}, {}", far.done, far.what, octets(far.octets))
}

/// Octets as people read them.
pub fn octets(n: u64) -> String {
    let units = ["octets", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut unit) = (n as f64, 0);
    while whole >= 1024.0 && unit + 1 < units.len() {
        whole /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} {}", units[0]),
        _ => format!("{whole:.1} {}", units[unit]),
    }
}

/// A line on standard error, for a person.
pub struct Line {
    shown: bool,
    drawn: Option<Instant>,
}

impl Line {
    /// A line that is only shown to a person.
    pub fn new(quiet: bool) -> Self {
        Self {
            shown: !quiet && std::io::stderr().is_terminal(),
            drawn: None,
        }
    }

    /// Draws it anew, but not too often.
    pub fn draw(&mut self, text: &str) {
        if self.shown && self.drawn.is_none_or(|at| at.elapsed() >= DRAWN_EVERY) {
            self.drawn = Some(Instant::now());
            eprint!("\r\x1b[K{text}");
        }
    }

    /// Takes it away.
    pub fn clear(&mut self) {
        if self.drawn.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
