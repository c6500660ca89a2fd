//! `posthaste demo`: an internet in a box, and mail that really goes through it.
//!
//! Two complete servers, a DNS and a certificate authority are started on loopback; then alice's
//! message takes the whole way in five steps, and the usual failures happen one by one. Every step
//! is verified on real results; the exit code is 0 only if all of them came out as they should.
//!
//! Never: root, an outside address, a setting, a sleep.

mod abridge;
mod event;
mod reel;
mod scenes;
mod show;
mod site;
mod stage;
mod world;

use crate::args;
use crate::cli::Failure;
use event::{Event, Host, PartResult, Service as Listener};
use scenes::{PARTS, Part};
use show::{Form, Show};
use site::{Service, Site};
use stage::Stage;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use world::World;

/// The exit code when somebody ended the demo before its end, as shells say it for SIGINT.
const INTERRUPTED: u8 = 130;

/// What stops a part: something that had to work for the rest to make sense.
#[derive(Debug)]
pub struct Broken(String);

impl Broken {
    fn said(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Broken {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs the demo: once, or until it is told to stop. Exit code 0 when all parts came out, 1 when not.
pub fn run(order: &args::Demo, json: bool) -> Result<ExitCode, Failure> {
    crate::world::block_on(run_parts(order.once, json))
}

async fn run_parts(once: bool, json: bool) -> Result<ExitCode, Failure> {
    let form = Form::of_stdout(json);
    let show = Arc::new(Show::stdout(form));
    let since = Instant::now();
    show.picture();
    show.event(&Event::Remark {
        text: "A DNS server, a certificate authority and two mail servers are started, all on loopback.",
    });
    let interrupted = Ok(ExitCode::from(INTERRUPTED));
    let stop = crate::world::stop_signal();
    tokio::pin!(stop);
    // Biased: the signal is listened for before the first folder is made.
    let built = tokio::select! {
        biased;
        _ = &mut stop => return interrupted,
        built = World::build() => built,
    };
    let mut world = built
        .map_err(|broken| Failure::store(format!("the demo's servers could not be started: {broken}")))?;
    let played = tokio::select! {
        results = play_all(&show, &mut world) => Some(results),
        _ = &mut stop => None,
    };
    let Some(results) = played else {
        world.close().await;
        return interrupted;
    };
    let ok = results.iter().all(|part| part.ok);
    show.event(&Event::Summary {
        ok,
        seconds: since.elapsed().as_secs_f64(),
        parts: &results,
    });
    if !once {
        connect(&show, &world);
        stop.await?;
    }
    world.close().await;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn play_all(show: &Arc<Show>, world: &mut World) -> Vec<PartResult> {
    let mut letters = scenes::Letters::default();
    let mut results = Vec::new();
    for part in PARTS {
        results.push(play(*part, show, world, &mut letters).await);
    }
    results
}

async fn play(part: Part, show: &Arc<Show>, world: &mut World, letters: &mut scenes::Letters) -> PartResult {
    let mut stage = Stage::begin(show, part.id(), part.title());
    let outcome = part.play(&mut stage, world, letters).await;
    stage.end(outcome.err())
}

/// How to connect one's own mail program.
fn connect(show: &Show, world: &World) {
    let host = |site: &Site, logins: &[&lab::client::Login]| Host {
        domain: site.identity.domain.to_owned(),
        services: Service::ALL
            .iter()
            .map(|(service, name, security)| Listener {
                name: (*name).to_owned(),
                address: site.addr(*service).to_string(),
                security,
            })
            .collect(),
        users: logins
            .iter()
            .map(|l| (l.user.clone(), l.password.expose().to_owned()))
            .collect(),
    };
    let hosts = [
        host(&world.gmail, &[&world.alice]),
        host(&world.example, &[&world.bob]),
    ];
    let root = world.root_file.display().to_string();
    show.event(&Event::Connect {
        hosts: &hosts,
        trust: &root,
        try_this: &try_this(world, &root),
    });
}

/// What to type, line by line.
fn try_this(world: &World, root: &str) -> Vec<String> {
    let (alice, bob) = (&world.alice, &world.bob);
    let at = |site: &Site, service: Service| site.addr(service).to_string();
    let user = |l: &lab::client::Login| format!("{}:{}", l.user, l.password.expose());
    let config = world.example.settings_file.display();
    let program =
        std::env::current_exe().map_or_else(|_| "posthaste".to_owned(), |p| p.display().to_string());
    vec![
        "# write to bob".to_owned(),
        format!("printf 'From: alice@gmail.com\\nTo: bob@example.com\\nSubject: Me again\\n\\nHi Bob!\\n' |"),
        format!(
            "  curl -sS --crlf --cacert {root} --user '{}' --mail-from alice@gmail.com --mail-rcpt bob@example.com \
             --upload-file - smtps://{}",
            user(alice),
            at(&world.gmail, Service::Submissions)
        ),
        "# read the newest".to_owned(),
        format!(
            "curl -sS --cacert {root} --user '{}' 'imaps://{}/INBOX;MAILINDEX=*'",
            user(bob),
            at(&world.example, Service::Imaps)
        ),
        "# the same with swaks".to_owned(),
        format!(
            "swaks --server {} --tls --auth-user {} --auth-password '{}' --from alice@gmail.com \
             --to bob@example.com",
            at(&world.gmail, Service::Submission),
            alice.user,
            alice.password.expose()
        ),
        "# talk to the servers yourself".to_owned(),
        format!(
            "openssl s_client -crlf -quiet -CAfile {root} -starttls smtp -connect {}",
            at(&world.example, Service::Smtp)
        ),
        format!(
            "openssl s_client -crlf -quiet -CAfile {root} -connect {}",
            at(&world.example, Service::Imaps)
        ),
        "# ask the DNS".to_owned(),
        format!(
            "dig @{} -p {} example.com MX",
            world.dns_addr().ip(),
            world.dns_addr().port()
        ),
        "# what happened to bob's mail".to_owned(),
        format!("{program} --config {config} trace bob@example.com"),
    ]
}
