//! `posthaste dkim sign`: puts DKIM-Signature fields on the message on standard input.

use super::{Failure, auth, office, settings};
use crate::args::{Dkim, Global};
use crate::world::SystemClock;
use admin::{Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use judge::dkim::{Signer, SigningKey};
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
    } = order;
    let message = auth::message()?;
    let fields = match (key, selector, domain) {
        (Some(key), Some(selector), Some(domain)) => sign_with_file(key, selector, domain, &message)?,
        _ => sign_with_store(global, domain.clone(), &message)?,
    };
    if global.json {
        println!("{}", serde_json::json!({ "fields": fields }));
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    out.write_all(fields.as_bytes())?;
    out.write_all(&message)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
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
