//! MTA-STS on the way to a domain (RFC 8461 §5): its policy is looked up, and what it says of the plan's
//! servers becomes evidence for [`crate::security`], which decides.
//!
//! Promises: a policy that was fetched is never passed over because something failed: where the store
//! cannot say whether there is one, mail waits. Never: for a route or an address literal, whose security
//! the operator or the sender has chosen.

use crate::failure::{Failure, Source};
use crate::plan::{By, Hop, Plan};
use crate::route::ServerName;
use crate::security::{AskedBy, Level, Sts, StsMode, TlsaFound};
use mail::{EnhancedStatus, Host};
use mtasts::{Applied, Found, Mode, Policies};

/// Looks up the policy of the plan's domain and puts it into the plan.
///
/// # Errors
/// A temporary failure when it cannot be known whether the domain has one.
pub async fn look_up(policies: &Policies, plan: &mut Plan, host: &Host) -> Result<(), Failure> {
    let (By::Mx | By::AddressFallback, Some(domain)) = (&plan.by, host.domain()) else {
        return Ok(());
    };
    let found = policies.look_up(domain).await.map_err(|e| {
        Failure::ours(
            451,
            EnhancedStatus::new(4, 3, 0),
            format!("whether {domain} asks for verified TLS (MTA-STS) could not be read from our own store, so mail to it waits: {e}"),
        )
    })?;
    apply(plan, found);
    Ok(())
}

/// Puts what was found into a plan: evidence, and notes for the journey.
pub fn apply(plan: &mut Plan, found: Found) {
    plan.evidence.sts_unknown = found.uncertain();
    if let Some(applied) = &found.applied {
        let hosts = plan.hops.iter().filter_map(|hop| match &hop.host {
            ServerName::Name(name) => Some(name),
            ServerName::Ip(_) | ServerName::Socket(_) => None,
        });
        plan.evidence.sts = Some(Sts {
            mode: match applied.policy.mode {
                Mode::Enforce => StsMode::Enforce,
                Mode::Testing => StsMode::Testing,
                Mode::None => StsMode::None,
            },
            names: hosts.filter(|name| applied.matches(name)).cloned().collect(),
            named: applied.patterns(),
        });
        plan.notes.push(applied.in_words());
        leave_out(plan, applied);
    }
    if let Some(fault) = &found.fault {
        let meanwhile = match found.applied {
            Some(_) => "the one that was fetched before holds on",
            None => "mail goes as to a domain without one",
        };
        plan.notes.push(format!(
            "the domain's MTA-STS policy cannot be fetched ({fault}): {meanwhile}"
        ));
    }
    plan.mta_sts = found;
}

/// RFC 8461 §5: servers that an enforced policy does not name are not used. Where others are left, nobody
/// needs to hear of them but the journey; where none is, [`crate::security::decide`] says so. One that
/// DANE vouches for stays.
fn leave_out(plan: &mut Plan, applied: &Applied) {
    let is_used = |hop: &Hop| match &hop.host {
        ServerName::Name(name) => {
            let by_dane = matches!(plan.evidence.hosts.get(name), Some(TlsaFound::Records { .. }));
            by_dane || applied.matches(name)
        }
        ServerName::Ip(_) | ServerName::Socket(_) => false,
    };
    let (used, others): (Vec<Hop>, Vec<Hop>) = plan.hops.iter().cloned().partition(is_used);
    if !applied.is_enforced() || used.is_empty() || others.is_empty() {
        return;
    }
    let mut hosts: Vec<String> = others.iter().map(|hop| hop.host.to_string()).collect();
    hosts.dedup();
    plan.notes.push(format!(
        "{} left out, because the policy does not name it",
        hosts.join(", ")
    ));
    (plan.hops, plan.left_out) = (used, others);
}

/// Says of what failed for want of TLS that the receiver's own policy asked for it, and who can mend it.
pub(crate) fn explain(plan: &Plan, level: &Level, failures: &mut [Failure]) {
    let (Level::WebPki(AskedBy::Sts), Some(applied)) = (level, &plan.mta_sts.applied) else {
        return;
    };
    // X.7.5: a handshake or a certificate that failed; X.7.10: no STARTTLS.
    let is_tls = |f: &&mut Failure| {
        f.source == Source::Us && f.status.subject == 7 && [5, 10].contains(&f.status.detail)
    };
    for failure in failures.iter_mut().filter(is_tls) {
        let words = &mut failure.words;
        words.push_str(&format!(
            "; mail waits, because {} asks for a certificate that verifies for the server's name ({}): whoever runs {0} must mend the one or change the other",
            applied.domain,
            applied.in_words()
        ));
    }
}
