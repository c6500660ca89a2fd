//! The sentence of each event. Pure.

use crate::{AttemptOutcome, Cause, Check, Event, MxHost, Reply, TlsUsed};
use mail::{EmailAddress, date};
use std::net::IpAddr;

/// An event in words.
pub(crate) struct Told {
    pub(crate) text: String,
    pub(crate) because: Vec<String>,
    pub(crate) remedy: Option<String>,
}

impl Told {
    fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            because: Vec::new(),
            remedy: None,
        }
    }

    fn with(mut self, because: Vec<String>, remedy: Option<&String>) -> Self {
        self.because = because;
        self.remedy = remedy.cloned();
        self
    }
}

/// Tells one event.
pub(crate) fn tell(event: &Event) -> Told {
    match event {
        Event::Received { .. } => received(event),
        Event::Judged {
            checks,
            disposition,
            rule,
            remedy,
        } => {
            let mut because: Vec<String> = checks.iter().map(check).collect();
            because.extend(rule_line(rule));
            Told::plain(format!("It was judged: {}.", judged(disposition))).with(because, remedy.as_ref())
        }
        Event::Refused {
            stage,
            subject,
            reply: said,
            rule,
            remedy,
        } => {
            let about = subject
                .as_ref()
                .map(|s| format!(" for <{s}>"))
                .unwrap_or_default();
            let mut because = vec![format!("we said: {}", reply(said))];
            because.extend(rule_line(rule));
            let verb = if said.code / 100 == 4 {
                "put off"
            } else {
                "refused"
            };
            Told::plain(format!("It was {verb} at {stage}{about}.")).with(because, remedy.as_ref())
        }
        Event::Filtered {
            filter,
            verdict,
            changes,
        } => Told::plain(format!("The filter {filter} saw it; its verdict: {verdict}."))
            .with(changes.iter().map(|c| format!("it {c}")).collect(), None),
        Event::Signed {
            domain,
            selector,
            algorithm,
        } => Told::plain(format!(
            "It was signed for {domain} with the key {selector} ({algorithm})."
        )),
        Event::Accepted { local, queued } => Told::plain(format!(
            "It was accepted and is on stable storage: {local} for mailboxes here, {queued} for other servers."
        )),
        Event::DeliveredLocal {
            recipient,
            mailbox_name,
            why,
            ..
        } => {
            let because = why.iter().map(|w| format!("because {w}")).collect();
            Told::plain(format!(
                "It was delivered to {recipient}, into {}.",
                or(mailbox_name, "a mailbox")
            ))
            .with(because, None)
        }
        other => underway(other),
    }
}

/// From the queue to the next server.
fn underway(event: &Event) -> Told {
    match event {
        Event::SentOn { by, to, message } => Told::plain(format!(
            "It was forwarded by {} to {}, as {message} (posthaste trace {message}).",
            addresses(by),
            addresses(to)
        )),
        Event::SentOnFrom {
            message,
            by,
            sender,
            reverse_path,
        } => {
            let because = match sender == reverse_path {
                true => Vec::new(),
                false => vec![format!(
                    "it came from {sender} and goes as {reverse_path}, so that bounces find the way back through here"
                )],
            };
            let told = format!(
                "It is {message}, forwarded by {} (posthaste trace {message}).",
                addresses(by)
            );
            Told::plain(told).with(because, None)
        }
        Event::Queued {
            recipient,
            next_attempt,
        } => Told::plain(format!(
            "For {recipient} it went into the queue; the first attempt is due {}.",
            date::iso8601(*next_attempt)
        )),
        Event::Asked { what } => Told::plain(format!("The sender asked: {}.", what.join("; "))),
        Event::Route { domain, hosts, why } => {
            let because = hosts.iter().map(mx_host).collect();
            let reason = if why.is_empty() {
                String::new()
            } else {
                format!(": {why}")
            };
            Told::plain(format!("The way to {domain} was looked up{reason}.")).with(because, None)
        }
        Event::Attempt { .. } => attempt(event),
        Event::Deferred {
            recipient,
            reply: said,
            next_attempt,
            expires,
            cause,
            remedy,
        } => {
            let mut because = vec![format!("the reason: {}", reply(said))];
            because.extend(meaning(cause.as_ref()));
            because.push(format!(
                "next attempt {}, given up {}",
                date::iso8601(*next_attempt),
                date::iso8601(*expires)
            ));
            Told::plain(format!("For {recipient} it waits and is tried again."))
                .with(because, remedy.as_ref())
        }
        Event::Relayed {
            recipient,
            host,
            reply: said,
        } => {
            let because = vec![format!("{host} said: {}", reply(said))];
            Told::plain(format!(
                "For {recipient} it was handed to {host}, which answers for it from now on."
            ))
            .with(because, None)
        }
        other => ended(other),
    }
}

fn ended(event: &Event) -> Told {
    match event {
        Event::Bounced {
            recipient,
            reply: said,
            cause,
            remedy,
        } => {
            let mut because = vec![format!("the reason: {}", reply(said))];
            because.extend(meaning(cause.as_ref()));
            Told::plain(format!("For {recipient} it failed for good.")).with(because, remedy.as_ref())
        }
        Event::Expired {
            recipient,
            attempts,
            reply: said,
            cause,
            remedy,
        } => {
            let mut because = vec![format!("the last reason: {}", reply(said))];
            because.extend(meaning(cause.as_ref()));
            let times = if *attempts == 1 { "attempt" } else { "attempts" };
            Told::plain(format!(
                "For {recipient} it was given up after {attempts} {times}."
            ))
            .with(because, remedy.as_ref())
        }
        Event::DsnSent { kind, to, report } => {
            let id = report.map(|id| format!(" ({id})")).unwrap_or_default();
            Told::plain(format!("The sender {to} was told of it: {kind}{id}."))
        }
        Event::Dropped { recipient, by } => {
            let whom = recipient
                .as_ref()
                .map(|r| format!(" for {r}"))
                .unwrap_or_default();
            Told::plain(format!("It was dropped{whom} by {by}; the sender was not told."))
        }
        Event::Retrieved {
            address,
            protocol,
            account,
        } => {
            let whom = address
                .as_ref()
                .map_or_else(|| format!("account {account}"), ToString::to_string);
            Told::plain(format!("{whom} fetched it over {}.", protocol.to_uppercase()))
        }
        Event::Suspended {
            recipients,
            what,
            by,
            until,
            why,
        } => {
            let until = until.map_or_else(|| "it is resumed".to_owned(), date::iso8601);
            let mut because = vec![format!("for {}", addresses(recipients))];
            because.extend(why.iter().map(|why| format!("the reason: {why}")));
            let told = format!("It waits untried: {what} is suspended by {by} until {until}.");
            Told::plain(told).with(because, None)
        }
        Event::OperatorAction {
            by,
            action,
            recipients,
        } => {
            let because = match recipients.is_empty() {
                true => Vec::new(),
                false => vec![format!("for {}", addresses(recipients))],
            };
            Told::plain(format!("An order of {by}: {action}.")).with(because, None)
        }
        _ => Told::plain("Something happened that this version has no words for."),
    }
}

fn received(event: &Event) -> Told {
    let Event::Received {
        service,
        peer_ip,
        peer_name,
        helo,
        tls,
        login,
        reverse_path,
        recipients,
        size,
        message_id,
    } = event
    else {
        return Told::plain("It was received.");
    };
    // A client that was turned away before MAIL named no sender.
    let sent_by = reverse_path
        .as_ref()
        .map(|from| format!(", sent by {from}"))
        .unwrap_or_default();
    let text = format!(
        "It came in by {service} from {}{sent_by}.",
        peer(*peer_ip, peer_name.as_ref())
    );
    let mut because = Vec::new();
    if !helo.is_empty() {
        because.push(format!("it called itself \"{helo}\""));
    }
    if peer_ip.is_some() {
        because.push(tls.as_ref().map_or_else(|| "without TLS".to_owned(), tls_words));
    }
    because.extend(login.iter().map(|l| format!("logged in as {l}")));
    if !recipients.is_empty() {
        because.push(format!("to {}", addresses(recipients)));
    }
    if *size > 0 {
        because.push(format!("{size} octets"));
    }
    because.extend(message_id.iter().map(|m| format!("Message-ID <{m}>")));
    Told::plain(text).with(because, None)
}

fn attempt(event: &Event) -> Told {
    let Event::Attempt {
        recipients,
        host,
        ip,
        port,
        source,
        helo,
        tls,
        outcome,
    } = event
    else {
        return Told::plain("It was attempted.");
    };
    let place = match ip {
        Some(ip) if *port > 0 => format!("{host} at {ip}, port {port}"),
        Some(ip) => format!("{host} at {ip}"),
        None => host.clone(),
    };
    let how = match outcome {
        AttemptOutcome::Accepted { .. } => "it was accepted",
        AttemptOutcome::Refused { .. } => "it was refused",
        AttemptOutcome::Failed { .. } => "the conversation failed",
        AttemptOutcome::Unknown => "the outcome is not known",
    };
    let mut because = Vec::new();
    if !recipients.is_empty() {
        because.push(format!("for {}", addresses(recipients)));
    }
    if let Some(source) = source {
        let helo = helo.as_ref().map(|helo| format!(", EHLO {helo}"));
        because.push(format!("from {source}{}", helo.unwrap_or_default()));
    }
    because.extend(tls.as_ref().map(tls_words));
    match outcome {
        AttemptOutcome::Accepted { reply: said } => because.push(format!("it said: {}", reply(said))),
        AttemptOutcome::Refused { stage, reply: said } => {
            because.push(format!("at {stage} it said: {}", reply(said)));
        }
        AttemptOutcome::Failed { stage, error } => because.push(format!("at {stage}: {error}")),
        AttemptOutcome::Unknown => {}
    }
    Told::plain(format!("Delivery to {place} was attempted: {how}.")).with(because, None)
}

fn rule_line(rule: &str) -> Option<String> {
    (!rule.is_empty()).then(|| format!("the rule that decided: {rule}"))
}

fn meaning(cause: Option<&Cause>) -> Option<String> {
    let cause = cause?;
    Some(format!(
        "it means ({}): {} The move is that of {}.",
        cause.class, cause.problem, cause.side
    ))
}

fn check(check: &Check) -> String {
    if check.because.is_empty() {
        return format!("{}: {}", check.name, check.result);
    }
    format!("{}: {}, because {}", check.name, check.result, check.because)
}

fn judged(disposition: &str) -> String {
    match disposition {
        "accept" => "accepted".to_owned(),
        "junk" => "for the Junk mailbox".to_owned(),
        "refuse" => "refused".to_owned(),
        "defer" => "not decidable now; the sender is asked to try again".to_owned(),
        code if code.starts_with('4') => format!("not now ({code})"),
        code => format!("refused ({code})"),
    }
}

fn mx_host(host: &MxHost) -> String {
    let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
    let at = if addresses.is_empty() {
        String::new()
    } else {
        format!(" at {}", addresses.join(", "))
    };
    format!("{} (preference {}){at}", host.host, host.preference)
}

fn peer(ip: Option<IpAddr>, name: Option<&String>) -> String {
    match (ip, name) {
        (Some(ip), Some(name)) => format!("{name} ({ip})"),
        (Some(ip), None) => ip.to_string(),
        (None, Some(name)) => name.clone(),
        (None, None) => "this machine".to_owned(),
    }
}

fn tls_words(tls: &TlsUsed) -> String {
    let cipher = if tls.cipher.is_empty() {
        String::new()
    } else {
        format!(" with {}", tls.cipher)
    };
    let verified = tls
        .verified
        .as_ref()
        .map(|v| format!(", verified by {v}"))
        .unwrap_or_default();
    let resumed = if tls.resumed { ", session resumed" } else { "" };
    format!("over {}{cipher}{verified}{resumed}", tls.version)
}

fn reply(said: &Reply) -> String {
    // What another server said is kept in its own words, which begin with the status.
    let status = said
        .status
        .map(|s| format!("{s} "))
        .filter(|s| !said.text.starts_with(s.as_str()));
    let status = status.unwrap_or_default();
    match said.code {
        0 => format!("{status}{}", said.text),
        code => format!("{code} {status}{}", said.text),
    }
}

fn addresses(list: &[EmailAddress]) -> String {
    const SHOWN_MAX: usize = 10;
    let mut shown: Vec<String> = list.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if list.len() > SHOWN_MAX {
        shown.push(format!("and {} more", list.len() - SHOWN_MAX));
    }
    shown.join(", ")
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}
