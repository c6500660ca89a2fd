//! Reports about TLS that other servers send to the address that our domains name for them (RFC 8460):
//! read beside the ordinary way of the message, which goes to its mailbox all the same.
//!
//! Promises: a report counts only when a DKIM signature of its author's domain holds for all of it
//! (§3); reading never keeps a message out; an ordinary message costs a look at its recipients.

use crate::session::Session;
use crate::transaction::{Accepted, Target, Transaction};
use judge::Evidence;
use judge::dkim::{DkimResult, SignatureOutcome};
use mail::Domain;
use store::Batch;
use tlsrpt::{Kept, RUA_LOCAL_PART, Report};

/// Domains of ours that one report may be about.
const DOMAINS_MAX: usize = 10;

impl Session {
    /// What the message reports about domains of ours.
    pub(crate) async fn tls_reports(
        &self,
        transaction: &Transaction,
        message: &[u8],
        evidence: &Evidence,
    ) -> Vec<Kept> {
        let is_asked_for =
            self.ctx.options.read_tls_reports && transaction.recipients.iter().any(takes_reports);
        if !is_asked_for || !tlsrpt::message::says_it_is_one(message) {
            return Vec::new();
        }
        let id = transaction.id;
        let Some(signer) = signer(evidence) else {
            tracing::info!(%id, "a TLS report is not counted: no signature of its author's domain holds for it");
            return Vec::new();
        };
        match self.read_report(message.to_vec()).await {
            Ok(report) => self.about_us(transaction, &report, signer).await,
            Err(why) => {
                tracing::info!(%id, %signer, "a TLS report is not counted: {why}");
                Vec::new()
            }
        }
    }

    /// Reads it off the network threads: it may unpack to a few million octets.
    async fn read_report(&self, message: Vec<u8>) -> Result<Report, String> {
        // The semaphore is never closed; without a turn there is merely no bound.
        let _turn = self.ctx.cpu.acquire().await;
        let read = tokio::task::spawn_blocking(move || tlsrpt::read_message(&message)).await;
        match read {
            Ok(Some(Ok(report))) => Ok(report),
            Ok(Some(Err(why))) => Err(why.to_string()),
            Ok(None) => Err("it is none".to_owned()),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// What it says about each domain that is served here.
    async fn about_us(&self, transaction: &Transaction, report: &Report, signer: &Domain) -> Vec<Kept> {
        let parts = &self.ctx.parts;
        let mut domains: Vec<Domain> = Vec::new();
        for one in &report.policies {
            let Ok(domain) = Domain::parse(&one.policy.domain) else {
                continue;
            };
            if domains.len() < DOMAINS_MAX
                && !domains.contains(&domain)
                && matches!(parts.directory.domain(&domain).await, Ok(Some(_)))
            {
                domains.push(domain);
            }
        }
        let (id, now) = (transaction.id, parts.clock.now());
        if domains.is_empty() {
            tracing::info!(%id, %signer, "a TLS report is not counted: it is about no domain that is served here");
        }
        let kept = domains
            .iter()
            .filter_map(|domain| Kept::of(report, domain, signer.as_str(), id, now));
        kept.collect()
    }

    /// Adds them to the batch that accepts the message. What fails here does not keep the message out.
    pub(crate) async fn keep_tls_reports(&self, batch: &mut Batch, reports: &[Kept]) {
        for kept in reports {
            let (id, domain, signer) = (kept.message, &kept.domain, &kept.signed_by);
            match tlsrpt::add_received(self.ctx.parts.store.as_ref(), batch, kept).await {
                Ok(true) => {
                    let totals = kept.report.totals();
                    let (good, failed) = (totals.successful, totals.failed);
                    tracing::info!(%id, %domain, signer, good, failed, "a TLS report came");
                }
                Ok(false) => {
                    tracing::info!(%id, %domain, signer, "a TLS report is not counted: too many came today");
                }
                Err(error) => tracing::warn!(%id, %domain, %error, "a TLS report could not be kept"),
            }
        }
    }
}

/// Whether a recipient is the address here that reports are asked to.
fn takes_reports(recipient: &Accepted) -> bool {
    let local = recipient.address.local().as_str();
    recipient.target != Target::Remote && local.eq_ignore_ascii_case(RUA_LOCAL_PART)
}

/// Who vouches for the whole message and is its author too, or of the same organisation.
fn signer(evidence: &Evidence) -> Option<&Domain> {
    let author = evidence.dmarc.author_domain.as_ref()?;
    let is_related = |domain: &Domain| domain.is_at_or_below(author) || author.is_at_or_below(domain);
    let vouches = |one: &SignatureOutcome| {
        // RFC 8460 §3: no signature that leaves a part of the body out.
        one.result == DkimResult::Pass && !one.testing && one.unsigned_body_octets == 0
    };
    let passed = evidence.dkim.signatures.iter().filter(|one| vouches(one));
    let mut signers = passed.filter_map(|one| one.domain.as_ref());
    signers.find(|domain| is_related(domain))
}
