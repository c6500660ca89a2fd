//! The servers that are measured, each as a process of its own.
//!
//! Promises: a fresh folder for every start; a server that was started is ended when it is dropped.
//! Never: a server that listens anywhere but on loopback or sends mail out.

pub mod bare;
pub mod postfix;
pub mod posthaste;

use crate::account::Account;
use crate::load::Load;
use crate::problem::{Outcome, Problem, Trying};
use crate::syncs;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a server is to be started.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The account that its processes are booked on.
    pub account: &'a Account,
    /// Where strace is to write, for a run that counts syncs.
    pub strace: Option<PathBuf>,
}

impl Launch<'_> {
    /// A command for `program`, on the account and under strace if so wanted.
    pub fn command(&self, program: &Path) -> Command {
        match &self.strace {
            None => self.account.command(program),
            Some(log) => {
                let mut command = self.account.command(Path::new("strace"));
                command.args(syncs::strace_arguments(log)).arg(program);
                command
            }
        }
    }
}

/// A kind of server.
pub trait Target {
    /// Its name in the table.
    fn name(&self) -> &str;

    /// What one must know to read its figures, for the foot of the table.
    fn describe(&self) -> String;

    /// Changes how it is to be spoken to.
    ///
    /// # Errors
    /// When what that needs cannot be made.
    fn dress(&self, load: &mut Load) -> Outcome<()> {
        let _ = load;
        Ok(())
    }

    /// Starts one with an empty store below `folder`, and returns when it listens.
    ///
    /// # Errors
    /// When it does not come up.
    fn start(&self, folder: &Path, launch: &Launch<'_>) -> Outcome<Running>;
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// Where it takes mail.
    pub address: SocketAddr,
    /// From the start of its process until it said that it listens, or was seen to.
    pub ready_after: Duration,
    child: Child,
    stop: Stop,
}

/// How a server is asked to end.
#[derive(Debug)]
pub enum Stop {
    /// SIGTERM to the program below our child (or the child itself).
    Term,
    /// A command of its own.
    Command(Command),
}

impl Running {
    /// Takes over a started child.
    pub fn new(address: SocketAddr, ready_after: Duration, child: Child, stop: Stop) -> Self {
        Self {
            address,
            ready_after,
            child,
            stop,
        }
    }

    /// The first process.
    pub fn root(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// When it has to be killed.
    pub fn stop(mut self) -> Outcome<()> {
        self.ask();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.child.try_wait().trying(|| "wait".into())?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(Problem(format!(
            "a server did not end within {} s and was killed",
            PATIENCE.as_secs()
        )))
    }

    fn ask(&mut self) {
        match &mut self.stop {
            Stop::Term => {
                for pid in leaves(self.child.id()) {
                    if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                    }
                }
            }
            Stop::Command(command) => {
                let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.ask();
            let begun = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The processes to end: under strace, the traced program; else the child.
fn leaves(child: u32) -> Vec<u32> {
    let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
    if name.trim() != "strace" {
        return vec![child];
    }
    std::fs::read_to_string(format!("/proc/{child}/task/{child}/children"))
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// A program that has said `ready`.
#[derive(Debug)]
pub struct Started {
    /// Its process.
    pub child: Child,
    /// What it printed before.
    pub lines: Vec<String>,
    /// How long it took.
    pub after: Duration,
}

impl Started {
    /// The address in the line that begins with `service`.
    ///
    /// # Errors
    /// When there is none.
    pub fn address(&self, service: &str) -> Outcome<SocketAddr> {
        self.lines
            .iter()
            .find_map(|l| l.strip_prefix(service)?.trim().parse().ok())
            .ok_or_else(|| {
                Problem(format!(
                    "no line \"{service} ADDRESS\" in: {}",
                    self.lines.join(" / ")
                ))
            })
    }
}

/// Starts a program that prints `ready`, and reads its lines up to that one.
///
/// # Errors
/// When it ends before, with the end of its log in the sentence.
pub fn start_until_ready(command: &mut Command, log: &Path) -> Outcome<Started> {
    let file = File::create(log).trying(|| log.display().to_string())?;
    let name = command_name(command);
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .trying(|| name.clone())?;
    let mut lines = Vec::new();
    let output = child.stdout.take();
    for line in output.into_iter().flat_map(|o| BufReader::new(o).lines()) {
        let line = line.trying(|| name.clone())?;
        if line.trim() == "ready" {
            return Ok(Started {
                child,
                lines,
                after: begun.elapsed(),
            });
        }
        lines.push(line);
    }
    let _ = child.kill();
    let _ = child.wait();
    let words = std::fs::read_to_string(log).unwrap_or_default();
    let tail: Vec<&str> = words.lines().rev().take(5).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(Problem(format!("{name} did not start: {}", tail.join(" / "))))
}

fn command_name(command: &Command) -> String {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

/// A port that was free a moment ago.
///
/// # Errors
/// When loopback has none.
pub fn free_port() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").trying(|| "127.0.0.1".into())?;
    listener.local_addr().trying(|| "127.0.0.1".into())
}

/// Waits until something listens at `address`.
///
/// # Errors
/// When nothing does within a minute, or the child has ended.
pub fn wait_for_port(address: SocketAddr, child: &mut Child) -> Outcome<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Problem(format!(
                "the server for {address} ended at once: {status}"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Problem(format!(
        "nothing listens on {address} after {} s",
        PATIENCE.as_secs()
    )))
}
