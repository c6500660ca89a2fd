//! The meaning of every key, once: `docs/CONFIGURATION.md` is generated from this table and a test
//! holds the table against the settings' defaults.

use std::fmt::Write as _;

/// One key of the settings file.
pub struct Key {
    /// Dotted path.
    pub path: &'static str,
    /// The default as TOML; `None` where there is none.
    pub default: Option<&'static str>,
    /// What it means, its unit, and when to change it.
    pub meaning: &'static str,
}

pub(super) const fn key(path: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key {
        path,
        default: Some(default),
        meaning,
    }
}

const fn unset(path: &'static str, meaning: &'static str) -> Key {
    Key {
        path,
        default: None,
        meaning,
    }
}

/// The keys of sections that have a file of their own, and before which section each stands.
const SECTIONS: &[(&str, &[Key])] = &[
    ("listen.", super::milter::KEYS),
    ("listen.", super::webhook::KEYS),
    ("login.", super::logins::KEYS),
    ("judge.", super::limits::KEYS),
    ("queue.", super::tls_reports::KEYS),
];

/// Every key, in the order of the reference.
pub fn keys() -> Vec<&'static Key> {
    let mut all: Vec<&Key> = Vec::new();
    let mut sections = SECTIONS.iter().peekable();
    for key in KEYS {
        while let Some((_, more)) = sections.next_if(|(before, _)| key.path.starts_with(before)) {
            all.extend(*more);
        }
        all.push(key);
    }
    all
}

/// The keys that stand here.
const KEYS: &[Key] = &[
    key(
        "hostname",
        "\"localhost\"",
        "Our own name: in the greeting, in EHLO, in `Received:` and in `Authentication-Results:`. On the Internet it must be the name that the MX record names and that the reverse DNS of the server's address gives.",
    ),
    key(
        "data",
        "\"data\"",
        "The data folder: the store, the self-signed certificate, the control socket. Relative to the settings file.",
    ),
    key(
        "listen.smtp",
        "[\"127.0.0.1:2525\"]",
        "Where mail from other servers arrives (port 25 on the Internet). Each `listen` key is a list of `address:port`; an empty list turns the service off; port 0 takes a free port.",
    ),
    key(
        "listen.submission",
        "[\"127.0.0.1:2587\"]",
        "Where mail clients submit, with STARTTLS (port 587).",
    ),
    key(
        "listen.submissions",
        "[\"127.0.0.1:2465\"]",
        "Where mail clients submit, TLS from the first byte (port 465).",
    ),
    key(
        "listen.imap",
        "[\"127.0.0.1:2143\"]",
        "IMAP with STARTTLS (port 143).",
    ),
    key(
        "listen.imaps",
        "[\"127.0.0.1:2993\"]",
        "IMAP, TLS from the first byte (port 993).",
    ),
    key(
        "listen.pop3",
        "[\"127.0.0.1:2110\"]",
        "POP3 with STLS (port 110).",
    ),
    key(
        "listen.pop3s",
        "[\"127.0.0.1:2995\"]",
        "POP3, TLS from the first byte (port 995).",
    ),
    key(
        "listen.lmtp",
        "[]",
        "Where another mail server of this machine hands over mail for mailboxes here by LMTP (RFC 2033), such as `[\"127.0.0.1:2424\"]`. Loopback only: such mail is not judged, for whoever took it has done so. Recipients elsewhere are refused: nothing is relayed.",
    ),
    key(
        "listen.https",
        "[]",
        "Where the MTA-STS policies of our own domains are served to other mail servers (port 443 on the Internet), for domains with `posthaste domain set <domain> --mta-sts …`. The certificate must be good for `mta-sts.<domain>` too; see docs/MTA-STS.md, also for serving them with a web server that is there already.",
    ),
    key(
        "listen.proxy_from",
        "[]",
        "Networks of load balancers, such as `[\"10.0.0.0/8\"]`, that begin each connection with a PROXY header (version 1 or 2), for all services above. Connections from there without one are closed after 5 seconds at most; from elsewhere no header is looked for. The client that the header tells counts everywhere: limits, judgement, logs and journeys.",
    ),
    key(
        "sockets.smtp",
        "[]",
        "Unix sockets at which SMTP is served, as on `listen.smtp`, to programs of this machine. A socket that nobody serves any more is replaced; at the end it is removed.",
    ),
    key(
        "sockets.submission",
        "[]",
        "Unix sockets for submission with a login, as on `listen.submission`; without TLS, since nothing crosses a network.",
    ),
    key(
        "sockets.lmtp",
        "[]",
        "Unix sockets for LMTP (RFC 2033); see `listen.lmtp`.",
    ),
    key(
        "sockets.mode",
        "\"0660\"",
        "The file mode of these sockets: who may connect.",
    ),
    unset(
        "sendmail.socket",
        "The Unix socket of `posthaste sendmail`; default `<data>/sendmail.sock`, which only root and the server's user can reach. Put it elsewhere, such as `/run/posthaste/sendmail.sock`, for the users of `sendmail.user`. Whose program it is tells the system; see `docs/LOCAL-PROGRAMS.md`.",
    ),
    unset(
        "sendmail.domain",
        "What is put behind an address without a domain, such as `root`, by `posthaste sendmail`; default: `hostname`.",
    ),
    key(
        "sendmail.user",
        "[]",
        "Users of this machine who may send without a login: tables `[[sendmail.user]]` with `name` and `from`, a list of addresses or `@domain`; each may also send as `<name>@<sendmail.domain>`. Root and the server's own user always may, as anybody.",
    ),
    unset(
        "tls.certificate",
        "PEM file with the certificate and its chain. Without it a self-signed one for `hostname`, `localhost`, 127.0.0.1 and ::1 is made on first start, in `<data>/tls/`. `SIGHUP` reads it anew.",
    ),
    unset("tls.key", "PEM file with the certificate's private key."),
    unset(
        "tls.client_roots",
        "PEM file with authorities whose client certificates open accounts (EXTERNAL): the certificate's e-mail name is the account. Where clients log in they are then asked for a certificate; one without is served all the same. `SIGHUP` reads it anew.",
    ),
    key(
        "dns.servers",
        "[]",
        "DNS servers to ask, as `address:port`. Empty: those of the system. Use a validating one that you run yourself: blocklists refuse the big public ones.",
    ),
    key(
        "dns.timeout_secs",
        "5",
        "Seconds until a DNS server that does not answer is taken for unavailable. Mail is then deferred, never bounced.",
    ),
    key(
        "dns.dnssec",
        "\"auto\"",
        "How DNSSEC protects where mail goes, which DANE and REQUIRETLS need: `\"validate\"` checks signatures here, and mail waits when the DNS server passes none on; `\"auto\"` does so once they have come through, and nothing before; `\"trust_ad\"` believes a DNS server on loopback that says it checked; `\"off\"`. docs/TLS-BETWEEN-SERVERS.md.",
    ),
    unset(
        "dns.trust_anchors",
        "File with the DNSKEY records of the root that validation begins with, in place of the Internet's, which are built in. For a network with a root of its own.",
    ),
    key(
        "smtp.size_max_octets",
        "35882577",
        "Octets of a message at most, announced by SIZE. A larger one is refused with 552 5.3.4.",
    ),
    key(
        "smtp.recipients_max",
        "1000",
        "Recipients of one message at most; further ones get 452 4.5.3. At least 100 (RFC 5321 §4.5.3.1.8).",
    ),
    key(
        "smtp.connections_max",
        "10000",
        "SMTP connections at the same time; further ones get 421 4.3.2.",
    ),
    key(
        "smtp.connections_per_address_max",
        "100",
        "SMTP connections from one address at the same time; further ones get 421 4.7.0.",
    ),
    key(
        "smtp.connections_per_network_max",
        "1000",
        "SMTP connections from one network (`limits.ipv4_prefix`) at the same time; further ones get 421 4.7.0. 0: no such limit.",
    ),
    key(
        "smtp.messages_per_session_max",
        "10000",
        "Messages on one connection; then 421 4.7.0, and the client connects again.",
    ),
    key(
        "smtp.errors_per_session_max",
        "20",
        "Refused commands (5xx) on one connection; the next one gets 421 4.7.0.",
    ),
    key(
        "smtp.idle_commands_per_session_max",
        "200",
        "Commands without an accepted message between them; then 421 4.7.0. Recipients do not count.",
    ),
    key(
        "smtp.failed_logins_per_session_max",
        "3",
        "Failed logins on one connection; then 421 4.7.0.",
    ),
    key(
        "smtp.received_max",
        "50",
        "`Received:` fields at most; a message with more is taken to be looping and refused with 554 5.4.6.",
    ),
    key(
        "smtp.hold_max_days",
        "7",
        "Days for which a submitted message may ask to be held back, at most (FUTURERELEASE, RFC 4865). 0: it is not offered.",
    ),
    key(
        "smtp.memory_max_octets",
        "268435456",
        "Octets of messages that are being received, all sessions together; beyond that 452 4.3.1 is answered. Must hold one message of the largest size.",
    ),
    key(
        "smtp.spill_over_octets",
        "1048576",
        "Octets of a message that is coming in beyond which it goes to a file without a name in `<data>/incoming`, so that slow large senders hold little memory. 0: never.",
    ),
    key(
        "smtp.spill_max_octets",
        "4294967296",
        "Octets of all these files; beyond that 452 4.3.1 is answered.",
    ),
    key(
        "smtp.whole_max_octets",
        "268435456",
        "Octets of messages from these files that are in memory at the same time, to be judged and stored; others wait for their turn. Must hold one message of the largest size.",
    ),
    key(
        "smtp.command_timeout_secs",
        "300",
        "Seconds that the next whole command may take; then 421 4.4.2. RFC 5321 §4.5.3.2.7 asks for 300 at least.",
    ),
    key(
        "smtp.data_timeout_secs",
        "180",
        "Seconds of silence within a message; then 421 4.4.2.",
    ),
    key(
        "smtp.handshake_timeout_secs",
        "60",
        "Seconds that a whole TLS handshake may take; then the connection closes.",
    ),
    key(
        "smtp.write_timeout_secs",
        "300",
        "Seconds that a client may take to read what it was answered; then the connection closes.",
    ),
    key(
        "smtp.message_time_max_secs",
        "3600",
        "Seconds that one message may take to come in, however steadily it does; then 421 4.4.2.",
    ),
    key(
        "smtp.message_octets_per_second_min",
        "50",
        "Octets a second that a message must bring in every `data_timeout_secs`; then 421 4.4.2. So nobody holds a connection with an octet now and then. 0: no such limit.",
    ),
    key(
        "smtp.greeting_delay_ms",
        "0",
        "Milliseconds for which a client is watched before it is greeted; one that speaks first is refused with 554 5.7.0. 0: only what has come already counts, and honest clients lose no time. Some seconds catch more spambots.",
    ),
    key(
        "smtp.xclient_from",
        "[]",
        "Networks of proxies that may say XCLIENT: tell whom they speak for, a login included. Nobody else is offered it.",
    ),
    key(
        "login.without_tls_on_loopback",
        "false",
        "Whether a password is accepted without TLS. For tests on one machine only: the server refuses to start with it unless all login ports are on loopback addresses.",
    ),
    key(
        "judge.blocklists",
        "[]",
        "DNS blocklists that a stranger's address is looked up in, for example `[\"zen.spamhaus.org\"]`. A listed client is refused at RCPT with 550 5.7.1, the list named.",
    ),
    key(
        "judge.refuse_spf_fail",
        "false",
        "Whether an SPF `fail` alone is enough to refuse (550 5.7.23). Off, because forwarded mail fails SPF; DMARC decides better.",
    ),
    key(
        "judge.unjudged_from",
        "[]",
        "Networks of your own mail servers (a gateway in front, a backup MX), such as `[\"192.0.2.0/24\"]`, which judge mail before they hand it over: what comes from there is not judged again, and keeps the Authentication-Results that it has. They may relay no more than anybody else.",
    ),
    key(
        "deliver.port",
        "25",
        "The port at which other servers are called.",
    ),
    key(
        "deliver.source_addresses",
        "[]",
        "Local addresses from which other servers are called, at most one IPv4 and one IPv6. Empty: the system chooses.",
    ),
    key(
        "deliver.source_choice",
        "\"site\"",
        "How one of several addresses of `deliver.source` is chosen: `\"site\"`, always the same for one destination (its most preferred mail server), or `\"random\"`, by weight for each attempt.",
    ),
    key(
        "deliver.source",
        "[]",
        "Local addresses from which other servers are called, in place of `source_addresses`: tables `[[deliver.source]]` with `address`, `helo` (the name for EHLO, default `hostname`; it should be what the address's reverse DNS says), `weight` (1; 0: not used) and `domains` (a list: only mail from senders of these domains leaves here; senders that no source names leave from those without `domains`). Servers' addresses of a family of which there is no source are not called. See `docs/ROUTES.md`.",
    ),
    unset(
        "deliver.extra_roots",
        "PEM file with certificate authorities that are trusted in addition to the public ones when another server's certificate is verified.",
    ),
    unset(
        "deliver.replies",
        "TOML file with patterns of other servers' replies, asked before the program's own, for servers with words of their own (docs/DELIVERY-FAILURES.md).",
    ),
    key("deliver.concurrency_max", "200", "Deliveries at the same time."),
    key(
        "deliver.concurrency_per_domain_max",
        "20",
        "Deliveries at the same time to one site at most: to the servers that one or more domains name as their mail exchangers. It begins with 2 and becomes more while the site answers well, less when it is in trouble (`docs/QUEUE.md`).",
    ),
    key(
        "deliver.messages_per_connection",
        "100",
        "Messages that one connection carries at most, one after the other; 1 opens a connection for each.",
    ),
    key(
        "deliver.connection_idle_secs",
        "5",
        "Seconds that a connection waits for the next message to the same server before it is closed; 0: not at all.",
    ),
    key(
        "deliver.limit",
        "[]",
        "How much goes to some sites at most: tables `[[deliver.limit]]` with `domain` and any of `connections` (at the same time), `messages_per_minute` and `connections_per_minute`. The domain is a recipient's (`\"gmail.com\"`), or that of mail exchangers (`\".google.com\"` for all below it), or `\"*\"`; the one that says most counts.",
    ),
    key(
        "deliver.mta_sts",
        "true",
        "Whether the MTA-STS policies of the domains that mail goes to are heeded (RFC 8461; docs/MTA-STS.md). Without it mail goes to whoever answers, also to somebody in between.",
    ),
    key(
        "deliver.mta_sts_port",
        "443",
        "The port at which MTA-STS policies are fetched. For laboratories: on the Internet it is 443.",
    ),
    key(
        "deliver.route",
        "[]",
        "What is done with mail for some domains, whatever the DNS says: tables `[[deliver.route]]` with `domain` (`\"example.com\"`, `\".example.com\"` for all below it, or `\"*\"` for all) and one of `host`, `hosts` (a list with preferences, such as `[\"10 a.example\", \"20 b.example:2525\"]`), `mx` (the mail exchangers of another domain), `lmtp` (an LMTP server: `\"box.example.net:24\"` or a socket, `\"/run/dovecot/lmtp\"`), `discard = true` and `fail = \"550 5.1.1 words\"`; for the first three also `port` (25), for the first four `tls` (`\"opportunistic\"`, `\"encrypted\"`, `\"required\"`, `\"dane\"`, `\"unchecked\"` or `\"off\"`; docs/TLS-BETWEEN-SERVERS.md). The one that says most of the domain counts. A smarthost that wants a login gets `user` and `password_file` (its first line), and then `tls = \"required\"`. `posthaste route add` sets routes while the server runs; they win over these. See `docs/ROUTES.md`.",
    ),
    key(
        "queue.retry_first_secs",
        "300",
        "Seconds until the first retry after a temporary failure. Later ones come at growing distances.",
    ),
    key(
        "queue.retry_max_secs",
        "14400",
        "Seconds between two retries at most.",
    ),
    key(
        "queue.expire_secs",
        "432000",
        "Seconds after which an undeliverable message is returned to its sender (RFC 5321 §4.5.4.1: four to five days).",
    ),
    key(
        "queue.expire_report_secs",
        "172800",
        "The same for reports, which have no sender to be returned to: they are given up earlier.",
    ),
    key(
        "queue.expire_low_priority_secs",
        "432000",
        "The same for messages whose sender gave them a priority below 0 (MT-PRIORITY, RFC 6710), such as bulk mail. Never more than `queue.expire_secs`.",
    ),
    key(
        "queue.delay_notice_secs",
        "14400",
        "Seconds after which the sender is told that a message is delayed; 0: never.",
    ),
    key(
        "queue.lifetime",
        "[]",
        "Failures after which a message is given up earlier: tables `[[queue.lifetime]]` with `class` (a class of `posthaste failures`, such as `\"mailbox-full\"`) and `expire_secs`. A message that has been here for so long when it fails so is returned to its sender; never later than it would be anyway.",
    ),
    key(
        "mailbox.quota_default_octets",
        "0",
        "Octets that an account may keep that has no quota of its own (`posthaste account quota`); 0: any amount. A mailbox that is full is told to senders at RCPT with 452 4.2.2, so that they try again.",
    ),
    key(
        "store.scrub_days",
        "14",
        "Days in which the server reads its whole store once, slowly, to find rot while a backup still has what it ate: every row and every octet of every message. What it finds is in the log at level `error`, and in `posthaste audit`. 0 turns it off.",
    ),
    key(
        "log.level",
        "\"info\"",
        "What is logged to standard error: `error`, `warn`, `info`, `debug` or `trace`; also per part, such as `info,receive=debug`.",
    ),
    key("log.json", "false", "Whether each log line is a JSON object."),
];

/// The last part of every key's path, and the names of the tables: what an unknown key may have meant.
pub fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .flat_map(|k| k.path.split('.'))
        .chain([
            "domain",
            "host",
            "address",
            "helo",
            "weight",
            "domains",
            "hosts",
            "mx",
            "discard",
            "fail",
            "port",
            "tls",
            "user",
            "password_file",
            "name",
            "from",
        ])
        .chain(super::milter::NAMES.iter().copied())
        .chain(super::webhook::NAMES.iter().copied())
}

/// The settings as a file that people go on writing in: without `key = []` for keys that are written as
/// tables `[[key]]`. TOML takes no such table beside it.
///
/// # Errors
/// When they cannot be written as TOML.
pub fn as_file(settings: &super::Settings) -> Result<String, toml::ser::Error> {
    let text = toml::to_string(settings)?;
    let (mut out, mut section) = (String::with_capacity(text.len()), "");
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        }
        let path = line.strip_suffix(" = []").map(|key| match section {
            "" => key.to_owned(),
            _ => format!("{section}.{key}"),
        });
        let is_of_tables = |path: String| {
            let written = format!("[[{path}]]");
            keys()
                .iter()
                .any(|k| k.path == path && k.meaning.contains(&written))
        };
        if !path.is_some_and(is_of_tables) {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

/// The reference as Markdown: `docs/CONFIGURATION.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         Posthaste reads one TOML file: the one named with `--config`, else `posthaste.toml` in the working \
         folder, else none: every key has a default, and the defaults serve on loopback. A key that it does not \
         know is refused, with its line and the nearest known key. `posthaste check` reads the file and says what \
         is wrong; `--set key=value` on the command line overrides a key for one run; `SIGHUP` reads the \
         certificate anew, everything else needs a restart.\n\n\
         Domains, accounts, aliases and passwords are not here: they live in the store and are changed while the \
         server runs, with `posthaste domain` and `posthaste account`.\n\n\
         This page is generated from the program: `posthaste settings > docs/CONFIGURATION.md`.\n",
    );
    let mut section = None;
    for k in keys() {
        let table = k.path.split_once('.').map_or("", |(table, _)| table);
        if section != Some(table) {
            section = Some(table);
            let title = if table.is_empty() {
                "At the top".to_owned()
            } else {
                format!("`[{table}]`")
            };
            let _ = write!(
                out,
                "\n## {title}\n\n| key | default | meaning |\n|---|---|---|\n"
            );
        }
        let name = k.path.split_once('.').map_or(k.path, |(_, name)| name);
        let default = k.default.map_or("not set".to_owned(), |d| format!("`{d}`"));
        let _ = writeln!(
            out,
            "| `{name}` | {default} | {} |",
            k.meaning.replace('|', "\\|")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use std::collections::BTreeMap;

    #[test]
    fn the_table_tells_the_defaults() {
        let mut real = BTreeMap::new();
        for (name, value) in toml::Table::try_from(Settings::default()).unwrap() {
            match value {
                toml::Value::Table(inner) => {
                    real.extend(
                        inner
                            .into_iter()
                            .map(|(k, v)| (format!("{name}.{k}"), v.to_string())),
                    );
                }
                other => {
                    real.insert(name, other.to_string());
                }
            }
        }
        let told: BTreeMap<_, _> = keys()
            .iter()
            .filter_map(|k| Some((k.path.to_owned(), k.default?.to_owned())))
            .collect();
        assert_eq!(told, real);
    }

    #[test]
    fn tables_can_be_put_behind_a_file_that_init_wrote() {
        let path = std::path::Path::new("x");
        let text = as_file(&Settings::default()).unwrap();
        assert!(Settings::parse(&text, path).unwrap() == Settings::default());
        let of_tables = keys()
            .into_iter()
            .filter(|k| k.meaning.contains(&format!("[[{}]]", k.path)));
        let mut count = 0;
        for k in of_tables {
            count += 1;
            let more = format!("{text}\n[[{}]]\nnothing = 1\n", k.path);
            let why = Settings::parse(&more, path).unwrap_err().to_string();
            assert!(
                !why.contains("duplicate") && why.contains("nothing"),
                "{}: {why}",
                k.path
            );
        }
        assert!(count >= 7, "{count}");
    }

    #[test]
    fn every_key_of_the_table_can_be_set() {
        for k in KEYS.iter().filter(|k| k.default.is_none()) {
            let both =
                "[tls]\ncertificate = \"a\"\nkey = \"b\"\n[deliver]\nextra_roots = \"c\"\nreplies = \"d\"\n";
            assert!(
                Settings::parse(both, std::path::Path::new("x")).is_ok(),
                "{}",
                k.path
            );
        }
    }

    #[test]
    fn the_page_is_what_the_program_prints() {
        let page = include_str!("../../../../docs/CONFIGURATION.md");
        assert!(
            page == markdown(),
            "docs/CONFIGURATION.md is stale: posthaste settings > docs/CONFIGURATION.md"
        );
    }
}
