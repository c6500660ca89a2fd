//! What EHLO offers, and whether a parameter of MAIL or RCPT was among it.

use super::Server;
use crate::command::{MailFrom, RcptTo};
use crate::replies;
use crate::reply::Reply;
use crate::xclient;
use mail::date;
use std::time::Duration;

/// What every session offers.
const ALWAYS: [&str; 7] = [
    "PIPELINING",
    "8BITMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "CHUNKING",
    "BINARYMIME",
    "DSN",
];

/// The highest value of a limit that RFC 9422 §3 can write: six digits.
const LIMIT_VALUE_MAX: u64 = 999_999;

impl Server {
    /// The lines of the answer to EHLO or LHLO behind the first.
    pub(super) fn extensions(&self) -> Vec<String> {
        let mut offered = vec![format!("SIZE {}", self.options.size_max_octets)];
        if !self.tls && self.options.offer_starttls {
            offered.push("STARTTLS".to_owned());
        }
        offered.extend(self.auth_offered());
        offered.extend(ALWAYS.map(str::to_owned));
        offered.extend(self.limits());
        // RFC 8689 §4.2.1: only inside TLS.
        if self.tls {
            offered.push("REQUIRETLS".to_owned());
        }
        if self.role.is_submission() {
            offered.extend(self.future_release());
            offered.extend(["DELIVERBY", "MT-PRIORITY"].map(str::to_owned));
        }
        if self.options.xclient && !self.was_told {
            offered.push(xclient::OFFER.to_owned());
        }
        offered.push("HELP".to_owned());
        offered
    }

    /// RFC 9422 §4: how much one session and one message may hold.
    fn limits(&self) -> Option<String> {
        let limits = [
            ("MAILMAX", u64::from(self.options.messages_max)),
            ("RCPTMAX", self.options.recipients_max as u64),
        ];
        let words: Vec<String> = limits
            .iter()
            .filter(|(_, most)| *most > 0)
            .map(|(name, most)| format!("{name}={}", most.min(&LIMIT_VALUE_MAX)))
            .collect();
        (!words.is_empty()).then(|| format!("LIMITS {}", words.join(" ")))
    }

    /// RFC 4865 §3: for how long, and until when.
    fn future_release(&self) -> Option<String> {
        let secs = self.hold_max_secs()?;
        let until = self.began?.plus(Duration::from_secs(secs));
        Some(format!("FUTURERELEASE {secs} {}", date::iso8601(until)))
    }

    fn hold_max_secs(&self) -> Option<u64> {
        Some(self.options.hold_max.as_secs()).filter(|secs| *secs > 0)
    }

    /// Whether what MAIL asks for was offered.
    pub(super) fn may_wish(&self, mail: &MailFrom) -> Result<(), Reply> {
        let of_submission = mail.hold.is_some() || mail.deliver_by.is_some() || mail.priority.is_some();
        if of_submission && !self.role.is_submission() {
            return Err(replies::UNKNOWN_PARAMETER);
        }
        if let Some(hold) = mail.hold {
            let (Some(secs), Some(began)) = (self.hold_max_secs(), self.began) else {
                return Err(replies::UNKNOWN_PARAMETER);
            };
            if hold.release(began) > began.plus(Duration::from_secs(secs)) {
                return Err(replies::held_too_long(secs));
            }
        }
        if mail.require_tls && !self.tls {
            return Err(replies::REQUIRETLS_NEEDS_TLS);
        }
        Ok(())
    }

    /// Whether what RCPT asks for was offered, and fits what MAIL said.
    pub(super) fn may_wish_for(rcpt: &RcptTo, mail: &MailFrom, extended: bool) -> Result<(), Reply> {
        if rcpt.has_parameters && !extended {
            return Err(replies::UNKNOWN_PARAMETER);
        }
        // RFC 6531 §3.4, RFC 6533 §4.
        if (rcpt.path_is_utf8 || rcpt.parameters_are_utf8) && !mail.smtputf8 {
            return Err(replies::NEEDS_SMTPUTF8);
        }
        Ok(())
    }
}
