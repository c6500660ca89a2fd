//! Where the filters stand on a message's way: at MAIL, at RCPT, at its end.

use super::When;
use super::chain::{Chain, Content, Greeting};
use crate::asked::Wishes;
use crate::commit::Ready;
use crate::mail_in::{RELAYING_DENIED, TOO_MANY_PLACES};
use crate::session::{Session, role_name};
use crate::transaction::{Accepted, Refusal, Target, Transaction};
use journey::Event;
use mail::EmailAddress;
use mail::delivery::{Notify, OriginalRecipient};
use milter::{Change, Command, Family, Letter};
use smtp::command::{BodyKind, MailFrom, RcptTo};
use smtp::{Reply, replies};
use std::net::SocketAddr;
use store::Batch;

/// Changes of one filter that a journey keeps at most.
const CHANGES_KEPT_MAX: usize = 50;

/// What the filters made of a message.
#[derive(Default)]
pub(crate) struct Filtered {
    /// For the journey.
    pub(crate) events: Vec<Event>,
    /// Why it goes to Junk, when a filter asked for quarantine.
    pub(crate) quarantine: Option<String>,
    /// Which filter throws it away.
    pub(crate) discarded_by: Option<String>,
    /// Whether anything of the message itself changed.
    pub(crate) changed: bool,
}

/// Why the filters keep a message out.
pub(crate) struct KeptOut {
    pub(crate) reply: Reply,
    pub(crate) rule: String,
}

impl Session {
    /// Whether a filter is asked about the open message at that time.
    pub(crate) fn has_filters(&self, when: When) -> bool {
        self.filters.as_ref().is_some_and(|chain| chain.has(when))
    }

    /// Tells the filters of the sender. Without filters it does nothing.
    pub(crate) async fn filter_mail(&mut self, mail: &MailFrom) -> Result<(), Reply> {
        if self.ctx.filters.is_empty() {
            return Ok(());
        }
        let mut chain = match self.filters.take() {
            Some(chain) => chain,
            None => {
                let role = self.role;
                let ours = self.ctx.filters.iter().filter(|f| f.roles.contains(&role));
                let most = usize::try_from(self.ctx.options.smtp.size_max_octets).unwrap_or(usize::MAX);
                Box::new(Chain::new(ours.cloned(), self.ctx.filter_dialer.clone(), most))
            }
        };
        if chain.seats.is_empty() {
            return Ok(());
        }
        let greeting = self.facts_of_session(&mut chain);
        self.facts_of_mail(&mut chain, mail);
        let command = Command::Mail(bracketed(mail.path.address()), mail_parameters(mail));
        let verdict = chain.mail(&greeting, &command).await;
        self.filters = Some(chain);
        let Err(refused) = verdict else {
            return Ok(());
        };
        let reply = self.note_filter_refusal("MAIL", mail.path.address(), refused.reply, &refused.rule);
        self.end_transaction("a filter refused the sender").await;
        Err(reply)
    }

    /// Tells the filters of a recipient that we would accept.
    pub(crate) async fn filter_rcpt(
        &mut self,
        address: &EmailAddress,
        target: &Target,
        rcpt: &RcptTo,
    ) -> Result<(), Reply> {
        let Some(mut chain) = self.filters.take() else {
            return Ok(());
        };
        let mailer = if *target == Target::Remote {
            "smtp"
        } else {
            "local"
        };
        let host = address.host().to_string();
        facts_of_rcpt(&mut chain, &address.to_string(), &host, mailer);
        let command = Command::Rcpt(bracketed(Some(address)), rcpt_parameters(rcpt));
        let verdict = chain.rcpt(&command).await;
        self.filters = Some(chain);
        verdict
            .map_err(|refused| self.note_filter_refusal("RCPT", Some(address), refused.reply, &refused.rule))
    }

    /// Tells the filters that want to know of a recipient that was refused.
    pub(crate) async fn filter_refused_rcpt(&mut self, address: &EmailAddress, reply: &Reply, rcpt: &RcptTo) {
        let Some(chain) = &mut self.filters else {
            return;
        };
        let status = reply.status.map(|s| s.to_string()).unwrap_or_default();
        facts_of_rcpt(chain, &reply.to_string(), &status, "error");
        let command = Command::Rcpt(bracketed(Some(address)), rcpt_parameters(rcpt));
        chain.refused_rcpt(&command).await;
    }

    fn note_filter_refusal(
        &mut self,
        stage: &'static str,
        address: Option<&EmailAddress>,
        reply: Reply,
        rule: &str,
    ) -> Reply {
        let now = self.ctx.parts.clock.now();
        let Some(transaction) = &mut self.transaction else {
            return reply;
        };
        let reply = reply.with_reference(transaction.id);
        transaction.note_refusal(
            now,
            Refusal {
                stage,
                address,
                reply: &reply,
                rule,
                remedy: None,
            },
        );
        reply
    }

    /// Shows the message to the filters of that time, one after the other; gives it as they left it.
    pub(crate) async fn filter_content(
        &mut self,
        when: Option<When>,
        transaction: &mut Transaction,
        mut message: Vec<u8>,
        filtered: &mut Filtered,
    ) -> Result<Vec<u8>, KeptOut> {
        let Some(mut chain) = self.filters.take() else {
            return Ok(message);
        };
        let mut outcome = Ok(());
        for i in 0..chain.seats.len() {
            let filter = chain.seats[i].filter.clone();
            if when.is_some_and(|when| when != filter.when) || filtered.discarded_by.is_some() {
                continue;
            }
            let (verdict, changes) = match chain.content(i, &message).await {
                Content::Unseen => continue,
                Content::Pass(changes) => ("accepted".to_owned(), changes),
                Content::Discard => {
                    filtered.discarded_by = Some(filter.name.clone());
                    ("to be thrown away".to_owned(), Vec::new())
                }
                Content::Failed(why) => (format!("none, because {why}"), Vec::new()),
                Content::Refuse(refused) => {
                    outcome = Err(KeptOut {
                        reply: refused.reply,
                        rule: refused.rule,
                    });
                    ("refused".to_owned(), Vec::new())
                }
            };
            filtered.events.push(told(&filter.name, verdict, &changes));
            if outcome.is_ok() && !changes.is_empty() {
                match self
                    .apply_changes(&filter.name, transaction, message, &changes, filtered)
                    .await
                {
                    Ok(changed) => message = changed,
                    Err(kept_out) => {
                        self.filters = Some(chain);
                        return Err(kept_out);
                    }
                }
            }
            if outcome.is_err() {
                break;
            }
        }
        self.filters = Some(chain);
        outcome.map(|()| message)
    }

    /// Records a message that a filter throws away, and then says that it was accepted.
    pub(crate) async fn record_discarded(&self, transaction: &Transaction, ready: &Ready, by: &str) -> Reply {
        let parts = &self.ctx.parts;
        let mut batch = Batch::new();
        self.record_arrival(&mut batch, transaction, ready.message_id.as_deref());
        for (at, event) in transaction.refusals.iter().chain(&ready.events) {
            parts.journey.record(&mut batch, transaction.id, *at, event);
        }
        let dropped = Event::Dropped {
            recipient: None,
            by: format!("the filter {by}"),
        };
        parts
            .journey
            .record(&mut batch, transaction.id, parts.clock.now(), &dropped);
        parts.journey.pack(&mut batch);
        match parts.store.commit(batch).await {
            Ok(_) => {
                tracing::info!(id = %transaction.id, peer = %self.peer, from = %transaction.reverse_path,
                    filter = by, "accepted and thrown away by a filter");
                replies::queued(transaction.id)
            }
            Err(error) => {
                tracing::error!(%error, id = %transaction.id, "a discarded message could not be recorded");
                replies::STORE_FAILED.with_reference(transaction.id)
            }
        }
    }

    /// Makes a filter's changes true.
    async fn apply_changes(
        &mut self,
        name: &str,
        transaction: &mut Transaction,
        message: Vec<u8>,
        changes: &[Change],
        filtered: &mut Filtered,
    ) -> Result<Vec<u8>, KeptOut> {
        let letter = Letter {
            message,
            reverse_path: transaction.reverse_path.clone(),
            recipients: transaction.recipients.iter().map(|r| r.address.clone()).collect(),
        };
        let letter = milter::apply(letter, changes);
        filtered.changed = true;
        transaction.reverse_path = letter.reverse_path;
        let before = transaction.recipients.len();
        transaction
            .recipients
            .retain(|r| letter.recipients.contains(&r.address));
        let redirects = transaction.recipients.len() < before;
        for address in letter.recipients {
            if transaction.recipients.iter().any(|r| r.address == address) {
                continue;
            }
            let target = match self.target(&address).await {
                // The filter is the operator's own: it may send a copy elsewhere.
                Err(refused) if refused.rule == RELAYING_DENIED => Ok(Target::Remote),
                other => other.map_err(|refused| refused.rule),
            };
            match target {
                Ok(target) if transaction.has_place_for(&target) => {
                    transaction.add(added(address, target, changes));
                }
                other => {
                    let why = other.err().unwrap_or(TOO_MANY_PLACES);
                    // Whoever it was taken from would get it neither here nor there.
                    if redirects {
                        return Err(KeptOut {
                            reply: replies::FILTER_UNAVAILABLE,
                            rule: format!("the filter {name} sends it to {address} instead: {why}"),
                        });
                    }
                    let event = Event::Filtered {
                        filter: name.to_owned(),
                        verdict: format!("its recipient {address} was left out: {why}"),
                        changes: Vec::new(),
                    };
                    filtered.events.push(event);
                }
            }
        }
        if transaction.recipients.is_empty() {
            filtered.discarded_by = Some(name.to_owned());
        }
        let reason = changes.iter().rev().find_map(|change| match change {
            Change::Quarantine(reason) => Some(reason),
            _ => None,
        });
        if let Some(reason) = reason {
            // The queue does not know of junk: neither on the way elsewhere, nor while it is held.
            let is_held = transaction.asked.held_until.is_some();
            if is_held || transaction.recipients.iter().any(|r| r.target == Target::Remote) {
                return Err(KeptOut {
                    reply: replies::FILTER_QUARANTINES,
                    rule: format!("the filter {name} asked for quarantine: {reason}"),
                });
            }
            filtered.quarantine = Some(format!("the filter {name} asked for quarantine: {reason}"));
        }
        Ok(letter.message)
    }

    /// Tells the filters that the open message is none.
    pub(crate) async fn filter_abort(&mut self) {
        if let Some(chain) = &mut self.filters {
            chain.abort().await;
        }
    }

    /// Says goodbye to the filters.
    pub(crate) async fn filter_close(&mut self) {
        if let Some(chain) = &mut self.filters {
            chain.close().await;
        }
    }

    fn facts_of_session(&self, chain: &mut Chain) -> Greeting {
        let macros = &mut chain.macros;
        let ip = self.ip();
        let name = self.connection.as_ref().and_then(|c| c.iprev.name.as_ref());
        let name = name.map(ToString::to_string);
        let told_name = name.clone().unwrap_or_else(|| "unknown".to_owned());
        let port = self.peer.address.port();
        let tls = self.tls.as_ref();
        for (macro_name, value) in [
            ("j", Some(self.ctx.hostname.to_string())),
            ("_", Some(format!("{told_name} [{ip}]"))),
            ("v", Some(format!("Posthaste {}", env!("CARGO_PKG_VERSION")))),
            ("daemon_name", Some(role_name(self.role).to_owned())),
            ("client_addr", Some(ip.to_string())),
            ("client_name", Some(told_name.clone())),
            ("client_ptr", Some(told_name)),
            ("client_port", Some(port.to_string())),
            ("tls_version", tls.map(|t| t.version.to_owned())),
            ("cipher", tls.map(|t| t.cipher.clone())),
        ] {
            macros.set(macro_name, value.as_deref());
        }
        let helo = self.transaction.as_ref().map(|t| t.helo.clone());
        Greeting {
            connect: Command::Connect {
                host: name.unwrap_or_else(|| format!("[{ip}]")),
                from: family(SocketAddr::new(ip, port)),
            },
            helo: helo.unwrap_or_default(),
            tls: tls.map(ToString::to_string),
        }
    }

    fn facts_of_mail(&self, chain: &mut Chain, mail: &MailFrom) {
        let macros = &mut chain.macros;
        let address = mail.path.address();
        let login = self.login.as_ref().map(|l| l.address.to_string());
        let id = self.transaction.as_ref().map(|t| t.id.to_string());
        macros.set("i", id.as_deref());
        macros.set("auth_authen", login.as_deref());
        macros.set(
            "mail_addr",
            Some(&address.map(ToString::to_string).unwrap_or_default()),
        );
        macros.set(
            "mail_host",
            Some(&address.map(|a| a.host().to_string()).unwrap_or_default()),
        );
        macros.set(
            "mail_mailer",
            Some(if login.is_some() { "local" } else { "smtp" }),
        );
    }
}

/// A recipient that a filter added, with what it asked of reports (RFC 3461).
fn added(address: EmailAddress, target: Target, changes: &[Change]) -> Accepted {
    let parameters = changes.iter().rev().find_map(|change| match change {
        Change::AddRecipient {
            address: of,
            parameters,
        } if *of == address => Some(parameters.as_str()),
        _ => None,
    });
    let mut wishes = Wishes::default();
    for word in parameters.unwrap_or_default().split(' ') {
        match word.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("NOTIFY") => {
                wishes.notify = Notify::parse(value)
            }
            Some((name, value)) if name.eq_ignore_ascii_case("ORCPT") => {
                wishes.original = OriginalRecipient::parse(value);
            }
            _ => {}
        }
    }
    Accepted {
        address,
        target,
        wishes,
    }
}

fn facts_of_rcpt(chain: &mut Chain, address: &str, host: &str, mailer: &str) {
    chain.macros.set("rcpt_addr", Some(address));
    chain.macros.set("rcpt_host", Some(host));
    chain.macros.set("rcpt_mailer", Some(mailer));
}

fn family(peer: SocketAddr) -> Family {
    Family::Inet(peer.ip(), peer.port())
}

fn bracketed(address: Option<&EmailAddress>) -> String {
    address.map_or("<>".to_owned(), |a| format!("<{a}>"))
}

fn mail_parameters(mail: &MailFrom) -> Vec<String> {
    let mut parameters = Vec::new();
    parameters.extend(mail.size_octets.map(|size| format!("SIZE={size}")));
    match mail.body {
        BodyKind::SevenBit => {}
        BodyKind::EightBitMime => parameters.push("BODY=8BITMIME".to_owned()),
        BodyKind::BinaryMime => parameters.push("BODY=BINARYMIME".to_owned()),
    }
    if mail.smtputf8 {
        parameters.push("SMTPUTF8".to_owned());
    }
    parameters.extend(mail.ret.map(|ret| format!("RET={ret}")));
    if let Some(envid) = &mail.envid {
        parameters.push(format!("ENVID={}", mail::delivery::xtext::encode(envid)));
    }
    if mail.require_tls {
        parameters.push("REQUIRETLS".to_owned());
    }
    parameters
}

fn rcpt_parameters(rcpt: &RcptTo) -> Vec<String> {
    let notify = rcpt.notify.as_ref().map(|n| format!("NOTIFY={n}"));
    let orcpt = rcpt.orcpt.as_ref().map(|o| format!("ORCPT={o}"));
    notify.into_iter().chain(orcpt).collect()
}

fn told(name: &str, verdict: String, changes: &[Change]) -> Event {
    let mut words: Vec<String> = changes
        .iter()
        .take(CHANGES_KEPT_MAX)
        .map(ToString::to_string)
        .collect();
    if changes.len() > CHANGES_KEPT_MAX {
        words.push(format!("and {} more changes", changes.len() - CHANGES_KEPT_MAX));
    }
    Event::Filtered {
        filter: name.to_owned(),
        verdict,
        changes: words,
    }
}
