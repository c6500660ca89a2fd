//! What the sender asked of a message, as parameters for a server that offers the extension.
//!
//! Pure. Promises: a parameter goes only to a server that offers its extension; what must not be
//! dropped (RFC 8689, RFC 2852 mode R, RFC 3030 binary bodies) makes the message unsendable there
//! instead. Never: a value that could end the command line early.

use super::options::Capabilities;
use super::outcome::CannotSend;
use super::transaction::Outgoing;
use mail::delivery::{ByMode, DeliverBy, Notify, OriginalRecipient, Priority, Ret, xtext};
use std::fmt::Write as _;

/// What the sender asked of the whole message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wishes {
    /// RFC 3461 §4.4.
    pub envid: Option<String>,
    /// RFC 3461 §4.3.
    pub ret: Option<Ret>,
    /// By recipient, in the envelope's order; those that are missing asked for nothing.
    pub recipients: Vec<RecipientWishes>,
    /// Only over TLS, and only to a server that promises the same (RFC 8689). Whether the server's
    /// certificate was verified is the driver's to see to.
    pub require_tls: bool,
    /// The time that is left (RFC 2852).
    pub deliver_by: Option<DeliverBy>,
    /// RFC 6710.
    pub priority: Priority,
}

/// What the sender asked about one recipient.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecipientWishes {
    /// RFC 3461 §4.1.
    pub notify: Option<Notify>,
    /// RFC 3461 §4.2.
    pub original_recipient: Option<OriginalRecipient>,
}

/// Which wishes the server took over; the others stay ours to see to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PassedOn {
    /// Reports (RFC 3461).
    pub dsn: bool,
    /// The deadline (RFC 2852).
    pub deliver_by: bool,
}

/// The parameters of MAIL.
pub(super) fn mail_parameters(
    outgoing: &Outgoing,
    offered: &Capabilities,
    tls: bool,
) -> Result<String, CannotSend> {
    let wishes = &outgoing.wishes;
    let mut out = String::new();
    let smtputf8 = outgoing.needs_smtputf8();
    if smtputf8 && !offered.smtputf8 {
        return Err(CannotSend::NeedsSmtpUtf8);
    }
    // RFC 8689 §4.2.1: never in clear, and never to one that would pass it on in clear.
    if wishes.require_tls && !tls {
        return Err(CannotSend::NeedsTls);
    }
    if wishes.require_tls && !offered.require_tls {
        return Err(CannotSend::NeedsRequireTls);
    }
    // RFC 3030 §3: a binary body may go by BDAT only.
    if outgoing.binary && !(offered.binary_mime && offered.chunking) {
        return Err(CannotSend::NeedsBinaryMime);
    }
    if let Some(max_octets) = offered.size_max_octets {
        if max_octets != 0 && outgoing.size_octets > max_octets {
            return Err(CannotSend::TooLarge { max_octets });
        }
        let _ = write!(out, " SIZE={}", outgoing.size_octets);
    }
    if outgoing.binary {
        out.push_str(" BODY=BINARYMIME");
    } else if outgoing.eight_bit && offered.eight_bit {
        out.push_str(" BODY=8BITMIME");
    }
    if smtputf8 {
        out.push_str(" SMTPUTF8");
    }
    if wishes.require_tls {
        out.push_str(" REQUIRETLS");
    }
    if offered.dsn {
        if let Some(ret) = wishes.ret {
            let _ = write!(out, " RET={ret}");
        }
        if let Some(envid) = &wishes.envid {
            let _ = write!(out, " ENVID={}", xtext::encode(envid));
        }
    }
    if let Some(by) = wishes.deliver_by {
        check_deadline(by, offered)?;
        if offered.deliver_by.is_some() {
            let _ = write!(out, " BY={by}");
        }
    }
    if offered.mt_priority && wishes.priority != Priority::NORMAL {
        let _ = write!(out, " MT-PRIORITY={}", wishes.priority);
    }
    Ok(out)
}

/// RFC 2852 §4.1.4: a message that is to come back may go only to a server that knows deadlines, and
/// takes one as near as this. One whose sender is merely told goes on.
fn check_deadline(by: DeliverBy, offered: &Capabilities) -> Result<(), CannotSend> {
    if by.mode == ByMode::Notify {
        return Ok(());
    }
    let Some(min_seconds) = offered.deliver_by else {
        return Err(CannotSend::NeedsDeliverBy);
    };
    let enough = u64::try_from(by.seconds).is_ok_and(|left| left > 0 && left >= min_seconds);
    if enough { Ok(()) } else { Err(CannotSend::TooLate) }
}

/// The parameters of RCPT for the recipient at that place.
pub(super) fn rcpt_parameters(wishes: &Wishes, place: usize, passed_on: PassedOn) -> String {
    let mut out = String::new();
    let Some(wishes) = wishes.recipients.get(place).filter(|_| passed_on.dsn) else {
        return out;
    };
    if let Some(notify) = wishes.notify {
        let _ = write!(out, " NOTIFY={notify}");
    }
    if let Some(original) = &wishes.original_recipient {
        let _ = write!(out, " ORCPT={original}");
    }
    out
}
