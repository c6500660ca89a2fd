//! A report as JSON (RFC 8460 §4.4): written as the RFC says, read leniently and within limits.

use crate::bounded;
use crate::message::Unreadable;
use crate::result::{Policy, PolicyType, ResultType};
use mail::{Timestamp, date};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::IpAddr;

/// Octets of a report's JSON at most, unpacked.
pub const UNPACKED_OCTETS_MAX: usize = 10 * 1024 * 1024;
/// Policies of a report from outside at most that are read; the others are passed over.
pub(crate) const POLICIES_READ_MAX: usize = 100;
/// Failure details of one policy at most that are read; the others are passed over.
pub(crate) const DETAILS_READ_MAX: usize = 1_000;
/// Lines of one policy at most that are read; the others are passed over.
const LINES_READ_MAX: usize = 50;

/// A report: how one server's conversations with a domain's servers fared in a day.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Who reports, in words.
    #[serde(rename = "organization-name", default, deserialize_with = "bounded::text")]
    pub organization: String,
    /// Which time it is about.
    #[serde(rename = "date-range")]
    pub range: Range,
    /// Whom to ask about it.
    #[serde(rename = "contact-info", default, deserialize_with = "bounded::text")]
    pub contact: String,
    /// Its name, which no other report of the same server has.
    #[serde(rename = "report-id", default, deserialize_with = "bounded::text")]
    pub id: String,
    /// What was found, policy by policy.
    #[serde(deserialize_with = "bounded::list::<_, _, POLICIES_READ_MAX>")]
    pub policies: Vec<PolicyResults>,
}

/// From when to when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Range {
    /// The first second.
    #[serde(rename = "start-datetime", with = "moment")]
    pub start: Timestamp,
    /// The last second.
    #[serde(rename = "end-datetime", with = "moment")]
    pub end: Timestamp,
}

/// How conversations under one policy fared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyResults {
    /// The policy.
    pub policy: Policy,
    /// How many went well, and how many did not.
    #[serde(default)]
    pub summary: Summary,
    /// Why, where something failed.
    #[serde(
        rename = "failure-details",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<_, _, DETAILS_READ_MAX>"
    )]
    pub details: Vec<Detail>,
}

/// Conversations, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// That had the TLS that the policy asks for.
    #[serde(
        rename = "total-successful-session-count",
        deserialize_with = "bounded::count"
    )]
    pub successful: u64,
    /// That had not.
    #[serde(rename = "total-failure-session-count", deserialize_with = "bounded::count")]
    pub failed: u64,
}

/// Conversations that failed alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Detail {
    /// Why.
    #[serde(rename = "result-type", deserialize_with = "result_type")]
    pub result: ResultType,
    /// The address of the server that sent.
    #[serde(
        rename = "sending-mta-ip",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::ip"
    )]
    pub sending_ip: Option<IpAddr>,
    /// The name of the server that should have received.
    #[serde(
        rename = "receiving-mx-hostname",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional"
    )]
    pub receiving_host: Option<String>,
    /// What that server called itself.
    #[serde(
        rename = "receiving-mx-helo",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional"
    )]
    pub receiving_helo: Option<String>,
    /// Its address.
    #[serde(
        rename = "receiving-ip",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::ip"
    )]
    pub receiving_ip: Option<IpAddr>,
    /// How many failed so.
    #[serde(rename = "failed-session-count", default, deserialize_with = "bounded::count")]
    pub failed: u64,
    /// Where more is said.
    #[serde(
        rename = "additional-information",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional"
    )]
    pub additional: Option<String>,
    /// The reason in words or as a code.
    #[serde(
        rename = "failure-reason-code",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional"
    )]
    pub reason: Option<String>,
}

impl Detail {
    /// Whether both failed alike, however often.
    #[must_use]
    pub fn is_like(&self, other: &Detail) -> bool {
        self.result == other.result
            && self.sending_ip == other.sending_ip
            && self.receiving_host == other.receiving_host
            && self.receiving_helo == other.receiving_helo
            && self.receiving_ip == other.receiving_ip
            && self.additional == other.additional
            && self.reason == other.reason
    }
}

/// A policy as JSON has it.
#[derive(Serialize, Deserialize)]
struct WirePolicy {
    #[serde(rename = "policy-type", deserialize_with = "policy_type")]
    kind: PolicyType,
    #[serde(
        rename = "policy-string",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::texts::<_, LINES_READ_MAX>"
    )]
    strings: Vec<String>,
    #[serde(rename = "policy-domain", default, deserialize_with = "bounded::text")]
    domain: String,
    #[serde(
        rename = "mx-host",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::texts::<_, LINES_READ_MAX>"
    )]
    mx_hosts: Vec<String>,
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Policy {
            kind,
            strings,
            domain,
            mx_hosts,
        } = self.clone();
        let wire = WirePolicy {
            kind,
            strings,
            domain,
            mx_hosts,
        };
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let WirePolicy {
            kind,
            strings,
            domain,
            mx_hosts,
        } = WirePolicy::deserialize(deserializer)?;
        Ok(Policy {
            kind,
            strings,
            domain: domain.trim_end_matches('.').to_ascii_lowercase(),
            mx_hosts,
        })
    }
}

fn policy_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PolicyType, D::Error> {
    bounded::text(deserializer).map(PolicyType::from)
}

fn result_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ResultType, D::Error> {
    bounded::text(deserializer).map(ResultType::from)
}

/// Moments as RFC 3339 writes them.
mod moment {
    use super::{Deserializer, Serializer, Timestamp, bounded, date};
    use serde::de::Error as _;

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&date::iso8601(*at))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = bounded::text(deserializer)?;
        // Years that are written with four digits, and that mail can be of.
        let is_ours = |at: &Timestamp| (1970..=9999).contains(&date::civil(*at).year);
        date::parse_rfc3339(text.trim())
            .filter(is_ours)
            .ok_or_else(|| D::Error::custom(format!("\"{text}\" is no moment of RFC 3339")))
    }
}

impl Report {
    /// Reads a report. What the RFC makes a must, and without which nothing can be said, must be
    /// there: the time, and policies.
    ///
    /// # Errors
    /// When it is too long, or is no report.
    pub fn parse(json: &[u8]) -> Result<Self, Unreadable> {
        if json.len() > UNPACKED_OCTETS_MAX {
            return Err(Unreadable::TooLarge(UNPACKED_OCTETS_MAX));
        }
        // Some begin with a byte order mark.
        let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
        serde_json::from_slice(json).map_err(|e| Unreadable::NotAReport(crate::clean(&e.to_string())))
    }

    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Texts, numbers and lists of these: nothing in it can fail to be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Conversations that went well, and that failed, over all policies.
    #[must_use]
    pub fn totals(&self) -> Summary {
        self.policies.iter().fold(Summary::default(), |sum, one| Summary {
            successful: sum.successful.saturating_add(one.summary.successful),
            failed: sum.failed.saturating_add(one.summary.failed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 8460 appendix B; the URI without the spaces that typesetting left in it.
    const EXAMPLE: &str = include_str!("../tests/data/rfc8460-appendix-b.json");

    #[test]
    fn the_example_of_the_rfc() {
        let report = Report::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(report.organization, "Company-X");
        assert_eq!(report.contact, "sts-reporting@company-x.example");
        assert_eq!(report.id, "5065427c-23d3-47ca-b6e0-946ea0e8c4be");
        assert_eq!(date::iso8601(report.range.start), "2016-04-01T00:00:00Z");
        assert_eq!(date::iso8601(report.range.end), "2016-04-01T23:59:59Z");
        let [only] = report.policies.as_slice() else {
            panic!("one policy")
        };
        assert_eq!(only.policy.kind, PolicyType::Sts);
        assert_eq!(only.policy.strings[1], "mode: testing");
        assert_eq!(only.policy.domain, "company-y.example");
        assert_eq!(
            only.policy.mx_hosts,
            ["*.mail.company-y.example"],
            "one text, not a list"
        );
        assert_eq!((only.summary.successful, only.summary.failed), (5326, 303));
        let told: Vec<_> = only
            .details
            .iter()
            .map(|d| (d.result.clone(), d.failed))
            .collect();
        assert_eq!(
            told,
            [
                (ResultType::CertificateExpired, 100),
                (ResultType::StarttlsNotSupported, 200),
                (ResultType::ValidationFailure, 3)
            ]
        );
        assert_eq!(only.details[0].sending_ip, "2001:db8:abcd:12::1".parse().ok());
        assert_eq!(
            only.details[1].receiving_ip,
            "203.0.113.56".parse().ok(),
            "the second has it"
        );
        assert_eq!(
            only.details[2].reason.as_deref(),
            Some("X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED")
        );
    }

    #[test]
    fn what_we_write_says_the_same_as_the_example() {
        let ours: serde_json::Value =
            serde_json::from_slice(&Report::parse(EXAMPLE.as_bytes()).unwrap().to_json()).unwrap();
        let mut theirs: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
        // The two differences: a list of patterns, and an address in its canonical form.
        let one = &mut theirs["policies"][0];
        one["policy"]["mx-host"] = serde_json::json!(["*.mail.company-y.example"]);
        one["failure-details"][0]["sending-mta-ip"] = "2001:db8:abcd:12::1".into();
        one["failure-details"][1]["sending-mta-ip"] = "2001:db8:abcd:13::1".into();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn odd_values_are_none_and_missing_ones_are_told() {
        let odd = r#"{"date-range": {"start-datetime": "2026-01-01T00:00:00Z", "end-datetime": "2026-01-01T23:59:59+01:00"},
            "organization-name": 7, "contact-info": null, "more": [[{}]],
            "policies": [{"policy": {"policy-type": "STS", "policy-domain": "Example.ORG.", "policy-string": [1, "x"], "mx-host": null},
            "summary": {"total-successful-session-count": "12", "total-failure-session-count": -3},
            "failure-details": [{"result-type": "new-kind", "sending-mta-ip": "", "receiving-ip": "[2001:db8::1]", "failed-session-count": 2.0}]}]}"#;
        let report = Report::parse(odd.as_bytes()).unwrap();
        let one = &report.policies[0];
        assert_eq!((report.organization.as_str(), report.contact.as_str()), ("", ""));
        assert_eq!(one.policy.domain, "example.org");
        assert_eq!(one.policy.strings, ["", "x"]);
        assert_eq!((one.summary.successful, one.summary.failed), (12, 0));
        assert_eq!(one.details[0].result, ResultType::Other("new-kind".into()));
        assert_eq!(one.details[0].sending_ip, None);
        assert_eq!(one.details[0].receiving_ip, "2001:db8::1".parse().ok());
        assert_eq!(one.details[0].failed, 2);
        for wrong in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"policies": []}"#,
            r#"{"policies": [], "date-range": {"start-datetime": "yesterday", "end-datetime": "today"}}"#,
        ] {
            let told = Report::parse(wrong.as_bytes());
            assert!(matches!(told, Err(Unreadable::NotAReport(_))), "{wrong}");
        }
    }

    #[test]
    fn lists_and_depth_are_bounded() {
        let range = r#""date-range": {"start-datetime": "2026-01-01T00:00:00Z", "end-datetime": "2026-01-01T00:00:00Z"}"#;
        let one = r#"{"policy": {"policy-type": "sts"}}"#;
        let many = vec![one; POLICIES_READ_MAX * 3].join(",");
        let report = Report::parse(format!("{{{range}, \"policies\": [{many}]}}").as_bytes()).unwrap();
        assert_eq!(report.policies.len(), POLICIES_READ_MAX);
        let deep = format!(
            "{{{range}, \"policies\": [], \"x\": {}{}}}",
            "[".repeat(5_000),
            "]".repeat(5_000)
        );
        // What is not asked for is passed over without a stack; what is asked for has no depth.
        assert!(Report::parse(deep.as_bytes()).is_ok());
        for place in ["\"policies\"", "\"policies\": [], \"report-id\""] {
            let depth = 100_000;
            let deep = format!("{{{range}, {place}: {}{}}}", "[".repeat(depth), "]".repeat(depth));
            let _ = Report::parse(deep.as_bytes());
        }
        let long = format!(
            "{{{range}, \"policies\": [], \"report-id\": \"{}\"}}",
            "x".repeat(90_000)
        );
        assert_eq!(
            Report::parse(long.as_bytes()).unwrap().id.len(),
            crate::TEXT_OCTETS_MAX
        );
        let huge = vec![b' '; UNPACKED_OCTETS_MAX + 1];
        assert_eq!(
            Report::parse(&huge),
            Err(Unreadable::TooLarge(UNPACKED_OCTETS_MAX))
        );
    }

    proptest! {
        #[test]
        fn any_octets_are_answered(any in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Report::parse(&any);
        }

        #[test]
        fn a_damaged_example_is_answered(place in 0..EXAMPLE.len(), octet in any::<u8>()) {
            let mut text = EXAMPLE.as_bytes().to_vec();
            text[place] = octet;
            if let Ok(report) = Report::parse(&text) {
                prop_assert_eq!(Report::parse(&report.to_json()).unwrap(), report);
            }
        }
    }
}
