//! `posthaste auth …`: the judgement that the server would make, step by step, on the command line.
//!
//! Exit code 0 means pass; 1 means anything else, which is then said.

use super::out::outln;
use super::{Failure, settings};
use crate::args::{Auth, DnsServer, Global};
use crate::world;
use judge::{arc, dkim, dmarc, spf};
use mail::{Clock as _, EmailAddress, ReversePath};
use serde::Serialize;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

/// Octets of a message on standard input at most.
const MESSAGE_OCTETS_MAX: u64 = 256 * 1024 * 1024;

pub fn run(global: &Global, question: &Auth) -> Result<ExitCode, Failure> {
    let settings = settings(global)?;
    let server = match question {
        Auth::Spf { server, .. }
        | Auth::Dkim { server }
        | Auth::Dmarc { server, .. }
        | Auth::Arc { server } => server,
    };
    let receiver = settings.hostname.clone();
    let json = global.json;
    world::block_on(async {
        let resolver = resolver(&settings, server)?;
        let now = world::SystemClock.now();
        match question {
            Auth::Spf {
                ip, helo, mail_from, ..
            } => {
                let query = spf::SpfQuery {
                    ip: *ip,
                    helo,
                    mail_from,
                    receiver: &receiver,
                    now,
                };
                let outcome = spf::check(&resolver, &query).await;
                report(
                    json,
                    &outcome,
                    outcome.result == spf::SpfResult::Pass,
                    outcome.explain(),
                )
            }
            Auth::Dkim { .. } => {
                let outcome = dkim::verify(&resolver, &message()?, now).await;
                report(
                    json,
                    &outcome,
                    outcome.result() == dkim::DkimResult::Pass,
                    outcome.explain(),
                )
            }
            Auth::Arc { .. } => {
                let outcome = arc::verify(&resolver, &message()?, now).await;
                report(
                    json,
                    &outcome,
                    outcome.result == arc::ArcResult::Pass,
                    outcome.explain(),
                )
            }
            Auth::Dmarc {
                ip, helo, mail_from, ..
            } => {
                let message = message()?;
                let reverse_path = reverse_path(mail_from)?;
                let inputs = judge::Inputs {
                    ip: ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                    helo,
                    reverse_path: &reverse_path,
                    message: &message,
                    receiver: &receiver,
                    now,
                    connection: None,
                    dnsbl_zones: &[],
                };
                let evidence = judge::gather(&resolver, &inputs).await;
                let pass = evidence.dmarc.result == dmarc::DmarcResult::Pass;
                report(json, &evidence, pass, evidence.explain())
            }
        }
    })
}

/// The resolver that the command line or the settings name.
pub fn resolver(
    settings: &crate::settings::Settings,
    server: &DnsServer,
) -> Result<dns::hickory::HickoryResolver, Failure> {
    let servers = if server.dns.is_empty() {
        &settings.dns.servers
    } else {
        &server.dns
    };
    world::resolver(servers, settings)
}

fn reverse_path(text: &str) -> Result<ReversePath, Failure> {
    match text.trim_start_matches('<').trim_end_matches('>') {
        "" => Ok(ReversePath::Null),
        address => EmailAddress::parse(address)
            .map(ReversePath::Address)
            .map_err(|e| Failure::Usage(format!("--mail-from {address}: {e}"))),
    }
}

/// The message on standard input, its line endings made CRLF when a tool has stripped them.
pub fn message() -> Result<Vec<u8>, Failure> {
    let mut raw = Vec::new();
    std::io::stdin()
        .lock()
        .take(MESSAGE_OCTETS_MAX)
        .read_to_end(&mut raw)?;
    Ok(with_crlf(raw))
}

/// A file that knows no CRLF at all is a message in local form; anything else is taken as it is.
fn with_crlf(raw: Vec<u8>) -> Vec<u8> {
    if raw.contains(&b'\r') {
        return raw;
    }
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32);
    for byte in raw {
        if byte == b'\n' {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

fn report(json: bool, outcome: &impl Serialize, pass: bool, lines: Vec<String>) -> Result<ExitCode, Failure> {
    if json {
        outln!(
            "{}",
            serde_json::to_string_pretty(outcome).map_err(|e| Failure::store(e.to_string()))?
        );
    } else {
        lines.iter().for_each(|line| outln!("{line}"));
    }
    Ok(if pass {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

#[cfg(test)]
mod tests {
    use super::with_crlf;

    #[test]
    fn local_form_becomes_wire_form_and_wire_form_stays() {
        assert_eq!(with_crlf(b"A: b\n\nc\n".to_vec()), b"A: b\r\n\r\nc\r\n");
        assert_eq!(
            with_crlf(b"A: b\r\n\r\nc\nd\r\n".to_vec()),
            b"A: b\r\n\r\nc\nd\r\n"
        );
    }
}
