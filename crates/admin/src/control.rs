//! The control socket: how the command line asks a running server.
//!
//! A Unix stream socket in the data folder, for the folder's owner only. One request and one
//! response a connection, each a line of JSON. While an answer takes long, lines that say how far
//! it has come go before it; who hangs up stops the work.

use crate::audit::{Pace, Standing};
use crate::long;
use crate::office::Office;
use crate::words::{Refusal, Request, Response};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// The socket's name in the data folder.
pub const SOCKET_NAME: &str = "control.sock";
/// Octets of a request at most: a message to sign, in base64.
pub const REQUEST_OCTETS_MAX: u64 = 64 * 1024 * 1024;
/// Octets of a response at most.
pub const RESPONSE_OCTETS_MAX: u64 = 256 * 1024 * 1024;
/// How long the command line waits for an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// How often the asker is told how far a long answer has come.
const TOLD_EVERY: Duration = Duration::from_millis(250);
/// Octets of a socket's path at most (what `sockaddr_un` holds on every system).
const PATH_OCTETS_MAX: usize = 100;

/// The socket's path; a data folder with a very long path keeps it in the temporary folder.
#[must_use]
pub fn socket_path(data: &Path, temporary: &Path) -> PathBuf {
    let plain = data.join(SOCKET_NAME);
    if plain.as_os_str().len() <= PATH_OCTETS_MAX {
        return plain;
    }
    // FNV-1a of the path: the same folder always finds the same socket.
    let hash = data
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
        });
    temporary.join(format!("posthaste-{hash:016x}.sock"))
}

/// Binds the socket. The caller holds the store's lock, so a socket that is there is a dead one.
///
/// # Errors
/// When the socket cannot be made.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers requests until the shutdown is told.
pub async fn serve(
    listener: UnixListener,
    office: Arc<Office>,
    mut shutdown: tokio::sync::watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (office, shutdown) = (office.clone(), shutdown.clone());
                    tokio::spawn(async move {
                        if let Err(error) = answer_one(stream, &office, shutdown).await {
                            tracing::debug!(%error, "a control connection ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            () = told(&mut shutdown) => return,
        }
    }
}

/// A line that goes before a long answer.
#[derive(serde::Serialize, serde::Deserialize)]
struct Underway {
    progress: Standing,
}

async fn answer_one(
    stream: UnixStream,
    office: &Office,
    shutdown: tokio::sync::watch::Receiver<bool>,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    tokio::io::BufReader::new(read.take(REQUEST_OCTETS_MAX))
        .read_until(b'\n', &mut line)
        .await?;
    let answer: Result<Response, Refusal> = match serde_json::from_slice::<Request>(&line) {
        Ok(Request::Audit { deep }) => audit(&mut write, office, deep, shutdown).await?,
        Ok(request) if long::is_long(&request) => {
            return long::answer(&mut write, office, request, shutdown).await;
        }
        Ok(request) => office.perform(request).await,
        Err(e) => Err(Refusal::invalid(format!("the request is not understood: {e}"))),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Audits, and tells how far it has come. It stops when nobody listens any more, or at the shutdown.
async fn audit(
    write: &mut tokio::net::unix::OwnedWriteHalf,
    office: &Office,
    deep: bool,
    mut shutdown: tokio::sync::watch::Receiver<bool>,
) -> std::io::Result<Result<Response, Refusal>> {
    let pace = Pace::new(true);
    let mut work = std::pin::pin!(office.audit(deep, pace.clone()));
    let mut ticks = tokio::time::interval(TOLD_EVERY);
    let mut heard = Ok(());
    let report = loop {
        tokio::select! {
            report = &mut work => break report,
            () = told(&mut shutdown), if !pace.is_stopped() => pace.stop(),
            _ = ticks.tick(), if heard.is_ok() => {
                let mut line = serde_json::to_vec(&Underway { progress: pace.standing() })?;
                line.push(b'\n');
                heard = write.write_all(&line).await;
                if heard.is_err() {
                    pace.stop();
                }
            }
        }
    };
    heard?;
    Ok(report.map(|report| Response::Audit(Box::new(report))))
}

/// Asks the running server of a data folder. `None` when none is listening.
///
/// # Errors
/// When a server is there but does not answer as it should.
pub fn ask(
    path: &Path,
    data: &Path,
    request: &Request,
) -> std::io::Result<Option<Result<Response, Refusal>>> {
    ask_told(path, data, request, &mut |_| {})
}

/// [`ask`], being told how far a long answer has come.
///
/// # Errors
/// As [`ask`].
pub fn ask_told(
    path: &Path,
    data: &Path,
    request: &Request,
    told: &mut dyn FnMut(&Standing),
) -> std::io::Result<Option<Result<Response, Refusal>>> {
    let Some(mut stream) = connect(path, data)? else {
        return Ok(None);
    };
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        (&mut lines)
            .take(RESPONSE_OCTETS_MAX)
            .read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(std::io::Error::other(
                "the server closed the control connection without an answer",
            ));
        }
        match serde_json::from_slice::<Underway>(&line) {
            Ok(underway) => told(&underway.progress),
            Err(_) => return Ok(Some(serde_json::from_slice(&line)?)),
        }
    }
}

/// Connects to the running server of a data folder. `None` when none is listening.
pub(crate) fn connect(path: &Path, data: &Path) -> std::io::Result<Option<BlockingStream>> {
    if let (Ok(socket), Ok(folder)) = (std::fs::symlink_metadata(path), std::fs::metadata(data))
        && socket.uid() != folder.uid()
    {
        return Err(std::io::Error::other(
            "it belongs to another user than the data folder: nothing is said to it, for it may be a trap",
        ));
    }
    let stream = match BlockingStream::connect(path) {
        Ok(stream) => stream,
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(Some(stream))
}

/// Waits for the order to stop.
pub(crate) async fn told(shutdown: &mut tokio::sync::watch::Receiver<bool>) {
    // Within a function of its own, so that the guard it answers is dropped at once.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
