//! Orders that take long, or whose answer is long: backup and export. While they are carried out,
//! the asker hears how far they are, and gets the octets of a backup that goes to a pipe.
//!
//! Over the control socket each thing said is a line of JSON: `{"far":…}`, `{"octets":n}` with n
//! octets behind it, and at last the answer. Promises: an asker who has gone stops the work, and so
//! does the end of the server. Never: a file outside the place that the operator named.

use crate::office::Office;
use crate::words::{BackupView, Refusal, Request, Response};
use crate::{control, export};
use base64::Engine as _;
use mail::date;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::backup::{self, BackupError, DataFile, Plan, Progress, Report};
use store::file::{Disk as _, RealDisk};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::OwnedWriteHalf;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// How a path ends that is to become one file instead of a folder.
pub const FILE_ENDING: &str = "backup";
/// Time between two words about how far it is.
const TOLD_EVERY: Duration = Duration::from_millis(250);
/// Octets of a stream that are said at once.
const PIECE_OCTETS: usize = 256 * 1024;
/// Things said that may wait for the asker.
const SAID_WAITING_MAX: usize = 8;

/// How far it is.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Far {
    /// What is being done, in words.
    pub what: String,
    /// How many things are done.
    pub done: u64,
    /// Octets written.
    pub octets: u64,
}

/// Something said before the answer.
#[derive(Debug)]
pub enum Said {
    /// How far it is.
    Far(Far),
    /// The next octets of the backup.
    Octets(Vec<u8>),
}

/// Is told things and says whether to go on.
pub type Listen<'a> = &'a mut dyn FnMut(Said) -> bool;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Far(Far),
    Octets(u64),
}

/// Whether an order is one of these.
#[must_use]
pub fn is_long(request: &Request) -> bool {
    matches!(request, Request::Backup { .. } | Request::Export { .. })
}

/// Carries out such an order. Blocks; `handle` is the runtime on which mailboxes are read.
///
/// # Errors
/// A [`Refusal`] that says what happened and what to change.
pub fn perform(
    office: &Office,
    request: Request,
    listen: Listen<'_>,
    handle: &Handle,
) -> Result<Response, Refusal> {
    match request {
        Request::Backup { to, keep, files } => back_up(office, to, keep, files, listen),
        Request::Export {
            account,
            folder,
            format,
        } => {
            let work = export::run(office, account, &folder, format, listen);
            Ok(Response::Export(handle.block_on(work)?))
        }
        _ => Err(Refusal::invalid("this order is asked for in another way")),
    }
}

/// Says how far it is, but not too often.
pub(crate) struct Teller<'a> {
    listen: Listen<'a>,
    last: Option<Instant>,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(listen: Listen<'a>) -> Self {
        Self { listen, last: None }
    }

    /// Answers whether to go on.
    pub(crate) fn far(&mut self, far: impl FnOnce() -> Far) -> bool {
        if self.last.is_some_and(|last| last.elapsed() < TOLD_EVERY) {
            return true;
        }
        self.last = Some(Instant::now());
        (self.listen)(Said::Far(far()))
    }
}

fn far_of(progress: Progress) -> Far {
    let (what, done) = match progress.rows {
        0 => ("messages looked at", progress.blobs_seen),
        rows => ("rows written", rows),
    };
    Far {
        what: what.to_owned(),
        done,
        octets: progress.octets,
    }
}

fn back_up(
    office: &Office,
    to: Option<PathBuf>,
    keep: usize,
    files: Vec<(String, String)>,
    listen: Listen<'_>,
) -> Result<Response, Refusal> {
    let now = office.clock.now();
    let at = date::civil(now);
    let decoded = |(path, octets): (String, String)| {
        let octets = base64::engine::general_purpose::STANDARD.decode(octets);
        octets.map(|octets| DataFile { path, octets })
    };
    let files: Result<Vec<DataFile>, _> = files.into_iter().map(decoded).collect();
    let plan = Plan {
        time: now.0,
        label: format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            at.year, at.month, at.day, at.hour, at.minute, at.second
        ),
        program: format!("posthaste {}", env!("CARGO_PKG_VERSION")),
        keep: keep.max(1),
        files: files.map_err(|e| Refusal::invalid(format!("a file of the data folder: {e}")))?,
    };
    let report = match to {
        None => to_listener(office, &plan, listen),
        Some(path) if !path.is_absolute() => {
            return Err(Refusal::invalid("the place of a backup must be an absolute path"));
        }
        Some(path) if path.extension().is_some_and(|e| e == FILE_ENDING) => {
            to_file(office, &path, &plan, listen)
        }
        Some(path) => {
            let mut teller = Teller::new(listen);
            let mut tell = |progress| teller.far(|| far_of(progress));
            backup::to_folder(&office.store, &RealDisk, &path, &plan, &mut tell)
        }
    };
    match report {
        Ok(report) => Ok(Response::Backup(view(report))),
        Err(error) => Err(refusal(&error)),
    }
}

fn refusal(error: &BackupError) -> Refusal {
    let hint = match error {
        BackupError::Io { .. } => {
            "; a running server writes the backup itself: let its user write there, or take it through \
             a pipe: posthaste backup - > mail.backup"
        }
        BackupError::Full(_) => "; make room, or keep fewer backups (--keep); the ones there are untouched",
        _ => "",
    };
    Refusal::failed(format!("{error}{hint}"))
}

fn view(report: Report) -> BackupView {
    BackupView {
        file: report.file,
        store: format!("{:016x}", report.store),
        seq: report.seq,
        entries: report.entries,
        counters: report.counters,
        blobs: report.blobs,
        blob_octets: report.blob_octets,
        blobs_new: report.blobs_new,
        octets_written: report.octets_written,
        files: report.files,
        removed: report.removed,
        notes: report.notes,
        damaged: report.damage.count,
        damage: report.damage.named,
    }
}

/// One file, in the place of an older one only when it is whole.
fn to_file(office: &Office, path: &Path, plan: &Plan, listen: Listen<'_>) -> Result<Report, BackupError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error: io::Error| BackupError::Io {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed)?;
    let mut teller = Teller::new(listen);
    let mut tell = |progress| teller.far(|| far_of(progress));
    let out = io::BufWriter::with_capacity(PIECE_OCTETS, file);
    let written = backup::to_stream(&office.store, out, path, plan, &mut tell);
    let finish = |(out, mut report): (io::BufWriter<std::fs::File>, Report)| {
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&new, path).map_err(failed)?;
        RealDisk
            .sync_dir(path.parent().unwrap_or(Path::new("/")))
            .map_err(failed)?;
        report.file = Some(path.to_owned());
        Ok(report)
    };
    written.and_then(finish).inspect_err(|_| {
        let _ = std::fs::remove_file(&new);
    })
}

/// Says what is written to it.
struct Speaker<'a> {
    listen: Listen<'a>,
}

impl Write for Speaker<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match (self.listen)(Said::Octets(octets.to_vec())) {
            true => Ok(octets.len()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn to_listener(office: &Office, plan: &Plan, listen: Listen<'_>) -> Result<Report, BackupError> {
    let out = io::BufWriter::with_capacity(PIECE_OCTETS, Speaker { listen });
    // The octets themselves say that it goes on.
    let written = backup::to_stream(&office.store, out, Path::new("-"), plan, &mut |_| true);
    let (out, report) = written?;
    out.into_inner().map_err(|error| BackupError::Io {
        path: "-".into(),
        why: error.to_string(),
    })?;
    Ok(report)
}

/// Answers such an order over the control socket.
pub(crate) async fn answer(
    write: &mut OwnedWriteHalf,
    office: &Office,
    request: Request,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let (say, mut said) = mpsc::channel(SAID_WAITING_MAX);
    let (office, handle) = (office.clone(), Handle::current());
    let work = tokio::task::spawn_blocking(move || {
        let mut listen = |word| match word {
            // Who is slow to read need not hear of every step.
            Said::Far(_) => !matches!(say.try_send(word), Err(mpsc::error::TrySendError::Closed(_))),
            Said::Octets(_) => say.blocking_send(word).is_ok(),
        };
        perform(&office, request, &mut listen, &handle)
    });
    loop {
        let word = tokio::select! {
            word = said.recv() => word,
            () = control::told(&mut shutdown) => None,
        };
        let Some(word) = word else { break };
        // On an error the receiver goes, and the work learns of it.
        match word {
            Said::Far(far) => write.write_all(&line(&Line::Far(far))?).await?,
            Said::Octets(octets) => {
                write
                    .write_all(&line(&Line::Octets(octets.len() as u64))?)
                    .await?;
                write.write_all(&octets).await?;
            }
        }
    }
    drop(said);
    let answer = match work.await {
        Ok(answer) => answer,
        Err(error) => Err(Refusal::failed(format!("the work ended badly: {error}"))),
    };
    write.write_all(&line(&answer)?).await
}

fn line(what: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(what)?;
    text.push(b'\n');
    Ok(text)
}

/// Asks the running server of a data folder. `None` when none is listening.
///
/// # Errors
/// When a server is there but does not answer as it should.
pub fn ask(
    socket: &Path,
    data: &Path,
    request: &Request,
    listen: Listen<'_>,
) -> io::Result<Option<Result<Response, Refusal>>> {
    let Some(mut stream) = control::connect(socket, data)? else {
        return Ok(None);
    };
    stream.write_all(&line(request)?)?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut text = Vec::new();
        (&mut lines)
            .take(control::RESPONSE_OCTETS_MAX)
            .read_until(b'\n', &mut text)?;
        if text.is_empty() {
            return Err(io::Error::other(
                "the server closed the control connection without an answer",
            ));
        }
        let word = match serde_json::from_slice::<Line>(&text) {
            Ok(Line::Far(far)) => Said::Far(far),
            Ok(Line::Octets(len)) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX).min(PIECE_OCTETS * 64);
                let mut octets = vec![0; len];
                lines.read_exact(&mut octets)?;
                Said::Octets(octets)
            }
            Err(_) => return Ok(Some(serde_json::from_slice(&text)?)),
        };
        if !listen(word) {
            return Err(io::Error::other("nobody takes the octets any more"));
        }
    }
}
