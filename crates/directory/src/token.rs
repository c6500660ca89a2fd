//! Bearer tokens: JSON Web Tokens (RFC 7519) that an issuer signed whom the operator trusts.
//!
//! Promises: a token counts only with a signature by one of the issuer's keys (RS256, ES256 or
//! EdDSA: RFC 7518, RFC 8037), for our audience, and within its time. Never: a request to the
//! issuer, a token without signature, a symmetric one.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mail::{EmailAddress, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::time::Duration;

/// Octets of a token at most.
pub const TOKEN_OCTETS_MAX: usize = 8_192;
/// Keys of an issuer at most.
pub const ISSUER_KEYS_MAX: usize = 64;
/// How far the clocks of issuer and server may be apart.
const LEEWAY: Duration = Duration::from_secs(60);

/// Why a token is not good.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenFault {
    /// It is no JSON Web Token, or too long.
    Malformed,
    /// Its algorithm is none of RS256, ES256 and EdDSA.
    Algorithm,
    /// No configured issuer made it.
    UnknownIssuer,
    /// The issuer's keys file has no key that it names.
    UnknownKey,
    /// The signature is wrong.
    Signature,
    /// It is for somebody else.
    Audience,
    /// It has ended, or names no end.
    Expired,
    /// Its time has not come.
    NotYet,
    /// It names no address, or one that the issuer has not verified.
    NoAddress,
    /// It names another address than the client.
    OtherAddress,
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenFault::Malformed => "it is not a JSON Web Token",
            TokenFault::Algorithm => "its algorithm is none of RS256, ES256, EdDSA",
            TokenFault::UnknownIssuer => "its issuer is not among login.issuer",
            TokenFault::UnknownKey => "the issuer's keys file does not have its key",
            TokenFault::Signature => "its signature is wrong",
            TokenFault::Audience => "it is for another audience",
            TokenFault::Expired => "it has ended",
            TokenFault::NotYet => "its time has not come",
            TokenFault::NoAddress => "it names no verified address",
            TokenFault::OtherAddress => "it names another address than the program does",
        })
    }
}

/// Who issues tokens that open accounts here.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// What stands in `iss`.
    pub issuer: String,
    /// What must be among `aud`.
    pub audience: String,
    /// The claim that names the address, such as `email`.
    pub claim: String,
    /// Its public keys.
    pub keys: IssuerKeys,
}

/// The public keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct IssuerKeys(Vec<IssuerKey>);

#[derive(Clone, Debug)]
struct IssuerKey {
    id: Option<String>,
    key: PublicKey,
}

#[derive(Clone, Debug)]
enum PublicKey {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl IssuerKeys {
    /// Reads a JSON Web Key Set (RFC 7517 §5). Keys of other kinds or uses are passed over.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(json: &str) -> Result<Self, String> {
        let set: Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or("it has no \"keys\"; a JSON Web Key Set has (RFC 7517 §5)")?;
        let usable: Vec<IssuerKey> = keys
            .iter()
            .take(ISSUER_KEYS_MAX)
            .filter_map(IssuerKey::read)
            .collect();
        if usable.is_empty() {
            return Err("none of its keys is one for RS256, ES256 or EdDSA".to_owned());
        }
        Ok(Self(usable))
    }

    /// How many can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none can be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IssuerKey {
    fn read(json: &Value) -> Option<Self> {
        let text = |name| json.get(name).and_then(Value::as_str);
        let octets = |name| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|u| u != "sig") {
            return None;
        }
        let key = match (text("kty")?, text("crv")) {
            ("RSA", _) => PublicKey::Rsa {
                n: octets("n")?,
                e: octets("e")?,
            },
            ("EC", Some("P-256")) => {
                let (x, y) = (octets("x")?, octets("y")?);
                if (x.len(), y.len()) != (32, 32) {
                    return None;
                }
                PublicKey::P256([&[4], &x[..], &y[..]].concat())
            }
            ("OKP", Some("Ed25519")) => PublicKey::Ed25519(octets("x")?),
            _ => return None,
        };
        Some(Self {
            id: text("kid").map(str::to_owned),
            key,
        })
    }

    fn is_of(&self, algorithm: Algorithm) -> bool {
        matches!(
            (&self.key, algorithm),
            (PublicKey::Rsa { .. }, Algorithm::Rs256)
                | (PublicKey::P256(_), Algorithm::Es256)
                | (PublicKey::Ed25519(_), Algorithm::EdDsa)
        )
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            PublicKey::Rsa { n, e } => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            PublicKey::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            PublicKey::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

/// A token that is good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vouched {
    /// Whom it names.
    pub address: EmailAddress,
    /// Who issued it.
    pub issuer: String,
}

/// Checks a token against the issuers. Costs one signature check.
///
/// # Errors
/// Why it is not good.
pub fn check_token(issuers: &[Issuer], token: &Secret, now: Timestamp) -> Result<Vouched, TokenFault> {
    let token = token.expose();
    if token.len() > TOKEN_OCTETS_MAX {
        return Err(TokenFault::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenFault::Malformed)?;
    let (header, claims) = (object(header)?, object(payload)?);
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| TokenFault::Malformed)?;
    // RFC 7515 §4.1.11: what must be understood and is not.
    if header.contains_key("crit") {
        return Err(TokenFault::Malformed);
    }
    let algorithm = match text(&header, "alg") {
        Some("RS256") => Algorithm::Rs256,
        Some("ES256") => Algorithm::Es256,
        Some("EdDSA" | "Ed25519") => Algorithm::EdDsa,
        _ => return Err(TokenFault::Algorithm),
    };
    let iss = text(&claims, "iss").ok_or(TokenFault::UnknownIssuer)?;
    let id = text(&header, "kid");
    // One issuer may stand there more than once, with an audience each.
    let mut fault = TokenFault::UnknownIssuer;
    for issuer in issuers.iter().filter(|i| i.issuer == iss) {
        let mut keys = issuer
            .keys
            .0
            .iter()
            .filter(|key| {
                key.is_of(algorithm) && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
            })
            .peekable();
        if keys.peek().is_none() {
            fault = TokenFault::UnknownKey;
        } else if !keys.any(|key| key.has_signed(signed.as_bytes(), &signature)) {
            fault = TokenFault::Signature;
        } else if !is_for(&claims, &issuer.audience) {
            fault = TokenFault::Audience;
        } else {
            in_time(&claims, now)?;
            return Ok(Vouched {
                address: address(&claims, &issuer.claim).ok_or(TokenFault::NoAddress)?,
                issuer: issuer.issuer.clone(),
            });
        }
    }
    Err(fault)
}

fn object(part: &str) -> Result<Map<String, Value>, TokenFault> {
    let octets = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed)?;
    serde_json::from_slice(&octets).map_err(|_| TokenFault::Malformed)
}

fn text<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    map.get(name).and_then(Value::as_str)
}

/// RFC 7519 §4.1.3: one text or several.
fn is_for(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(audience)),
        _ => false,
    }
}

fn in_time(claims: &Map<String, Value>, now: Timestamp) -> Result<(), TokenFault> {
    let at = |name| claims.get(name).and_then(Value::as_f64);
    // Seconds with a fraction are allowed; the fraction does not matter.
    let time = |secs: f64| Timestamp::from_secs(secs.clamp(0.0, 253_402_300_799.0) as i64);
    if time(at("exp").ok_or(TokenFault::Expired)?).plus(LEEWAY) <= now {
        return Err(TokenFault::Expired);
    }
    match at("nbf") {
        Some(from) if now.plus(LEEWAY) < time(from) => Err(TokenFault::NotYet),
        _ => Ok(()),
    }
}

fn address(claims: &Map<String, Value>, claim: &str) -> Option<EmailAddress> {
    // What the user typed in somewhere is no proof of anything.
    let is_verified = |value: &Value| value == &Value::Bool(true) || value.as_str() == Some("true");
    if claim == "email" && !claims.get("email_verified").is_none_or(is_verified) {
        return None;
    }
    EmailAddress::parse(text(claims, claim)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    };
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_secs(1_795_439_053);

    fn token(alg: &str, claims: &Value, sign: &dyn Fn(&[u8]) -> Vec<u8>) -> Secret {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "1"}).to_string());
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
        Secret::new(format!("{signed}.{signature}"))
    }

    fn issuers(key: &Value) -> Vec<Issuer> {
        vec![Issuer {
            issuer: "https://id.example".to_owned(),
            audience: "mail".to_owned(),
            claim: "email".to_owned(),
            keys: IssuerKeys::parse(&json!({"keys": [{"kty": "oct", "k": "AAAA"}, key]}).to_string())
                .unwrap(),
        }]
    }

    fn claims() -> Value {
        json!({"iss": "https://id.example", "aud": ["other", "mail"], "exp": NOW.secs() + 300,
               "email": "Bob@example.com"})
    }

    #[test]
    fn what_a_token_must_say() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let sign = |m: &[u8]| pair.sign(m).as_ref().to_vec();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let issuers = issuers(&json!({"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x}));
        let good = check_token(&issuers, &token("EdDSA", &claims(), &sign), NOW).unwrap();
        assert_eq!(good.address.to_string(), "Bob@example.com");
        let secs = NOW.secs();
        for (change, fault) in [
            (json!({"iss": "https://evil.example"}), TokenFault::UnknownIssuer),
            (json!({"iss": null}), TokenFault::UnknownIssuer),
            (json!({"aud": "other"}), TokenFault::Audience),
            (json!({"aud": null}), TokenFault::Audience),
            (json!({"exp": secs - 61}), TokenFault::Expired),
            (json!({"exp": null}), TokenFault::Expired),
            (json!({"nbf": secs + 120}), TokenFault::NotYet),
            (json!({"email": "bob"}), TokenFault::NoAddress),
            (json!({"email_verified": false}), TokenFault::NoAddress),
        ] {
            let mut claims = claims();
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            let got = check_token(&issuers, &token("EdDSA", &claims, &sign), NOW);
            assert_eq!(got, Err(fault), "{change}");
        }
        let forged = token("EdDSA", &claims(), &|_| vec![0; 64]);
        assert_eq!(check_token(&issuers, &forged, NOW), Err(TokenFault::Signature));
        for alg in ["none", "HS256", "RS512"] {
            let got = check_token(&issuers, &token(alg, &claims(), &sign), NOW);
            assert_eq!(got, Err(TokenFault::Algorithm), "{alg}");
        }
        let got = check_token(&issuers, &token("RS256", &claims(), &sign), NOW);
        assert_eq!(got, Err(TokenFault::UnknownKey), "a key of another kind");
        for text in ["", "a.b", "a.b.c", "e30.e30.", "..."] {
            assert!(
                check_token(&issuers, &Secret::new(text), NOW).is_err(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_other_algorithms() {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
        let point = pair.public_key().as_ref();
        let key = json!({"kty": "EC", "crv": "P-256", "use": "sig",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])});
        let sign = |m: &[u8]| pair.sign(&SystemRandom::new(), m).unwrap().as_ref().to_vec();
        assert!(check_token(&issuers(&key), &token("ES256", &claims(), &sign), NOW).is_ok());
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let key = json!({"kty": "RSA",
            "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
            "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero())});
        let sign = |m: &[u8]| {
            let mut out = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), m, &mut out)
                .unwrap();
            out
        };
        assert!(check_token(&issuers(&key), &token("RS256", &claims(), &sign), NOW).is_ok());
    }

    #[test]
    fn key_sets_that_are_none() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"oct","k":"AA"}]}"#,
        ] {
            assert!(IssuerKeys::parse(text).is_err(), "{text}");
        }
    }
}
