//! A report as mail (RFC 8460 §5.3): composed, and found again in a message from outside.
//!
//! Promises: nothing that came from outside can add a header field or end a part early; what is read of
//! a message is bounded at every step: its octets, what they unpack to, how deep it goes.

use crate::gzip::{self, GzipError};
use crate::report::{Report, UNPACKED_OCTETS_MAX};
use crate::words;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mail::mime::{ContentType, Part, Structure};
use mail::{Domain, EmailAddress, Timestamp, date, header};
use std::fmt::Write as _;

/// Octets of a message at most in which a report is looked for.
pub const MESSAGE_OCTETS_MAX: usize = 8 * 1024 * 1024;
/// How the Message-ID of each report of ours begins.
const ID_BEGINS: &str = "tlsrpt-";
/// Octets of a line of base64 (RFC 2045 §6.8).
const LINE_OCTETS: usize = 76;

/// Why there is no report in a message that says it is one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is longer than what is read.
    #[error("it has more than {0} octets")]
    TooLarge(usize),
    /// No part is a report.
    #[error("no part of it is application/tlsrpt+gzip or application/tlsrpt+json")]
    NoPart,
    /// The transfer encoding is damaged, or not known.
    #[error("the transfer encoding of the report cannot be undone")]
    Encoding,
    /// It cannot be unpacked.
    #[error(transparent)]
    Gzip(#[from] GzipError),
    /// The JSON is no report.
    #[error("the JSON is no report: {0}")]
    NotAReport(String),
}

/// A report on its way by mail.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The report.
    pub report: &'a Report,
    /// The domain that it is about.
    pub domain: &'a Domain,
    /// Our domain, which signs it.
    pub submitter: &'a Domain,
    /// From whom.
    pub from: &'a EmailAddress,
    /// To whom.
    pub to: &'a EmailAddress,
    /// Our host, for the Message-ID.
    pub host_name: &'a Domain,
    /// Names this message; no other one has it.
    pub id: &'a str,
    /// When.
    pub now: Timestamp,
}

impl Letter<'_> {
    /// The Message-ID without brackets.
    #[must_use]
    pub fn message_id(&self) -> String {
        format!("{ID_BEGINS}{}@{}", self.id, self.host_name)
    }

    /// The message, every line ended by CR LF. It has no signature yet.
    #[must_use]
    pub fn to_message(&self) -> Vec<u8> {
        let boundary = format!("=_tlsrpt-{}", self.id);
        let name = file_name(self.report, self.submitter, self.domain, "json.gz");
        let mut out = self.header(&boundary);
        let _ = write!(
            out,
            "This is a report in the sense of RFC 8460.\r\n\r\n\
             --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{}\r\n\
             --{boundary}\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n\tfilename=\"{name}\"\r\n\r\n",
            self.human()
        );
        let packed = base64::engine::general_purpose::STANDARD.encode(gzip::pack(&self.report.to_json()));
        for line in packed.as_bytes().chunks(LINE_OCTETS) {
            out.push_str(&String::from_utf8_lossy(line));
            out.push_str("\r\n");
        }
        let _ = write!(out, "--{boundary}--\r\n");
        out.into_bytes()
    }

    fn header(&self, boundary: &str) -> String {
        let (domain, submitter) = (self.domain, self.submitter);
        // RFC 8689 §5: a report about TLS that fails must not wait for TLS to work.
        format!(
            "Date: {}\r\nFrom: <{}>\r\nTo: <{}>\r\n\
             Subject: Report Domain: {domain}\r\n\tSubmitter: {submitter}\r\n\tReport-ID: <{}>\r\n\
             Message-ID: <{}>\r\nTLS-Report-Domain: {domain}\r\nTLS-Report-Submitter: {submitter}\r\n\
             TLS-Required: No\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n\tboundary=\"{boundary}\"\r\n\r\n",
            date::rfc5322(self.now),
            self.from,
            self.to,
            id_of(self.report),
            self.message_id(),
        )
    }

    fn human(&self) -> String {
        let mut out = format!(
            "This is the mail server {} of {}.\r\nIt reports how its conversations with the mail servers of {} fared with TLS on {}.\r\n",
            self.host_name,
            self.submitter,
            self.domain,
            crate::Day::of(self.report.range.start).date(),
        );
        for line in words::tell(self.report).lines() {
            let _ = write!(out, "\r\n{line}");
        }
        out.push_str("\r\n");
        out
    }
}

/// The report's name as a Message-ID has it, whatever stands in it.
fn id_of(report: &Report) -> String {
    let fits = |c: &char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | '\\');
    report.id.chars().filter(fits).collect()
}

/// Whether a Message-ID, without brackets, is of a report of ours.
#[must_use]
pub fn is_ours(message_id: &str) -> bool {
    message_id.starts_with(ID_BEGINS)
}

/// The name of the file that a report is sent as (RFC 8460 §5.1).
#[must_use]
pub fn file_name(report: &Report, submitter: &Domain, domain: &Domain, extension: &str) -> String {
    let (start, end) = (report.range.start.secs(), report.range.end.secs());
    format!("{submitter}!{domain}!{start}!{end}.{extension}")
}

/// Whether a message says of itself that it is a TLS report. One look at its header section.
#[must_use]
pub fn says_it_is_one(message: &[u8]) -> bool {
    if header::first(message, "TLS-Report-Domain").is_some() {
        return true;
    }
    let field = header::first(message, "Content-Type");
    let kind = field.and_then(|field| ContentType::parse(field.value().as_bytes()));
    kind.is_some_and(|kind| {
        let names_it = |word: &str| word.eq_ignore_ascii_case("tlsrpt");
        (kind.is("multipart", "report") && kind.parameter("report-type").is_some_and(names_it))
            || is_report(&kind)
    })
}

fn is_report(kind: &ContentType) -> bool {
    kind.is("application", "tlsrpt+gzip") || kind.is("application", "tlsrpt+json")
}

/// The report in a message; `None` when the message does not say that there is one.
///
/// # Errors
/// Why there is none after all.
pub fn read_message(message: &[u8]) -> Option<Result<Report, Unreadable>> {
    says_it_is_one(message).then(|| read(message))
}

fn read(message: &[u8]) -> Result<Report, Unreadable> {
    if message.len() > MESSAGE_OCTETS_MAX {
        return Err(Unreadable::TooLarge(MESSAGE_OCTETS_MAX));
    }
    let structure = Structure::of(message);
    let parts = || structure.parts().iter();
    // Some name the type of the file instead.
    let is_file = |kind: &ContentType| kind.is("application", "gzip") || kind.is("application", "json");
    let part = parts().find(|part| is_report(&part.content_type));
    let part = part.or_else(|| parts().find(|part| is_file(&part.content_type)));
    let octets = decoded(message, part.ok_or(Unreadable::NoPart)?)?;
    read_octets(&octets)
}

/// The report in the octets of a file, packed or not.
///
/// # Errors
/// Why there is none.
pub fn read_octets(octets: &[u8]) -> Result<Report, Unreadable> {
    if octets.starts_with(&[0x1f, 0x8b]) {
        return Report::parse(&gzip::unpack(octets, UNPACKED_OCTETS_MAX)?);
    }
    Report::parse(octets)
}

/// A part's body with its transfer encoding undone.
fn decoded(message: &[u8], part: &Part) -> Result<Vec<u8>, Unreadable> {
    let body = message.get(part.body.clone()).unwrap_or_default();
    match part.encoding.to_ascii_lowercase().as_str() {
        "7bit" | "8bit" | "binary" => Ok(body.to_vec()),
        "base64" => {
            let lenient =
                GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
            let letters: Vec<u8> = body
                .iter()
                .copied()
                .filter(|b| !b.is_ascii_whitespace())
                .collect();
            let decoded = GeneralPurpose::new(&alphabet::STANDARD, lenient).decode(letters);
            decoded.map_err(|_| Unreadable::Encoding)
        }
        "quoted-printable" => unquoted(body).ok_or(Unreadable::Encoding),
        _ => Err(Unreadable::Encoding),
    }
}

/// Quoted-printable undone (RFC 2045 §6.7).
fn unquoted(body: &[u8]) -> Option<Vec<u8>> {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    loop {
        rest = match rest {
            [] => return Some(out),
            [b'=', b'\r', b'\n', behind @ ..] | [b'=', b'\n', behind @ ..] => behind,
            [b'=', high, low, behind @ ..] => {
                out.push((digit(*high)? * 16 + digit(*low)?) as u8);
                behind
            }
            [b'=', ..] => return None,
            [plain, behind @ ..] => {
                out.push(*plain);
                behind
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{PolicyResults, Range, Summary};
    use crate::result::{Policy, ResultType};
    use crate::{Day, Detail};
    use proptest::prelude::*;

    fn d(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn report() -> Report {
        let day = Day(20_780);
        Report {
            organization: "Example \"Ltd\" <x>\u{e9}".to_owned(),
            range: Range {
                start: day.start(),
                end: Timestamp::from_secs(day.end().secs() - 1),
            },
            contact: "postmaster@example.com".to_owned(),
            id: "2026-11-23.example.org@example.com".to_owned(),
            policies: vec![PolicyResults {
                policy: Policy::none(&d("example.org")),
                summary: Summary {
                    successful: 3,
                    failed: 1,
                },
                details: vec![Detail {
                    result: ResultType::StarttlsNotSupported,
                    sending_ip: None,
                    receiving_host: Some("mx.example.org".to_owned()),
                    receiving_helo: None,
                    receiving_ip: "192.0.2.1".parse().ok(),
                    failed: 1,
                    additional: None,
                    reason: None,
                }],
            }],
        }
    }

    fn message() -> Vec<u8> {
        Letter {
            report: &report(),
            domain: &d("example.org"),
            submitter: &d("example.com"),
            from: &EmailAddress::parse("tlsrpt-noreply@example.com").unwrap(),
            to: &EmailAddress::parse("reports@example.org").unwrap(),
            host_name: &d("mail.example.com"),
            id: "00000000000K1",
            now: Day(20_781).start(),
        }
        .to_message()
    }

    #[test]
    fn the_message_has_what_the_rfc_asks_for() {
        let text = String::from_utf8(message()).unwrap();
        for line in [
            "From: <tlsrpt-noreply@example.com>",
            "To: <reports@example.org>",
            "Subject: Report Domain: example.org\r\n\tSubmitter: example.com\r\n\tReport-ID: <2026-11-23.example.org@example.com>",
            "TLS-Report-Domain: example.org",
            "TLS-Report-Submitter: example.com",
            "TLS-Required: No",
            "Content-Type: multipart/report; report-type=\"tlsrpt\";",
            "Content-Type: application/tlsrpt+gzip",
            "\tfilename=\"example.com!example.org!1795392000!1795478399.json.gz\"",
        ] {
            assert!(text.contains(&format!("{line}\r\n")), "{line} is not in\n{text}");
        }
        let structure = Structure::of(text.as_bytes());
        let kinds: Vec<String> = structure
            .parts()
            .iter()
            .map(|p| format!("{}/{}", p.content_type.kind, p.content_type.subtype))
            .collect();
        assert_eq!(
            kinds,
            ["multipart/report", "text/plain", "application/tlsrpt+gzip"]
        );
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
        assert!(text.lines().all(|line| line.len() < 998));
        let id = header::first(text.as_bytes(), "Message-ID").unwrap().value();
        assert!(is_ours(id.trim_matches(['<', '>'])), "{id}");
    }

    #[test]
    fn the_message_is_the_one_that_other_programs_were_shown() {
        // e2e/test_tlsrpt.py reads it with Python's email, gzip and json.
        let golden = include_bytes!("../tests/data/report.eml");
        let (ours, theirs) = (message(), golden.to_vec());
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs));
    }

    #[test]
    fn what_is_sent_is_read() {
        assert_eq!(read_message(&message()), Some(Ok(report())));
    }

    #[test]
    fn reports_come_in_many_forms() {
        let json = report().to_json();
        let json = String::from_utf8(json).unwrap();
        let quoted = json.replace('=', "=3D").replace(',', "=2C=\r\n");
        let top = "TLS-Report-Domain: example.org\r\n";
        for (what, head, body) in [
            ("bare", "Content-Type: application/tlsrpt+json\r\n", json.clone()),
            (
                "quoted",
                "Content-Type: application/tlsrpt+json\r\nContent-Transfer-Encoding: QUOTED-PRINTABLE\r\n",
                quoted.clone(),
            ),
            (
                "type of the file",
                "Content-Type: application/json\r\nContent-Transfer-Encoding: quoted-printable\r\n",
                quoted,
            ),
        ] {
            let message = format!("{top}{head}\r\n{body}");
            assert_eq!(read_message(message.as_bytes()), Some(Ok(report())), "{what}");
        }
    }

    #[test]
    fn what_is_no_report_is_told_apart() {
        let ordinary = b"Subject: Hi\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\n--x--\r\n";
        assert_eq!(read_message(ordinary), None);
        let top = "Content-Type: multipart/report; report-type=TLSRPT; boundary=x\r\n\r\n--x\r\n";
        for (part, wanted) in [
            ("Content-Type: text/plain\r\n\r\nHi", Unreadable::NoPart),
            (
                "Content-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n???",
                Unreadable::Encoding,
            ),
            (
                "Content-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: uuencode\r\n\r\nx",
                Unreadable::Encoding,
            ),
            (
                "Content-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\r\nH4sIAAAA",
                Unreadable::Gzip(GzipError::CutOff),
            ),
        ] {
            let message = format!("{top}{part}\r\n--x--\r\n");
            assert_eq!(read_message(message.as_bytes()), Some(Err(wanted)), "{part}");
        }
        let bomb =
            base64::engine::general_purpose::STANDARD.encode(gzip::pack(&vec![b' '; 11 * 1024 * 1024]));
        let part = "Content-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n";
        let message = format!("{top}{part}{bomb}\r\n--x--\r\n");
        assert_eq!(
            read_message(message.as_bytes()),
            Some(Err(Unreadable::Gzip(GzipError::TooLarge(UNPACKED_OCTETS_MAX))))
        );
        let huge = [top.as_bytes(), &vec![b'x'; MESSAGE_OCTETS_MAX]].concat();
        assert_eq!(
            read_message(&huge),
            Some(Err(Unreadable::TooLarge(MESSAGE_OCTETS_MAX)))
        );
    }

    proptest! {
        #[test]
        fn a_damaged_message_is_answered(places in proptest::collection::vec((0usize..2_000, any::<u8>()), 1..6)) {
            let mut text = message();
            for (place, octet) in places {
                let place = place % text.len();
                text[place] = octet;
            }
            let _ = read_message(&text);
        }
    }
}
