//! ARC sets found in a message (RFC 8617 §4.2): three fields with one instance number.

use super::SETS_MAX;
use crate::dkim::hash::FieldIndex;
use crate::dkim::signature::text;
use crate::tags::{Tags, is_fws};
use mail::header::Field;

/// The names of the three fields, lower case.
pub(crate) const SEAL: &str = "arc-seal";
pub(crate) const MESSAGE_SIGNATURE: &str = "arc-message-signature";
pub(crate) const AUTHENTICATION_RESULTS: &str = "arc-authentication-results";

/// One set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set<'m> {
    pub(crate) instance: u32,
    pub(crate) seal: Field<'m>,
    pub(crate) message_signature: Field<'m>,
    pub(crate) authentication_results: Field<'m>,
}

/// The sets of a message, oldest first; empty when there are none.
///
/// # Errors
/// In words: instances missing, double, out of range, or a field that cannot be read
/// (RFC 8617 §5.2 step 2 and 3).
pub(crate) fn sets<'m>(index: &FieldIndex<'m>) -> Result<Vec<Set<'m>>, String> {
    let seals = numbered(index, SEAL)?;
    let signatures = numbered(index, MESSAGE_SIGNATURE)?;
    let results = numbered(index, AUTHENTICATION_RESULTS)?;
    let count = seals.len().max(signatures.len()).max(results.len());
    let mut sets = Vec::new();
    for instance in 1..=u32::try_from(count).unwrap_or(u32::MAX) {
        let of = |fields: &[(u32, Field<'m>)], name: &str| {
            let mut matching = fields.iter().filter(|(i, _)| *i == instance);
            match (matching.next(), matching.next()) {
                (Some((_, field)), None) => Ok(*field),
                (None, _) => Err(format!("the chain has no {name} with i={instance}")),
                (Some(_), Some(_)) => Err(format!("the chain has more than one {name} with i={instance}")),
            }
        };
        sets.push(Set {
            instance,
            seal: of(&seals, "ARC-Seal")?,
            message_signature: of(&signatures, "ARC-Message-Signature")?,
            authentication_results: of(&results, "ARC-Authentication-Results")?,
        });
    }
    Ok(sets)
}

fn numbered<'m>(index: &FieldIndex<'m>, name: &str) -> Result<Vec<(u32, Field<'m>)>, String> {
    let fields = index.named(name);
    if fields.len() > SETS_MAX as usize {
        return Err(format!("the chain has more than {SETS_MAX} sets"));
    }
    fields
        .into_iter()
        .map(|field| {
            let text = text(&field).map_err(|e| format!("{name}: {e}"))?;
            let instance = instance(text, name).map_err(|why| format!("{name}: {why}"))?;
            Ok((instance, field))
        })
        .collect()
}

fn instance(text: &str, name: &str) -> Result<u32, String> {
    let value = if name == AUTHENTICATION_RESULTS {
        // Only the instance is a tag here; the rest has the form of RFC 8601.
        let (first, _) = text
            .split_once(';')
            .ok_or("there is no instance tag i= at its start")?;
        let (tag, value) = first
            .split_once('=')
            .ok_or("there is no instance tag i= at its start")?;
        if tag.trim_matches(is_fws) != "i" {
            return Err("there is no instance tag i= at its start".to_owned());
        }
        value.trim_matches(is_fws)
    } else {
        Tags::parse(text)?.require("i")?
    };
    let digits = !value.is_empty() && value.len() <= 3 && value.bytes().all(|b| b.is_ascii_digit());
    match value.parse::<u32>() {
        Ok(number) if digits && (1..=SETS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("i={value} is not 1 to {SETS_MAX}")),
    }
}

/// What stands behind the instance tag of an ARC-Authentication-Results field, unfolded.
pub(crate) fn results_without_instance(field: &Field<'_>) -> String {
    let value = field.value();
    value
        .split_once(';')
        .map(|(_, rest)| rest.trim().to_owned())
        .unwrap_or_default()
}
