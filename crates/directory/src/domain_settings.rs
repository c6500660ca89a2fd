//! How a domain treats its addresses: the separator of tags, the catch-all, who is postmaster, another
//! domain in its place, or no mail at all.
//!
//! Stored in the domain's record. A record whose settings are the defaults is written in the first
//! release's form, by whose first octet reception sees that there is nothing to look into.

use crate::domain::{DomainRecord, domain_in};
use crate::resolve::{Place, locate};
use crate::{Directory, Error};
use mail::{Domain, EmailAddress};
use serde::{Deserialize, Serialize};
use store::Snapshot;

/// Octets of the words for a disabled domain at most.
pub const DISABLED_WORDS_OCTETS_MAX: usize = 256;
/// For how many seconds an MTA-STS policy holds where nobody says otherwise: a week.
pub const MTA_STS_AGE_SECS: u64 = 604_800;
/// The least and the most: a day, and about a year (RFC 8461 §3.2 has no least; a shorter policy
/// protects from nobody who can wait).
pub const MTA_STS_AGE_SECS_RANGE: std::ops::RangeInclusive<u64> = 86_400..=31_557_600;
/// Hosts in an MTA-STS policy at most.
pub const MTA_STS_HOSTS_MAX: usize = 50;
/// Divides a user from a tag of their own where the domain does not say otherwise.
pub const TAG_SEPARATOR: char = '+';

/// How a domain treats its addresses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DomainSettings {
    /// Divides a user from a tag of their own; `None`: there are no tags. Default `+`.
    #[serde(default = "plus", skip_serializing_if = "is_plus")]
    pub tag_separator: Option<char>,
    /// The address here that gets what no other address gets. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_all: Option<EmailAddress>,
    /// Who gets the mail of `postmaster` where that is no address of its own. Default: the domain's
    /// first account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postmaster: Option<EmailAddress>,
    /// Likewise for `abuse`. Default: who gets the mail of `postmaster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abuse: Option<EmailAddress>,
    /// The domain's mail is refused. Default: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// Every address of the domain is the address with the same user at this domain. Default: it has
    /// addresses of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<Domain>,
    /// The MTA-STS policy that is published for the domain (RFC 8461). Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mta_sts: Option<MtaSts>,
}

/// What a domain's MTA-STS policy says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MtaSts {
    /// What it asks of those who send.
    pub mode: MtaStsMode,
    /// For how many seconds they hold to it.
    pub max_age_secs: u64,
    /// The hosts that take the domain's mail: names, or `*.` and what stands behind the first label.
    /// Empty: this server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mx: Vec<String>,
}

impl MtaSts {
    /// A policy of this mode for this server, for [`MTA_STS_AGE_SECS`].
    #[must_use]
    pub fn new(mode: MtaStsMode) -> Self {
        Self {
            mode,
            max_age_secs: MTA_STS_AGE_SECS,
            mx: Vec::new(),
        }
    }
}

/// What an MTA-STS policy asks (RFC 8461 §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MtaStsMode {
    /// Mail only over TLS with a certificate that verifies.
    Enforce,
    /// Mail as without a policy; what would have failed is reported.
    Testing,
    /// The policy is taken back.
    None,
}

impl MtaStsMode {
    /// The word in a policy.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MtaStsMode::Enforce => "enforce",
            MtaStsMode::Testing => "testing",
            MtaStsMode::None => "none",
        }
    }
}

/// Why a domain takes no mail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disabled {
    /// Whether senders shall try again later (4xx) or give up (5xx).
    pub temporary: bool,
    /// What they are told; ASCII without control characters.
    #[serde(default)]
    pub words: String,
}

impl Default for DomainSettings {
    fn default() -> Self {
        Self {
            tag_separator: Some(TAG_SEPARATOR),
            catch_all: None,
            postmaster: None,
            abuse: None,
            disabled: None,
            alias_of: None,
            mta_sts: None,
        }
    }
}

fn plus() -> Option<char> {
    Some(TAG_SEPARATOR)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_plus(separator: &Option<char>) -> bool {
    *separator == plus()
}

impl DomainSettings {
    /// Whether nothing was set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The changes of one order; what is `None` stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DomainChange {
    /// See [`DomainSettings::tag_separator`].
    pub tag_separator: Option<Option<char>>,
    /// See [`DomainSettings::catch_all`].
    pub catch_all: Option<Option<EmailAddress>>,
    /// See [`DomainSettings::postmaster`].
    pub postmaster: Option<Option<EmailAddress>>,
    /// See [`DomainSettings::abuse`].
    pub abuse: Option<Option<EmailAddress>>,
    /// See [`DomainSettings::disabled`].
    pub disabled: Option<Option<Disabled>>,
    /// See [`DomainSettings::alias_of`].
    pub alias_of: Option<Option<Domain>>,
    /// See [`DomainSettings::mta_sts`].
    pub mta_sts: Option<Option<MtaSts>>,
}

impl DomainChange {
    fn apply(&self, to: &mut DomainSettings) {
        fn set<T: Clone>(from: Option<&T>, to: &mut T) {
            if let Some(value) = from {
                to.clone_from(value);
            }
        }
        set(self.tag_separator.as_ref(), &mut to.tag_separator);
        set(self.catch_all.as_ref(), &mut to.catch_all);
        set(self.postmaster.as_ref(), &mut to.postmaster);
        set(self.abuse.as_ref(), &mut to.abuse);
        set(self.disabled.as_ref(), &mut to.disabled);
        set(self.alias_of.as_ref(), &mut to.alias_of);
        set(self.mta_sts.as_ref(), &mut to.mta_sts);
    }
}

impl Directory {
    /// Changes how a domain treats its addresses; answers how it does now.
    ///
    /// # Errors
    /// [`Error::NoSuchDomain`], [`Error::Invalid`], [`Error::NoSuchTarget`] for a catch-all that is
    /// nobody here, [`Error::InUse`] for a domain with addresses of its own that shall stand for
    /// another.
    pub async fn set_domain(&self, name: &Domain, change: &DomainChange) -> Result<DomainSettings, Error> {
        let snapshot = self.store.snapshot().await?;
        let (record, _) = domain_in(snapshot.as_ref(), name).await?;
        let mut wanted = record.settings;
        change.apply(&mut wanted);
        check(snapshot.as_ref(), name, &wanted).await?;
        if wanted.alias_of.is_some() {
            self.must_be_empty(snapshot.as_ref(), name).await?;
            self.must_stand_for_itself(name).await?;
        }
        drop(snapshot);
        self.change_domain(name, &|record| {
            change.apply(&mut record.settings);
            Ok(())
        })
        .await?;
        Ok(wanted)
    }

    /// No other domain may stand for one that stands for another: one step, never a chain.
    pub(crate) async fn must_stand_for_itself(&self, name: &Domain) -> Result<(), Error> {
        let others = self.domains().await?;
        let stands = |other: &&DomainRecord| other.settings.alias_of.as_ref() == Some(name);
        match others.iter().find(stands) {
            Some(other) => Err(Error::InUse(format!("{} is an alias of {name}", other.name))),
            None => Ok(()),
        }
    }
}

async fn check(snapshot: &dyn Snapshot, name: &Domain, wanted: &DomainSettings) -> Result<(), Error> {
    if let Some(c) = wanted.tag_separator
        && !"+-=_.~#!$%&*/?^|".contains(c)
    {
        return Err(Error::Invalid(
            "a separator is one of + - = _ . ~ # ! $ % & * / ? ^ |",
        ));
    }
    if let Some(disabled) = &wanted.disabled {
        let words = &disabled.words;
        if words.len() > DISABLED_WORDS_OCTETS_MAX || !words.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(Error::Invalid(
                "the words for a disabled domain are at most 256 octets of ASCII without control characters",
            ));
        }
    }
    if let Some(sts) = &wanted.mta_sts {
        check_sts(sts)?;
    }
    if let Some(target) = &wanted.alias_of {
        if target == name {
            return Err(Error::Invalid("a domain is no alias of itself"));
        }
        let (record, _) = domain_in(snapshot, target).await?;
        if record.settings.alias_of.is_some() {
            return Err(Error::Invalid(
                "the domain that is named is an alias itself; name the one that it stands for",
            ));
        }
    }
    if let Some(address) = &wanted.catch_all {
        must_be_here(snapshot, address).await?;
    }
    for address in [&wanted.postmaster, &wanted.abuse].into_iter().flatten() {
        match locate(snapshot, address).await? {
            Place::NotOurs => {}
            _ => must_be_here(snapshot, address).await?,
        }
    }
    Ok(())
}

fn check_sts(sts: &MtaSts) -> Result<(), Error> {
    if !MTA_STS_AGE_SECS_RANGE.contains(&sts.max_age_secs) {
        return Err(Error::Invalid(
            "an MTA-STS policy holds for 1 to 365 days; such as 1d, 7d or 365d",
        ));
    }
    let is_host = |text: &String| Domain::parse(text.strip_prefix("*.").unwrap_or(text)).is_ok();
    if sts.mx.len() > MTA_STS_HOSTS_MAX || !sts.mx.iter().all(is_host) {
        return Err(Error::Invalid(
            "an MTA-STS policy names at most 50 hosts, such as mail.example.com or *.example.com",
        ));
    }
    Ok(())
}

async fn must_be_here(snapshot: &dyn Snapshot, address: &EmailAddress) -> Result<(), Error> {
    match locate(snapshot, address).await? {
        Place::Found(found) if !found.how.is_fallback() => Ok(()),
        _ => Err(Error::NoSuchTarget(address.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_forms_stay_readable() {
        let empty: DomainSettings = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, DomainSettings::default());
        assert_eq!(serde_json::to_string(&empty).unwrap(), "{}");
        let off: DomainSettings = serde_json::from_str(r#"{"tag_separator":null}"#).unwrap();
        assert_eq!(off.tag_separator, None);
        assert_eq!(serde_json::to_string(&off).unwrap(), r#"{"tag_separator":null}"#);
        assert!(!off.is_default());
        let stored = r#"{"mta_sts":{"mode":"enforce","max_age_secs":604800,"mx":["*.example.com"]}}"#;
        let sts: DomainSettings = serde_json::from_str(stored).unwrap();
        let expected = MtaSts {
            mx: vec!["*.example.com".to_owned()],
            ..MtaSts::new(MtaStsMode::Enforce)
        };
        assert_eq!(sts.mta_sts, Some(expected));
        assert_eq!(serde_json::to_string(&sts).unwrap(), stored);
    }

    #[test]
    fn an_mta_sts_policy_is_checked() {
        let good = MtaSts::new(MtaStsMode::Testing);
        assert!(check_sts(&good).is_ok());
        for (max_age_secs, mx) in [
            (60, vec![]),
            (31_557_601, vec![]),
            (604_800, vec!["a b".to_owned()]),
            (604_800, vec!["*".to_owned()]),
            (604_800, vec!["a.example".to_owned(); 51]),
        ] {
            let mode = MtaStsMode::Testing;
            let bad = MtaSts {
                mode,
                max_age_secs,
                mx,
            };
            assert!(check_sts(&bad).is_err(), "{bad:?}");
        }
    }
}
