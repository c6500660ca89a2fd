//! Signing submitted messages with the keys of the author's domain.

use crate::Context;
use directory::SigningKey as StoredKey;
use journey::Event;
use judge::dkim::{Signer, SigningKey};
use mail::{Domain, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Domains whose keys are kept ready at most.
const DOMAINS_MAX: usize = 1_000;

/// What signing brought: the fields to put on top, and their part of the journey.
#[derive(Default)]
pub(crate) struct Signed {
    pub(crate) fields: String,
    pub(crate) events: Vec<Event>,
}

/// The keys of domains, read once.
#[derive(Default)]
pub(crate) struct Signers {
    ready: Mutex<HashMap<Domain, Ready>>,
}

/// A domain's signers, and the stored keys that they were made of.
#[derive(Clone)]
struct Ready {
    stored: Vec<StoredKey>,
    signers: Arc<Vec<Signer>>,
}

impl Signers {
    fn of(&self, domain: &Domain, stored: Vec<StoredKey>) -> Arc<Vec<Signer>> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = ready.get(domain)
            && known.stored == stored
        {
            return known.signers.clone();
        }
        if ready.len() >= DOMAINS_MAX {
            ready.clear();
        }
        let signers = Arc::new(
            stored
                .iter()
                .filter_map(|key| signer(domain, key))
                .collect::<Vec<_>>(),
        );
        ready.insert(
            domain.clone(),
            Ready {
                stored,
                signers: signers.clone(),
            },
        );
        signers
    }
}

/// A key that cannot be used is told in the log; the message goes out with the other signatures.
fn signer(domain: &Domain, stored: &StoredKey) -> Option<Signer> {
    let made = SigningKey::from_pem(&stored.pkcs8_pem)
        .map_err(|e| e.to_string())
        .and_then(|key| {
            Signer::new(domain.clone(), &stored.selector, Arc::new(key)).map_err(|e| e.to_string())
        });
    made.inspect_err(
        |error| tracing::error!(%domain, selector = stored.selector, error, "a DKIM key is unusable"),
    )
    .ok()
}

impl Context {
    /// Signs a message for a domain with each of its keys, off the network threads.
    pub(crate) async fn sign(
        &self,
        domain: &Domain,
        message: Vec<u8>,
        now: Timestamp,
    ) -> Result<(Vec<u8>, Signed), directory::Error> {
        let stored = self
            .parts
            .directory
            .domain(domain)
            .await?
            .map(|d| d.signing_keys)
            .unwrap_or_default();
        let signers = self.signers.of(domain, stored);
        if signers.is_empty() {
            return Ok((message, Signed::default()));
        }
        // The semaphore is never closed; without a turn there is merely no bound.
        let _turn = self.cpu.acquire().await;
        let work = move || {
            let mut signed = Signed::default();
            for signer in signers.iter() {
                sign_with(signer, &message, now, &mut signed);
            }
            (message, signed)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => Ok(done),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

fn sign_with(signer: &Signer, message: &[u8], now: Timestamp, signed: &mut Signed) {
    match signer.sign(message, now) {
        Ok(field) => {
            signed.fields.push_str(&field);
            signed.events.push(Event::Signed {
                domain: signer.domain().to_string(),
                selector: signer.selector().to_owned(),
                algorithm: signer.algorithm().to_owned(),
            });
        }
        Err(error) => tracing::error!(%error, domain = %signer.domain(), "a message could not be signed"),
    }
}
