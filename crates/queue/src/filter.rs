//! Which errands an operator means: by message, sender, recipient, age, state and what was said last.
//!
//! Pure. Promises: a filter that says nothing means everything; what is asked twice must hold twice.

use crate::{Errand, ErrandState, LastOutcome, Message};
use mail::{Domain, EmailAddress, QueueId, ReversePath, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Message ids that one filter names at most.
pub const FILTER_IDS_MAX: usize = 1_000;

/// Which errands. Empty fields ask for everything; several must hold together.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Only of these messages, [`FILTER_IDS_MAX`] at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<QueueId>,
    /// Only open ones to this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<EmailAddress>,
    /// Only open ones to this domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// Only of messages from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<SenderIs>,
    /// Only of messages that were accepted before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_before: Option<Timestamp>,
    /// Only of messages that were accepted after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_after: Option<Timestamp>,
    /// Only those whose last reply holds this text; case does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Only those whose last reply came from this host, or from one below this domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only those whose last failure is of this class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Only those that stand so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// Only of messages behind this one: where a listing goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<QueueId>,
}

/// From whom a message is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SenderIs {
    /// From nobody: the null reverse-path, as reports have it.
    Null,
    /// From this reverse-path.
    Address(EmailAddress),
    /// From a reverse-path at this domain.
    Domain(Domain),
    /// Submitted with this login.
    Login(String),
}

/// How an open errand stands, as an operator names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It waits for its time.
    Waiting,
    /// It is being attempted now.
    Attempting,
    /// The operator holds it, or its sender asked for a later release.
    Held,
    /// Its destination or sender is suspended.
    Suspended,
}

/// Names the class of what was said last.
pub type ClassOf<'a> = &'a (dyn Fn(&LastOutcome) -> String + Send + Sync);

/// An open errand with what a filter looks at.
#[derive(Clone, Copy, Debug)]
pub struct Looked<'a> {
    /// The errand.
    pub errand: &'a Errand,
    /// Its message; without one nothing that is asked of a message holds.
    pub message: Option<&'a Message>,
    /// Whether it is being attempted.
    pub attempting: bool,
    /// The time now.
    pub now: Timestamp,
}

impl SenderIs {
    /// Reads `<>`, `user@example.com`, `@example.com`, or a login; a login that looks like an address
    /// as `login:user@example.com`. `None` when it is none of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" => None,
            "<>" => Some(Self::Null),
            _ => match (text.strip_prefix("login:"), text.strip_prefix('@')) {
                (Some(""), _) => None,
                (Some(login), _) => Some(Self::Login(login.to_owned())),
                (None, Some(domain)) => Domain::parse(domain).ok().map(Self::Domain),
                (None, None) if text.contains('@') => EmailAddress::parse(text).ok().map(Self::Address),
                (None, None) => Some(Self::Login(text.to_owned())),
            },
        }
    }

    /// Whether a message is from there.
    #[must_use]
    pub fn fits(&self, message: &Message) -> bool {
        self.fits_path(&message.reverse_path, message.login.as_deref())
    }

    /// Whether a message with that reverse-path, submitted with that login (`None`: without one), is from
    /// there.
    #[must_use]
    pub fn fits_path(&self, reverse_path: &ReversePath, login: Option<&str>) -> bool {
        let from = reverse_path.address();
        match self {
            Self::Null => from.is_none(),
            Self::Address(wanted) => from.is_some_and(|a| a.folded() == wanted.folded()),
            Self::Domain(wanted) => from.is_some_and(|a| a.domain() == Some(wanted)),
            Self::Login(wanted) => login.is_some_and(|login| login.eq_ignore_ascii_case(wanted)),
        }
    }
}

impl fmt::Display for SenderIs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Address(address) => address.fmt(f),
            Self::Domain(domain) => write!(f, "@{domain}"),
            Self::Login(login) => write!(f, "login:{login}"),
        }
    }
}

impl Filter {
    /// One that means a single message.
    #[must_use]
    pub fn of(id: QueueId) -> Self {
        Self {
            ids: vec![id],
            ..Self::default()
        }
    }

    /// Whether everything is meant.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.asks_of_messages() && !self.asks_of_errands() && self.ids.is_empty()
    }

    /// Whether something is asked of messages, so that they must be read.
    #[must_use]
    pub fn asks_of_messages(&self) -> bool {
        self.sender.is_some() || self.received_before.is_some() || self.received_after.is_some()
    }

    /// Whether something is asked of errands.
    pub(crate) fn asks_of_errands(&self) -> bool {
        self.recipient.is_some()
            || self.domain.is_some()
            || self.error.is_some()
            || self.host.is_some()
            || self.class.is_some()
            || self.standing.is_some()
    }

    /// Whether an open errand is meant. The ids are the caller's to look at.
    #[must_use]
    pub fn fits(&self, looked: Looked<'_>, class_of: ClassOf<'_>) -> bool {
        looked.errand.state.is_open()
            && (!self.asks_of_messages() || looked.message.is_some_and(|m| self.message_fits(m)))
            && self.errand_fits(looked, class_of)
    }

    pub(crate) fn message_fits(&self, message: &Message) -> bool {
        self.sender.as_ref().is_none_or(|sender| sender.fits(message))
            && self.received_before.is_none_or(|at| message.received_at < at)
            && self.received_after.is_none_or(|at| message.received_at > at)
    }

    fn errand_fits(&self, looked: Looked<'_>, class_of: ClassOf<'_>) -> bool {
        let recipient = &looked.errand.recipient;
        let last = looked.errand.last.as_ref();
        let standing = standing(looked.errand, looked.attempting, looked.now);
        self.recipient
            .as_ref()
            .is_none_or(|wanted| recipient.folded() == wanted.folded())
            && self
                .domain
                .as_ref()
                .is_none_or(|wanted| recipient.domain() == Some(wanted))
            && self
                .error
                .as_ref()
                .is_none_or(|text| last.is_some_and(|last| holds(&last.reply, text)))
            && self
                .host
                .as_ref()
                .is_none_or(|host| last.is_some_and(|last| is_host(last.host.as_deref(), host)))
            && self.standing.is_none_or(|wanted| standing == wanted)
            && self
                .class
                .as_ref()
                .is_none_or(|class| last.is_some_and(|last| class_of(last).eq_ignore_ascii_case(class)))
    }
}

/// How an open errand stands at a time.
#[must_use]
pub fn standing(errand: &Errand, attempting: bool, now: Timestamp) -> Standing {
    match errand.state {
        _ if attempting => Standing::Attempting,
        ErrandState::Held { .. } => Standing::Held,
        _ if errand.suspended => Standing::Suspended,
        _ if errand.held_until(now).is_some() => Standing::Held,
        _ => Standing::Waiting,
    }
}

fn holds(reply: &str, text: &str) -> bool {
    reply.to_lowercase().contains(&text.to_lowercase())
}

/// Whether a host is this one, or below this domain.
fn is_host(host: Option<&str>, wanted: &str) -> bool {
    let fold = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    let (Some(host), wanted) = (host.map(fold), fold(wanted)) else {
        return false;
    };
    host == wanted
        || host
            .strip_suffix(&wanted)
            .is_some_and(|below| below.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, NewErrand, Via};
    use mail::{EnhancedStatus, ReversePath};
    use store::BlobId;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn message() -> Message {
        Message {
            id: QueueId(5),
            reverse_path: ReversePath::Address(EmailAddress::parse("Alice@gmail.com").unwrap()),
            blob: BlobId([7; 16]),
            blob_len: 1,
            prefix: Vec::new(),
            received_at: NOW,
            message_id: None,
            login: Some("alice@gmail.com".into()),
            body: Body::SevenBit,
            smtputf8: false,
            envid: None,
            ret: None,
            require_tls: false,
            deliver_by: None,
            priority: mail::delivery::Priority::NORMAL,
        }
    }

    fn errand() -> Errand {
        let new = NewErrand::to(EmailAddress::parse("bob@example.com").unwrap(), NOW);
        Errand {
            last: Some(LastOutcome {
                at: NOW,
                host: Some("mx1.Example.com".into()),
                reply: "451 4.7.1 Greylisted, come back later".into(),
                status: Some(EnhancedStatus::new(4, 7, 1)),
                class: None,
            }),
            ..Errand::new(&message(), 0, &new)
        }
    }

    fn fits(filter: &Filter, errand: &Errand, attempting: bool) -> bool {
        let message = message();
        let looked = Looked {
            errand,
            message: Some(&message),
            attempting,
            now: NOW,
        };
        filter.fits(looked, &|last| format!("class-{}", last.reply.len()))
    }

    #[test]
    fn each_field_asks_its_question() {
        let sender = |text: &str| Filter {
            sender: SenderIs::parse(text),
            ..Filter::default()
        };
        let error = |text: &str| Filter {
            error: Some(text.into()),
            ..Filter::default()
        };
        let host = |text: &str| Filter {
            host: Some(text.into()),
            ..Filter::default()
        };
        let class = |text: &str| Filter {
            class: Some(text.into()),
            ..Filter::default()
        };
        let before = |received_before| Filter {
            received_before: Some(received_before),
            ..Filter::default()
        };
        let after = |received_after| Filter {
            received_after: Some(received_after),
            ..Filter::default()
        };
        for (filter, wanted) in [
            (Filter::default(), true),
            (sender("alice@gmail.com"), true),
            (sender("@gmail.com"), true),
            (sender("login:ALICE@gmail.com"), true),
            (sender("<>"), false),
            (sender("alice"), false),
            (sender("bob@gmail.com"), false),
            (error("greylisted"), true),
            (error("no such user"), false),
            (host("mx1.example.com"), true),
            (host("EXAMPLE.com."), true),
            (host("ample.com"), false),
            (class("CLASS-37"), true),
            (class("full"), false),
            (before(NOW), false),
            (before(Timestamp(NOW.0 + 1)), true),
            (after(NOW), false),
            (after(Timestamp(NOW.0 - 1)), true),
        ] {
            assert_eq!(fits(&filter, &errand(), false), wanted, "{filter:?}");
        }
        let ended = Errand {
            state: ErrandState::Relayed { at: NOW },
            ..errand()
        };
        assert!(
            !fits(&Filter::default(), &ended, false),
            "only open ones are meant"
        );
    }

    #[test]
    fn how_it_stands() {
        let held = ErrandState::Held {
            at: NOW,
            by: "ann".into(),
        };
        let later = Timestamp(NOW.0 + 9);
        let via = Some(Via {
            host: "mx".into(),
            port: 25,
        });
        let asked_for_later = Errand {
            state: ErrandState::Waiting { next_attempt: later },
            first_queued: later,
            via,
            ..errand()
        };
        for (errand, attempting, wanted) in [
            (errand(), false, Standing::Waiting),
            (errand(), true, Standing::Attempting),
            (
                Errand {
                    state: held,
                    ..errand()
                },
                false,
                Standing::Held,
            ),
            (asked_for_later, false, Standing::Held),
            (
                Errand {
                    suspended: true,
                    ..errand()
                },
                false,
                Standing::Suspended,
            ),
        ] {
            assert_eq!(standing(&errand, attempting, NOW), wanted);
        }
    }

    #[test]
    fn senders_are_read_and_written() {
        for text in ["<>", "alice@gmail.com", "@gmail.com", "login:alice@gmail.com"] {
            assert_eq!(SenderIs::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(SenderIs::parse("alice"), Some(SenderIs::Login("alice".into())));
        for wrong in ["", "@", "login:", "a b@c"] {
            assert_eq!(SenderIs::parse(wrong), None, "{wrong}");
        }
    }
}
