//! From a question's octets to an answer's octets: a pure function over the zones.
//!
//! Promises: never panics on any input; UDP answers fit what the asker can take, else they are
//! marked truncated so that it asks again over TCP (RFC 1035 §4.1.1, RFC 6891 §6.2.5).

use super::zone::{Fault, Outcome, Zones};
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use std::fmt;

/// Octets of a UDP answer when the asker does not say more (RFC 1035 §4.2.1).
const UDP_OCTETS_DEFAULT: u16 = 512;
/// Octets of a UDP answer at most, whatever the asker offers: fits any path unfragmented.
const UDP_OCTETS_MAX: u16 = 1232;

/// One question and what was answered, for whoever watches.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Asked {
    /// The name, without the dot at the end.
    pub name: String,
    /// The type, for example `MX`.
    pub kind: String,
    /// The answer in words, for example `10 mail.example.com`; never empty.
    pub answer: Vec<String>,
    /// Whether records were found.
    pub found: bool,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}? {}", self.name, self.kind, self.answer.join(", "))
    }
}

/// Answers one message. `None` for what deserves no answer: an answer, a fragment, ordered silence.
#[must_use]
pub fn answer(zones: &Zones, question: &[u8], over_udp: bool) -> (Option<Vec<u8>>, Option<Asked>) {
    let Ok(request) = Message::from_vec(question) else {
        return (None, None);
    };
    if request.metadata.message_type != MessageType::Query {
        return (None, None);
    }
    let mut response = Message::new(
        request.metadata.id,
        MessageType::Response,
        request.metadata.op_code,
    );
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.add_queries(request.queries.iter().cloned());
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_OCTETS_MAX);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        response.set_edns(edns);
    }
    let asked = match request.queries.as_slice() {
        [query] if request.metadata.op_code == OpCode::Query && query.query_class() == DNSClass::IN => {
            let name = query.name().to_ascii();
            let kind = query.query_type();
            let outcome = zones.lookup(&name, kind);
            let asked = in_words(&name, query.query_type(), &outcome);
            if outcome == Outcome::Broken(Fault::Silence) {
                return (None, Some(asked));
            }
            fill(&mut response, outcome);
            let wants_proof = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
            if wants_proof {
                zones.add_proof(&name, &mut response);
            }
            // What a validating server that is asked for others says (RFC 6840 §5.7, §5.8).
            let may_tell = wants_proof || request.metadata.authentic_data;
            response.metadata.authentic_data = may_tell && zones.is_genuine(&name, kind);
            Some(asked)
        }
        [_] => {
            response.metadata.response_code = ResponseCode::NotImp;
            None
        }
        _ => {
            response.metadata.response_code = ResponseCode::FormErr;
            None
        }
    };
    let octets_max = match over_udp {
        true => request.max_payload().clamp(UDP_OCTETS_DEFAULT, UDP_OCTETS_MAX),
        false => u16::MAX,
    };
    (encode(&response, octets_max), asked)
}

fn fill(response: &mut Message, outcome: Outcome) {
    response.metadata.authoritative = true;
    match outcome {
        Outcome::Records(records) => {
            response.add_answers(records);
        }
        Outcome::NoData(soa) => {
            response.add_authority(*soa);
        }
        Outcome::NoSuchName(soa) => {
            response.metadata.response_code = ResponseCode::NXDomain;
            response.add_authority(*soa);
        }
        Outcome::NotOurs => {
            response.metadata.authoritative = false;
            response.metadata.response_code = ResponseCode::Refused;
        }
        Outcome::Broken(_) => {
            response.metadata.authoritative = false;
            response.metadata.response_code = ResponseCode::ServFail;
        }
    }
}

fn encode(response: &Message, octets_max: u16) -> Option<Vec<u8>> {
    match response.to_vec() {
        Ok(octets) if octets.len() <= usize::from(octets_max) => Some(octets),
        Ok(_) => response.truncate().to_vec().ok(),
        Err(_) => {
            let meta = &response.metadata;
            Message::error_msg(meta.id, meta.op_code, ResponseCode::ServFail)
                .to_vec()
                .ok()
        }
    }
}

fn in_words(name: &str, kind: RecordType, outcome: &Outcome) -> Asked {
    let answer = match outcome {
        Outcome::Records(records) => records.iter().map(record_in_words).collect(),
        Outcome::NoData(_) => vec![format!("no {kind} record")],
        Outcome::NoSuchName(_) => vec!["no such name (NXDOMAIN)".to_owned()],
        Outcome::NotOurs => vec!["not a zone of this server (REFUSED)".to_owned()],
        Outcome::Broken(Fault::ServFail) => vec!["server failure (SERVFAIL)".to_owned()],
        Outcome::Broken(_) => vec!["no answer at all".to_owned()],
    };
    Asked {
        name: name.trim_end_matches('.').to_owned(),
        kind: kind.to_string(),
        answer,
        found: matches!(outcome, Outcome::Records(_)),
    }
}

fn record_in_words(record: &Record) -> String {
    let bare = |name: &hickory_proto::rr::Name| match name.is_root() {
        true => ".".to_owned(),
        false => name.to_ascii().trim_end_matches('.').to_owned(),
    };
    match &record.data {
        RData::MX(mx) => format!("{} {}", mx.preference, bare(&mx.exchange)),
        RData::CNAME(target) => format!("alias of {}", bare(&target.0)),
        RData::NS(host) => bare(&host.0),
        RData::PTR(host) => bare(&host.0),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;

    const ZONE: &str = "$ORIGIN example.com.\n\
        @ MX 10 mail\n@ TXT \"v=spf1 ip4:127.0.2.1 -all\"\nmail A 127.0.2.1\n\
        www CNAME mail\nlost CNAME gone.example.com.\nloop CNAME loop\n\
        a.b.c A 192.0.2.7\n*.wild A 192.0.2.9\nbig TXT \"k\" (\n";

    fn zones() -> Zones {
        let strings: String = (0..8)
            .map(|n| format!("\"{}\"\n", format!("{n}").repeat(250)))
            .collect();
        Zones::parse(&format!("{ZONE}{strings})\n")).unwrap()
    }

    fn ask(zones: &Zones, name: &str, kind: RecordType, over_udp: bool) -> (Message, Asked) {
        let mut query = Message::new(77, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let (octets, asked) = answer(zones, &query.to_vec().unwrap(), over_udp);
        (Message::from_vec(&octets.unwrap()).unwrap(), asked.unwrap())
    }

    #[test]
    fn answers_and_their_words() {
        let mut zones = zones();
        zones.break_name("broken.example.com", Fault::ServFail);
        use ResponseCode::{NXDomain, NoError, Refused, ServFail};
        for (name, kind, code, answers, words) in [
            (
                "example.com.",
                RecordType::MX,
                NoError,
                1,
                "example.com MX? 10 mail.example.com",
            ),
            (
                "EXAMPLE.com.",
                RecordType::TXT,
                NoError,
                1,
                "EXAMPLE.com TXT? v=spf1 ip4:127.0.2.1 -all",
            ),
            (
                "mail.example.com.",
                RecordType::A,
                NoError,
                1,
                "mail.example.com A? 127.0.2.1",
            ),
            (
                "mail.example.com.",
                RecordType::AAAA,
                NoError,
                0,
                "mail.example.com AAAA? no AAAA record",
            ),
            (
                "no.example.com.",
                RecordType::A,
                NXDomain,
                0,
                "no.example.com A? no such name (NXDOMAIN)",
            ),
            (
                "b.c.example.com.",
                RecordType::A,
                NoError,
                0,
                "b.c.example.com A? no A record",
            ),
            (
                "x.wild.example.com.",
                RecordType::A,
                NoError,
                1,
                "x.wild.example.com A? 192.0.2.9",
            ),
            (
                "www.example.com.",
                RecordType::A,
                NoError,
                2,
                "www.example.com A? alias of mail.example.com, 127.0.2.1",
            ),
            (
                "lost.example.com.",
                RecordType::A,
                NoError,
                1,
                "lost.example.com A? alias of gone.example.com",
            ),
            (
                "example.net.",
                RecordType::A,
                Refused,
                0,
                "example.net A? not a zone of this server (REFUSED)",
            ),
            (
                "x.broken.example.com.",
                RecordType::A,
                ServFail,
                0,
                "x.broken.example.com A? server failure (SERVFAIL)",
            ),
        ] {
            let (message, asked) = ask(&zones, name, kind, true);
            assert_eq!(message.metadata.response_code, code, "{name} {kind}");
            assert_eq!(message.answers.len(), answers, "{name} {kind}");
            assert_eq!(asked.to_string(), words);
            assert_eq!(message.metadata.id, 77);
            // RFC 2308 §2: what is not there is told with the zone's SOA.
            let negative = code == NXDomain || (code == NoError && answers == 0);
            assert_eq!(message.authorities.len(), usize::from(negative), "{name} {kind}");
        }
    }

    #[test]
    fn a_loop_of_aliases_ends() {
        let (message, _) = ask(&zones(), "loop.example.com.", RecordType::A, true);
        assert_eq!(message.answers.len(), 8);
    }

    #[test]
    fn long_answers_are_truncated_over_udp_only() {
        let (message, _) = ask(&zones(), "big.example.com.", RecordType::TXT, true);
        assert!(message.metadata.truncation && message.answers.is_empty());
        let (message, _) = ask(&zones(), "big.example.com.", RecordType::TXT, false);
        assert!(!message.metadata.truncation && message.answers.len() == 1);
    }

    #[test]
    fn silence_and_rubbish_get_no_answer() {
        let mut zones = zones();
        zones.break_name("example.com", Fault::Silence);
        let mut query = Message::new(77, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(
            Name::from_ascii("example.com.").unwrap(),
            RecordType::A,
        ));
        let octets = query.to_vec().unwrap();
        let (reply, asked) = answer(&zones, &octets, true);
        assert!(reply.is_none());
        assert_eq!(asked.unwrap().to_string(), "example.com A? no answer at all");
        for end in 0..octets.len() {
            let (reply, asked) = answer(&zones, &octets[..end], true);
            assert!(asked.is_none(), "{end}");
            assert!(reply.is_none_or(|r| r.len() >= 12), "{end}");
        }
        let reply = query.clone().into_response().to_vec().unwrap();
        assert_eq!(
            answer(&zones, &reply, true),
            (None, None),
            "answers are not answered"
        );
    }

    #[test]
    fn records_change_while_it_runs() {
        let mut zones = zones();
        zones
            .set(
                "example.com",
                RecordType::MX,
                &["5 a.example.com.", "6 b.example.com."],
            )
            .unwrap();
        assert_eq!(
            ask(&zones, "example.com.", RecordType::MX, true).0.answers.len(),
            2
        );
        zones.remove("example.com", RecordType::MX);
        assert!(
            ask(&zones, "example.com.", RecordType::MX, true)
                .0
                .answers
                .is_empty()
        );
        assert!(zones.set("example.net", RecordType::A, &["192.0.2.1"]).is_err());
        assert!(zones.set("example.com", RecordType::A, &["wrong"]).is_err());
    }
}
