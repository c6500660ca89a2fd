//! DMARC records, read (RFC 9989 §4.7, §4.8).
//!
//! Promises: unknown tags are ignored, values that break the grammar fall back to the default; what
//! the RFC calls no record is none.

use super::Request;

/// How alike domains must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Alignment {
    /// Of one organisation.
    Relaxed,
    /// The same.
    Strict,
}

/// What a record says about its place in the tree (`psd=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Psd {
    /// A public suffix.
    Yes,
    /// No public suffix, and the top of its organisation.
    No,
    /// It does not say.
    Unknown,
}

/// A DMARC record.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Record {
    /// The record as it is published.
    pub text: String,
    /// `p=`; a record without it counts as `p=none` (RFC 9989 §4.7), `None` is a value that is no
    /// request.
    pub p: Option<Request>,
    /// `sp=`: for subdomains.
    pub sp: Option<Request>,
    /// `np=`: for subdomains that do not exist.
    pub np: Option<Request>,
    /// `sp=` or `np=` is there and no request.
    pub invalid_request: bool,
    /// `adkim=`
    pub adkim: Alignment,
    /// `aspf=`
    pub aspf: Alignment,
    /// `psd=`
    pub psd: Psd,
    /// `t=y`: the owner is testing.
    pub testing: bool,
    /// `rua=`: where aggregate reports go, URIs with a scheme.
    pub rua: Vec<String>,
    /// `ruf=`: where failure reports go, URIs with a scheme.
    pub ruf: Vec<String>,
    /// `fo=`: what failure reports are wanted for.
    pub fo: String,
}

impl Record {
    /// Reads a TXT record; `None` when it is no DMARC record: its first tag is not `v=DMARC1`
    /// (with that case).
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text).into_owned();
        let mut tags = text.split(';').map(tag);
        if tags.next()? != Some(("v".to_owned(), "DMARC1")) {
            return None;
        }
        let mut known: Vec<(String, &str)> = Vec::new();
        // Of a tag that stands twice, the first counts.
        for (name, value) in tags.flatten() {
            if !known.iter().any(|(n, _)| *n == name) {
                known.push((name, value));
            }
        }
        let get = |name: &str| known.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        let request = |name: &str| get(name).and_then(parse_request);
        let alignment = |name: &str| match get(name) {
            Some(v) if v.eq_ignore_ascii_case("s") => Alignment::Strict,
            _ => Alignment::Relaxed,
        };
        let uris = |name: &str| get(name).map(parse_uris).unwrap_or_default();
        let invalid = |name: &str| get(name).is_some() && request(name).is_none();
        Some(Self {
            p: get("p").map_or(Some(Request::None), parse_request),
            sp: request("sp"),
            np: request("np"),
            invalid_request: invalid("sp") || invalid("np"),
            adkim: alignment("adkim"),
            aspf: alignment("aspf"),
            psd: match get("psd") {
                Some(v) if v.eq_ignore_ascii_case("y") => Psd::Yes,
                Some(v) if v.eq_ignore_ascii_case("n") => Psd::No,
                _ => Psd::Unknown,
            },
            testing: get("t").is_some_and(|v| v.eq_ignore_ascii_case("y")),
            rua: uris("rua"),
            ruf: uris("ruf"),
            fo: get("fo").unwrap_or("0").to_owned(),
            text,
        })
    }

    /// Whether the requests can be followed (RFC 9989 §4.10.1): none is invalid. Otherwise the
    /// record counts as `p=none` when it names somewhere to report to, and not at all when it does
    /// not.
    #[must_use]
    pub fn has_valid_requests(&self) -> bool {
        self.p.is_some() && !self.invalid_request
    }
}

/// One `name=value` with white space around taken off; `None` for anything else.
fn tag(text: &str) -> Option<(String, &str)> {
    let wsp = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let (name, value) = text.split_once('=')?;
    let name = name.trim_matches(wsp);
    let ok = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    ok.then(|| (name.to_ascii_lowercase(), value.trim_matches(wsp)))
}

fn parse_request(value: &str) -> Option<Request> {
    [Request::None, Request::Quarantine, Request::Reject]
        .into_iter()
        .find(|r| value.eq_ignore_ascii_case(r.as_str()))
}

/// URIs parted by commas, without the size limit that RFC 7489 allowed behind a `!`.
fn parse_uris(value: &str) -> Vec<String> {
    let has_scheme = |uri: &&str| {
        uri.split_once(':').is_some_and(|(scheme, rest)| {
            !rest.is_empty()
                && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        })
    };
    value
        .split(',')
        .map(|uri| uri.split('!').next().unwrap_or_default().trim())
        .filter(has_scheme)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<Record> {
        Record::parse(text.as_bytes())
    }

    #[test]
    fn records() {
        let r = read("v=DMARC1; p=reject; sp=Quarantine;np=none; adkim=s; aspf=r; t=y; psd=n; pct=10; rua=mailto:a@b.c!10m, https://d.e/ ;x")
            .unwrap();
        assert_eq!(
            (r.p, r.sp, r.np),
            (
                Some(Request::Reject),
                Some(Request::Quarantine),
                Some(Request::None)
            )
        );
        assert_eq!((r.adkim, r.aspf), (Alignment::Strict, Alignment::Relaxed));
        assert_eq!((r.testing, r.psd), (true, Psd::No));
        assert_eq!(r.rua, ["mailto:a@b.c", "https://d.e/"]);
        let r = read("v = DMARC1 ;").unwrap();
        assert!(r.has_valid_requests() && r.p == Some(Request::None));
        assert!(!read("v=DMARC1; p=refuse").unwrap().has_valid_requests());
        assert!(!read("v=DMARC1; p=reject; sp=no").unwrap().has_valid_requests());
        assert!(read("v=DMARC1; P=reject; adkim=x").unwrap().has_valid_requests());
        for none in [
            "",
            "v=DMARC1x; p=none",
            "v=dmarc1; p=none",
            "p=none; v=DMARC1",
            " ;v=DMARC1",
            "v=spf1 -all",
        ] {
            assert!(read(none).is_none(), "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_record_is_answered(text in proptest::collection::vec(any::<u8>(), 0..100), tail in "[ -~]{0,60}") {
            let _ = Record::parse(&text);
            let record = format!("v=DMARC1;{tail}");
            prop_assert!(read(&record).is_some());
        }
    }
}
