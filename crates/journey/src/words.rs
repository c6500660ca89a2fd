//! The sentence of each event, and of the whole. Pure.
//!
//! What strangers wrote (names, replies) is shown without control characters, so that it cannot
//! paint on an operator's terminal.

use crate::tell::Step;
use crate::{AttemptOutcome, Check, Event, MxHost, Record, Reply, TlsUsed};
use mail::{EmailAddress, ReversePath, Timestamp, date};
use std::net::IpAddr;

/// Recipients that a sentence names before it only counts.
const NAMED_MAX: usize = 3;

/// Sentence, reasons, remedy.
type Words = (String, Vec<String>, Option<String>);

pub(crate) fn step_of(record: &Record) -> Step {
    let (text, because, remedy) = words(&record.event);
    Step {
        at: record.at,
        text: printable(&text),
        because: because.iter().map(|b| printable(b)).collect(),
        remedy: remedy.as_deref().map(printable),
        event: record.event.clone(),
    }
}

fn words(event: &Event) -> Words {
    let only = |text: String| (text, Vec::new(), None);
    match event {
        Event::Received { .. } => received(event),
        Event::Judged {
            checks,
            disposition,
            rule,
            remedy,
        } => judged(checks, disposition, rule, remedy.as_deref()),
        Event::Refused {
            stage,
            subject,
            reply,
            rule,
            remedy,
        } => {
            let subject = subject.as_ref().map(|s| format!(" {s}")).unwrap_or_default();
            let verb = if reply.code / 100 == 4 {
                "put off"
            } else {
                "refused"
            };
            let text = format!("We {verb}{subject} at {stage} with {}.", said(reply));
            (text, rule_line(rule), remedy.clone())
        }
        Event::Signed {
            domain,
            selector,
            algorithm,
        } => only(format!(
            "Signed with DKIM for {domain}, selector {selector}{}.",
            in_brackets(algorithm)
        )),
        Event::Accepted { local, queued } => only(accepted(*local, *queued)),
        Event::DeliveredLocal {
            recipient,
            mailbox_name,
            why,
            ..
        } => {
            let mailbox = or(mailbox_name, "a mailbox");
            let text = format!("Delivered to {recipient}, into {mailbox}.");
            (text, why.iter().cloned().collect(), None)
        }
        Event::Queued {
            recipient,
            next_attempt,
        } => only(format!("Queued for {recipient}, due {}.", time(*next_attempt))),
        Event::Route { domain, hosts, why } => route(domain, hosts, why),
        Event::Attempt { .. } => attempt(event),
        Event::Deferred { .. } | Event::Bounced { .. } | Event::Expired { .. } => unsuccessful(event),
        Event::Relayed {
            recipient,
            host,
            reply,
        } => only(format!(
            "{host} took the message for {recipient} with {}; it is that server's now.",
            said(reply)
        )),
        Event::DsnSent { kind, to, report } => {
            let report = report.map(|id| format!(" in message {id}")).unwrap_or_default();
            only(format!("Told the sender {to}{report}: {}.", kind_in_words(kind)))
        }
        Event::Dropped { recipient, by } => {
            let whom = recipient
                .as_ref()
                .map(|r| format!(" for {r}"))
                .unwrap_or_default();
            only(format!("Dropped{whom} by {by}; nobody was told."))
        }
        Event::Retrieved {
            account,
            address,
            protocol,
        } => {
            let who = address
                .as_ref()
                .map_or_else(|| format!("account {account}"), ToString::to_string);
            only(format!(
                "Fetched by {who} over {}.",
                protocol.to_ascii_uppercase()
            ))
        }
        Event::OperatorAction { by, action } => only(format!("{by} {action}.")),
        Event::Unknown => only("A step that this version does not know.".to_owned()),
    }
}

fn received(event: &Event) -> Words {
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
        return (String::new(), Vec::new(), None);
    };
    let mut text = match peer_ip {
        Some(ip) => format!("{} connected to {service}", peer(*ip, peer_name.as_deref(), helo)),
        None => format!("Made here ({service})"),
    };
    if let Some(login) = login {
        text += &format!(", logged in as {login}");
    }
    if let Some(path) = reverse_path {
        let from = match path {
            ReversePath::Null => "the null sender <>".to_owned(),
            ReversePath::Address(a) => a.to_string(),
        };
        text += &format!(", with a message from {from}");
        if !recipients.is_empty() {
            text += &format!(" to {}", named(recipients));
        }
    }
    if *size > 0 {
        text += &format!(" of {size} octets");
    }
    text.push('.');
    let mut because = Vec::new();
    if peer_ip.is_some() {
        because.push(tls_line(tls.as_ref()));
    }
    if let Some(id) = message_id {
        because.push(format!("its Message-ID is <{id}>"));
    }
    (text, because, None)
}

fn peer(ip: IpAddr, name: Option<&str>, helo: &str) -> String {
    let base = match name {
        Some(name) => format!("{name} [{ip}]"),
        None => format!("[{ip}] (no verified name)"),
    };
    match helo {
        "" => base,
        helo if Some(helo) == name => base,
        helo => format!("{base}, calling itself {helo},"),
    }
}

fn judged(checks: &[Check], disposition: &str, rule: &str, remedy: Option<&str>) -> Words {
    let text = match disposition {
        "accept" => "Judged: accepted.".to_owned(),
        "junk" => "Judged: goes to Junk.".to_owned(),
        "refuse" => "Judged: refused.".to_owned(),
        "defer" => "Judged: cannot be decided now; the sender is to try again.".to_owned(),
        other => format!("Judged: {other}."),
    };
    let mut because: Vec<String> = checks
        .iter()
        .map(|c| match c.because.as_str() {
            "" => format!("{} {}", c.name.to_ascii_uppercase(), c.result),
            why => format!("{} {}: {why}", c.name.to_ascii_uppercase(), c.result),
        })
        .collect();
    because.extend(rule_line(rule));
    (text, because, remedy.map(str::to_owned))
}

fn accepted(local: u32, queued: u32) -> String {
    let places = match (local, queued) {
        (0, 0) => return "Accepted.".to_owned(),
        (l, 0) => count(l, "mailbox", "mailboxes") + " here",
        (0, q) => count(q, "recipient", "recipients") + " elsewhere",
        (l, q) => format!(
            "{} here and {} elsewhere",
            count(l, "mailbox", "mailboxes"),
            count(q, "recipient", "recipients")
        ),
    };
    format!("Accepted for {places}: on stable storage before we answered 250.")
}

fn route(domain: &str, hosts: &[MxHost], why: &str) -> Words {
    if hosts.is_empty() {
        let text = format!("No server was found that takes mail for {domain}.");
        return (text, reason(why), None);
    }
    let list: Vec<String> = hosts
        .iter()
        .map(|h| {
            let addresses: Vec<String> = h.addresses.iter().map(ToString::to_string).collect();
            let addresses = match addresses.is_empty() {
                true => "no address".to_owned(),
                false => addresses.join(", "),
            };
            format!("{} (preference {}; {addresses})", h.host, h.preference)
        })
        .collect();
    let text = format!("Mail for {domain} goes to {}.", list.join(", then "));
    (text, reason(why), None)
}

fn attempt(event: &Event) -> Words {
    let Event::Attempt {
        recipients,
        host,
        ip,
        port,
        tls,
        outcome,
    } = event
    else {
        return (String::new(), Vec::new(), None);
    };
    let whom = match recipients.is_empty() {
        true => String::new(),
        false => format!(" for {}", named(recipients)),
    };
    let server = match ip {
        Some(IpAddr::V6(ip)) => format!("{host} [{ip}]:{port}"),
        Some(ip) => format!("{host} {ip}:{port}"),
        None => host.clone(),
    };
    let (result, because) = match outcome {
        AttemptOutcome::Accepted { reply } => (
            format!("it took the message with {}", said(reply)),
            vec![tls_line(tls.as_ref())],
        ),
        AttemptOutcome::Refused { stage, reply } => {
            let verb = if reply.code / 100 == 4 { "not now" } else { "no" };
            let because = if stage == "connect" {
                Vec::new()
            } else {
                vec![tls_line(tls.as_ref())]
            };
            (format!("it said {verb} at {stage}: {}", said(reply)), because)
        }
        AttemptOutcome::Failed { stage, error } => (format!("it failed at {stage}: {error}"), Vec::new()),
        AttemptOutcome::Unknown => (
            "with an outcome that this version does not know".to_owned(),
            Vec::new(),
        ),
    };
    (format!("Tried {server}{whom}: {result}."), because, None)
}

fn unsuccessful(event: &Event) -> Words {
    match event {
        Event::Deferred {
            recipient,
            reply,
            next_attempt,
            expires,
            remedy,
        } => (
            format!(
                "Not delivered to {recipient} yet; next attempt {}, giving up {}.",
                time(*next_attempt),
                time(*expires)
            ),
            vec![said(reply)],
            remedy.clone(),
        ),
        Event::Bounced {
            recipient,
            reply,
            remedy,
        } => (
            format!("Not deliverable to {recipient}; no further attempt is made."),
            vec![said(reply)],
            remedy.clone(),
        ),
        Event::Expired {
            recipient,
            attempts,
            reply,
            remedy,
        } => (
            format!(
                "Gave up on {recipient} after {}; its time was over.",
                count(*attempts, "attempt", "attempts")
            ),
            vec![format!("the last time: {}", said(reply))],
            remedy.clone(),
        ),
        _ => (String::new(), Vec::new(), None),
    }
}

/// How the message stands, from the last thing known of each recipient.
pub(crate) fn summary_of(records: &[Record]) -> String {
    let mut ends: Vec<(EmailAddress, String)> = Vec::new();
    let mut whole = None;
    for record in records {
        let (recipient, state) = match &record.event {
            Event::Queued { recipient, .. } => (recipient, "waiting in the queue".to_owned()),
            Event::Deferred {
                recipient,
                next_attempt,
                ..
            } => (
                recipient,
                format!("waiting for the next attempt {}", time(*next_attempt)),
            ),
            Event::DeliveredLocal {
                recipient,
                mailbox_name,
                ..
            } => (recipient, format!("in {}", or(mailbox_name, "the mailbox"))),
            Event::Relayed { recipient, host, .. } => (recipient, format!("handed to {host}")),
            Event::Bounced { recipient, .. } => (recipient, "undeliverable".to_owned()),
            Event::Expired { recipient, .. } => (recipient, "given up".to_owned()),
            Event::Dropped {
                recipient: Some(recipient),
                by,
            } => (recipient, format!("dropped by {by}")),
            Event::Dropped { recipient: None, by } => {
                whole = Some(format!("Dropped by {by}."));
                continue;
            }
            Event::Refused { stage, reply, .. } => {
                whole = Some(format!("Refused at {stage} with {}.", said(reply)));
                continue;
            }
            _ => continue,
        };
        match ends.iter_mut().find(|(r, _)| r == recipient) {
            Some((_, old)) => *old = state,
            None => ends.push((recipient.clone(), state)),
        }
    }
    // One recipient may be refused while the message goes on for the others.
    let summary = match (ends.as_slice(), whole) {
        ([], Some(whole)) => whole,
        ([], None) if records.is_empty() => "Nothing is known of this message.".to_owned(),
        ([], None) => "Its end is not recorded.".to_owned(),
        ([(recipient, state)], _) => format!("{recipient}: {state}."),
        (several, _) => {
            let named: Vec<String> = several
                .iter()
                .take(NAMED_MAX)
                .map(|(r, s)| format!("{r}: {s}"))
                .collect();
            let more = several.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 {
                format!("; and {more} more")
            } else {
                String::new()
            };
            format!("{}{more}.", named.join("; "))
        }
    };
    printable(&summary)
}

fn said(reply: &Reply) -> String {
    let text = reply.text.trim();
    match (reply.code, reply.status) {
        (0, None) => or(text, "no reply").to_owned(),
        (0, Some(status)) => format!("{status} {text}").trim_end().to_owned(),
        (code, None) => format!("\"{}\"", format!("{code} {text}").trim_end()),
        (code, Some(status)) => format!("\"{}\"", format!("{code} {status} {text}").trim_end()),
    }
}

fn tls_line(tls: Option<&TlsUsed>) -> String {
    match tls {
        None => "the connection was not encrypted".to_owned(),
        Some(tls) => {
            let verified = match &tls.verified {
                Some(by) => format!(", certificate verified by {by}"),
                None => String::new(),
            };
            format!(
                "encrypted with {}{}{verified}",
                tls.version,
                in_brackets(&tls.cipher)
            )
        }
    }
}

fn named(recipients: &[EmailAddress]) -> String {
    let shown: Vec<String> = recipients
        .iter()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    match recipients.len().saturating_sub(NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn kind_in_words(kind: &str) -> &str {
    match kind {
        "failed" => "it could not be delivered",
        "delayed" => "it is delayed",
        "delivered" => "it was delivered",
        "relayed" => "it was relayed to a server that sends no reports",
        other => other,
    }
}

fn rule_line(rule: &str) -> Vec<String> {
    match rule {
        "" => Vec::new(),
        rule => vec![format!("rule: {rule}")],
    }
}

fn reason(why: &str) -> Vec<String> {
    match why {
        "" => Vec::new(),
        why => vec![why.to_owned()],
    }
}

fn in_brackets(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!(" ({text})"),
    }
}

fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

fn count(n: u32, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn time(at: Timestamp) -> String {
    date::iso8601(at)
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
