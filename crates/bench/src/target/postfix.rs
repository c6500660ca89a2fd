//! Debian's Postfix as an instance of its own: own settings, own queue, one port on loopback.
//!
//! Promises: nothing of the system's Postfix is touched; no message can leave the machine (one transport
//! for all that is not ours: `error`).
//! Never: durability changed: Postfix's defaults stand, but for what [`Postfix::describe`] names.

use super::{Launch, Running, Stop, Target, free_port, wait_for_port};
use crate::args::{Deliver, Variant};
use crate::load::{self, Load};
use crate::problem::{Outcome, Problem, Trying};
use std::fmt::Write as _;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One way of setting Postfix.
#[derive(Debug)]
pub struct Postfix {
    name: &'static str,
    variant: Variant,
    deliver: Deliver,
    accounts: u16,
    sessions_max: u16,
    relay: Option<Relaying>,
}

/// How an instance relays.
#[derive(Debug, Clone)]
pub struct Relaying {
    /// Lines of a transport map: all that may be sent to, by address on loopback.
    pub transport: String,
    /// Whether its limits are raised.
    pub tuned: bool,
}

/// What is set where the limits are raised.
pub const TUNED: &str = "default_destination_concurrency_limit = 100\n\
                         initial_destination_concurrency = 50\n\
                         default_process_limit = 500\n\
                         qmgr_message_active_limit = 100000\n\
                         qmgr_message_recipient_limit = 100000\n\
                         in_flow_delay = 0\n";

/// What to say when it is missing.
pub const HOW_TO_INSTALL: &str = "Postfix is not installed, or this is not root: without it the comparison goes on \
     with the others. On Debian: DEBIAN_FRONTEND=noninteractive apt-get install -y postfix, then \
     `systemctl disable --now postfix`: the bench runs instances of its own.";

/// Whether Postfix is there and may be run.
pub fn is_there() -> bool {
    Path::new("/usr/lib/postfix/sbin/master").exists()
        && postconf(&["-d", "mail_version"]).is_ok()
        && rustix::process::geteuid().is_root()
}

impl Postfix {
    /// An instance for `accounts` users and up to `sessions_max` sessions.
    pub fn new(variant: Variant, deliver: Deliver, accounts: u16, sessions_max: u16) -> Self {
        let name = match variant {
            Variant::Default => "postfix",
            Variant::Nodelay => "postfix-nodelay",
            Variant::Tls => "postfix-tls",
        };
        Self {
            name,
            variant,
            deliver,
            accounts,
            sessions_max,
            relay: None,
        }
    }

    /// An instance that sends on what it is handed, to addresses on loopback.
    pub fn relaying(relay: Relaying) -> Self {
        Self {
            name: if relay.tuned { "postfix-tuned" } else { "postfix" },
            relay: Some(relay),
            ..Self::new(Variant::Default, Deliver::Discard, 1, 1)
        }
    }

    /// How it is set for relaying, for the foot of the table.
    fn describe_relay(&self, tuned: bool) -> String {
        let version = postconf(&["-dh", "mail_version"]).unwrap_or_default();
        let settings = match tuned {
            true => TUNED.trim_end().replace('\n', ", "),
            false => "otherwise its defaults".to_owned(),
        };
        format!(
            "{}: Postfix {version}, own instance, no chroot; a transport map names an address on loopback for each \
             domain; {settings}. It judges nothing and signs nothing.",
            self.name
        )
    }

    fn process_limit(&self) -> u16 {
        (self.sessions_max + 50).max(100)
    }

    fn main_cf(&self, folder: &Path) -> String {
        let at = folder.display();
        let mut text = format!(
            "compatibility_level = 3.6\n\
             queue_directory = {at}/spool\n\
             data_directory = {at}/data\n\
             command_directory = /usr/sbin\n\
             daemon_directory = /usr/lib/postfix/sbin\n\
             mail_owner = postfix\n\
             setgid_group = postdrop\n\
             inet_interfaces = 127.0.0.1\n\
             inet_protocols = ipv4\n\
             myhostname = mail.bench.example\n\
             mydestination =\n\
             alias_maps =\n\
             alias_database =\n\
             mynetworks = 127.0.0.0/8\n\
             default_transport = error:the bench sends nothing out\n\
             relay_transport = error:the bench sends nothing out\n\
             maillog_file = {at}/log/mail.log\n\
             maillog_file_prefixes = {at}\n\
             default_process_limit = {}\n\
             virtual_mailbox_domains = bench.example\n\
             virtual_mailbox_base = {at}/mail\n\
             virtual_mailbox_maps = texthash:{at}/etc/users\n\
             virtual_uid_maps = static:65534\n\
             virtual_gid_maps = static:65534\n",
            self.process_limit()
        );
        if let Some(relay) = &self.relay {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "transport_maps = texthash:{at}/etc/transport");
            if relay.tuned {
                text.push_str(TUNED);
            }
        }
        if self.deliver == Deliver::Discard {
            text.push_str("virtual_transport = discard:\n");
        }
        if self.variant != Variant::Default {
            text.push_str("in_flow_delay = 0\n");
        }
        if self.variant == Variant::Tls {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {at}/etc/tls.pem"
            );
        } else {
            text.push_str("smtpd_tls_security_level = none\n");
        }
        text
    }

    fn write_settings(&self, folder: &Path, address: SocketAddr) -> Outcome<()> {
        let etc = folder.join("etc");
        for name in ["etc", "spool", "data", "log", "mail"] {
            make_folder(&folder.join(name))?;
        }
        set_owner(&folder.join("data"), "postfix")?;
        set_owner(&folder.join("mail"), "65534:65534")?;
        let example = Path::new("/usr/share/postfix/master.cf.dist");
        let example = if example.exists() {
            example
        } else {
            Path::new("/etc/postfix/master.cf")
        };
        let services = std::fs::read_to_string(example).trying(|| example.display().to_string())?;
        write(&etc.join("master.cf"), &master_cf(&services, address))?;
        let maps = std::fs::read_to_string("/usr/share/postfix/dynamicmaps.cf").unwrap_or_default();
        write(&etc.join("dynamicmaps.cf"), &maps)?;
        let mut users = String::new();
        for n in 0..self.accounts {
            // Writing to a String cannot fail.
            let _ = writeln!(users, "user{n}@bench.example user{n}/Maildir/");
        }
        write(&etc.join("users"), &users)?;
        if let Some(relay) = &self.relay {
            write(&etc.join("transport"), &relay.transport)?;
        }
        if self.variant == Variant::Tls {
            write(&etc.join("tls.pem"), &certificate()?)?;
        }
        write(&etc.join("main.cf"), &self.main_cf(folder))
    }
}

impl Target for Postfix {
    fn name(&self) -> &str {
        self.name
    }

    fn describe(&self) -> String {
        if let Some(relay) = &self.relay {
            return self.describe_relay(relay.tuned);
        }
        let version = postconf(&["-dh", "mail_version"]).unwrap_or_default();
        format!(
            "{}: Postfix {version}, own instance, no chroot; default_process_limit={} (its own 100 would serve only \
             100 sessions); {}; delivery: {}. It judges nothing (no SPF, DKIM, DMARC).",
            self.name,
            self.process_limit(),
            match self.variant {
                Variant::Default => "otherwise its defaults",
                Variant::Nodelay => "in_flow_delay=0",
                Variant::Tls => "in_flow_delay=0, the load inside TLS",
            },
            match self.deliver {
                Deliver::Discard => "discard(8) after the durable queue, which is less than a mailbox",
                Deliver::Maildir => "virtual(8) into Maildirs",
            }
        )
    }

    fn dress(&self, load: &mut Load) -> Outcome<()> {
        if self.variant == Variant::Tls {
            load.tls = Some(load::any_tls()?);
        }
        Ok(())
    }

    fn start(&self, folder: &Path, launch: &Launch<'_>) -> Outcome<Running> {
        let address = free_port()?;
        self.write_settings(folder, address)?;
        let etc = folder.join("etc");
        let log = folder.join("log/start");
        let err = File::create(&log).trying(|| log.display().to_string())?;
        let out = err.try_clone().trying(|| log.display().to_string())?;
        let begun = std::time::Instant::now();
        let mut child = launch
            .command(Path::new("/usr/sbin/postfix"))
            .arg("-c")
            .arg(&etc)
            .arg("start-fg")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .trying(|| "postfix".into())?;
        let mut stop = Command::new("/usr/sbin/postfix");
        stop.arg("-c").arg(&etc).arg("stop");
        let listening = wait_for_port(address, &mut child);
        let running = Running::new(address, begun.elapsed(), child, Stop::Command(stop));
        listening.map_err(|problem| {
            let words = std::fs::read_to_string(&log).unwrap_or_default();
            Problem(format!(
                "{problem}; postfix says: {}",
                words.trim().replace('\n', " / ")
            ))
        })?;
        Ok(running)
    }
}

/// The example's services with SMTP on our port and without chroot (the folders are not in one).
fn master_cf(example: &str, address: SocketAddr) -> String {
    let mut out = String::new();
    for line in example.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_service = !line.starts_with(['#', ' ', '\t']) && fields.len() >= 8;
        if !is_service {
            out.push_str(line);
        } else {
            let is_smtp = fields[0] == "smtp" && fields[1] == "inet";
            let service = if is_smtp {
                address.to_string()
            } else {
                fields[0].to_owned()
            };
            let mut fields: Vec<&str> = fields;
            fields[0] = &service;
            fields[4] = "n";
            out.push_str(&fields.join(" "));
        }
        out.push('\n');
    }
    out
}

/// A self-signed certificate and its key, as PEM: of the same kind as Posthaste makes for itself.
fn certificate() -> Outcome<String> {
    let made = rcgen::generate_simple_self_signed(["mail.bench.example".to_owned()])
        .trying(|| "a certificate".into())?;
    Ok(made.signing_key.serialize_pem() + &made.cert.pem())
}

fn postconf(arguments: &[&str]) -> Outcome<String> {
    let output = Command::new("/usr/sbin/postconf")
        .args(arguments)
        .output()
        .trying(|| "postconf".into())?;
    if !output.status.success() {
        return Err(Problem(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn make_folder(path: &PathBuf) -> Outcome<()> {
    std::fs::create_dir_all(path).trying(|| path.display().to_string())
}

fn write(path: &Path, text: &str) -> Outcome<()> {
    std::fs::write(path, text).trying(|| path.display().to_string())
}

fn set_owner(path: &Path, owner: &str) -> Outcome<()> {
    let status = Command::new("chown")
        .arg(owner)
        .arg(path)
        .status()
        .trying(|| "chown".into())?;
    if status.success() {
        return Ok(());
    }
    Err(Problem(format!("chown {owner} {} failed", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smtp_moves_to_our_port_and_chroot_goes() {
        let example = "# service type private unpriv chroot wakeup maxproc command\n\
                       smtp      inet  n       -       y       -       -       smtpd\n\
                       #smtps    inet  n       -       y       -       -       smtpd\n\
                       smtp      unix  -       -       y       -       -       smtp\n\
                       \x20 -o syslog_name=x\n\
                       pickup    unix  n       -       y       60      1       pickup\n";
        let made = master_cf(example, "127.0.0.1:4025".parse().unwrap());
        assert_eq!(
            made,
            "# service type private unpriv chroot wakeup maxproc command\n\
             127.0.0.1:4025 inet n - n - - smtpd\n\
             #smtps    inet  n       -       y       -       -       smtpd\n\
             smtp unix - - n - - smtp\n\
             \x20 -o syslog_name=x\n\
             pickup unix n - n 60 1 pickup\n"
        );
    }

    #[test]
    fn nothing_can_be_sent_out() {
        for deliver in [Deliver::Discard, Deliver::Maildir] {
            let text = Postfix::new(Variant::Nodelay, deliver, 3, 256).main_cf(Path::new("/x"));
            assert!(text.contains("\ninet_interfaces = 127.0.0.1\n"));
            assert!(text.contains("\ndefault_transport = error:"));
            assert!(text.contains("\ndefault_process_limit = 306\n"));
            assert_eq!(
                text.contains("virtual_transport = discard:"),
                deliver == Deliver::Discard
            );
            assert!(!text.contains("fsync"));
        }
        for tuned in [false, true] {
            let transport = "d0.sink.example smtp:[127.77.0.1]:2525\n".to_owned();
            let text = Postfix::relaying(Relaying { transport, tuned }).main_cf(Path::new("/x"));
            assert!(text.contains("\ntransport_maps = texthash:/x/etc/transport\n"));
            assert!(
                text.contains("\ndefault_transport = error:") && text.contains("\nrelay_transport = error:")
            );
            assert_eq!(text.contains("in_flow_delay = 0"), tuned);
        }
    }
}
