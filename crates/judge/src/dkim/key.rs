//! Key records (RFC 6376 §3.6.1, RFC 8463 §3): fetched, read, and fit for a signature or not.

use super::{DkimProblem, KEY_RECORDS_MAX, RSA_BITS_MAX, RSA_BITS_MIN};
use crate::tags::{Tags, base64, compact};
use aws_lc_rs::rsa;
use dns::Resolver;
use mail::Domain;

/// The algorithms that we accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Algorithm {
    RsaSha256,
    Ed25519Sha256,
}

impl Algorithm {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "rsa-sha256" => Some(Algorithm::RsaSha256),
            "ed25519-sha256" => Some(Algorithm::Ed25519Sha256),
            _ => None,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa-sha256",
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    const fn key_type(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa",
            Algorithm::Ed25519Sha256 => "ed25519",
        }
    }
}

/// A public key that can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PublicKey {
    /// As `RSAPublicKey` or `SubjectPublicKeyInfo`.
    Rsa {
        der: Vec<u8>,
        bits: usize,
    },
    Ed25519([u8; 32]),
}

impl PublicKey {
    pub(crate) fn bits(&self) -> usize {
        match self {
            PublicKey::Rsa { bits, .. } => *bits,
            PublicKey::Ed25519(_) => 256,
        }
    }
}

/// A key record that fits a signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeyRecord {
    pub(crate) key: PublicKey,
    /// `t=y`
    pub(crate) testing: bool,
    /// `t=s`: `i=` must name `d=` itself.
    pub(crate) strict_identity: bool,
}

/// Fetches the keys for a signature. With several records, those that can be used are given, at
/// most [`KEY_RECORDS_MAX`] (RFC 6376 §3.6.2.2 leaves the choice to the verifier).
pub(crate) async fn fetch(
    resolver: &dyn Resolver,
    selector: &str,
    domain: &Domain,
    algorithm: Algorithm,
    steps: &mut Vec<String>,
) -> Result<Vec<KeyRecord>, DkimProblem> {
    let place = format!("{selector}._domainkey.{domain}");
    let name = Domain::parse(&place).map_err(|e| DkimProblem::BadKey {
        name: place.clone(),
        reason: e.to_string(),
    })?;
    let texts = match resolver.txt(&name).await {
        Ok(answer) => answer.records,
        Err(error) if error.is_temporary() => {
            steps.push(format!("asked for TXT of {name}: {error}"));
            return Err(DkimProblem::KeyUnavailable(error.to_string()));
        }
        Err(_) => Vec::new(),
    };
    if texts.is_empty() {
        steps.push(format!("asked for TXT of {name}: there is none"));
        return Err(DkimProblem::NoKey(place));
    }
    let mut usable = Vec::new();
    let mut problem = None;
    for text in texts.iter().take(KEY_RECORDS_MAX) {
        let shown = crate::words::ascii(&String::from_utf8_lossy(text), 100);
        steps.push(format!("asked for TXT of {name}: \"{shown}\""));
        match parse(text, algorithm, &place) {
            Ok(record) => usable.push(record),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    match (usable.is_empty(), problem) {
        (true, Some(problem)) => Err(problem),
        _ => Ok(usable),
    }
}

/// Reads a key record for use with an algorithm.
pub(crate) fn parse(text: &[u8], algorithm: Algorithm, place: &str) -> Result<KeyRecord, DkimProblem> {
    let bad = |reason: String| DkimProblem::BadKey {
        name: place.to_owned(),
        reason,
    };
    let text = std::str::from_utf8(text).map_err(|_| bad("it is not text".into()))?;
    let tags = Tags::parse(text).map_err(&bad)?;
    if let Some(version) = tags.get("v")
        && (version != "DKIM1" || tags.first() != Some(("v", version)))
    {
        return Err(bad("v= is not DKIM1 at its start".into()));
    }
    let lists = |tag: &str, wanted: &[&str]| {
        let values = tags.get(tag)?;
        let found = compact(values).split(':').any(|v| wanted.contains(&v));
        Some(found)
    };
    if lists("h", &["sha256"]) == Some(false) {
        return Err(bad("its h= does not allow sha256".into()));
    }
    if lists("s", &["*", "email"]) == Some(false) {
        return Err(bad("its s= does not allow email".into()));
    }
    let key_type = tags.get("k").unwrap_or("rsa");
    let encoded = tags.require("p").map_err(&bad)?;
    if encoded.is_empty() {
        return Err(DkimProblem::Revoked(place.to_owned()));
    }
    if key_type != algorithm.key_type() {
        return Err(bad(format!(
            "its type is {key_type}, and the signature is {}",
            algorithm.as_str()
        )));
    }
    let bytes = base64(encoded).ok_or_else(|| bad("its p= is not base64".into()))?;
    Ok(KeyRecord {
        key: public_key(bytes, algorithm, bad)?,
        testing: lists("t", &["y"]) == Some(true),
        strict_identity: lists("t", &["s"]) == Some(true),
    })
}

fn public_key(
    bytes: Vec<u8>,
    algorithm: Algorithm,
    bad: impl Fn(String) -> DkimProblem,
) -> Result<PublicKey, DkimProblem> {
    if algorithm == Algorithm::Ed25519Sha256 {
        // RFC 8463 §4.2: the 32 octets themselves, without ASN.1 around them.
        return <[u8; 32]>::try_from(bytes.as_slice())
            .map(PublicKey::Ed25519)
            .map_err(|_| {
                bad(format!(
                    "its p= has {} octets, not the 32 of Ed25519",
                    bytes.len()
                ))
            });
    }
    let parsed = rsa::PublicKey::from_der(&bytes).map_err(|_| bad("its p= is no RSA key".into()))?;
    let modulus = parsed.modulus();
    let modulus = modulus.big_endian_without_leading_zero();
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |b| b.leading_zeros() as usize);
    if bits < RSA_BITS_MIN {
        return Err(DkimProblem::KeyTooShort(bits));
    }
    if bits > RSA_BITS_MAX {
        return Err(bad(format!(
            "its RSA key has {bits} bits, more than {RSA_BITS_MAX}"
        )));
    }
    Ok(PublicKey::Rsa { der: bytes, bits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ED: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn read(text: &str) -> Result<KeyRecord, DkimProblem> {
        parse(text.as_bytes(), Algorithm::Ed25519Sha256, "s._domainkey.d")
    }

    #[test]
    fn records() {
        let good = |text: String| read(&text).unwrap();
        assert!(!good(format!("v=DKIM1; k=ed25519; p={ED}")).testing);
        assert!(good(format!("k=ed25519; t=y:s; p={ED};")).strict_identity);
        assert!(
            good(format!(
                "k=ed25519; t = y : s; n=note; x=1; h=sha1 : sha256; s=* ; p={ED}"
            ))
            .testing
        );
        assert_eq!(
            read("v=DKIM1; k=ed25519; p="),
            Err(DkimProblem::Revoked("s._domainkey.d".into()))
        );
        for bad in [
            format!("k=ed25519; v=DKIM1; p={ED}"),
            format!("v=DKIM2; k=ed25519; p={ED}"),
            format!("v=DKIM1; p={ED}"),
            format!("v=DKIM1; k=ed25519; h=sha1; p={ED}"),
            format!("v=DKIM1; k=ed25519; s=tlsrpt; p={ED}"),
            "v=DKIM1; k=ed25519".to_owned(),
            "v=DKIM1; k=ed25519; p=!".to_owned(),
            "v=DKIM1; k=ed25519; p=aGk=".to_owned(),
            "v=spf1 -all".to_owned(),
        ] {
            assert!(matches!(read(&bad), Err(DkimProblem::BadKey { .. })), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_record_is_answered(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text, Algorithm::RsaSha256, "x");
            let mut keyed = b"p=".to_vec();
            keyed.extend(crate::tags::to_base64(&text).bytes());
            let _ = parse(&keyed, Algorithm::RsaSha256, "x");
        }
    }
}
