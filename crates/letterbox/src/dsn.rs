//! The report to a sender: a multipart/report that a person can read and a program too
//! (RFC 3464, RFC 6522; RFC 6533 where an address is beyond ASCII).
//!
//! Pure: the same values give the same octets. Promises: nothing that came from outside can add a
//! header field or end a part early; what it brings back of the original is bounded.
//!
//! What it brings back (RFC 3461 §4.3): the header section; the whole message where it failed, the
//! sender asked for that (RET=FULL) and it is small enough ([`FULL_OCTETS_MAX`]).

use crate::explain::Explanation;
use crate::failure::Failure;
use mail::delivery::OriginalRecipient;
use mail::{Domain, EmailAddress, EnhancedStatus, QueueId, Timestamp, date, header};
use std::fmt::Write as _;

/// Octets of the original's header section at most that a report carries.
pub const HEADERS_OCTETS_MAX: usize = 64 * 1024;
/// Octets of a message at most that a report brings back as a whole. Beyond it comes the header
/// section, whatever the sender asked.
pub const FULL_OCTETS_MAX: usize = 256 * 1024;
/// Octets of a peer's words in the report at most.
const WORDS_OCTETS_MAX: usize = 1000;
/// Octets of a single word on a line at most; what is longer goes on in the next line.
const WORD_OCTETS_MAX: usize = 900;

/// What the report tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It failed for good.
    Failed,
    /// It is late, and is tried until then.
    Delayed {
        /// When it is given up.
        until: Timestamp,
    },
    /// It is in a mailbox here.
    Delivered,
    /// The next server took it, and will not report.
    Relayed,
    /// The address leads to several recipients, and it is on its way to all of them.
    Expanded,
}

impl Kind {
    /// The word of RFC 3464 §2.3.3.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Delayed { .. } => "delayed",
            Kind::Delivered => "delivered",
            Kind::Relayed => "relayed",
            Kind::Expanded => "expanded",
        }
    }

    /// How the subject begins.
    const fn headline(self) -> &'static str {
        match self {
            Kind::Failed => "Not delivered",
            Kind::Delayed { .. } => "Delayed",
            Kind::Delivered => "Delivered",
            Kind::Relayed => "Passed on",
            Kind::Expanded => "Distributed",
        }
    }

    /// What it means, for people.
    const fn meaning(self) -> &'static str {
        match self {
            Kind::Failed => "Your message could not be delivered, and will not be tried again.\r\n",
            Kind::Delayed { .. } => {
                "Your message could not be delivered yet. You need not do anything: it is still being tried.\r\n"
            }
            Kind::Delivered => "Your message has arrived in the mailbox of the recipient.\r\n",
            Kind::Relayed => {
                "Your message was passed on to the next mail server. That server does not report success, so\r\nthis is the last you hear of it unless it fails.\r\n"
            }
            Kind::Expanded => {
                "The address leads to several recipients, and your message was passed on to all of them.\r\nTheir success is not reported one by one.\r\n"
            }
        }
    }
}

/// What was said of one recipient.
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// Why it failed, or is late.
    Failure {
        /// The failure.
        failure: &'a Failure,
        /// What it means.
        explanation: &'a Explanation,
    },
    /// It went well.
    Success {
        /// The server that took it, when it was another.
        host: Option<&'a str>,
        /// Its reply on one line, or ours.
        reply: &'a str,
        /// The enhanced status.
        status: Option<EnhancedStatus>,
    },
}

impl Said<'_> {
    /// It is in a mailbox here, or on its way to several.
    pub const HERE: Said<'static> = Said::Success {
        host: None,
        reply: "250 2.0.0 done",
        status: Some(EnhancedStatus::new(2, 0, 0)),
    };

    fn host(&self) -> Option<&str> {
        match self {
            Said::Failure { failure, .. } => failure.host(),
            Said::Success { host, .. } => *host,
        }
    }

    fn reply(&self) -> String {
        match self {
            Said::Failure { failure, .. } => failure.reply(),
            Said::Success { reply, .. } => (*reply).to_owned(),
        }
    }
}

/// One recipient of the report.
#[derive(Clone, Debug)]
pub struct Reported<'a> {
    /// The address that failed.
    pub recipient: &'a EmailAddress,
    /// The address as the sender gave it, with its type (RFC 3461 §4.2 ORCPT).
    pub original_recipient: Option<&'a OriginalRecipient>,
    /// What came of it.
    pub said: Said<'a>,
    /// When it was last tried.
    pub last_attempt: Timestamp,
    /// How often.
    pub attempts: u32,
}

/// Everything that a report is made of.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// What it tells.
    pub kind: Kind,
    /// Our name.
    pub host_name: &'a Domain,
    /// Whose postmaster the report comes from: one that can be answered (RFC 5321 §4.5.1).
    pub postmaster_of: &'a Domain,
    /// The report's own id.
    pub id: QueueId,
    /// When.
    pub now: Timestamp,
    /// The original's sender, to whom it goes.
    pub to: &'a EmailAddress,
    /// The original's id here.
    pub original_id: QueueId,
    /// When the original was accepted.
    pub arrived: Timestamp,
    /// The sender's envelope id (RFC 3461 §4.4).
    pub envelope_id: Option<&'a str>,
    /// The original: whole when `whole`, else at least its header section.
    pub original: &'a [u8],
    /// Whether the original is there as a whole and is to be brought back so.
    pub whole: bool,
    /// The recipients, at least one.
    pub recipients: &'a [Reported<'a>],
}

impl Report<'_> {
    /// Whether carrying this report needs SMTPUTF8.
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        self.to.needs_smtputf8() || self.names_beyond_ascii()
    }

    /// Whether an address that it tells of is beyond ASCII. Its sender has used SMTPUTF8 then. What a
    /// returned header section holds stands in a part of its own, which any way for eight bits takes.
    fn names_beyond_ascii(&self) -> bool {
        self.recipients
            .iter()
            .any(|r| !r.recipient.to_string().is_ascii())
    }

    /// Whether the UTF-8 forms of RFC 6533 are needed.
    fn is_global(&self) -> bool {
        let headers = &self.original[..self.headers_end()];
        !headers.is_ascii() || self.names_beyond_ascii()
    }

    fn headers_end(&self) -> usize {
        let last = header::fields(self.original)
            .take_while(|f| f.span().end <= HEADERS_OCTETS_MAX)
            .last();
        last.map_or(0, |f| f.span().end)
    }

    /// The original with strict line endings, whatever it had: its header section, or all of it.
    fn returned(&self, whole: bool) -> Vec<u8> {
        let end = if whole {
            self.original.len()
        } else {
            self.headers_end()
        };
        let mut out = Vec::with_capacity(end + 16);
        let mut octets = self.original[..end].iter().peekable();
        while let Some(&octet) = octets.next() {
            match octet {
                b'\r' => {
                    out.extend_from_slice(b"\r\n");
                    octets.next_if(|next| **next == b'\n');
                }
                b'\n' => out.extend_from_slice(b"\r\n"),
                other => out.push(other),
            }
        }
        if !whole && std::str::from_utf8(&out).is_err() {
            return String::from_utf8_lossy(&out).into_owned().into_bytes();
        }
        out
    }

    /// The whole message with its header section, every line ended by CR LF.
    #[must_use]
    pub fn to_message(&self) -> Vec<u8> {
        let global = self.is_global();
        let boundary = format!("=_report-{}-{}", self.id, self.original_id);
        // A message that foresaw the boundary would end its own part.
        let whole = self.whole && !holds(self.original, boundary.as_bytes());
        let status_type = if global {
            "message/global-delivery-status"
        } else {
            "message/delivery-status"
        };
        let returned_type = match (whole, global) {
            (true, true) => "message/global",
            (true, false) => "message/rfc822",
            (false, true) => "message/global-headers",
            (false, false) => "text/rfc822-headers",
        };
        let mut out = self.header(&boundary).into_bytes();
        let mut part = |content_type: &str, body: &[u8]| {
            let encoding = if body.is_ascii() { "7bit" } else { "8bit" };
            let head = format!(
                "--{boundary}\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
            );
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(body);
            out.extend_from_slice(b"\r\n");
        };
        part("text/plain; charset=utf-8", self.human(whole).as_bytes());
        part(status_type, self.machine(global).as_bytes());
        part(returned_type, &self.returned(whole));
        out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        out
    }

    fn header(&self, boundary: &str) -> String {
        let headline = self.kind.headline();
        let subject = match self.recipients {
            [one] => format!("{headline}: your message to {}", shown(one.recipient)),
            _ => format!("{headline}: your message"),
        };
        let mut out = format!(
            "Date: {}\r\nFrom: Mail Delivery System <postmaster@{}>\r\nTo: {}\r\nSubject: {subject}\r\nMessage-ID: <{}@{host}>\r\n",
            date::rfc5322(self.now),
            self.postmaster_of,
            self.to,
            self.id,
            host = self.host_name,
        );
        if let Some(id) = header::first(self.original, "Message-ID").and_then(|f| message_id(f.value())) {
            let _ = write!(out, "In-Reply-To: {id}\r\nReferences: {id}\r\n");
        }
        // RFC 3834 §5: so that no robot answers, and no vacation notice comes back.
        let _ = write!(
            out,
            "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n"
        );
        out
    }

    fn human(&self, whole: bool) -> String {
        let mut out = format!("This is the mail server {}.\r\n\r\n", self.host_name);
        out.push_str(self.kind.meaning());
        for r in self.recipients {
            let _ = write!(out, "\r\n  Recipient:   {}\r\n", r.recipient);
            let explanation = match r.said {
                Said::Failure { explanation, .. } => Some(explanation),
                Said::Success { .. } => None,
            };
            if let Some(explanation) = explanation {
                folded(&mut out, "  Problem:     ", explanation.problem());
            }
            let words = plain(&r.said.reply());
            match (r.said.host(), explanation) {
                (Some(host), _) => {
                    folded(&mut out, "  They said:   ", &format!("{words} ({})", plain(host)));
                }
                (None, Some(_)) => folded(&mut out, "  We found:    ", &words),
                (None, None) => {}
            }
            if let Some(explanation) = explanation {
                folded(&mut out, "  Whose move:  ", explanation.class.side.words());
                folded(&mut out, "  What helps:  ", &plain(&explanation.remedy()));
            }
            if r.attempts > 1 {
                let _ = write!(
                    out,
                    "  Attempts:    {}, the last on {}\r\n",
                    r.attempts,
                    date::rfc5322(r.last_attempt)
                );
            }
        }
        if let Kind::Delayed { until } = self.kind {
            let _ = write!(
                out,
                "\r\nIt is tried until {}. If it fails until then, you will be told.\r\n",
                date::rfc5322(until)
            );
        }
        let _ = write!(
            out,
            "\r\nThe message was accepted on {} as {}.\r\n{} follows below.\r\n",
            date::rfc5322(self.arrived),
            self.original_id,
            if whole { "It" } else { "Its header" },
        );
        out
    }

    /// RFC 3464 §2: the fields of the message, then those of each recipient.
    fn machine(&self, global: bool) -> String {
        let mut out = format!("Reporting-MTA: dns; {}\r\n", self.host_name);
        if let Some(id) = self.envelope_id {
            let _ = write!(out, "Original-Envelope-Id: {}\r\n", plain(id));
        }
        let _ = write!(
            out,
            "X-Queue-ID: {}\r\nArrival-Date: {}\r\n",
            self.original_id,
            date::rfc5322(self.arrived)
        );
        for r in self.recipients {
            let address = r.recipient.to_string();
            let address_type = if global && !address.is_ascii() {
                "utf-8"
            } else {
                "rfc822"
            };
            out.push_str("\r\n");
            if let Some(original) = r.original_recipient {
                let _ = write!(
                    out,
                    "Original-Recipient: {}\r\n",
                    original_recipient(original, global)
                );
            }
            let _ = write!(
                out,
                "Final-Recipient: {address_type}; {address}\r\nAction: {}\r\nStatus: {}\r\n",
                self.kind.action(),
                self.status(r.said),
            );
            match (r.said.host(), r.said) {
                (Some(host), said) => {
                    let _ = write!(out, "Remote-MTA: dns; {}\r\n", plain(host));
                    folded(&mut out, "Diagnostic-Code: smtp; ", &plain(&said.reply()));
                }
                (None, Said::Failure { failure, .. }) => {
                    folded(&mut out, "Diagnostic-Code: x-local; ", &plain(&failure.words));
                }
                (None, Said::Success { .. }) => {}
            }
            let _ = write!(out, "Last-Attempt-Date: {}\r\n", date::rfc5322(r.last_attempt));
            if let Said::Failure { explanation, .. } = r.said {
                // RFC 3464 §2.4: a field of our own, for programs.
                let _ = write!(out, "X-Failure-Class: {}\r\n", explanation.class.name);
            }
            if let Kind::Delayed { until } = self.kind {
                let _ = write!(out, "Will-Retry-Until: {}\r\n", date::rfc5322(until));
            }
        }
        out
    }

    /// A temporary failure that has become final is reported as a permanent one (RFC 3464 §2.3.4).
    fn status(&self, said: Said<'_>) -> EnhancedStatus {
        let s = match said {
            Said::Failure { failure, .. } => failure.status,
            Said::Success { status, .. } => status.unwrap_or(EnhancedStatus::new(2, 0, 0)),
        };
        let class = match self.kind {
            Kind::Failed => 5,
            Kind::Delayed { .. } => 4,
            Kind::Delivered | Kind::Relayed | Kind::Expanded => 2,
        };
        EnhancedStatus::new(class, s.subject, s.detail)
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// RFC 3464 §2.3.1: the address as it was meant, not as the parameter encodes it. Beyond ASCII it can
/// stand in the UTF-8 form only (RFC 6533 §3).
fn original_recipient(original: &OriginalRecipient, global: bool) -> String {
    if global || original.address.is_ascii() {
        let mut text = format!("{}; {}", original.addr_type, original.address);
        text.truncate(text.floor_char_boundary(WORDS_OCTETS_MAX));
        return text;
    }
    plain(&original.to_string())
}

/// An address in a subject, where only ASCII may stand without encoding.
fn shown(address: &EmailAddress) -> String {
    let text = address.to_string();
    if text.is_ascii() {
        return text;
    }
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

/// A Message-ID that can stand in our header: one word in brackets.
fn message_id(value: String) -> Option<String> {
    let fits = value.starts_with('<')
        && value.ends_with('>')
        && value.len() <= 250
        && value.bytes().all(|b| b.is_ascii_graphic());
    fits.then_some(value)
}

/// Words from outside on one line of printable ASCII, of bounded length.
fn plain(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .collect();
    out.truncate(WORDS_OCTETS_MAX);
    out
}

/// Writes `start` and the text, broken at spaces into lines of at most 78 characters that go on
/// indented: readable for people, and a folded field for programs.
fn folded(out: &mut String, start: &str, text: &str) {
    out.push_str(start);
    let indent = if start.starts_with(' ') { start.len() } else { 1 };
    let mut column = start.len();
    for (i, word) in text.split(' ').filter(|w| !w.is_empty()).enumerate() {
        if i > 0 {
            if column + 1 + word.len() > 78 {
                let _ = write!(out, "\r\n{}", " ".repeat(indent));
                column = indent;
            } else {
                out.push(' ');
                column += 1;
            }
        }
        // RFC 5322 §2.1.1: 998 octets are the most of a line, and a peer may say one endless word.
        let mut word = word;
        while word.len() > WORD_OCTETS_MAX {
            let (part, rest) = word.split_at(word.floor_char_boundary(WORD_OCTETS_MAX));
            let _ = write!(out, "{part}\r\n{}", " ".repeat(indent));
            (word, column) = (rest, indent);
        }
        out.push_str(word);
        column += word.len();
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Replies;
    use mail::EnhancedStatus;

    const ORIGINAL: &[u8] =
        b"From: alice@gmail.com\r\nSubject: Hello!\r\nMessage-ID: <1@gmail.com>\r\n\r\nHi Bob\r\n";

    fn report(kind: Kind, recipient: &str, failure: &Failure, original: &[u8]) -> (String, bool) {
        let whole = false;
        let explanation = Replies::built_in().explain(failure);
        let said = Said::Failure {
            failure,
            explanation: &explanation,
        };
        report_of(kind, recipient, said, (original, whole))
    }

    fn report_of(
        kind: Kind,
        recipient: &str,
        said: Said<'_>,
        (original, whole): (&[u8], bool),
    ) -> (String, bool) {
        let recipient = EmailAddress::parse(recipient).unwrap();
        let to = EmailAddress::parse("alice@gmail.com").unwrap();
        let host_name = Domain::parse("mail.gmail.com").unwrap();
        let postmaster_of = Domain::parse("gmail.com").unwrap();
        let original_recipient = OriginalRecipient::parse("rfc822;bob@example.com");
        let report = Report {
            kind,
            host_name: &host_name,
            postmaster_of: &postmaster_of,
            id: QueueId(2),
            now: Timestamp::from_secs(1_795_439_053),
            to: &to,
            original_id: QueueId(1),
            arrived: Timestamp::from_secs(1_795_439_000),
            envelope_id: Some("QQ 1"),
            original,
            whole,
            recipients: &[Reported {
                recipient: &recipient,
                original_recipient: original_recipient.as_ref(),
                said,
                last_attempt: Timestamp::from_secs(1_795_439_050),
                attempts: 3,
            }],
        };
        let utf8 = report.needs_smtputf8();
        (String::from_utf8(report.to_message()).unwrap(), utf8)
    }

    fn refused() -> Failure {
        Failure::of_peer(
            "mx.example.com",
            550,
            Some(EnhancedStatus::new(5, 1, 1)),
            "5.1.1 No such user",
        )
    }

    #[test]
    fn a_failure() {
        let (text, utf8) = report(Kind::Failed, "bob@example.com", &refused(), ORIGINAL);
        assert!(!utf8);
        for wanted in [
            "From: Mail Delivery System <postmaster@gmail.com>\r\nTo: alice@gmail.com\r\n",
            "Subject: Not delivered: your message to bob@example.com\r\n",
            "In-Reply-To: <1@gmail.com>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "multipart/report; report-type=delivery-status;",
            "  Problem:     The address does not exist there.\r\n",
            "  They said:   550 5.1.1 No such user (mx.example.com)\r\n",
            "  Whose move:  the message or its addresses\r\n",
            "X-Failure-Class: unknown-user\r\n",
            "Reporting-MTA: dns; mail.gmail.com\r\nOriginal-Envelope-Id: QQ 1\r\n",
            "\r\n\r\nOriginal-Recipient: rfc822; bob@example.com\r\nFinal-Recipient: rfc822; bob@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            "Remote-MTA: dns; mx.example.com\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user\r\n",
            "Content-Type: text/rfc822-headers\r\n",
            "Subject: Hello!\r\n",
        ] {
            assert!(text.contains(wanted), "{wanted:?} in\n{text}");
        }
        assert!(!text.contains("Hi Bob"), "the body stays out");
        assert!(
            text.split("\r\n")
                .all(|l| l.len() <= 998 && !l.contains(['\r', '\n']))
        );
    }

    #[test]
    fn a_success() {
        let taken = Said::Success {
            host: Some("mx.example.com"),
            reply: "250 2.1.5 queued as 1",
            status: Some(EnhancedStatus::new(2, 1, 5)),
        };
        for (kind, said, wanted) in [
            (
                Kind::Relayed,
                taken,
                "Action: relayed\r\nStatus: 2.1.5\r\nRemote-MTA: dns; mx.example.com\r\nDiagnostic-Code: smtp; 250 2.1.5 queued as 1\r\n",
            ),
            (
                Kind::Delivered,
                Said::HERE,
                "Action: delivered\r\nStatus: 2.0.0\r\nLast-Attempt-Date",
            ),
            (
                Kind::Expanded,
                Said::HERE,
                "Action: expanded\r\nStatus: 2.0.0\r\nLast",
            ),
        ] {
            let (text, _) = report_of(kind, "bob@example.com", said, (ORIGINAL, false));
            assert!(text.contains(wanted), "{wanted:?} in\n{text}");
            assert!(!text.contains("Problem"));
            assert!(text.contains("Content-Type: text/rfc822-headers\r\n"));
        }
    }

    #[test]
    fn the_whole_message_comes_back() {
        let failure = refused();
        let explanation = Replies::built_in().explain(&failure);
        let said = Said::Failure {
            failure: &failure,
            explanation: &explanation,
        };
        let text = b"Subject: Hello!\n\nHi\rB\xf6b\r\n".as_slice();
        let original_recipient = None;
        let recipient = EmailAddress::parse("bob@example.com").unwrap();
        let (host, to) = (Domain::parse("mail.gmail.com").unwrap(), recipient.clone());
        let report = |original, whole| {
            Report {
                kind: Kind::Failed,
                host_name: &host,
                postmaster_of: &host,
                id: QueueId(2),
                now: Timestamp(0),
                to: &to,
                original_id: QueueId(1),
                arrived: Timestamp(0),
                envelope_id: None,
                original,
                whole,
                recipients: &[Reported {
                    recipient: &recipient,
                    original_recipient,
                    said,
                    last_attempt: Timestamp(0),
                    attempts: 1,
                }],
            }
            .to_message()
        };
        let made = report(text, true);
        let wanted = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: Hello!\r\n\r\nHi\r\nB\xf6b\r\n\r\n--=_report-";
        assert!(holds(&made, wanted), "{}", made.escape_ascii());
        // One that knows the boundary comes back as its header.
        let boundary = format!("\r\n--=_report-{}-{}--\r\n", QueueId(2), QueueId(1));
        let sly = [text, boundary.as_bytes()].concat();
        let made = report(&sly, true);
        assert!(holds(&made, b"text/rfc822-headers") && !holds(&made, b"Hi\r\n"));
    }

    #[test]
    fn a_delay_and_an_expiry() {
        let failure = Failure::ours(451, EnhancedStatus::new(4, 4, 1), "connection refused");
        let until = Timestamp::from_secs(1_795_539_053);
        let (text, _) = report(Kind::Delayed { until }, "bob@example.com", &failure, ORIGINAL);
        for wanted in [
            "Action: delayed\r\nStatus: 4.4.1\r\n",
            "Will-Retry-Until: ",
            "still being tried",
        ] {
            assert!(text.contains(wanted), "{wanted:?} in\n{text}");
        }
        let (text, _) = report(Kind::Failed, "bob@example.com", &failure, ORIGINAL);
        assert!(text.contains("Status: 5.4.1\r\nDiagnostic-Code: x-local; connection refused\r\n"));
        assert!(text.contains("X-Failure-Class: no-connection\r\n"));
    }

    #[test]
    fn addresses_beyond_ascii_use_the_global_forms() {
        let (text, utf8) = report(Kind::Failed, "böb@example.com", &refused(), ORIGINAL);
        assert!(utf8);
        assert!(text.contains("Content-Type: message/global-delivery-status\r\n"));
        assert!(text.contains("Final-Recipient: utf-8; böb@example.com\r\n"));
    }

    #[test]
    fn a_header_beyond_ascii_alone_needs_no_smtputf8() {
        let original = "Subject: Gr\u{fc}\u{df}e\r\n\r\nHi\r\n".as_bytes();
        let (text, utf8) = report(Kind::Failed, "bob@example.com", &refused(), original);
        assert!(
            !utf8,
            "the sender's server may not know it, and the report would be lost"
        );
        assert!(text.contains("Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n"));
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.is_ascii());
    }

    #[test]
    fn an_endless_word_is_broken() {
        let failure = Failure::of_peer("mx.example.com", 554, None, &"z".repeat(9000));
        let (text, _) = report(Kind::Failed, "bob@example.com", &failure, ORIGINAL);
        // RFC 5322 §2.1.1
        let longest = text.split("\r\n").map(str::len).max();
        assert!(longest <= Some(998), "{longest:?}");
    }

    #[test]
    fn hostile_words_stay_words() {
        let failure = Failure::of_peer(
            "mx\r\nX: y",
            550,
            None,
            &format!("a\r\nBcc: x\r\n\r\n{}", "z".repeat(9000)),
        );
        let original = b"Message-ID: <a@b>\r\n\tX: <c@d>\r\nSubject: x\r\n\r\n";
        let (text, _) = report(Kind::Failed, "bob@example.com", &failure, original);
        assert!(!text.contains("\r\nBcc:") && !text.contains("\r\nX: y"));
        assert!(!text.contains("In-Reply-To"));
        assert!(text.split("\r\n").all(|l| l.len() <= 1100));
        let huge = ["Subject: x\r\n".repeat(10_000).as_bytes(), b"\r\n"].concat();
        let (text, _) = report(Kind::Failed, "bob@example.com", &failure, &huge);
        assert!(text.len() < HEADERS_OCTETS_MAX + 8192);
    }
}
