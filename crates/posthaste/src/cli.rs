//! What each command does: reads settings, asks the running server or opens the store, prints.

mod addresses;
mod audit;
mod auth;
mod backup;
mod block;
mod dkim;
mod export;
mod failure;
mod failures;
mod init;
mod lab;
mod logins;
mod long;
mod mta_sts;
mod office;
mod out;
mod print;
mod probe;
mod queue;
mod queued;
mod restore;
mod route;
pub mod sendmail;
mod suppression;
mod tlsrpt;
pub mod way;
mod webhook;

pub use failure::Failure;

use self::out::{out, outln};
use crate::args::{Args, Command, Global};
use crate::settings::{FILE_NAME, Settings, reference};
use std::path::PathBuf;
use std::process::ExitCode;

/// Does what the command line says.
pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let global = &args.global;
    match args.command {
        Command::Serve { skip_damage } => crate::serve::run(&settings(global)?, skip_damage),
        Command::Demo(demo) => crate::demo::run(&demo, global.json),
        Command::Init(order) => init::run(global, &order),
        Command::Check => check(global),
        Command::Settings { current } => print_settings(global, current),
        Command::Failures { reply, host } => failures::run(global, &reply, &host),
        Command::Auth(question) => auth::run(global, &question),
        Command::Dkim(order) => dkim::run(global, &order),
        Command::Lab(order) => lab::run(&order),
        Command::Domain(order) => office::run(global, office::domain(order)),
        Command::Account(order) => office::run(global, office::account(order)?),
        Command::Block(order) => office::run(global, block::request(order)),
        Command::Suppression(order) => suppression::run(global, order),
        Command::Alias(order) => office::run(global, addresses::alias(order)),
        Command::Group(order) => office::run(global, addresses::group(order)),
        Command::Address(order) => office::run(global, addresses::address(order)),
        Command::MtaSts(order) => mta_sts::run(global, order),
        Command::Webhook(order) => webhook::run(global, order),
        Command::Queue(order) => queue::run(global, order),
        Command::Route(args) => route::run(global, args),
        Command::Probe(args) => probe::run(global, &args),
        Command::Trace { what, limit } => office::run(global, admin::Request::Trace { what, limit }),
        Command::Audit { deep } => audit::run(global, deep),
        Command::Backup(order) => backup::run(global, &order),
        Command::Restore { backup, skip_damage } => restore::run(global, &backup, skip_damage),
        Command::Export { what, format } => export::run(global, &what, format),
        Command::Sendmail { args } => Ok(sendmail::run(global, "sendmail", &args)),
        Command::Dns(order) => office::run(global, office::dns(order)),
        Command::Tlsrpt(order) => tlsrpt::run(global, order),
    }
}

/// The settings in force: the file, then `--set`, then `--data`.
pub fn settings(global: &Global) -> Result<Settings, Failure> {
    settings_of(settings_file(global).as_ref(), global)
}

/// The settings in force, of that file.
fn settings_of(file: Option<&PathBuf>, global: &Global) -> Result<Settings, Failure> {
    let mut settings = match file {
        Some(path) => Settings::read(path)?,
        None => Settings::default(),
    };
    if !global.set.is_empty() {
        settings = settings.with_orders(&global.set)?;
    }
    if let Some(data) = &global.data {
        settings.data.clone_from(data);
    }
    Ok(settings)
}

fn settings_file(global: &Global) -> Option<PathBuf> {
    match &global.config {
        Some(path) => Some(path.clone()),
        None => Some(PathBuf::from(FILE_NAME)).filter(|p| p.exists()),
    }
}

fn check(global: &Global) -> Result<ExitCode, Failure> {
    let settings = settings(global)?;
    if settings.tls.certificate.is_some() {
        crate::world::tls_certificates(&settings, &crate::world::SystemClock)?;
    }
    let replies = crate::world::replies(&settings)?;
    crate::world::check_lifetimes(&settings, &replies)?;
    match settings_file(global) {
        Some(path) => outln!("{}: good", path.display()),
        None => outln!("no settings file: the defaults are good"),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_settings(global: &Global, current: bool) -> Result<ExitCode, Failure> {
    if current {
        let text = reference::as_file(&settings(global)?).map_err(|e| Failure::store(e.to_string()))?;
        out!("{text}");
    } else {
        out!("{}", reference::markdown());
    }
    Ok(ExitCode::SUCCESS)
}
