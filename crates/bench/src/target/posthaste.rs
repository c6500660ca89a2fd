//! Posthaste as an operator sets it up: its own command line makes the folder, the accounts, the certificate.
//!
//! One folder is made once, with its accounts; every start gets a copy, so that each measurement begins with
//! an empty store. A DNS server of `posthaste lab` answers what SPF, DKIM and DMARC ask.
//! Promises: the default way is measured: a stranger on the SMTP listener, judged, delivered into a mailbox.
//! Never: a setting changed but for the limits that 127.0.0.1 alone would run into; `describe` names them.

use super::{Launch, Running, Stop, Target, start_until_ready};
use crate::args::Way;
use crate::load::{self, Load};
use crate::problem::{Outcome, Problem, Trying};
use crate::signing::{SELECTOR, Signing};
use mail::Timestamp;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Every listener takes a free port of loopback.
const LISTENERS: [&str; 7] = [
    "smtp",
    "submission",
    "submissions",
    "imap",
    "imaps",
    "pop3",
    "pop3s",
];
/// What differs from the defaults: all sessions come from one address.
const SETTINGS: [&str; 2] = [
    "smtp.connections_per_address_max=10000",
    "smtp.connections_per_network_max=0",
];
/// The world outside: who sends, and the name of the address that it sends from.
const SENDER_ZONE: &str = "\
$ORIGIN sender.example.
$TTL 3600
@ IN SOA ns hostmaster 1 3600 600 86400 60
@ IN NS ns
ns IN A 127.0.0.1
@ IN MX 10 load
@ IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"
_dmarc IN TXT \"v=DMARC1; p=reject\"
load IN A 127.0.0.1
load IN TXT \"v=spf1 a -all\"
";
const REVERSE_ZONE: &str = "\
$ORIGIN 0.0.127.in-addr.arpa.
$TTL 3600
@ IN SOA ns.sender.example. hostmaster.sender.example. 1 3600 600 86400 60
@ IN NS ns.sender.example.
1 IN PTR load.sender.example.
";

/// Posthaste, spoken to or set in one way.
#[derive(Debug)]
pub struct Posthaste {
    installation: Rc<Installation>,
    way: Way,
}

/// A prepared folder, and the world outside.
#[derive(Debug)]
pub struct Installation {
    signing: Signing,
    program: PathBuf,
    template: PathBuf,
    accounts: u16,
    version: String,
    dns: Child,
    dns_address: SocketAddr,
}

impl Installation {
    /// Makes the folder that every start gets a copy of, and starts the DNS server.
    ///
    /// # Errors
    /// When the program is missing or refuses one of its orders.
    pub fn prepare(program: &Path, folder: &Path, accounts: u16) -> Outcome<Self> {
        Self::prepare_beside(program, folder, accounts, None)
    }

    /// The same, with one more zone in the DNS: its name and its text.
    ///
    /// # Errors
    /// When the program is missing or refuses one of its orders.
    pub fn prepare_beside(
        program: &Path,
        folder: &Path,
        accounts: u16,
        further: Option<(&str, &str)>,
    ) -> Outcome<Self> {
        let program = program.canonicalize().trying(|| {
            format!(
                "{}: build it with `cargo build --release -p posthaste`, or name it with --posthaste",
                program.display()
            )
        })?;
        let template = folder.join("template");
        std::fs::create_dir_all(&template).trying(|| template.display().to_string())?;
        let version = order(Command::new(&program).arg("--version"), "")?;
        let mut init = Command::new(&program);
        init.arg("--config").arg(template.join("posthaste.toml"));
        for listener in LISTENERS {
            init.arg("--set")
                .arg(format!("listen.{listener}=[\"127.0.0.1:0\"]"));
        }
        for setting in SETTINGS {
            init.arg("--set").arg(setting);
        }
        init.args([
            "init",
            "bench.example",
            "--yes",
            "--hostname",
            "mail.bench.example",
        ]);
        init.args([
            "--address",
            "127.0.0.1",
            "--account",
            "user0@bench.example",
            "--password-stdin",
        ]);
        let zone = order(&mut init, "a password of the bench\n")?;
        for n in 1..accounts {
            let mut add = Command::new(&program);
            add.arg("--config").arg(template.join("posthaste.toml"));
            add.args([
                "account",
                "add",
                &format!("user{n}@bench.example"),
                "--password-stdin",
            ]);
            order(&mut add, "a password of the bench\n")?;
        }
        let signing = Signing::new("sender.example")?;
        let (dns, dns_address) = start_dns(&program, folder, &zone, &signing, further)?;
        Ok(Self {
            signing,
            program,
            template,
            accounts,
            version: version.trim().to_owned(),
            dns,
            dns_address,
        })
    }
}

impl Installation {
    /// What the program says of itself.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl Posthaste {
    /// This installation in this way.
    pub fn new(installation: &Rc<Installation>, way: Way) -> Self {
        Self {
            installation: Rc::clone(installation),
            way,
        }
    }

    /// Starts one with more `key=value` of settings than the way says.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_with(&self, folder: &Path, launch: &Launch<'_>, settings: &[String]) -> Outcome<Running> {
        let place = folder.join("posthaste");
        copy(&self.installation.template, &place)?;
        let mut command = launch.command(&self.installation.program);
        command.arg("--config").arg(place.join("posthaste.toml"));
        command
            .arg("--set")
            .arg(format!("dns.servers=[\"{}\"]", self.installation.dns_address));
        if self.way == Way::Unjudged {
            command.arg("--set").arg("judge.unjudged_from=[\"127.0.0.0/8\"]");
        }
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        command.arg("serve");
        let started = start_until_ready(&mut command, &folder.join("stderr.log"))?;
        let address = started.address("smtp")?;
        Ok(Running::new(address, started.after, started.child, Stop::Term))
    }
}

impl Target for Posthaste {
    fn name(&self) -> &str {
        match self.way {
            Way::Plain => "posthaste",
            Way::Tls => "posthaste-tls",
            Way::Signed => "posthaste-signed",
            Way::Unjudged => "posthaste-unjudged",
        }
    }

    fn describe(&self) -> String {
        let other = match self.way {
            Way::Plain => None,
            Way::Tls => Some("the load inside TLS (1.3, after STARTTLS)"),
            Way::Signed => Some("every message bears a DKIM signature (RSA, 2048 bit)"),
            Way::Unjudged => Some("nothing judged, by judge.unjudged_from"),
        };
        if let Some(other) = other {
            return format!("{}: the same installation; {other}.", self.name());
        }
        format!(
            "posthaste: {}, defaults but for {}; SMTP listener, mail from a stranger: SPF, DKIM, DMARC, ARC and \
             reverse DNS judged against a DNS server on loopback (outside its CPU figure), messages unsigned; \
             delivered into INBOX of {} accounts. Log level and file: its defaults, to a file.",
            self.installation.version,
            SETTINGS.join(", "),
            self.installation.accounts
        )
    }

    fn dress(&self, load: &mut Load) -> Outcome<()> {
        match self.way {
            Way::Plain | Way::Unjudged => {}
            Way::Tls => load.tls = Some(load::any_tls()?),
            Way::Signed => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let now = Timestamp::from_secs(now.as_secs() as i64);
                load.letters = Some(Arc::new(self.installation.signing.letters(load, now)?));
            }
        }
        Ok(())
    }

    fn start(&self, folder: &Path, launch: &Launch<'_>) -> Outcome<Running> {
        self.start_with(folder, launch, &[])
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let _ = self.dns.kill();
        let _ = self.dns.wait();
    }
}

fn start_dns(
    program: &Path,
    folder: &Path,
    zone: &str,
    signing: &Signing,
    further: Option<(&str, &str)>,
) -> Outcome<(Child, SocketAddr)> {
    let mut command = Command::new(program);
    command.args(["lab", "dns", "--listen", "127.0.0.1:0"]);
    let sender = format!("{SENDER_ZONE}{SELECTOR}._domainkey IN TXT {}\n", signing.record());
    let zones = [("bench", zone), ("sender", &sender), ("reverse", REVERSE_ZONE)];
    for (name, text) in zones.into_iter().chain(further) {
        let file = folder.join(format!("{name}.zone"));
        std::fs::write(&file, text).trying(|| file.display().to_string())?;
        command.arg("--zone").arg(file);
    }
    let started = start_until_ready(&mut command, &folder.join("dns.log"))?;
    let address = started.address("dns")?;
    Ok((started.child, address))
}

/// Runs an order to its end; what it printed.
fn order(command: &mut Command, input: &str) -> Outcome<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .trying(|| name.clone())?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input closes it: its answer says why.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().trying(|| name.clone())?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        return Err(Problem(format!(
            "{name} {}: {}",
            arguments.join(" "),
            words.trim()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Copies a folder's files and folders; sockets and the like stay behind.
fn copy(from: &Path, to: &Path) -> Outcome<()> {
    let what = || format!("copying {}", from.display());
    std::fs::create_dir_all(to).trying(what)?;
    for entry in std::fs::read_dir(from).trying(what)? {
        let entry = entry.trying(what)?;
        let kind = entry.file_type().trying(what)?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target).trying(what)?;
        }
    }
    Ok(())
}
