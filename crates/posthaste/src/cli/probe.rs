//! `posthaste probe`: walks the way of a message to the real server, up to RCPT, and takes the question
//! back. Never sends a message.
//!
//! Exit code 0: the server takes mail for the recipient; 1: it does not, which is then said.

use super::out::outln;
use super::route::{self, Trouble, printable};
use super::{Failure, settings, way};
use crate::args::Global;
use crate::args::route::Probe as Args;
use crate::serve::ways;
use crate::settings::Settings;
use crate::world;
use deliver::Route;
use deliver::attempt::Options;
use deliver::probe::{Probed, Prober, Walk};
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;

/// What a probe came to, for machines.
#[derive(Serialize)]
struct Told {
    from: String,
    to: String,
    /// Where it leads, when it is for here and there is nothing to probe.
    here: Option<Vec<String>>,
    /// How the servers were found, what is asked of TLS, and what was left out.
    way: Option<String>,
    /// Where the MTA-STS policy that counts was had from.
    policy_from: Option<&'static str>,
    /// The servers that were tried.
    walks: Vec<Walk>,
    /// The answer to RCPT, when it was good.
    taken: Option<String>,
    /// Why it is not taken.
    failure: Option<Trouble>,
}

pub fn run(global: &Global, args: &Args) -> Result<ExitCode, Failure> {
    let settings = settings(global)?;
    let mut told = Told {
        from: args.from.to_string(),
        to: args.to.to_string(),
        here: None,
        way: None,
        policy_from: None,
        walks: Vec::new(),
        taken: None,
        failure: None,
    };
    if let Some(view) = route::here(&settings, &args.to)? {
        let taken = !(view.accounts.is_empty() && view.forwards.is_empty());
        told.here = Some(view.steps);
        return finish(global, &told, taken);
    }
    let routes = route::in_force(&settings)?;
    if let Some(route) = deliver::way::discarding(&routes, args.to.host()) {
        told.way = Some(format!("the route for {} throws it away", route.named()));
        return finish(global, &told, true);
    }
    let remembered = way::remembered(&settings, args.to.host())?;
    world::block_on(walk(&settings, args, &routes, remembered, &mut told))?;
    let taken = told.taken.is_some();
    finish(global, &told, taken)
}

async fn walk(
    settings: &Settings,
    args: &Args,
    routes: &[Route],
    remembered: Option<mtasts::Entry>,
    told: &mut Told,
) -> Result<(), Failure> {
    let host = args.to.host();
    let found = way::find(settings, &args.server, routes, &args.from, host, remembered).await?;
    told.policy_from = found.policy_from;
    let plan = match found.plan {
        Ok(plan) => plan,
        Err(failure) => {
            told.failure = Some(Trouble::of(&failure, settings)?);
            return Ok(());
        }
    };
    told.way = Some(plan.reason());
    let (dialer, tls) = (ways::dialer(settings), ways::tls_client(settings)?);
    let options = patience(settings, args.timeout);
    let prober = Prober {
        dialer: &dialer,
        tls: &tls,
        options: &options,
    };
    let Probed { walks, verdict } = prober.probe(&plan, &args.from, &args.to).await;
    told.walks = walks;
    match verdict {
        Ok(reply) => told.taken = Some(format!("{} {}", reply.code, reply.text)),
        Err(failure) => told.failure = Some(Trouble::of(&failure, settings)?),
    }
    Ok(())
}

/// A person waits, so each step has less time than in a delivery.
fn patience(settings: &Settings, secs: u64) -> Options {
    let each = Duration::from_secs(secs);
    Options {
        connect_timeout: each,
        handshake_timeout: each,
        timeouts: smtp::client::Timeouts {
            greeting: each,
            command: each,
            ..smtp::client::Timeouts::default()
        },
        ..Options::new(settings.hostname.clone())
    }
}

fn finish(global: &Global, told: &Told, good: bool) -> Result<ExitCode, Failure> {
    if global.json {
        outln!(
            "{}",
            serde_json::to_string(told).map_err(|e| Failure::store(e.to_string()))?
        );
    } else {
        print(told);
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn print(told: &Told) {
    outln!("from {} to <{}>", told.from, told.to);
    if let Some(steps) = &told.here {
        outln!("it is for here, so there is nothing to probe:");
        steps.iter().for_each(|step| outln!("  {step}"));
        return;
    }
    if let Some(way) = &told.way {
        outln!("way: {way}");
    }
    if let Some(from) = told.policy_from {
        outln!("note: {from}");
    }
    for walk in &told.walks {
        let preference = walk.preference.map(|p| format!(", preference {p}"));
        outln!(
            "{} at {}{}",
            walk.host,
            walk.address,
            preference.unwrap_or_default()
        );
        for step in &walk.steps {
            // How a server says farewell changes nothing.
            let is_over = matches!(step.what.as_str(), "RSET" | "QUIT");
            let mark = if step.good || is_over { "" } else { "  <-- here" };
            let mut said = step.said.iter().map(|line| printable(line));
            let first = said.next().unwrap_or_default();
            outln!("  {:>6} ms  {:<13} {first}{mark}", step.ms, step.what);
            said.for_each(|line| outln!("  {:>6}     {:<13} {line}", "", ""));
        }
        if let Some(failure) = &walk.failure {
            outln!("  {}", printable(failure));
        }
    }
    if let Some(reply) = &told.taken {
        outln!("the server takes mail for <{}>: {}", told.to, printable(reply));
        outln!("nothing was sent");
    }
    if let Some(failure) = &told.failure {
        outln!("it would not be delivered now:");
        failure.print();
    }
}
