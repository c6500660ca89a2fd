//! `posthaste sendmail`: what local programs call to send, compatible with sendmail(8) as they use it.
//!
//! It submits to the running server over a Unix socket, whose peer credentials tell the server whose
//! program it is. Promises: exit code 0 means that the server has the message on stable storage; every
//! other code is one of sysexits.h and comes with a sentence on standard error.

mod letter;
mod order;
mod talk;

use super::Failure;
use super::queue;
use crate::args::Global;
use crate::serve::doors;
use crate::settings::Settings;
use crate::users;
use letter::Letter;
use order::{Mode, Order};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use talk::{Parcel, Talk};

/// Names under which the program is called in place of `posthaste sendmail`.
pub const LINK_NAMES: [&str; 3] = ["sendmail", "mailq", "newaliases"];

/// Where settings are looked for when none are named; never in the working folder, which may be
/// anybody's.
const SETTINGS_PLACES: [&str; 2] = ["/etc/posthaste/posthaste.toml", "/etc/posthaste.toml"];
/// The variable that names the settings file.
const SETTINGS_VARIABLE: &str = "POSTHASTE_CONFIG";

// sysexits.h
const EX_USAGE: u8 = 64;
const EX_DATAERR: u8 = 65;
const EX_NOUSER: u8 = 67;
const EX_UNAVAILABLE: u8 = 69;
const EX_TEMPFAIL: u8 = 75;
const EX_NOPERM: u8 = 77;
const EX_CONFIG: u8 = 78;

/// Why a message was not sent, and the exit code that says so.
#[derive(Debug)]
pub struct Trouble {
    code: u8,
    text: String,
}

impl Trouble {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    fn temporary(text: impl Into<String>) -> Self {
        Self::new(EX_TEMPFAIL, text)
    }

    fn not_permitted(text: impl Into<String>) -> Self {
        Self::new(EX_NOPERM, text)
    }

    /// What the server said, with the exit code that fits.
    fn said(line: &str, code: u16) -> Self {
        let status = line.split(' ').nth(1).unwrap_or_default();
        let exit = match code {
            400..=499 => EX_TEMPFAIL,
            _ if status.starts_with("5.1.") => EX_NOUSER,
            _ if status.starts_with("5.7.") => EX_NOPERM,
            _ if status.starts_with("5.6.") => EX_DATAERR,
            501 => EX_USAGE,
            _ => EX_UNAVAILABLE,
        };
        Self::new(exit, line)
    }

    fn about(self, recipient: &str) -> Self {
        Self {
            text: format!("{recipient}: {}", self.text),
            ..self
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::temporary(format!("the conversation with the server broke: {error}"))
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let code = match &failure {
            Failure::No(_) => EX_UNAVAILABLE,
            Failure::Usage(_) => EX_USAGE,
            Failure::Settings(_) => EX_CONFIG,
            Failure::Broken(_) => EX_TEMPFAIL,
        };
        Self::new(code, failure.to_string())
    }
}

/// Does what the arguments say. `called` is the name under which the program was called.
pub fn run(global: &Global, called: &str, args: &[String]) -> ExitCode {
    match perform(global, called, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("{called}: {}", trouble.text);
            ExitCode::from(trouble.code)
        }
    }
}

fn perform(global: &Global, called: &str, args: &[String]) -> Result<(), Trouble> {
    let mut order = Order::read(args).map_err(|text| Trouble::new(EX_USAGE, text))?;
    match called {
        "mailq" => order.mode = Mode::Queue,
        "newaliases" => order.mode = Mode::Nothing,
        _ => {}
    }
    let global = &Global {
        config: settings_file(global),
        ..global.clone()
    };
    let settings = super::settings_of(global.config.as_ref(), global)?;
    match order.mode {
        Mode::Nothing => Ok(()),
        Mode::Queue => {
            queue::list(&settings, global.json, None, ::queue::Filter::default())?;
            Ok(())
        }
        Mode::Smtp => hand_through(&settings),
        Mode::Message => send(&settings, &order),
    }
}

/// The settings file: the one named, or that of the variable, or the machine's.
fn settings_file(global: &Global) -> Option<PathBuf> {
    let named = || std::env::var_os(SETTINGS_VARIABLE).map(PathBuf::from);
    let usual = || SETTINGS_PLACES.iter().map(PathBuf::from).find(|p| p.exists());
    global.config.clone().or_else(named).or_else(usual)
}

/// `-bs`: the program speaks SMTP itself.
fn hand_through(settings: &Settings) -> Result<(), Trouble> {
    let stream = talk::connect(&doors::sendmail_socket(settings))?;
    stream.set_read_timeout(None)?;
    let mut to_server = stream.try_clone()?;
    let (mut from_server, mut out) = (stream, std::io::stdout().lock());
    let mut piece = [0; 4_096];
    // What stands on standard input already must not come before the greeting.
    let greeting = from_server.read(&mut piece)?;
    out.write_all(&piece[..greeting])?;
    out.flush()?;
    // Ends with the process when the server closes first.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Write);
    });
    loop {
        match from_server.read(&mut piece)? {
            0 => return Ok(()),
            n => {
                out.write_all(&piece[..n])?;
                out.flush()?;
            }
        }
    }
}

fn send(settings: &Settings, order: &Order) -> Result<(), Trouble> {
    let domain = doors::sendmail_domain(settings);
    let mut recipients: Vec<String> = Vec::new();
    for text in &order.recipients {
        let named = letter::argument(text, domain);
        if named.is_empty() {
            return Err(Trouble::new(EX_USAGE, format!("\"{text}\" is no address")));
        }
        recipients.extend(named);
    }
    if recipients.is_empty() && !order.read_recipients {
        return Err(Trouble::new(
            EX_USAGE,
            "no recipient; name one, or give -t to take those of the message",
        ));
    }
    let letter = Letter::read(&input(settings)?, order.ignore_dots);
    if order.read_recipients {
        recipients.extend(letter.recipients(domain));
    }
    if recipients.is_empty() {
        return Err(Trouble::new(
            EX_USAGE,
            "the message names no recipient in To, Cc or Bcc",
        ));
    }
    recipients.dedup();
    let own = format!("{}@{domain}", users::name(users::own_number()));
    let sender = match order.sender.as_deref().map(str::trim) {
        Some("" | "<>") => String::new(),
        Some(text) => only_address(text, domain)?,
        None => own.clone(),
    };
    let message = letter.submit(domain, &author(order, &sender, &own));
    let eight_bit = !message.is_ascii();
    let parcel = Parcel {
        body: order
            .body
            .clone()
            .filter(|body| body != "7BIT" || !eight_bit)
            .unwrap_or_else(|| if eight_bit { "8BITMIME" } else { "7BIT" }.to_owned()),
        sender,
        recipients,
        message,
        notify: order.notify.clone(),
        ret: order.ret.clone(),
        envid: order.envid.clone(),
    };
    let stream = talk::connect(&doors::sendmail_socket(settings))?;
    let (_, mut refused) = Talk::begin(stream, &settings.hostname, order.verbose)?.send(&parcel)?;
    let Some(last) = refused.pop() else {
        return Ok(());
    };
    for trouble in refused {
        eprintln!("sendmail: {}", trouble.text);
    }
    Err(last)
}

/// The message on standard input, one octet more than the server takes at most.
fn input(settings: &Settings) -> Result<Vec<u8>, Trouble> {
    let most = settings.smtp.size_max_octets;
    let mut octets = Vec::new();
    std::io::stdin()
        .lock()
        .take(most.saturating_add(1))
        .read_to_end(&mut octets)
        .map_err(|e| Trouble::new(EX_DATAERR, format!("standard input: {e}")))?;
    if octets.len() as u64 > most {
        return Err(Trouble::new(
            EX_DATAERR,
            format!("the message is larger than {most} octets, which smtp.size_max_octets allows"),
        ));
    }
    Ok(octets)
}

fn only_address(text: &str, domain: &str) -> Result<String, Trouble> {
    match letter::argument(text, domain).as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(Trouble::new(
            EX_USAGE,
            format!("-f {text}: one address is wanted"),
        )),
    }
}

/// The author of a message that names none.
fn author(order: &Order, sender: &str, own: &str) -> String {
    let address = if sender.is_empty() { own } else { sender };
    let full_name = order.full_name.clone().unwrap_or_else(|| match address == own {
        true => users::full_name(users::own_number()),
        false => String::new(),
    });
    if full_name.is_empty() {
        return address.to_owned();
    }
    let name = letter::phrase(full_name.as_bytes());
    format!("{} <{address}>", String::from_utf8_lossy(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_say_whose_fault() {
        for (line, code) in [
            ("550 5.1.1 There is no x", EX_NOUSER),
            ("553 5.7.1 may not send as", EX_NOPERM),
            ("554 5.6.0 holds an octet of value zero", EX_DATAERR),
            ("452 4.3.1 busy", EX_TEMPFAIL),
            ("552 5.3.4 too large", EX_UNAVAILABLE),
        ] {
            let number = line[..3].parse().unwrap();
            assert_eq!(Trouble::said(line, number).code, code, "{line}");
        }
    }
}
