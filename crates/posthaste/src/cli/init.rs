//! `posthaste init <domain>`: settings file, signing keys, first account, DNS records to publish.

use super::out::outln;
use super::{Failure, office, print};
use crate::args::{Global, Init};
use crate::settings::{FILE_NAME, Listen, Settings};
use admin::{Request, Response};
use mail::{Domain, EmailAddress};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub fn run(global: &Global, order: &Init) -> Result<ExitCode, Failure> {
    let path = global.config.clone().unwrap_or_else(|| PathBuf::from(FILE_NAME));
    if path.exists() {
        let hint = format!("posthaste domain add {}", order.domain);
        return Err(Failure::No(format!(
            "{} is there already; to add a domain to it: {hint}",
            path.display()
        )));
    }
    if order.domain.as_str().parse::<std::net::Ipv4Addr>().is_ok() {
        let text = format!(
            "{} is an address; name the domain that mail is for, and say --address",
            order.domain
        );
        return Err(Failure::Usage(text));
    }
    let answers = Answers::gather(order)?;
    let password = office::password(order.password_stdin)?;
    write_settings(global, order, &path, &answers.hostname)?;
    // A file left behind would make the next `init` refuse.
    set_up(global, order, &path, &answers, password).inspect_err(|_| {
        let _ = std::fs::remove_file(&path);
    })
}

/// Makes the keys and the account that the settings file at `path` leads to, and prints the records.
fn set_up(
    global: &Global,
    order: &Init,
    path: &Path,
    answers: &Answers,
    password: Option<String>,
) -> Result<ExitCode, Failure> {
    // From the file alone, which holds what the command line said: every later command sees the same.
    let settings = Settings::read(path)?;
    office::perform(
        &settings,
        Request::DomainAdd {
            domain: order.domain.clone(),
        },
    )?;
    let made = office::perform(
        &settings,
        Request::AccountAdd {
            address: answers.account.clone(),
            name: String::new(),
            password,
        },
    )?;
    let zone = office::perform(
        &settings,
        Request::Zone {
            domain: order.domain.clone(),
            addresses: order.address.clone(),
        },
    )?;
    if global.json {
        return print_json(path, &made, &zone);
    }
    // The zone alone goes to standard output, so that it can be sent to a file.
    eprintln!(
        "settings: {}\ndata:     {}",
        path.display(),
        settings.data.display()
    );
    if let Response::Password(new) = &made {
        let shown = new.password.as_deref().unwrap_or("(as you said)");
        eprintln!("account:  {}   password: {shown}\n", new.address);
    }
    eprintln!(
        "Publish these records, then run: posthaste --config {} serve\n",
        path.display()
    );
    print::response(&zone, false)?;
    Ok(ExitCode::SUCCESS)
}

/// What `init` asks a person when it may.
struct Answers {
    hostname: Domain,
    account: EmailAddress,
}

impl Answers {
    fn gather(order: &Init) -> Result<Self, Failure> {
        let may_ask = !order.yes && !order.password_stdin && std::io::stdin().is_terminal();
        let hostname = match &order.hostname {
            Some(given) => given.to_string(),
            None => asked(
                may_ask,
                "The server's own name",
                &format!("mail.{}", order.domain),
            )?,
        };
        let account = match &order.account {
            Some(given) => given.to_string(),
            None => asked(
                may_ask,
                "The first account",
                &format!("postmaster@{}", order.domain),
            )?,
        };
        let hostname = Domain::parse(&hostname).map_err(|e| Failure::Usage(format!("{hostname}: {e}")))?;
        let account = EmailAddress::parse(&account).map_err(|e| Failure::Usage(format!("{account}: {e}")))?;
        if account.domain() != Some(&order.domain) {
            return Err(Failure::Usage(format!(
                "{account} is not in {}: the first account belongs to the domain that is made",
                order.domain
            )));
        }
        Ok(Self { hostname, account })
    }
}

fn asked(may_ask: bool, question: &str, default: &str) -> Result<String, Failure> {
    if !may_ask {
        return Ok(default.to_owned());
    }
    eprint!("{question} [{default}]: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let answer = line.trim();
    Ok(if answer.is_empty() { default } else { answer }.to_owned())
}

fn write_settings(global: &Global, order: &Init, path: &Path, hostname: &Domain) -> Result<(), Failure> {
    let mut settings = Settings {
        hostname: hostname.to_string(),
        ..Settings::default()
    };
    if order.public {
        settings.listen = Listen::public();
    }
    settings = settings.with_orders(&global.set)?;
    if let Some(data) = &global.data {
        // In the file a relative path starts at the file's folder; on the command line, here.
        settings.data = std::path::absolute(data)?;
    }
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| cannot_write(path, &e))?;
    }
    let text = crate::settings::reference::as_file(&settings).map_err(|e| Failure::store(e.to_string()))?;
    let mut file = std::fs::File::create_new(path).map_err(|e| cannot_write(path, &e))?;
    file.write_all(
        format!("# Every key: docs/CONFIGURATION.md, or `posthaste settings`.\n{text}").as_bytes(),
    )?;
    file.sync_all()?;
    Ok(())
}

fn cannot_write(path: &Path, e: &std::io::Error) -> Failure {
    Failure::Settings(format!("{}: cannot be written: {e}", path.display()))
}

fn print_json(path: &Path, made: &Response, zone: &Response) -> Result<ExitCode, Failure> {
    let value = serde_json::json!({ "settings": path, "account": made, "zone": zone });
    outln!("{value}");
    Ok(ExitCode::SUCCESS)
}
