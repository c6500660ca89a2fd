//! Each command: its options in, its figures printed.
//!
//! Promises: with `--json`, standard output holds one JSON value (the servers print their address and
//! `ready` first, on lines of their own).
//! Never: measures anything itself.

use crate::args::{Args, Bare, Command, Compare, Crowd, Disk, Load, Relay, Sink, Start};
use crate::hub::Bell;
use crate::problem::{Outcome, Problem, Trying, only_loopback};
use crate::quantile::Spread;
use crate::table::{Table, figure};
use crate::{bare, compare, crowd, disk, load, relay, report, sink, start};
use serde::Serialize;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Does what the command line says.
///
/// # Errors
/// What went wrong, as one sentence.
pub fn run(args: &Args) -> Outcome<()> {
    match &args.command {
        Command::Load(order) => run_load(order, args.json),
        Command::Bare(order) => run_bare(order, args.json),
        Command::Disk(order) => run_disk(order, args.json),
        Command::Sink(order) => run_sink(order, args.json),
        Command::Compare(order) => run_compare(order, args.json),
        Command::Crowd(order) => run_crowd(order, args.json),
        Command::Relay(order) => run_relay(order, args.json),
        Command::Start(order) => run_start(order, args.json),
    }
}

fn print_json(value: &impl Serialize) -> Outcome<()> {
    println!("{}", serde_json::to_string(value).trying(|| "JSON".into())?);
    Ok(())
}

fn run_load(order: &Load, json: bool) -> Outcome<()> {
    let report = load::run(&load::Load {
        to: order.to,
        unix: order.unix.clone(),
        sessions: order.sessions.into(),
        messages: order.messages,
        size: order.size as usize,
        per_connection: order.per_connection,
        recipients: order.recipients,
        from: order.from.clone(),
        rcpt: order.rcpt.clone(),
        users: order.users,
        pipelining: order.pipelining,
        timeout: Duration::from_secs(order.timeout_secs.max(1)),
        tls: order.tls.then(load::any_tls).transpose()?,
        letters: None,
    })?;
    if json {
        print_json(&report)?;
    } else {
        let mut table = Table::new(
            0,
            [
                "messages/s",
                "p50 ms",
                "p90 ms",
                "p99 ms",
                "max ms",
                "accepted",
                "failed",
                "unsent",
                "seconds",
            ],
        );
        let at = report.latency_ms;
        table.row([
            figure(Some(report.per_second)),
            figure(at.map(|l| l.p50)),
            figure(at.map(|l| l.p90)),
            figure(at.map(|l| l.p99)),
            figure(at.map(|l| l.max)),
            report.accepted.to_string(),
            report.failed.to_string(),
            report.unsent.to_string(),
            figure(Some(report.seconds)),
        ]);
        print!("{}", table.text());
        println!(
            "{} of {} sessions, {} connections; the generator took {} s of CPU",
            report.opened,
            report.sessions,
            report.connections,
            figure(Some(report.generator_cpu_seconds))
        );
        for (kind, count) in &report.errors {
            println!("{count} × {kind}");
        }
    }
    if report.accepted == 0 {
        return Err(Problem(format!("no message was accepted by {}", order.to)));
    }
    Ok(())
}

/// Binds, says where, and ends at SIGTERM or SIGINT.
fn open(listen: SocketAddr) -> Outcome<(TcpListener, Bell)> {
    only_loopback(listen)?;
    let listener = TcpListener::bind(listen).trying(|| listen.to_string())?;
    let address = listener.local_addr().trying(|| listen.to_string())?;
    let bell = Bell::new()?;
    let end = bell.clone();
    std::thread::spawn(move || {
        if wait_for_signal().is_ok() {
            end.end();
        }
    });
    println!("smtp {address}");
    println!("ready");
    Ok((listener, bell))
}

/// Waits for SIGTERM or SIGINT.
fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn run_bare(order: &Bare, json: bool) -> Outcome<()> {
    let (listener, bell) = open(order.listen)?;
    let report = bare::serve(listener, &order.dir, bell)?;
    if json {
        return print_json(&report);
    }
    println!("{} messages in {} groups", report.messages, report.groups);
    Ok(())
}

fn run_sink(order: &Sink, json: bool) -> Outcome<()> {
    let until = sink::Until {
        messages: order.messages,
        idle: order.idle_secs.map(Duration::from_secs),
    };
    let (listener, bell) = open(order.listen)?;
    let report = sink::serve(listener, until, bell)?;
    if json {
        return print_json(&report);
    }
    println!(
        "{} messages, {} octets, {} messages/s",
        report.messages,
        report.octets,
        figure(Some(report.per_second))
    );
    Ok(())
}

fn run_disk(order: &Disk, json: bool) -> Outcome<()> {
    let time = Duration::from_millis(order.millis);
    let bar = indicatif::ProgressBar::new((order.producers.len() * order.sizes.len() * 2) as u64);
    let mut rows = Vec::new();
    for &size in &order.sizes {
        for &producers in &order.producers {
            for recycled in [false, true] {
                let size = usize::from(size.max(1)) * 1024;
                rows.push(disk::group_commit(
                    &order.dir,
                    producers.max(1).into(),
                    size,
                    recycled,
                    time,
                )?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    if json {
        return print_json(&rows);
    }
    print!("{}", disk::table(&rows).text());
    Ok(())
}

fn run_compare(order: &Compare, json: bool) -> Outcome<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    std::thread::spawn(move || {
        if wait_for_signal().is_ok() {
            flag.store(true, Ordering::SeqCst);
        }
    });
    let found = compare::run(order, &interrupted)?;
    if let Some(file) = &order.out {
        let text = serde_json::to_string_pretty(&found).trying(|| "JSON".into())?;
        std::fs::write(file, text).trying(|| file.display().to_string())?;
    }
    if let Some(file) = &order.markdown {
        std::fs::write(file, report::markdown(&found)).trying(|| file.display().to_string())?;
    }
    if json {
        return print_json(&found);
    }
    print!("{}", report::text(&found));
    Ok(())
}

fn run_crowd(order: &Crowd, json: bool) -> Outcome<()> {
    let asked = crowd::Crowd {
        to: SocketAddr::from(([127, 0, 0, 1], 0)),
        pid: 0,
        idle: order.idle.into(),
        active: order.active.into(),
        slow: order.slow.into(),
        tls: order.tls.then(load::any_tls).transpose()?,
        phase: Duration::from_secs(order.seconds),
        pause: Duration::from_millis(order.pause_millis),
        connections_max: None,
        users: 1,
    };
    let report = match (order.to, order.pid) {
        (Some(to), Some(pid)) => crowd::run(crowd::Crowd { to, pid, ..asked })?,
        _ => {
            let workshop = compare::workshop(order.dir.as_deref())?;
            crowd::run_on_own(&order.posthaste, workshop.path(), asked)?
        }
    };
    if json {
        return print_json(&report);
    }
    print!("{}", report.text());
    Ok(())
}

fn run_relay(order: &Relay, json: bool) -> Outcome<()> {
    let found = relay::run(order)?;
    if let Some(file) = &order.out {
        let text = serde_json::to_string_pretty(&found).trying(|| "JSON".into())?;
        std::fs::write(file, text).trying(|| file.display().to_string())?;
    }
    if let Some(file) = &order.markdown {
        std::fs::write(file, found.markdown()).trying(|| file.display().to_string())?;
    }
    if json {
        return print_json(&found);
    }
    print!("{}", found.text());
    Ok(())
}

fn run_start(order: &Start, json: bool) -> Outcome<()> {
    let workshop = compare::workshop(order.dir.as_deref())?;
    let report = start::run(&order.posthaste, workshop.path(), order.times)?;
    if json {
        return print_json(&report);
    }
    let mut table = Table::new(1, ["", "median", "min", "max"]);
    let mut row = |name: &str, spread: Option<Spread>, unit: f64| {
        table.row([
            name.to_owned(),
            figure(spread.map(|s| s.median / unit)),
            figure(spread.map(|s| s.min / unit)),
            figure(spread.map(|s| s.max / unit)),
        ]);
    };
    row("start to ready, ms", report.ready_ms, 1.0);
    row("resident when idle, MiB", report.resident_octets, 1_048_576.0);
    row("of it no file is behind, MiB", report.private_octets, 1_048_576.0);
    print!("{}", table.text());
    Ok(())
}
