//! `posthaste route` and `posthaste probe`, as clap reads them.

use super::DnsServer;
use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use mail::{Domain, EmailAddress, ReversePath};
use std::path::PathBuf;

#[derive(ClapArgs, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "posthaste route [OPTIONS] FROM TO\n       posthaste route add|list|remove"
)]
pub struct Route {
    #[command(subcommand)]
    pub order: Option<Order>,
    /// The sender; <> for none.
    #[arg(required = true, value_parser = reverse_path)]
    pub from: Option<ReversePath>,
    /// The recipient.
    #[arg(required = true)]
    pub to: Option<EmailAddress>,
    #[command(flatten)]
    pub server: DnsServer,
}

#[derive(Subcommand, Debug)]
pub enum Order {
    /// Set what is done with mail for a domain elsewhere, in place of what the DNS and the settings say.
    /// In force at once.
    Add(Box<Add>),
    /// List the routes of the store and of the settings.
    List,
    /// Take a route away from the store.
    Remove {
        /// As `route list` shows it.
        domain: String,
    },
}

#[derive(ClapArgs, Debug)]
#[command(group(ArgGroup::new("what").required(true).args(["host", "mx", "lmtp", "discard", "fail"])))]
pub struct Add {
    /// example.com, .example.com (all below it, itself not), or * (all that no other route names).
    pub domain: String,
    /// To this server: mx.example.net, mx.example.net:2525, `[2001:db8::1]:25`; with a preference:
    /// "10 mx.example.net". May be given several times.
    #[arg(long, value_name = "HOST")]
    pub host: Vec<String>,
    /// To the mail exchangers of this domain.
    #[arg(long, value_name = "DOMAIN")]
    pub mx: Option<Domain>,
    /// By LMTP to this server: box.example.net, box.example.net:2424 (without a port: 24), or the path of a
    /// socket such as /run/dovecot/lmtp.
    #[arg(long, value_name = "PLACE")]
    pub lmtp: Option<String>,
    /// Throw the mail away; its journey says so, its sender is not told.
    #[arg(long)]
    pub discard: bool,
    /// Fail with this reply, such as "550 5.1.1 nobody is here any more"; a 4xx waits and is tried
    /// again.
    #[arg(long, value_name = "REPLY")]
    pub fail: Option<String>,
    /// The port of servers that name none (default 25).
    #[arg(long, conflicts_with_all = ["lmtp", "discard", "fail"])]
    pub port: Option<u16>,
    /// How TLS is used, as in the settings (default: opportunistic).
    #[arg(long, value_name = "POLICY", conflicts_with_all = ["discard", "fail"])]
    pub tls: Option<String>,
    /// The name of a login at the servers.
    #[arg(long, requires = "password_file", conflicts_with_all = ["discard", "fail"])]
    pub user: Option<String>,
    /// The file whose first line is its password; the server reads it when the route comes into force.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub struct Probe {
    /// The recipient.
    pub to: EmailAddress,
    /// The sender (default: <>, as of reports).
    #[arg(long, value_name = "ADDRESS", value_parser = reverse_path, default_value = "<>")]
    pub from: ReversePath,
    /// Seconds that each step may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,
    #[command(flatten)]
    pub server: DnsServer,
}

/// Reads an address, in angle brackets or not; `<>` for none.
fn reverse_path(text: &str) -> Result<ReversePath, String> {
    let bare = text.strip_prefix('<').and_then(|t| t.strip_suffix('>'));
    match bare.unwrap_or(text) {
        "" => Ok(ReversePath::Null),
        address => EmailAddress::parse(address)
            .map(ReversePath::Address)
            .map_err(|e| e.to_string()),
    }
}
