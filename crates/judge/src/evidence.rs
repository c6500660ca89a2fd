//! Gathering evidence: every question about a message asked once, side by side.
//!
//! Promises: whatever the DNS or the message does, there is evidence at the end; trouble is in the
//! outcomes, as temporary errors. Never: a decision; that is [`crate::judgement`]. There is no
//! clock here: who calls sets a limit on the whole (RFC 7208 §4.6.4 asks for at least 20 seconds).

use crate::arc::{self, ArcOutcome};
use crate::dkim::{self, DkimOutcome, DkimResult, SignatureOutcome};
use crate::dmarc::{self, DmarcOutcome};
use crate::dnsbl::{self, DnsblOutcome};
use crate::iprev::{self, IprevOutcome};
use crate::spf::{self, SpfOutcome, SpfQuery, SpfResult};
use dns::Resolver;
use futures_util::future::{join, join_all, join3};
use mail::{Domain, ReversePath, Timestamp};
use std::net::IpAddr;

/// What is known of a transaction when its message has come in.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The client's address.
    pub ip: IpAddr,
    /// The name that the client gave in HELO or EHLO.
    pub helo: &'a str,
    /// The reverse-path of the envelope.
    pub reverse_path: &'a ReversePath,
    /// The message as it came: CRLF line endings, no dot-stuffing, our own trace fields or none.
    pub message: &'a [u8],
    /// Our own host name.
    pub receiver: &'a str,
    /// The time now.
    pub now: Timestamp,
    /// What was found when the client connected; `None` asks now.
    pub connection: Option<&'a ConnectionEvidence>,
    /// The blocklists to ask when `connection` is `None`.
    pub dnsbl_zones: &'a [Domain],
}

/// What can be known before the client says a word.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct ConnectionEvidence {
    /// The names of the client's address.
    pub iprev: IprevOutcome,
    /// What each blocklist says of it.
    pub dnsbl: Vec<DnsblOutcome>,
}

/// All that was found out about a message.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Evidence {
    /// The client's address.
    pub ip: IpAddr,
    /// The HELO name.
    pub helo: String,
    /// The reverse-path.
    pub reverse_path: ReversePath,
    /// What was found when the client connected.
    pub connection: ConnectionEvidence,
    /// Sender Policy Framework.
    pub spf: SpfOutcome,
    /// DKIM signatures.
    pub dkim: DkimOutcome,
    /// DMARC, from both.
    pub dmarc: DmarcOutcome,
    /// The ARC chain.
    pub arc: ArcOutcome,
}

/// Asks what can be asked of the client's address alone.
pub async fn gather_connection(resolver: &dyn Resolver, ip: IpAddr, zones: &[Domain]) -> ConnectionEvidence {
    let lists = join_all(zones.iter().map(|zone| dnsbl::check(resolver, zone, ip)));
    let (iprev, dnsbl) = join(iprev::check(resolver, ip), lists).await;
    ConnectionEvidence { iprev, dnsbl }
}

/// Asks everything about a message.
pub async fn gather(resolver: &dyn Resolver, inputs: &Inputs<'_>) -> Evidence {
    let connection = async {
        match inputs.connection {
            Some(known) => known.clone(),
            None => gather_connection(resolver, inputs.ip, inputs.dnsbl_zones).await,
        }
    };
    let signatures = join(
        dkim::verify(resolver, inputs.message, inputs.now),
        arc::verify(resolver, inputs.message, inputs.now),
    );
    let (connection, spf, (dkim, arc)) = join3(connection, check_spf(resolver, inputs), signatures).await;
    let author = dmarc::author_domain(inputs.message);
    let dmarc = dmarc::evaluate(resolver, &author, &spf, &dkim).await;
    Evidence {
        ip: inputs.ip.to_canonical(),
        helo: inputs.helo.to_owned(),
        reverse_path: inputs.reverse_path.clone(),
        connection,
        spf,
        dkim,
        dmarc,
        arc,
    }
}

async fn check_spf(resolver: &dyn Resolver, inputs: &Inputs<'_>) -> SpfOutcome {
    let mail_from = spf::mail_from_text(inputs.reverse_path);
    let query = SpfQuery {
        ip: inputs.ip,
        helo: inputs.helo,
        mail_from: &mail_from,
        receiver: inputs.receiver,
        now: inputs.now,
    };
    spf::check(resolver, &query).await
}

impl Evidence {
    /// Whether the reverse-path is most likely somebody else's: its domain says by SPF that this client
    /// does not send for it, and no good signature is by that domain. A report would then reach somebody
    /// who has nothing to do with the message (RFC 5321 §6.2, RFC 7208 §2.4).
    #[must_use]
    pub fn denies_reverse_path(&self) -> bool {
        let Some(domain) = self.reverse_path.address().and_then(|address| address.domain()) else {
            return false;
        };
        let signs = |signature: &SignatureOutcome| {
            let signer = signature.domain.as_ref();
            signature.result == DkimResult::Pass
                && signer.is_some_and(|signer| domain.is_at_or_below(signer) || signer.is_at_or_below(domain))
        };
        matches!(self.spf.result, SpfResult::Fail | SpfResult::SoftFail)
            && !self.dkim.signatures.iter().any(signs)
    }

    /// Everything that was found, in lines for people.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "iprev: {}: {}",
            self.connection.iprev.result, self.connection.iprev.because
        )];
        for list in &self.connection.dnsbl {
            lines.push(format!("blocklist: {}", list.because));
        }
        lines.extend(self.spf.explain());
        lines.extend(self.dkim.explain());
        lines.extend(self.dmarc.explain());
        lines.extend(self.arc.explain());
        lines
    }
}
