//! Orders and questions about addresses, and their answers: values that travel as JSON.

use directory::{DomainSettings, MtaSts, Posting};
use mail::{Domain, EmailAddress};
use serde::{Deserialize, Serialize};

/// An order or a question about addresses.
#[derive(Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
#[allow(
    missing_docs,
    reason = "the variants say what the command line's help says of each"
)]
pub enum Order {
    AliasAdd {
        alias: EmailAddress,
        targets: Vec<EmailAddress>,
    },
    /// Without targets the alias is removed.
    AliasTake {
        alias: EmailAddress,
        targets: Vec<EmailAddress>,
    },
    AliasList,
    GroupAdd {
        group: EmailAddress,
        members: Vec<EmailAddress>,
        post: Option<Posting>,
        members_send: Option<bool>,
    },
    GroupSet {
        group: EmailAddress,
        post: Option<Posting>,
        members_send: Option<bool>,
    },
    MembersAdd {
        group: EmailAddress,
        members: Vec<EmailAddress>,
    },
    MembersTake {
        group: EmailAddress,
        members: Vec<EmailAddress>,
    },
    GroupRemove {
        group: EmailAddress,
    },
    GroupList,
    /// What is absent stays; `none` (`off` for the separator) takes away.
    DomainSet {
        domain: Domain,
        separator: Option<String>,
        catch_all: Option<String>,
        postmaster: Option<String>,
        abuse: Option<String>,
        disable: Option<String>,
        #[serde(default)]
        temporarily: bool,
        #[serde(default)]
        enable: bool,
        alias_of: Option<String>,
        /// `None` stays, `Some(None)` publishes nothing.
        #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
        mta_sts: Option<Option<MtaSts>>,
    },
    DomainShow {
        domain: Domain,
    },
    Explain {
        address: EmailAddress,
    },
    /// `2G`, `500M`, octets; `none` for any amount; `default`.
    Quota {
        address: EmailAddress,
        quota: String,
    },
    /// An address, or `@domain`.
    SendAsAdd {
        account: EmailAddress,
        what: String,
    },
    SendAsRemove {
        account: EmailAddress,
        what: String,
    },
    SendAsList {
        account: EmailAddress,
    },
}

/// Tells null, which is `Some(None)`, from absence.
fn said<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<MtaSts>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// An alias.
#[derive(Serialize, Deserialize)]
pub struct AliasRow {
    /// Its address.
    pub alias: EmailAddress,
    /// Where it leads, one step far.
    pub targets: Vec<String>,
}

/// A group.
#[derive(Serialize, Deserialize)]
pub struct GroupRow {
    /// Its address.
    pub group: EmailAddress,
    /// Who may post.
    pub post: Posting,
    /// Whether members may send as it.
    pub members_send: bool,
    /// Its members.
    pub members: Vec<String>,
}

/// How a domain treats its addresses.
#[derive(Serialize, Deserialize)]
pub struct DomainView {
    /// Its name.
    pub domain: Domain,
    /// Its settings; what is absent is the default.
    pub settings: DomainSettings,
}

/// Where mail for an address goes, and why.
#[derive(Serialize, Deserialize)]
pub struct ExplanationView {
    /// The address.
    pub address: EmailAddress,
    /// The steps, each a sentence.
    pub steps: Vec<String>,
    /// The accounts that get it.
    pub accounts: Vec<String>,
    /// The addresses elsewhere that it is sent on to.
    pub forwards: Vec<EmailAddress>,
    /// Whether it is taken from strangers.
    pub taken_from_strangers: bool,
    /// Whether its domain is not served here.
    #[serde(default)]
    pub elsewhere: bool,
}
