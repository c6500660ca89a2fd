//! The report to a sender: a multipart/report that a person can read and a program too
//! (RFC 3464, RFC 6522; RFC 6533 where an address is beyond ASCII).
//!
//! Pure: the same values give the same octets. Promises: nothing that came from outside can add a
//! header field or end a part early; the original's header section is bounded.

use crate::explain::explain;
use crate::failure::Failure;
use mail::delivery::OriginalRecipient;
use mail::{Domain, EmailAddress, QueueId, Timestamp, date, header};
use std::fmt::Write as _;

/// Octets of the original's header section at most that a report carries.
pub const HEADERS_OCTETS_MAX: usize = 64 * 1024;
/// Octets of a peer's words in the report at most.
const WORDS_OCTETS_MAX: usize = 1000;

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
}

impl Kind {
    /// The word of RFC 3464 §2.3.3.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Delayed { .. } => "delayed",
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
    /// Why.
    pub failure: &'a Failure,
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
    /// The original, at least its header section.
    pub original: &'a [u8],
    /// The recipients, at least one.
    pub recipients: &'a [Reported<'a>],
}

impl Report<'_> {
    /// Whether carrying this report needs SMTPUTF8.
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        self.to.needs_smtputf8() || self.is_global()
    }

    /// Whether the UTF-8 forms of RFC 6533 are needed.
    fn is_global(&self) -> bool {
        let headers = &self.original[..self.headers_end()];
        !headers.is_ascii()
            || self
                .recipients
                .iter()
                .any(|r| !r.recipient.to_string().is_ascii())
    }

    fn headers_end(&self) -> usize {
        let last = header::fields(self.original)
            .take_while(|f| f.span().end <= HEADERS_OCTETS_MAX)
            .last();
        last.map_or(0, |f| f.span().end)
    }

    /// The original's header section with strict line endings, whatever it had.
    fn original_headers(&self) -> String {
        let text = String::from_utf8_lossy(&self.original[..self.headers_end()]);
        text.replace('\r', "").replace('\n', "\r\n")
    }

    /// The whole message with its header section, every line ended by CR LF.
    #[must_use]
    pub fn to_message(&self) -> Vec<u8> {
        let global = self.is_global();
        let boundary = format!("=_report-{}-{}", self.id, self.original_id);
        let (status_type, headers_type) = if global {
            ("message/global-delivery-status", "message/global-headers")
        } else {
            ("message/delivery-status", "text/rfc822-headers")
        };
        let encoding = if global { "8bit" } else { "7bit" };
        let mut out = self.header(&boundary);
        let mut part = |content_type: &str, encoding: &str, body: &str| {
            let _ = write!(
                out,
                "--{boundary}\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}\r\n"
            );
        };
        let text = self.human();
        let text_encoding = if text.is_ascii() { "7bit" } else { "8bit" };
        part("text/plain; charset=utf-8", text_encoding, &text);
        part(status_type, encoding, &self.machine(global));
        part(headers_type, encoding, &self.original_headers());
        let _ = write!(out, "--{boundary}--\r\n");
        out.into_bytes()
    }

    fn header(&self, boundary: &str) -> String {
        let subject = match (self.kind, self.recipients) {
            (Kind::Failed, [one]) => format!("Not delivered: your message to {}", shown(one.recipient)),
            (Kind::Failed, _) => "Not delivered: your message".to_owned(),
            (Kind::Delayed { .. }, [one]) => format!("Delayed: your message to {}", shown(one.recipient)),
            (Kind::Delayed { .. }, _) => "Delayed: your message".to_owned(),
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

    fn human(&self) -> String {
        let mut out = format!("This is the mail server {}.\r\n\r\n", self.host_name);
        out.push_str(match self.kind {
            Kind::Failed => "Your message could not be delivered, and will not be tried again.\r\n",
            Kind::Delayed { .. } => {
                "Your message could not be delivered yet. You need not do anything: it is still being tried.\r\n"
            }
        });
        for r in self.recipients {
            let explanation = explain(r.failure);
            let _ = write!(
                out,
                "\r\n  Recipient:   {}\r\n  Problem:     {}\r\n",
                r.recipient, explanation.problem
            );
            let words = plain(&r.failure.reply());
            match r.failure.host() {
                Some(host) => folded(&mut out, "  They said:   ", &format!("{words} ({})", plain(host))),
                None => folded(&mut out, "  We found:    ", &words),
            }
            folded(&mut out, "  What helps:  ", explanation.remedy);
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
            "\r\nThe message was accepted on {} as {}.\r\nIts header follows below.\r\n",
            date::rfc5322(self.arrived),
            self.original_id
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
                self.status(r.failure),
            );
            if let Some(host) = r.failure.host() {
                let _ = write!(out, "Remote-MTA: dns; {}\r\n", plain(host));
                let reply = plain(&r.failure.reply());
                folded(&mut out, "Diagnostic-Code: smtp; ", &reply);
            } else {
                folded(&mut out, "Diagnostic-Code: x-local; ", &plain(&r.failure.words));
            }
            let _ = write!(out, "Last-Attempt-Date: {}\r\n", date::rfc5322(r.last_attempt));
            if let Kind::Delayed { until } = self.kind {
                let _ = write!(out, "Will-Retry-Until: {}\r\n", date::rfc5322(until));
            }
        }
        out
    }

    /// A temporary failure that has become final is reported as a permanent one (RFC 3464 §2.3.4).
    fn status(&self, failure: &Failure) -> mail::EnhancedStatus {
        let s = failure.status;
        let class = match self.kind {
            Kind::Failed => 5,
            Kind::Delayed { .. } => 4,
        };
        mail::EnhancedStatus::new(class, s.subject, s.detail)
    }
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
        // RFC 5322 §2.1.1: 998 octets are the most of a line; a word alone stays below.
        out.push_str(word);
        column += word.len();
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::EnhancedStatus;

    const ORIGINAL: &[u8] =
        b"From: alice@gmail.com\r\nSubject: Hello!\r\nMessage-ID: <1@gmail.com>\r\n\r\nHi Bob\r\n";

    fn report(kind: Kind, recipient: &str, failure: &Failure, original: &[u8]) -> (String, bool) {
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
            envelope_id: None,
            original,
            recipients: &[Reported {
                recipient: &recipient,
                original_recipient: original_recipient.as_ref(),
                failure,
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
            "Reporting-MTA: dns; mail.gmail.com\r\n",
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
    }

    #[test]
    fn addresses_beyond_ascii_use_the_global_forms() {
        let (text, utf8) = report(Kind::Failed, "böb@example.com", &refused(), ORIGINAL);
        assert!(utf8);
        assert!(text.contains("Content-Type: message/global-delivery-status\r\n"));
        assert!(text.contains("Final-Recipient: utf-8; böb@example.com\r\n"));
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
