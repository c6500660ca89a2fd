//! A signature field, read: DKIM-Signature (RFC 6376 §3.5) and ARC-Message-Signature (RFC 8617
//! §4.1.2), which share their tags.

use super::DkimProblem;
use super::canon::Canonicalization;
use super::key::Algorithm;
use crate::tags::{Tags, base64, compact};
use mail::Domain;
use mail::header::Field;

/// Which field is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// `v=1`, `i=` is an identity, From must be signed.
    Dkim,
    /// No `v=`, `i=` is the instance.
    ArcMessage,
}

/// What a signature field says.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    pub(crate) algorithm: Algorithm,
    pub(crate) signature: Vec<u8>,
    pub(crate) body_hash: Vec<u8>,
    pub(crate) canon: Canonicalization,
    pub(crate) domain: Domain,
    pub(crate) selector: String,
    /// Names in lower case.
    pub(crate) signed_headers: Vec<String>,
    /// The domain of the identity (`i=`); `d=` when there is none.
    pub(crate) identity_domain: Domain,
    pub(crate) body_length: Option<u64>,
    pub(crate) signed_at_secs: Option<u64>,
    pub(crate) expires_at_secs: Option<u64>,
}

impl Signature {
    /// Reads a field.
    pub(crate) fn parse(field: &Field<'_>, kind: Kind) -> Result<Self, DkimProblem> {
        let malformed = DkimProblem::Malformed;
        let text = text(field)?;
        let tags = Tags::parse(text).map_err(malformed)?;
        let require = |name| tags.require(name).map_err(malformed);
        if kind == Kind::Dkim {
            let version = require("v")?;
            if version != "1" {
                return Err(DkimProblem::Version(version.to_owned()));
            }
        }
        let algorithm = require("a")?;
        let algorithm =
            Algorithm::parse(algorithm).ok_or_else(|| DkimProblem::Algorithm(algorithm.to_owned()))?;
        let binary = |name| {
            base64(require(name)?)
                .filter(|bytes| !bytes.is_empty())
                .ok_or_else(|| malformed(format!("{name}= is not base64")))
        };
        let domain = domain(require("d")?, "d")?;
        let signature = Self {
            algorithm,
            signature: binary("b")?,
            body_hash: binary("bh")?,
            canon: canon(&tags, kind)?,
            selector: selector(require("s")?)?,
            signed_headers: signed_headers(require("h")?, kind)?,
            identity_domain: match (kind, tags.get("i")) {
                (Kind::Dkim, Some(identity)) => identity_domain(identity, &domain)?,
                _ => domain.clone(),
            },
            body_length: number(&tags, "l")?,
            signed_at_secs: number(&tags, "t")?,
            expires_at_secs: number(&tags, "x")?,
            domain,
        };
        check_query(&tags)?;
        signature.check_times()?;
        Ok(signature)
    }

    /// RFC 6376 §3.5: `x=` must be later than `t=`.
    fn check_times(&self) -> Result<(), DkimProblem> {
        match (self.signed_at_secs, self.expires_at_secs) {
            (Some(t), Some(x)) if x <= t => Err(DkimProblem::Malformed(
                "it expires (x=) before it was made (t=)".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// The field's value as text.
pub(crate) fn text<'m>(field: &Field<'m>) -> Result<&'m str, DkimProblem> {
    std::str::from_utf8(field.raw_value).map_err(|_| DkimProblem::Malformed("it is not text".to_owned()))
}

fn domain(value: &str, tag: &str) -> Result<Domain, DkimProblem> {
    Domain::parse(value).map_err(|e| DkimProblem::Malformed(format!("{tag}= is no domain: {e}")))
}

/// `s=` is one or more labels (RFC 6376 §3.1).
pub(crate) fn selector(value: &str) -> Result<String, DkimProblem> {
    domain(value, "s").map(|d| d.as_str().to_owned())
}

fn canon(tags: &Tags<'_>, kind: Kind) -> Result<Canonicalization, DkimProblem> {
    let value = tags.get("c").unwrap_or(match kind {
        Kind::Dkim => "simple/simple",
        // RFC 8617 leaves the default to RFC 6376, but sealers and the published test suite take
        // it to be relaxed.
        Kind::ArcMessage => "relaxed/relaxed",
    });
    Canonicalization::parse(value)
        .ok_or_else(|| DkimProblem::Malformed(format!("c={value} is no canonical form")))
}

fn signed_headers(value: &str, kind: Kind) -> Result<Vec<String>, DkimProblem> {
    // A stray colon names no field, so it changes nothing that was signed.
    let names: Vec<String> = compact(value)
        .split(':')
        .filter(|name| !name.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    if kind == Kind::Dkim && !names.iter().any(|n| n == "from") {
        return Err(DkimProblem::FromNotSigned);
    }
    // RFC 8617 §4.1.2: seals come later and must not be signed.
    if kind == Kind::ArcMessage && names.iter().any(|n| n == "arc-seal") {
        return Err(DkimProblem::Malformed("h= holds ARC-Seal".to_owned()));
    }
    Ok(names)
}

fn identity_domain(identity: &str, signer: &Domain) -> Result<Domain, DkimProblem> {
    let identity = compact(identity);
    let outside = || DkimProblem::Identity {
        identity: identity.clone(),
        domain: signer.to_string(),
    };
    let (_, host) = identity.rsplit_once('@').ok_or_else(outside)?;
    let host = Domain::parse(host).map_err(|_| outside())?;
    if host.is_at_or_below(signer) {
        Ok(host)
    } else {
        Err(outside())
    }
}

/// A decimal number. More digits than fit count as "never" (RFC 6376 §3.5 on `x=`).
fn number(tags: &Tags<'_>, name: &str) -> Result<Option<u64>, DkimProblem> {
    let Some(value) = tags.get(name) else {
        return Ok(None);
    };
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DkimProblem::Malformed(format!("{name}= is no number")));
    }
    Ok(Some(value.parse().unwrap_or(u64::MAX)))
}

/// `q=` must offer a way that we know (RFC 6376 §3.5).
fn check_query(tags: &Tags<'_>) -> Result<(), DkimProblem> {
    let ways = compact(tags.get("q").unwrap_or("dns/txt"));
    if ways.split(':').any(|way| way == "dns/txt" || way == "dns") {
        return Ok(());
    }
    Err(DkimProblem::Malformed(format!(
        "q={ways} is no way to find the key"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(tags: &str) -> Result<Signature, DkimProblem> {
        let message = format!("DKIM-Signature: {tags}\r\n");
        let field = mail::header::first(message.as_bytes(), "dkim-signature").unwrap();
        Signature::parse(&field, Kind::Dkim)
    }

    const REST: &str = "a=rsa-sha256; d=example.com; s=s1; h=From : To; bh=aGk=; b=aG k=";

    #[test]
    fn good_ones() {
        let s = read(&format!("v=1; {REST}")).unwrap();
        assert_eq!(s.signed_headers, ["from", "to"]);
        assert_eq!(s.canon.to_string(), "simple/simple");
        assert_eq!(s.signature, b"hi");
        let s = read(&format!(
            "v=1; c=relaxed; i=a@b.example.com; l=9; t=1; x=99999999999999999999999; {REST}"
        ))
        .unwrap();
        assert_eq!(s.canon.to_string(), "relaxed/simple");
        assert_eq!(s.identity_domain.as_str(), "b.example.com");
        assert_eq!((s.body_length, s.expires_at_secs), (Some(9), Some(u64::MAX)));
    }

    #[test]
    fn bad_ones() {
        let without = |what: &str| format!("v=1; {}", REST.replace(what, ""));
        for (tags, part) in [
            (REST.to_owned(), "v= is missing"),
            (format!("v=2; {REST}"), "version 2"),
            (without("a=rsa-sha256;"), "a= is missing"),
            (without("d=example.com;"), "d= is missing"),
            (without("s=s1;"), "s= is missing"),
            (without("h=From : To;"), "h= is missing"),
            (without("bh=aGk=;"), "bh= is missing"),
            (without("; b=aG k="), "b= is missing"),
            (
                format!("v=1; {}", REST.replace("From", "Sender")),
                "From field is not signed",
            ),
            (
                format!("v=1; {}", REST.replace("rsa-sha256", "rsa-sha1")),
                "rsa-sha1 is not accepted",
            ),
            (format!("v=1; i=a@example.org; {REST}"), "not within"),
            (format!("v=1; i=a@badexample.com; {REST}"), "not within"),
            (format!("v=1; c=nofws; {REST}"), "canonical form"),
            (format!("v=1; q=dns/other; {REST}"), "no way"),
            (format!("v=1; t=5; x=5; {REST}"), "expires"),
            (format!("v=1; l=-1; {REST}"), "no number"),
            (format!("v=1; s=s2; {REST}"), "stands twice"),
            (format!("v=1; {}", REST.replace("aG k=", "***")), "not base64"),
        ] {
            let problem = read(&tags).unwrap_err().to_string();
            assert!(problem.contains(part), "{tags}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn any_field_is_answered(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut message = b"DKIM-Signature:".to_vec();
            message.extend(value);
            if let Some(field) = mail::header::first(&message, "dkim-signature") {
                let _ = Signature::parse(&field, Kind::Dkim);
                let _ = Signature::parse(&field, Kind::ArcMessage);
            }
        }
    }
}
