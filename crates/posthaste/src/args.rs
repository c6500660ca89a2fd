//! The command line, as clap reads it.

pub mod addresses;
pub mod block;
pub mod mta_sts;
pub mod queue;
pub mod route;
pub mod tlsrpt;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

/// A complete email server: receives, judges, stores, delivers, and hands out mail.
///
/// Exit codes: 0 done; 1 done, and the answer is no (refused, not found, failed check);
/// 2 the command line is wrong; 3 the settings are wrong; 4 the server or the store cannot be used.
#[derive(Parser, Debug)]
#[command(name = "posthaste", version, arg_required_else_help = true)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(ClapArgs, Debug, Clone, Default)]
pub struct Global {
    /// Settings file (default: posthaste.toml in the working folder, if it is there).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder, instead of the one in the settings.
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Overrides a key of the settings for this run: --set listen.smtp='["127.0.0.1:2525"]'
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the server until SIGTERM.
    Serve {
        /// Start although acknowledged parts of the store's log are damaged, without what stood
        /// there. Each place is told in the log. A backup has what is missing: restore it instead if
        /// there is one.
        #[arg(long)]
        skip_damage: bool,
    },
    /// Show mail going the whole way, on an internet in a box (no root, no settings, no network).
    Demo(Demo),
    /// Make settings, signing keys and a first account for a domain; print its DNS records.
    Init(Init),
    /// Read the settings file and say what is wrong with it.
    Check,
    /// Print the reference of all settings as Markdown, or the settings in force with --current.
    Settings {
        /// The settings in force, as TOML.
        #[arg(long)]
        current: bool,
    },
    /// Explain a reply of another server, or a class of failures; without one, print the page about all
    /// of them as Markdown.
    Failures {
        /// The reply, such as: 550 5.7.1 blocked using zen.spamhaus.org. Or a class, such as: greylisted
        #[arg(trailing_var_arg = true)]
        reply: Vec<String>,
        /// The server that said it.
        #[arg(long, default_value = "", hide_default_value = true)]
        host: String,
    },
    /// The domains that this server takes mail for.
    #[command(subcommand)]
    Domain(Domain),
    /// The accounts, their passwords and app passwords.
    #[command(subcommand)]
    Account(Account),
    /// Who is shut out for a time: addresses, networks, logins.
    #[command(subcommand)]
    Block(block::Block),
    /// Addresses that were refused as unknown and are not tried again for a sender (limits.suppress_for).
    #[command(subcommand)]
    Suppression(block::Suppression),
    /// Addresses that lead to accounts, to other addresses here, and to addresses elsewhere.
    #[command(subcommand)]
    Alias(addresses::Alias),
    /// Addresses with members.
    #[command(subcommand)]
    Group(addresses::Group),
    /// Where addresses lead.
    #[command(subcommand)]
    Address(addresses::Address),
    /// MTA-STS: what other domains ask of TLS when mail goes there (docs/MTA-STS.md).
    #[command(subcommand)]
    MtaSts(mta_sts::MtaSts),
    /// Web addresses that hear of delivery events.
    #[command(subcommand)]
    Webhook(Webhook),
    /// The messages that wait for delivery.
    #[command(subcommand)]
    Queue(queue::Queue),
    /// Show the whole way that a message would take, without sending it; and set routes that say
    /// otherwise than the DNS.
    Route(route::Route),
    /// Walk the way to the real server up to RCPT, step by step, without sending a message: where does
    /// it fail, and why? Exit code 0: mail would be taken; 1: it would not.
    Probe(route::Probe),
    /// Tell the journey of a message, found by queue id, Message-ID or address.
    Trace {
        /// A queue id, a Message-ID or an address.
        what: String,
        /// Journeys to tell at most, newest first, when several fit.
        #[arg(long, default_value_t = 5)]
        limit: usize,
    },
    /// Prove from the store that nothing is lost: every recipient of every accepted message ended
    /// exactly once or is in the queue, all counts are right, all checksums hold. Exit code 0:
    /// balanced; 1: something was found; 4: it could not be done.
    Audit {
        /// Read every octet of every message too.
        #[arg(long)]
        deep: bool,
    },
    /// Write a backup of everything, while the server runs or not; into a folder only what is new.
    /// Exit code 1: it is written, but something was damaged in the store and is missing in it.
    Backup(Backup),
    /// Make a server's data folder (--data) out of a backup.
    Restore {
        /// A folder of backups (the newest is taken), a file of rows in it, or a .backup file.
        backup: PathBuf,
        /// Go on without what is damaged or missing in the backup; it is named.
        #[arg(long)]
        skip_damage: bool,
    },
    /// Write mailboxes as Maildir or mbox, for any other program. Never stops at a bad record: each
    /// is named in export-report.txt, and the exit code is 1 then.
    #[command(override_usage = "posthaste export [OPTIONS] [ACCOUNT] FOLDER")]
    Export {
        /// The account (default: all), and the folder, which must be empty or not there.
        #[arg(required = true, num_args = 1..=2, value_names = ["ACCOUNT", "FOLDER"])]
        what: Vec<String>,
        #[arg(long, value_enum, default_value_t = MailFormat::Maildir)]
        format: MailFormat,
    },
    /// Judge a message or a sender as the server would, step by step.
    #[command(subcommand)]
    Auth(Auth),
    /// Signing keys and signatures.
    #[command(subcommand)]
    Dkim(Dkim),
    /// What to publish in the DNS.
    #[command(subcommand)]
    Dns(Dns),
    /// Reports about TLS between mail servers (RFC 8460): those that others sent about us, and what is
    /// counted for those that go to others.
    #[command(subcommand)]
    Tlsrpt(tlsrpt::Tlsrpt),
    /// Send a message from standard input, as local programs do with sendmail(8): -t -i -f -F -bs -bp
    /// -N -R -V -B -v and the recipients; docs/LOCAL-PROGRAMS.md has all. Exit codes are those of
    /// sysexits.h.
    #[command(disable_help_flag = true)]
    Sendmail {
        /// Options and recipients, as sendmail(8) takes them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Parts of the internet in a box, for tests.
    #[command(subcommand)]
    Lab(Lab),
}

#[derive(ClapArgs, Debug)]
pub struct Backup {
    /// A folder; a file, if the name ends in .backup; or - for standard output.
    pub place: PathBuf,
    /// Backups that stay in the folder, this one included.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: u32,
    /// Write nothing: read the backup there and check every checksum and every reference.
    #[arg(long, conflicts_with = "keep")]
    pub verify: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailFormat {
    Maildir,
    Mbox,
}

#[derive(ClapArgs, Debug)]
pub struct Demo {
    /// Do every step and scene, then end: exit code 0 only if all came out as they should.
    #[arg(long)]
    pub once: bool,
}

#[derive(ClapArgs, Debug)]
pub struct Init {
    /// The domain to take mail for.
    pub domain: mail::Domain,
    /// Ask nothing; take the defaults for what is not said.
    #[arg(long)]
    pub yes: bool,
    /// The server's own name (default: "mail." before the domain).
    #[arg(long)]
    pub hostname: Option<mail::Domain>,
    /// The server's public addresses, for the A and AAAA records.
    #[arg(long, value_name = "IP")]
    pub address: Vec<IpAddr>,
    /// The first account (default: the domain's postmaster).
    #[arg(long, value_name = "ADDRESS")]
    pub account: Option<mail::EmailAddress>,
    /// Read the first account's password from standard input instead of making one up.
    #[arg(long)]
    pub password_stdin: bool,
    /// Listen on the standard ports on all addresses, instead of high ports on loopback.
    #[arg(long)]
    pub public: bool,
}

#[derive(Subcommand, Debug)]
pub enum Domain {
    /// Take mail for a domain; makes its DKIM keys.
    Add { domain: mail::Domain },
    /// List the domains.
    List,
    /// Stop taking mail for a domain. Refused while accounts use it.
    Remove { domain: mail::Domain },
    /// Change how a domain treats its addresses; what is not named stays.
    Set(addresses::DomainSet),
    /// Show how a domain treats its addresses.
    Show { domain: mail::Domain },
}

#[derive(Subcommand, Debug)]
pub enum Account {
    /// Add an account; a password is made up and shown once unless one is given.
    Add {
        address: mail::EmailAddress,
        /// Read the password from standard input (the first line).
        #[arg(long)]
        password_stdin: bool,
        /// The owner's name.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// List the accounts.
    List,
    /// Show one account, its aliases and app passwords.
    Show { address: mail::EmailAddress },
    /// Set a new password.
    Password {
        address: mail::EmailAddress,
        /// Read the password from standard input (the first line).
        #[arg(long)]
        password_stdin: bool,
    },
    /// Refuse every login to the account; mail is still taken.
    Suspend { address: mail::EmailAddress },
    /// Undo `suspend`.
    Resume { address: mail::EmailAddress },
    /// Remove the account and its mail.
    Remove {
        address: mail::EmailAddress,
        /// Really remove the mail.
        #[arg(long)]
        yes: bool,
    },
    /// Give the account another address.
    AddAlias {
        alias: mail::EmailAddress,
        address: mail::EmailAddress,
    },
    /// Take an alias away.
    RemoveAlias { alias: mail::EmailAddress },
    /// Limit what the account may keep: octets (2G, 500M), none, or default.
    Quota {
        address: mail::EmailAddress,
        quota: String,
    },
    /// What the account may send as, besides its own addresses.
    #[command(subcommand)]
    SendAs(addresses::SendAs),
    /// Turn the second factor on: from then on mail programs need app passwords.
    SecondFactor {
        address: mail::EmailAddress,
        #[arg(value_enum)]
        state: OnOff,
    },
    /// Make an app password; it is shown once.
    AppPassword {
        address: mail::EmailAddress,
        /// What it is for, such as the name of the program or device.
        #[arg(long, default_value = "mail program")]
        name: String,
        /// What it opens.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Scope::Smtp, Scope::Imap, Scope::Pop3])]
        scope: Vec<Scope>,
        /// For how long, a number with s, m, h or d behind it; for ever by default.
        #[arg(long, value_name = "TIME", value_parser = block::duration)]
        expires: Option<std::time::Duration>,
    },
    /// Show the account's last logins: which went wrong, why, and what to change.
    Log {
        /// Whose; without it, those under names that nobody has.
        address: Option<mail::EmailAddress>,
    },
    /// Show what the account has sent today to recipients elsewhere, or give it limits of its own.
    Limit {
        address: mail::EmailAddress,
        /// Messages a day at most; 0: no limit.
        #[arg(long, value_name = "N")]
        messages: Option<u32>,
        /// Recipients a day at most to whom it never wrote before; 0: no limit.
        #[arg(long, value_name = "N")]
        recipients: Option<u32>,
        /// The limits that the settings have for everybody.
        #[arg(long, conflicts_with_all = ["messages", "recipients"])]
        default: bool,
    },
    /// Revoke an app password by the number that `account show` tells.
    RevokeAppPassword {
        address: mail::EmailAddress,
        number: u64,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOff {
    On,
    Off,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Smtp,
    Imap,
    Pop3,
}

#[derive(Subcommand, Debug)]
pub enum Webhook {
    /// List them: what waits for each, and whether it listens.
    List,
    /// Send a signed request with an event of the kind `test`, and say what was answered.
    Test {
        /// As the settings name it.
        name: String,
    },
    /// Try what waits now, whatever the wait after failures.
    Retry {
        /// As the settings name it.
        name: String,
    },
}

/// Where questions go.
#[derive(ClapArgs, Debug, Clone)]
pub struct DnsServer {
    /// Ask this DNS server (host:port) instead of the ones in the settings.
    #[arg(long, value_name = "HOST:PORT", value_parser = socket_address)]
    pub dns: Vec<SocketAddr>,
}

/// Reads `address:port`, or a host name that this machine can resolve and a port.
fn socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let mut found = text
        .to_socket_addrs()
        .map_err(|e| format!("{e}; write it so: 127.0.0.1:53"))?;
    found.next().ok_or_else(|| "the name has no address".to_owned())
}

#[derive(Subcommand, Debug)]
pub enum Auth {
    /// SPF: may this address send for this domain?
    Spf {
        /// The client's address.
        #[arg(long)]
        ip: IpAddr,
        /// The name the client gives in EHLO.
        #[arg(long, default_value = "")]
        helo: String,
        /// The reverse-path; empty for <>.
        #[arg(long, default_value = "")]
        mail_from: String,
        #[command(flatten)]
        server: DnsServer,
    },
    /// DKIM: verify every signature of the message on standard input.
    Dkim {
        #[command(flatten)]
        server: DnsServer,
    },
    /// DMARC: judge the message on standard input.
    Dmarc {
        /// The client's address, for SPF.
        #[arg(long)]
        ip: Option<IpAddr>,
        /// The name the client gives in EHLO, for SPF.
        #[arg(long, default_value = "")]
        helo: String,
        /// The reverse-path, for SPF; empty for <>.
        #[arg(long, default_value = "")]
        mail_from: String,
        #[command(flatten)]
        server: DnsServer,
    },
    /// ARC: verify the chain of the message on standard input.
    Arc {
        #[command(flatten)]
        server: DnsServer,
    },
}

#[derive(Subcommand, Debug)]
pub enum Dkim {
    /// Sign the message on standard input; the signed message goes to standard output.
    Sign {
        /// PEM file (PKCS#8) with the key. Without it the domain's keys in the store sign.
        #[arg(long, value_name = "FILE", requires = "selector", requires = "domain")]
        key: Option<PathBuf>,
        /// The selector of --key.
        #[arg(long)]
        selector: Option<String>,
        /// The signing domain (default: the author's, from the From field).
        #[arg(long)]
        domain: Option<mail::Domain>,
        /// With --dns: verify the new signatures against the keys that are published there, and say
        /// so on standard error.
        #[command(flatten)]
        server: DnsServer,
    },
}

#[derive(Subcommand, Debug)]
pub enum Dns {
    /// Print the records to publish for a domain, as a zone file.
    Records {
        domain: mail::Domain,
        /// The server's public addresses, for the A and AAAA records.
        #[arg(long, value_name = "IP")]
        address: Vec<IpAddr>,
    },
}

#[derive(Subcommand, Debug)]
pub enum Lab {
    /// Serve zone files as an authoritative DNS server on loopback, until it is stopped.
    Dns {
        /// A zone file; may be given several times.
        #[arg(long, required = true, value_name = "FILE")]
        zone: Vec<PathBuf>,
        /// Where to listen (UDP and TCP); port 0 takes a free one, which is printed.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Sign the zones and a root above them (DNSSEC), for 30 days; the root's key is written to this
        /// file, for `dns.trust_anchors`.
        #[arg(long, value_name = "FILE")]
        sign: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Args::command().debug_assert();
    }
}
