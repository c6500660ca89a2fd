//! `posthaste dkim sign`: puts DKIM-Signature fields on the message on standard input, and on demand
//! verifies them against the keys that are published.
//!
//! Exit code 1 when that verification does not pass.

use super::out::outln;
use super::{Failure, auth, office, settings};
use crate::args::{Dkim, DnsServer, Global};
use crate::world::{self, SystemClock};
use admin::{Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use judge::dkim::{DkimOutcome, DkimResult, Signer, SigningKey};
use mail::{Clock as _, Domain};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

pub fn run(global: &Global, order: &Dkim) -> Result<ExitCode, Failure> {
    let Dkim::Sign {
        key,
        selector,
        domain,
        server,
    } = order;
    let message = auth::message()?;
    let fields = match (key, selector, domain) {
        (Some(key), Some(selector), Some(domain)) => sign_with_file(key, selector, domain, &message)?,
        _ => sign_with_store(global, domain.clone(), &message)?,
    };
    let signed = [fields.as_bytes(), &message].concat();
    let verified = match server.dns.is_empty() {
        true => None,
        false => Some(verify(global, server, &signed)?),
    };
    if global.json {
        outln!(
            "{}",
            serde_json::json!({ "fields": fields, "verified": verified })
        );
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(&signed)?;
        out.flush()?;
        verified
            .iter()
            .flat_map(DkimOutcome::explain)
            .for_each(|line| eprintln!("{line}"));
    }
    let good = verified.is_none_or(|v| v.result() == DkimResult::Pass);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn verify(global: &Global, server: &DnsServer, signed: &[u8]) -> Result<DkimOutcome, Failure> {
    let settings = settings(global)?;
    world::block_on(async {
        let resolver = auth::resolver(&settings, server)?;
        Ok(judge::dkim::verify(&resolver, signed, SystemClock.now()).await)
    })
}

fn sign_with_file(path: &Path, selector: &str, domain: &Domain, message: &[u8]) -> Result<String, Failure> {
    let said = |what: String| Failure::No(format!("{}: {what}", path.display()));
    let pem = std::fs::read_to_string(path).map_err(|e| said(e.to_string()))?;
    let key = SigningKey::from_pem(&pem).map_err(|e| said(e.to_string()))?;
    let signer =
        Signer::new(domain.clone(), selector, Arc::new(key)).map_err(|e| Failure::Usage(e.to_string()))?;
    signer
        .sign(message, SystemClock.now())
        .map_err(|e| Failure::No(e.to_string()))
}

fn sign_with_store(global: &Global, domain: Option<Domain>, message: &[u8]) -> Result<String, Failure> {
    let request = Request::Sign {
        message: STANDARD.encode(message),
        domain,
    };
    match office::perform(&settings(global)?, request)? {
        Response::Signatures(fields) => Ok(fields),
        _ => Err(Failure::store("the answer is not about signatures")),
    }
}
