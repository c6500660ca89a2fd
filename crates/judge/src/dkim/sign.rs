//! Making signatures (RFC 6376 §5).

use super::canon::{self, Canon, Canonicalization};
use super::hash::hash_body;
use super::{KeyError, SigningKey};
use crate::tags::to_base64;
use mail::header::{self, Field};
use mail::{Domain, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;

/// The fields that are signed when they are there (RFC 6376 §5.4.1), all instances of each.
pub const DEFAULT_HEADERS: &[&str] = &[
    "from",
    "to",
    "cc",
    "subject",
    "date",
    "message-id",
    "reply-to",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
];

/// The fields of which nobody may add another one: signed once more than they are there
/// (RFC 6376 §8.15).
pub const DEFAULT_OVERSIGNED: &[&str] = &["from", "to", "cc", "subject", "date", "message-id", "reply-to"];

/// Columns at which the field is folded.
const COLUMNS: usize = 76;

/// Why a message was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A signature must cover From (RFC 6376 §5.4), and there is none.
    #[error("the message has no From field to sign")]
    NoFrom,
    /// The selector is no DNS name, or makes the key's name too long.
    #[error("the selector cannot be part of a DNS name")]
    Selector,
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Signs messages for one domain with one key. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Signer {
    domain: Domain,
    selector: String,
    key: Arc<SigningKey>,
    /// Names of the fields to sign, lower case. Default [`DEFAULT_HEADERS`].
    pub headers: Vec<String>,
    /// Names of the fields to sign once more than they are there. Default [`DEFAULT_OVERSIGNED`].
    pub oversigned: Vec<String>,
    /// The canonical forms. Default relaxed for both.
    pub canonicalization: Canonicalization,
    /// The domain of the identity (`i=@…`), at or below the signing domain. Default: not said.
    pub identity_domain: Option<Domain>,
    /// For how long a signature is good, in seconds (`x=`). Default: for ever.
    pub valid_secs: Option<u64>,
}

impl Signer {
    /// A signer with the defaults.
    ///
    /// # Errors
    /// When `<selector>._domainkey.<domain>` is no DNS name.
    pub fn new(domain: Domain, selector: &str, key: Arc<SigningKey>) -> Result<Self, SignError> {
        let place = format!("{selector}._domainkey");
        if domain.prefixed(&place).is_err() {
            return Err(SignError::Selector);
        }
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Ok(Self {
            domain,
            selector: selector.to_ascii_lowercase(),
            key,
            headers: owned(DEFAULT_HEADERS),
            oversigned: owned(DEFAULT_OVERSIGNED),
            canonicalization: Canonicalization::RELAXED,
            identity_domain: None,
            valid_secs: None,
        })
    }

    /// The domain that it signs for.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The selector of its key.
    #[must_use]
    pub fn selector(&self) -> &str {
        &self.selector
    }

    /// The algorithm of its key, as in the `a=` tag.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        self.key.algorithm()
    }

    /// The whole `DKIM-Signature` field with its line ending, to be put before a message with CRLF
    /// line endings.
    ///
    /// # Errors
    /// When the message has no From field, or the key fails.
    pub fn sign(&self, message: &[u8], now: Timestamp) -> Result<String, SignError> {
        let fields: Vec<Field<'_>> = header::fields(message).collect();
        if !fields.iter().any(|f| f.is("from")) {
            return Err(SignError::NoFrom);
        }
        let names = self.names(&fields);
        let body = &message[header::body_offset(message)..];
        let hash = hash_body(body, self.canonicalization.body, None);
        let signed_at = u64::try_from(now.secs()).unwrap_or(0);
        let mut tags = vec![
            "v=1".to_owned(),
            format!("a={}", self.key.algorithm()),
            format!("c={}", self.canonicalization),
            format!("d={}", self.domain),
            format!("s={}", self.selector),
            format!("t={signed_at}"),
        ];
        if let Some(identity) = &self.identity_domain {
            tags.push(format!("i=@{identity}"));
        }
        if let Some(valid) = self.valid_secs {
            tags.push(format!("x={}", signed_at.saturating_add(valid)));
        }
        let start = unsigned_field("DKIM-Signature", &tags, &names, &hash.sha256);
        let header_canon = self.canonicalization.header;
        Ok(complete(start, &fields, &names, header_canon, &self.key)?)
    }

    /// Names for `h=`, as often as fields are to be signed.
    fn names(&self, fields: &[Field<'_>]) -> Vec<String> {
        let mut names = Vec::new();
        for name in &self.headers {
            let present = fields.iter().filter(|f| f.is(name)).count();
            names.extend(std::iter::repeat_n(name.to_ascii_lowercase(), present));
        }
        for name in &self.oversigned {
            let known = self.headers.iter().any(|h| h.eq_ignore_ascii_case(name));
            let present = fields.iter().filter(|f| !known && f.is(name)).count();
            names.extend(std::iter::repeat_n(name.to_ascii_lowercase(), present + 1));
        }
        names
    }
}

/// A signature field up to and with an empty `b=`, without line ending.
pub(crate) fn unsigned_field(name: &str, tags: &[String], signed: &[String], body_hash: &[u8]) -> String {
    let mut text = format!("{name}:");
    let mut column = text.len();
    let mut add = |piece: &str, glued: bool| {
        let space = usize::from(!glued);
        if column + space + piece.len() > COLUMNS {
            text.push_str("\r\n\t");
            column = 8;
        } else if !glued {
            text.push(' ');
            column += 1;
        }
        text.push_str(piece);
        column += piece.len();
    };
    for tag in tags {
        add(&format!("{tag};"), false);
    }
    for (i, name) in signed.iter().enumerate() {
        let before = if i == 0 { "h=" } else { "" };
        let after = if i + 1 == signed.len() { ";" } else { ":" };
        add(&format!("{before}{name}{after}"), i > 0);
    }
    add(&format!("bh={};", to_base64(body_hash)), false);
    add("b=", false);
    text
}

/// Signs the named fields of `fields` bottom up, and then the field itself, which is given up to
/// its empty `b=`. Gives the whole field with its line ending.
pub(crate) fn complete(
    start: String,
    fields: &[Field<'_>],
    names: &[String],
    header_canon: Canon,
    key: &SigningKey,
) -> Result<String, KeyError> {
    let mut data = Vec::new();
    let mut taken = HashMap::<&str, usize>::new();
    for name in names {
        let count = taken.entry(name.as_str()).or_default();
        if let Some(field) = fields.iter().rev().filter(|f| f.is(name)).nth(*count) {
            *count += 1;
            canon::field(field, header_canon, &mut data);
        }
    }
    let as_message = format!("{start}\r\n");
    if let Some(own) = header::fields(as_message.as_bytes()).next() {
        canon::signature_field(&own, header_canon, &mut data);
    }
    Ok(with_signature(start, &key.sign(&data)?))
}

/// Adds the value of `b=`, folded, and the line ending.
pub(crate) fn with_signature(mut start: String, signature: &[u8]) -> String {
    for line in to_base64(signature).as_bytes().chunks(COLUMNS - 8) {
        start.push_str("\r\n\t");
        start.push_str(&String::from_utf8_lossy(line));
    }
    start.push_str("\r\n");
    start
}
