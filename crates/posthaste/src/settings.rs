//! The settings file: one TOML file, few keys, a default for each.
//!
//! What changes in daily life (domains, accounts, passwords) is not here but in the store. Only
//! this module and `settings::reference` know the file's form; the crates below get options structs.

mod deliver;
pub mod doors;
pub mod limits;
mod logins;
pub mod mailbox;
pub mod milter;
pub mod pace;
pub mod problem;
pub mod reference;
pub mod tls_reports;
pub mod webhook;

pub use deliver::{Deliver, SourceChoice};
pub use logins::Login;

use doors::{Sendmail, Sockets};
use problem::Problem;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The name of the settings file that is looked for when none is named.
pub const FILE_NAME: &str = "posthaste.toml";
/// Octets of a settings file at most.
pub const FILE_OCTETS_MAX: u64 = 1024 * 1024;

/// Everything that the operator can set. `reference` has the meaning and default of each key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub hostname: String,
    pub data: PathBuf,
    pub milter: Vec<milter::Milter>,
    pub webhook: Vec<webhook::Webhook>,
    pub listen: Listen,
    pub sockets: Sockets,
    pub sendmail: Sendmail,
    pub tls: Tls,
    pub dns: Dns,
    pub smtp: Smtp,
    pub login: Login,
    pub limits: limits::Limits,
    pub judge: Judge,
    pub deliver: Deliver,
    pub tls_reports: tls_reports::TlsReports,
    pub queue: Queue,
    pub mailbox: mailbox::Mailbox,
    pub store: Store,
    pub log: Log,
}

/// `[listen]`: where each service listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    pub smtp: Vec<SocketAddr>,
    pub submission: Vec<SocketAddr>,
    pub submissions: Vec<SocketAddr>,
    pub imap: Vec<SocketAddr>,
    pub imaps: Vec<SocketAddr>,
    pub pop3: Vec<SocketAddr>,
    pub pop3s: Vec<SocketAddr>,
    pub lmtp: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    pub proxy_from: Vec<String>,
}

/// `[tls]`: our certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_roots: Option<PathBuf>,
}

/// `[dns]`: whom we ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    pub servers: Vec<SocketAddr>,
    pub timeout_secs: u64,
    pub dnssec: Dnssec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_anchors: Option<PathBuf>,
}

/// How answers that the way of mail hangs on are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dnssec {
    #[default]
    Auto,
    Validate,
    TrustAd,
    Off,
}

/// `[smtp]`: limits of reception.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Smtp {
    pub size_max_octets: u64,
    pub recipients_max: usize,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub connections_per_network_max: usize,
    pub messages_per_session_max: u32,
    pub errors_per_session_max: u32,
    pub idle_commands_per_session_max: u32,
    pub failed_logins_per_session_max: u32,
    pub received_max: usize,
    pub hold_max_days: u64,
    pub memory_max_octets: usize,
    pub spill_over_octets: usize,
    pub spill_max_octets: u64,
    pub whole_max_octets: usize,
    pub command_timeout_secs: u64,
    pub data_timeout_secs: u64,
    pub handshake_timeout_secs: u64,
    pub write_timeout_secs: u64,
    pub message_time_max_secs: u64,
    pub message_octets_per_second_min: u32,
    pub greeting_delay_ms: u64,
    pub xclient_from: Vec<String>,
}

/// `[judge]`: what is done about mail from strangers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Judge {
    pub blocklists: Vec<String>,
    pub refuse_spf_fail: bool,
    pub unjudged_from: Vec<String>,
}

/// `[queue]`: when delivery is tried again and when it is given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    pub retry_first_secs: u64,
    pub retry_max_secs: u64,
    pub expire_secs: u64,
    pub expire_report_secs: u64,
    pub expire_low_priority_secs: u64,
    pub delay_notice_secs: u64,
    pub lifetime: Vec<Lifetime>,
}

/// `[[queue.lifetime]]`: how long a message is tried that fails so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifetime {
    pub class: String,
    pub expire_secs: u64,
}

/// `[store]`: how the store looks after itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    pub scrub_days: u64,
}

/// `[log]`: what is written to standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub json: bool,
}

fn loopback(port: u16) -> Vec<SocketAddr> {
    vec![SocketAddr::from(([127, 0, 0, 1], port))]
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            data: PathBuf::from("data"),
            milter: Vec::new(),
            webhook: Vec::new(),
            listen: Listen::default(),
            sockets: Sockets::default(),
            sendmail: Sendmail::default(),
            tls: Tls::default(),
            dns: Dns::default(),
            smtp: Smtp::default(),
            login: Login::default(),
            limits: limits::Limits::default(),
            judge: Judge::default(),
            deliver: Deliver::default(),
            tls_reports: tls_reports::TlsReports::default(),
            queue: Queue::default(),
            mailbox: mailbox::Mailbox::default(),
            store: Store::default(),
            log: Log::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            smtp: loopback(2525),
            submission: loopback(2587),
            submissions: loopback(2465),
            imap: loopback(2143),
            imaps: loopback(2993),
            pop3: loopback(2110),
            pop3s: loopback(2995),
            lmtp: Vec::new(),
            https: Vec::new(),
            proxy_from: Vec::new(),
        }
    }
}

impl Listen {
    /// The addresses that are listened on by number, each once; not "all of this machine".
    pub fn numbered(&self) -> Vec<IpAddr> {
        let all = [
            &self.smtp,
            &self.submission,
            &self.submissions,
            &self.imap,
            &self.imaps,
            &self.pop3,
            &self.pop3s,
            &self.https,
        ];
        let mut addresses: Vec<IpAddr> = all.into_iter().flatten().map(SocketAddr::ip).collect();
        addresses.retain(|ip| !ip.is_unspecified());
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The standard ports on every address of the machine.
    pub fn public() -> Self {
        let everywhere = |port| vec![SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))];
        Self {
            smtp: everywhere(25),
            submission: everywhere(587),
            submissions: everywhere(465),
            imap: everywhere(143),
            imaps: everywhere(993),
            pop3: everywhere(110),
            pop3s: everywhere(995),
            lmtp: Vec::new(),
            https: Vec::new(),
            proxy_from: Vec::new(),
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout_secs: 5,
            dnssec: Dnssec::Auto,
            trust_anchors: None,
        }
    }
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            size_max_octets: 35_882_577,
            recipients_max: 1_000,
            connections_max: 10_000,
            connections_per_address_max: 100,
            connections_per_network_max: 1_000,
            messages_per_session_max: 10_000,
            errors_per_session_max: 20,
            idle_commands_per_session_max: 200,
            failed_logins_per_session_max: 3,
            received_max: 50,
            hold_max_days: 7,
            memory_max_octets: 256 * 1024 * 1024,
            spill_over_octets: 1024 * 1024,
            spill_max_octets: 4 * 1024 * 1024 * 1024,
            whole_max_octets: 256 * 1024 * 1024,
            command_timeout_secs: 300,
            data_timeout_secs: 180,
            handshake_timeout_secs: 60,
            write_timeout_secs: 300,
            message_time_max_secs: 3_600,
            message_octets_per_second_min: 50,
            greeting_delay_ms: 0,
            xclient_from: Vec::new(),
        }
    }
}

impl Smtp {
    fn check(&self) -> Result<(), String> {
        for (name, value) in [
            (
                "messages_per_session_max",
                u64::from(self.messages_per_session_max),
            ),
            (
                "idle_commands_per_session_max",
                u64::from(self.idle_commands_per_session_max),
            ),
            (
                "failed_logins_per_session_max",
                u64::from(self.failed_logins_per_session_max),
            ),
            ("command_timeout_secs", self.command_timeout_secs),
            ("data_timeout_secs", self.data_timeout_secs),
            ("handshake_timeout_secs", self.handshake_timeout_secs),
            ("write_timeout_secs", self.write_timeout_secs),
            ("message_time_max_secs", self.message_time_max_secs),
        ] {
            if !(1..=u64::from(u32::MAX)).contains(&value) {
                return Err(format!("smtp.{name} must be from 1 to {}", u32::MAX));
            }
        }
        if (self.whole_max_octets as u64) < self.size_max_octets
            || self.spill_max_octets < self.size_max_octets
        {
            return Err(
                "smtp.whole_max_octets and smtp.spill_max_octets must hold one message of smtp.size_max_octets".into(),
            );
        }
        Ok(())
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { scrub_days: 14 }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            retry_first_secs: 5 * 60,
            retry_max_secs: 4 * 3_600,
            expire_secs: 5 * 86_400,
            expire_report_secs: 2 * 86_400,
            expire_low_priority_secs: 5 * 86_400,
            delay_notice_secs: 4 * 3_600,
            lifetime: Vec::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            json: false,
        }
    }
}

impl Settings {
    /// Reads a file; paths in it are relative to the folder it stands in.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let text = read_bounded(path)?;
        let mut settings = Self::parse(&text, path)?;
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            settings.resolve_paths(folder);
        }
        Ok(settings)
    }

    /// Reads a text; `path` is only for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Problem> {
        let settings: Self = toml::from_str(text).map_err(|e| Problem::from_toml(path, text, &e))?;
        settings.check(path)?;
        Ok(settings)
    }

    /// The settings with `key=value` orders from the command line applied (TOML values, dotted keys).
    pub fn with_orders(&self, orders: &[String]) -> Result<Self, Problem> {
        let place = Path::new("--set");
        let mut table = toml::Table::try_from(self)
            .map_err(|e| Problem::said(place, format!("cannot be written: {e}")))?;
        for order in orders {
            let (key, value) = order
                .split_once('=')
                .ok_or_else(|| Problem::said(place, format!("`{order}` is not of the form key=value")))?;
            // A bare word is meant as a text: --set hostname=mail.example.com
            let parsed = format!("value = {value}")
                .parse::<toml::Table>()
                .or_else(|_| format!("value = {}", toml::Value::from(value)).parse::<toml::Table>())
                .map_err(|e| {
                    Problem::said(place, format!("`{value}` is not a TOML value: {}", e.message()))
                })?;
            let value = parsed
                .get("value")
                .cloned()
                .unwrap_or(toml::Value::Boolean(false));
            put_dotted(&mut table, key.trim(), value);
        }
        Self::parse(&table.to_string(), place)
    }

    /// What serde cannot see: ranges and combinations.
    fn check(&self, path: &Path) -> Result<(), Problem> {
        let said = |text: String| Err(Problem::said(path, text));
        if let Err(e) = mail::Domain::parse(&self.hostname) {
            return said(format!("hostname = \"{}\": {e}", self.hostname));
        }
        if let Err(text) = self.check_doors() {
            return said(text);
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return said(
                "tls.certificate and tls.key go together: set both, or none for a self-signed one".into(),
            );
        }
        if self.login.without_tls_on_loopback {
            let listen = &self.listen;
            let login_ports = [&listen.submission, &listen.imap, &listen.pop3];
            if let Some(open) = login_ports.into_iter().flatten().find(|a| !a.ip().is_loopback()) {
                return said(format!(
                    "login.without_tls_on_loopback = true, but {open} is not a loopback address: passwords would \
                     cross the network in clear. Listen on 127.0.0.1 or ::1, or set it to false"
                ));
            }
        }
        if self.smtp.recipients_max < 100 {
            return said("smtp.recipients_max must be at least 100 (RFC 5321 §4.5.3.1.8)".into());
        }
        if self.smtp.hold_max_days > 366 {
            return said("smtp.hold_max_days must be at most 366".into());
        }
        if self.smtp.size_max_octets < 64 * 1024 {
            return said("smtp.size_max_octets must be at least 65536 (RFC 5321 §4.5.3.1.7)".into());
        }
        if (self.smtp.memory_max_octets as u64) < self.smtp.size_max_octets {
            return said("smtp.memory_max_octets must hold one message of smtp.size_max_octets".into());
        }
        if let Err(why) = self.limits.check() {
            return said(why);
        }
        if let Err(why) = self.smtp.check() {
            return said(why);
        }
        if let Err(why) = self.tls_reports.options() {
            return said(why);
        }
        if let Some(why) = self.milter.iter().find_map(|m| m.filter().err()) {
            return said(why);
        }
        if let Err(why) = webhook::check(&self.webhook) {
            return said(why);
        }
        for (key, at_least_one) in [
            ("dns.timeout_secs", self.dns.timeout_secs > 0),
            ("smtp.connections_max", self.smtp.connections_max > 0),
            (
                "smtp.connections_per_address_max",
                self.smtp.connections_per_address_max > 0,
            ),
            ("smtp.received_max", self.smtp.received_max > 0),
            ("deliver.port", self.deliver.port > 0),
            ("deliver.mta_sts_port", self.deliver.mta_sts_port > 0),
            ("deliver.concurrency_max", self.deliver.concurrency_max > 0),
            (
                "deliver.concurrency_per_domain_max",
                self.deliver.concurrency_per_domain_max > 0,
            ),
            (
                "deliver.messages_per_connection",
                self.deliver.messages_per_connection > 0,
            ),
        ] {
            if !at_least_one {
                return said(format!("{key} must be at least 1"));
            }
        }
        if !is_log_level(&self.log.level) {
            return said(format!(
                "log.level = \"{}\": write error, warn, info, debug, trace or off; or such a level per part, \
                 as in \"info,receive=debug\"",
                self.log.level
            ));
        }
        for list in &self.judge.blocklists {
            if let Err(e) = mail::Domain::parse(list) {
                return said(format!("judge.blocklists: \"{list}\": {e}"));
            }
        }
        if let Err(why) = self.deliver.check(&self.hostname) {
            return said(why);
        }
        if self.queue.retry_first_secs == 0 || self.queue.retry_first_secs > self.queue.retry_max_secs {
            return said(
                "queue.retry_first_secs must be at least 1 and not above queue.retry_max_secs".into(),
            );
        }
        Ok(())
    }

    fn check_doors(&self) -> Result<(), String> {
        doors::networks("listen.proxy_from", &self.listen.proxy_from)?;
        doors::networks("smtp.xclient_from", &self.smtp.xclient_from)?;
        doors::networks("judge.unjudged_from", &self.judge.unjudged_from)?;
        if let Some(open) = self.listen.lmtp.iter().find(|a| !a.ip().is_loopback()) {
            return Err(format!(
                "listen.lmtp = {open}: mail by LMTP is taken unjudged, so it must come from this machine; listen on \
                 127.0.0.1 or ::1, or at a socket (sockets.lmtp)"
            ));
        }
        self.sockets.mode_bits()?;
        self.sendmail.check()
    }

    fn resolve_paths(&mut self, folder: &Path) {
        let mut resolve = |p: &mut PathBuf| {
            if p.is_relative() {
                *p = folder.join(&*p);
            }
        };
        resolve(&mut self.data);
        self.webhook.iter_mut().for_each(|w| resolve(&mut w.secret_file));
        let sockets = &mut self.sockets;
        [&mut sockets.smtp, &mut sockets.submission, &mut sockets.lmtp]
            .into_iter()
            .flatten()
            .chain(&mut self.sendmail.socket)
            .for_each(&mut resolve);
        [
            &mut self.tls.certificate,
            &mut self.tls.key,
            &mut self.dns.trust_anchors,
        ]
        .into_iter()
        .chain(self.deliver.files())
        .flatten()
        .for_each(&mut resolve);
    }
}

/// Whether every part of a log filter ends in a level. The filter itself would take a misspelt level
/// for the name of a part, and then log nothing.
fn is_log_level(filter: &str) -> bool {
    filter.split(',').all(|part| {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(level))
    })
}

fn read_bounded(path: &Path) -> Result<String, Problem> {
    let unreadable = |e: std::io::Error| Problem::said(path, format!("cannot be read: {e}"));
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_OCTETS_MAX {
        return Err(Problem::said(
            path,
            format!("is larger than {FILE_OCTETS_MAX} octets"),
        ));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn put_dotted(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table
                .entry(first.to_owned())
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(inner) = inner {
                put_dotted(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::deliver::{Route, RouteTls};
    use super::*;

    fn parse(text: &str) -> Result<Settings, Problem> {
        Settings::parse(text, Path::new("posthaste.toml"))
    }

    #[test]
    fn nothing_is_needed() {
        assert_eq!(parse("").unwrap(), Settings::default());
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut s = Settings::default();
        s.deliver.route.push(Route {
            domain: "*".into(),
            host: Some("relay.example".into()),
            port: Some(587),
            tls: Some(RouteTls::Required),
            user: Some("us".into()),
            password_file: Some("secret".into()),
            ..Route::default()
        });
        s.deliver.route.push(Route {
            domain: ".example.com".into(),
            hosts: vec!["10 a.example".into(), "20 b.example:26".into()],
            ..Route::default()
        });
        assert_eq!(parse(&toml::to_string(&s).unwrap()).unwrap(), s);
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest() {
        let text = parse("hostname = \"a.example\"\n[smtp]\nsize_max_octet = 70000\n")
            .unwrap_err()
            .to_string();
        assert!(text.contains("line 3"), "{text}");
        assert!(text.contains("`size_max_octets`"), "{text}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_remedy() {
        for (text, part) in [
            ("hostname = \"a b\"", "hostname"),
            ("[tls]\ncertificate = \"a.pem\"", "go together"),
            (
                "[login]\nwithout_tls_on_loopback = true\n[listen]\nimap = [\"0.0.0.0:143\"]",
                "0.0.0.0:143",
            ),
            ("[smtp]\nrecipients_max = 5", "100"),
            ("[listen]\nsmtp = [\"localhost\"]", "127.0.0.1:2525"),
            ("[queue]\nretry_first_secs = 0", "retry_first_secs"),
            ("[smtp]\nmemory_max_octets = 70000", "memory_max_octets"),
            ("[listen]\nproxy_from = [\"10.0.0.1/8\"]", "10.0.0.0/8"),
            ("[smtp]\nxclient_from = [\"x\"]", "smtp.xclient_from"),
            ("[judge]\nunjudged_from = [\"x\"]", "judge.unjudged_from"),
            ("[listen]\nlmtp = [\"0.0.0.0:24\"]", "listen.lmtp"),
            ("[sockets]\nmode = \"rw\"", "sockets.mode"),
            ("[sendmail]\ndomain = \"a b\"", "sendmail.domain"),
            ("[dns]\ntimeout_secs = 0", "dns.timeout_secs"),
            ("[deliver]\nconcurrency_max = 0", "deliver.concurrency_max"),
            ("[[deliver.route]]\ndomain = \"a b\"\ndiscard = true", "a b"),
            ("[[deliver.route]]\ndomain = \"*\"", "exactly one of"),
            (
                "[[deliver.route]]\ndomain = \"*\"\nhost = \"x\"\ndiscard = true",
                "exactly one of",
            ),
            (
                "[[deliver.route]]\ndomain = \"*\"\nfail = \"250 ok\"",
                "400 to 599",
            ),
            (
                "[[deliver.route]]\ndomain = \"*\"\nhost = \"x\"\nuser = \"us\"",
                "go together",
            ),
            (
                "[[deliver.source]]\naddress = \"192.0.2.1\"\nhelo = \"a b\"",
                "192.0.2.1",
            ),
            (
                "[deliver]\nsource_addresses = [\"192.0.2.1\"]\n[[deliver.source]]\naddress = \"192.0.2.1\"",
                "takes the place",
            ),
            ("[log]\nlevel = \"loud\"", "loud"),
        ] {
            let shown = parse(text).unwrap_err().to_string();
            assert!(shown.contains(part), "{text} => {shown}");
        }
    }

    #[test]
    fn log_levels_stand_alone_and_per_part() {
        for level in [
            "info",
            "WARN",
            "off",
            "info,receive=debug",
            "receive::wire=trace, deliver=warn",
        ] {
            assert!(is_log_level(level), "{level}");
        }
        for level in ["", "loud", "info,", "receive=loud"] {
            assert!(!is_log_level(level), "{level}");
        }
    }

    #[test]
    fn orders_from_the_command_line() {
        let s = Settings::default()
            .with_orders(&[
                "hostname=mail.example.com".into(),
                "listen.smtp=[\"127.0.0.1:1\"]".into(),
                "deliver.port=26".into(),
            ])
            .unwrap();
        assert_eq!(s.hostname, "mail.example.com");
        assert_eq!(s.listen.smtp[0].port(), 1);
        assert_eq!(s.deliver.port, 26);
        assert!(Settings::default().with_orders(&["hostnam=x".into()]).is_err());
        assert!(Settings::default().with_orders(&["nonsense".into()]).is_err());
    }
}
