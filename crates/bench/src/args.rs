//! The command line, as clap reads it.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Measures Posthaste on this machine, beside Postfix, beside what the machine allows.
///
/// Everything happens on loopback. Compare figures only within one run: docs/BENCHMARKS.md says why.
#[derive(Parser, Debug)]
#[command(name = "bench", version, arg_required_else_help = true)]
pub struct Args {
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the bench can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Send messages over many sessions and measure rate and latency.
    Load(Load),
    /// Run the bare receiver until SIGTERM: SMTP in, one file with group commit, 250.
    Bare(Bare),
    /// Probe what the disk allows: single syncs, and group commit by many producers.
    Disk(Disk),
    /// Run a counting SMTP sink until SIGTERM.
    Sink(Sink),
    /// Measure Posthaste, Postfix, the bare receiver and the disk in one run, in turn, and print the table.
    Compare(Box<Compare>),
    /// Many idle sessions, many active ones, slow ones, and more than the server takes.
    Crowd(Crowd),
    /// Measure relaying: accepted here, sent on to a sink, Posthaste and Postfix in turn; and what a dead
    /// destination with a long queue costs the others.
    Relay(Box<Relay>),
    /// Measure start to listening with an empty store, and memory when idle.
    Start(Start),
}

/// `bench load`.
#[derive(ClapArgs, Debug)]
pub struct Load {
    /// The server (loopback only).
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub to: SocketAddr,
    /// The server's Unix socket, used in place of --to.
    #[arg(long, value_name = "FILE")]
    pub unix: Option<PathBuf>,
    /// Sessions at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub sessions: u16,
    /// Messages in all.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub messages: u64,
    /// Octets of a message, header included.
    #[arg(long, default_value_t = 10_240, value_parser = clap::value_parser!(u32).range(512..=67_108_864))]
    pub size: u32,
    /// Messages on one connection; 0 keeps it for all.
    #[arg(long, default_value_t = 0)]
    pub per_connection: u64,
    /// Recipients of each message.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub recipients: u64,
    /// The sender.
    #[arg(long, default_value = "load@sender.example")]
    pub from: String,
    /// The recipient; %d becomes a number below --users.
    #[arg(long, default_value = "user%d@bench.example")]
    pub rcpt: String,
    /// How many users there are.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub users: u64,
    /// Send MAIL, RCPT and DATA in one write (RFC 2920).
    #[arg(long)]
    pub pipelining: bool,
    /// Inside TLS, after STARTTLS; any certificate will do.
    #[arg(long)]
    pub tls: bool,
    /// Seconds that one answer may take.
    #[arg(long, default_value_t = 60)]
    pub timeout_secs: u64,
}

/// `bench bare`.
#[derive(ClapArgs, Debug)]
pub struct Bare {
    /// Where to listen (loopback only); port 0 takes a free one. Prints the address, then `ready`.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The folder of its file.
    #[arg(long, value_name = "FOLDER")]
    pub dir: PathBuf,
}

/// `bench disk`.
#[derive(ClapArgs, Debug)]
pub struct Disk {
    /// The folder on the disk to probe.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub dir: PathBuf,
    /// Producers, each waiting for its record.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256])]
    pub producers: Vec<u16>,
    /// Sizes of a record in KiB.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    pub sizes: Vec<u16>,
    /// Milliseconds of one run.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub millis: u64,
}

/// `bench sink`.
#[derive(ClapArgs, Debug)]
pub struct Sink {
    /// Where to listen (loopback only); port 0 takes a free one. Prints the address, then `ready`.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// End after so many messages.
    #[arg(long)]
    pub messages: Option<u64>,
    /// End after so many seconds without a new message, once there was one.
    #[arg(long)]
    pub idle_secs: Option<u64>,
}

/// What Postfix does with what it has accepted.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Deliver {
    /// Throw it away after the durable queue: less work than Posthaste has, which always delivers.
    Discard,
    /// Into a Maildir for each user, as Posthaste delivers into a mailbox.
    Maildir,
}

/// How a Postfix instance is set.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Its own defaults.
    Default,
    /// `in_flow_delay = 0`: senders are not slowed down when the queue grows.
    Nodelay,
    /// The same, and the load comes inside TLS.
    Tls,
}

/// How Posthaste is spoken to, or set.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// In clear; every message is judged, and is unsigned.
    Plain,
    /// Inside TLS.
    Tls,
    /// Every message bears a DKIM signature (RSA, 2048 bit), which is verified.
    Signed,
    /// Nothing is judged: `judge.unjudged_from` names the sender's network.
    Unjudged,
}

/// `bench compare`.
#[derive(ClapArgs, Debug)]
pub struct Compare {
    /// Sessions at the same time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256])]
    pub sessions: Vec<u16>,
    /// Sizes of a message in KiB.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    pub sizes: Vec<u16>,
    /// How often every cell is measured on every server.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Milliseconds that one measurement should last: the number of messages follows from a short run before.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub millis: u64,
    /// Messages on one connection; 0 keeps it for all.
    #[arg(long, default_value_t = 0)]
    pub per_connection: u64,
    /// Send MAIL, RCPT and DATA in one write (RFC 2920).
    #[arg(long)]
    pub pipelining: bool,
    /// A first look: sessions 1 and 64, 10 KiB, one round, short.
    #[arg(long, conflicts_with_all = ["sessions", "sizes", "rounds", "millis"])]
    pub quick: bool,
    /// Leave out the separate runs that count octets written (and syncs, where strace has to).
    #[arg(long)]
    pub no_counts: bool,
    /// Count syncs under strace too, in runs of their own, also where the kernel's tracing counts them.
    #[arg(long, conflicts_with = "no_counts")]
    pub strace: bool,
    /// How Posthaste is spoken to, or set; each way is a row of its own.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "plain")]
    pub ways: Vec<Way>,
    /// Which Postfix instances run beside; `--postfix none` leaves it out.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "default,nodelay",
        value_name = "default|nodelay|tls|none"
    )]
    pub postfix: Vec<String>,
    /// What Postfix does with the messages.
    #[arg(long, value_enum, default_value_t = Deliver::Discard)]
    pub postfix_deliver: Deliver,
    /// The server to measure.
    #[arg(long, value_name = "FILE", default_value = "target/release/posthaste")]
    pub posthaste: PathBuf,
    /// Accounts that the messages go to.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub accounts: u16,
    /// The folder on the disk to measure on (default: the folder for temporary files).
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// Write all figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write the tables to this file, as Markdown.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// `bench crowd`.
#[derive(ClapArgs, Debug)]
pub struct Crowd {
    /// Idle sessions.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(0..=20_000))]
    pub idle: u16,
    /// Active sessions, in each phase.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(0..=5_000))]
    pub active: u16,
    /// Slow clients (at a command, at a message, at a handshake), in the last phase.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(0..=5_000))]
    pub slow: u16,
    /// All but the slow ones inside TLS, after STARTTLS.
    #[arg(long)]
    pub tls: bool,
    /// Seconds of a phase of active sessions.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Milliseconds that an active session rests between two messages.
    #[arg(long, default_value_t = 2_000)]
    pub pause_millis: u64,
    /// Measure a server that runs (loopback only) instead of starting one; --pid names its process. It has
    /// an account user0@bench.example.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "pid")]
    pub to: Option<SocketAddr>,
    /// The process of --to.
    #[arg(long, requires = "to")]
    pub pid: Option<u32>,
    /// The server to start.
    #[arg(long, value_name = "FILE", default_value = "target/release/posthaste")]
    pub posthaste: PathBuf,
    /// The folder on the disk to measure on (default: the folder for temporary files).
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

/// `bench relay`.
#[derive(ClapArgs, Debug)]
pub struct Relay {
    /// How many messages are relayed.
    #[arg(long, value_delimiter = ',', default_values_t = [5_000, 50_000])]
    pub messages: Vec<u64>,
    /// To how many destinations: domains, each with an exchanger at an address of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000])]
    pub domains: Vec<u16>,
    /// Sessions that hand the messages in.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub sessions: u16,
    /// Octets of a message, header included.
    #[arg(long, default_value_t = 10_240, value_parser = clap::value_parser!(u32).range(512..=1_048_576))]
    pub size: u32,
    /// How often everything is measured on every server.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Messages for the dead destination in the experiment with one; 0 leaves it out.
    #[arg(long, default_value_t = 100_000)]
    pub dead: u64,
    /// Messages to living destinations, before and after those for the dead one.
    #[arg(long, default_value_t = 5_000)]
    pub probe: u64,
    /// Only the experiment with the dead destination.
    #[arg(long)]
    pub dead_only: bool,
    /// Which Postfix instances run beside; `--postfix none` leaves it out.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "default,tuned",
        value_name = "default|tuned|none"
    )]
    pub postfix: Vec<String>,
    /// Further settings of Posthaste, as `key=value`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// The server to measure.
    #[arg(long, value_name = "FILE", default_value = "target/release/posthaste")]
    pub posthaste: PathBuf,
    /// The folder on the disk to measure on (default: the folder for temporary files).
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// Write all figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write the tables to this file, as Markdown.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// `bench start`.
#[derive(ClapArgs, Debug)]
pub struct Start {
    /// The server to measure.
    #[arg(long, value_name = "FILE", default_value = "target/release/posthaste")]
    pub posthaste: PathBuf,
    /// How often it is started.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub times: u16,
    /// The folder on the disk to measure on (default: the folder for temporary files).
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}
