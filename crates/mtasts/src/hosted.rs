//! The policy that we serve for a domain of our own, and its id.

use crate::policy::{Mode, Pattern, Policy};
use crate::record::Id;
use aws_lc_rs::digest::{SHA256, digest};
use mail::Domain;

/// Hexadecimal digits of an id that we make; 80 bits are enough to tell one domain's policies apart.
const ID_DIGITS: usize = 20;

/// The policy that a domain of ours publishes, from its settings: the mode's word, the hosts (without
/// any it is `hostname`, where its mail goes), the age in seconds. `None` when the word is no mode.
#[must_use]
pub fn policy(mode: &str, hosts: &[String], max_age_secs: u64, hostname: &Domain) -> Option<Policy> {
    let named = hosts.iter().filter_map(|text| Pattern::parse(text).ok());
    let mut mx: Vec<Pattern> = named.collect();
    if mx.is_empty() {
        mx.push(Pattern::host(hostname.clone()));
    }
    let mode = Mode::parse(mode)?;
    Some(Policy {
        mode,
        mx,
        max_age_secs,
    })
}

/// The id of a policy: other for another policy, the same for the same. So nobody has to count, and
/// what stands in the DNS can be compared with what is served.
#[must_use]
pub fn id_of(policy: &Policy) -> Id {
    let hash = digest(&SHA256, policy.to_body().as_bytes());
    let digits: String = hash.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    // Hexadecimal digits are letters and digits, and 20 of them are not too many.
    Id::parse(&digits[..ID_DIGITS]).unwrap_or_else(|fault| unreachable!("{fault}"))
}

/// The text of the record at `_mta-sts.<domain>`.
#[must_use]
pub fn record_of(policy: &Policy) -> String {
    format!("v=STSv1; id={};", id_of(policy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Mode, Pattern};

    #[test]
    fn an_id_changes_exactly_with_the_policy() {
        let policy = |mode, mx: &str, max_age_secs| Policy {
            mode,
            mx: vec![Pattern::parse(mx).unwrap()],
            max_age_secs,
        };
        let all = [
            policy(Mode::Testing, "mail.example.com", 86_400),
            policy(Mode::Enforce, "mail.example.com", 86_400),
            policy(Mode::Enforce, "mail.example.com", 604_800),
            policy(Mode::Enforce, "*.example.com", 604_800),
        ];
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(id_of(one) == id_of(other), i == j);
            }
            let record = record_of(one);
            assert_eq!(crate::record::find(&[record.as_bytes()]), Ok(Some(id_of(one))));
        }
    }
}
