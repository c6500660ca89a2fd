//! MAIL, RCPT and the octets of DATA: who may send to whom, and how much.

use crate::MEMORY_UNIT;
use crate::asked::Wishes;
use crate::session::Session;
use crate::transaction::{Accepted, Refusal, Target, Transaction};
use judge::judgement::judge_connection;
use mail::{EmailAddress, Recipient};
use smtp::command::{MailFrom, RcptTo};
use smtp::server::Envelope;
use smtp::{Reply, Role, Server, replies};
use std::sync::Arc;

/// Memory is taken in steps of this many units, so that small pieces do not each ask.
const MEMORY_STEP_UNITS: usize = 64;

/// The rule by which an address that nobody has here is refused.
pub(crate) const UNKNOWN_USER: &str = "unknown user";
/// The rule by which a stranger's mail to elsewhere is refused.
pub(crate) const RELAYING_DENIED: &str = "no relaying for strangers";
/// The rule by which an address elsewhere is refused that its server did not know.
pub(crate) const SUPPRESSED: &str = "suppressed after it was refused as unknown";
/// The rule by which a recipient is refused that leads to more than one message may go to.
pub(crate) const TOO_MANY_PLACES: &str = "places that one message may go to";

impl Session {
    /// Answers MAIL: opens the transaction.
    pub(crate) async fn sender(&mut self, helo: &str, mail: &MailFrom) -> Result<(), Reply> {
        // Commands that came in one go are not waited for one by one.
        if self.login_is_over().await {
            return Err(replies::LOGIN_OVER);
        }
        self.may_send()?;
        let (now, id) = (self.ctx.parts.clock.now(), self.ctx.parts.ids.next_id());
        let mut transaction = Transaction::new(id, now, helo, mail);
        transaction.declared_octets = mail.size_octets.unwrap_or(0);
        if self.is_ours() {
            if let Some(address) = mail.path.address()
                && !self.may_send_as(address).await?
            {
                let reply = replies::sender_not_yours(address, self.sender_name()).with_reference(id);
                let remedy = match &self.local {
                    Some(local) => format!("name the address in sendmail.user for {}", local.name),
                    None => format!(
                        "send as an address of {}, or give the account this one as an alias",
                        self.sender_name()
                    ),
                };
                transaction.note_refusal(
                    now,
                    Refusal {
                        stage: "MAIL",
                        address: Some(address),
                        reply: &reply,
                        rule: "the sender must be an address of the login",
                        remedy: Some(remedy),
                    },
                );
                self.transaction = Some(transaction);
                self.end_transaction("the sender was refused").await;
                return Err(reply);
            }
        } else if self.connection.is_none() && !self.was_judged_before() {
            let gathered = judge::evidence::gather_connection(
                self.ctx.parts.resolver.as_ref(),
                self.ip(),
                &self.ctx.blocklists,
            );
            if let Ok(evidence) = tokio::time::timeout(self.ctx.options.gather_timeout, gathered).await {
                self.connection = Some(Arc::new(evidence));
            }
        }
        self.transaction = Some(transaction);
        self.filter_mail(mail).await
    }

    /// Whether the login may send as this address.
    pub(crate) async fn may_send_as(&self, address: &EmailAddress) -> Result<bool, Reply> {
        let Some(login) = &self.login else {
            return Ok(self.local.as_ref().is_some_and(|l| l.may_send_as(address)));
        };
        self.ctx
            .parts
            .directory
            .may_send_as(login.account, address)
            .await
            .map_err(|error| {
                tracing::error!(%error, "the directory could not be read");
                replies::LOOKUP_FAILED
            })
    }

    /// Answers RCPT.
    pub(crate) async fn recipient(&mut self, rcpt: &RcptTo) -> Result<(), Reply> {
        self.may_name()?;
        let address = self.full_address(&rcpt.recipient).await?;
        match self.target(&address).await {
            Ok(target) => {
                self.filter_rcpt(&address, &target, rcpt).await?;
                if target == Target::Remote
                    && let Some(reply) = self.suppressed(&address).await?
                {
                    let refused = RefusedRecipient {
                        reply,
                        rule: SUPPRESSED,
                        remedy: Some(format!(
                            "take it off the list of recipients, or, if it exists now: posthaste suppression remove {address}"
                        )),
                    };
                    return Err(self.refuse_recipient("RCPT", &address, refused));
                }
                if target == Target::Remote
                    && let Err(reply) = self.take_of_today(&address).await
                {
                    let refused = RefusedRecipient {
                        reply,
                        rule: "the account's limit of the day",
                        remedy: Some("wait, or ask the operator: posthaste account limit".to_owned()),
                    };
                    return Err(self.refuse_recipient("RCPT", &address, refused));
                }
                let is_lmtp = self.role == Role::Lmtp;
                if let Some(transaction) = &mut self.transaction {
                    let place = transaction.add(Accepted {
                        address,
                        target,
                        wishes: Wishes::of(rcpt),
                    });
                    if is_lmtp {
                        transaction.answers_due.push(place);
                    }
                }
                Ok(())
            }
            Err(mut refused) => {
                if refused.rule == UNKNOWN_USER
                    && let Some(blocked) = self.named_nobody().await
                {
                    refused.reply = blocked;
                }
                let reply = self.refuse_recipient("RCPT", &address, refused);
                self.filter_refused_rcpt(&address, &reply, rcpt).await;
                Err(reply)
            }
        }
    }

    /// Notes that a recipient is refused, and gives the reply that says so.
    pub(crate) fn refuse_recipient(
        &mut self,
        stage: &'static str,
        address: &EmailAddress,
        refused: RefusedRecipient,
    ) -> Reply {
        let now = self.ctx.parts.clock.now();
        let Some(transaction) = &mut self.transaction else {
            return refused.reply;
        };
        let reply = refused.reply.with_reference(transaction.id);
        transaction.note_refusal(
            now,
            Refusal {
                stage,
                address: Some(address),
                reply: &reply,
                rule: refused.rule,
                remedy: refused.remedy,
            },
        );
        reply
    }

    /// The bare postmaster is the one of the first domain that is served here (RFC 5321 §4.5.1).
    async fn full_address(&self, recipient: &Recipient) -> Result<EmailAddress, Reply> {
        if let Recipient::Address(address) = recipient {
            return Ok(address.clone());
        }
        let domains = self
            .ctx
            .parts
            .directory
            .domains()
            .await
            .map_err(|_| replies::LOOKUP_FAILED)?;
        let domain = domains.first().map_or(&self.ctx.hostname, |d| &d.name);
        Ok(recipient.address_at(domain))
    }

    pub(crate) async fn target(&self, address: &EmailAddress) -> Result<Target, RefusedRecipient> {
        // A listed stranger is told at RCPT, where every client reads the reply.
        if !self.is_ours()
            && let Some(connection) = &self.connection
            && let Some(judgement) = judge_connection(connection, &self.ctx.policy)
        {
            let reply = crate::accept::disposition_reply(&judgement.disposition);
            return Err(RefusedRecipient {
                reply: reply.unwrap_or(replies::policy_refused(&judgement.because)),
                rule: "blocklist",
                remedy: judgement.remedy,
            });
        }
        let target = self.lead(address).await?;
        match &self.transaction {
            Some(transaction) if !transaction.has_place_for(&target) => Err(RefusedRecipient {
                reply: replies::TOO_MANY_RECIPIENTS,
                rule: TOO_MANY_PLACES,
                remedy: None,
            }),
            _ => Ok(target),
        }
    }

    /// Answers DATA.
    pub(crate) fn begin(&mut self, envelope: Envelope) -> Result<(), Reply> {
        let Some(transaction) = &mut self.transaction else {
            return Err(replies::INTERNAL_ERROR);
        };
        transaction.protocol = envelope.protocol;
        Ok(())
    }

    /// Takes octets of the message, while there is memory for them.
    pub(crate) fn take_chunk(&mut self, server: &mut Server, octets: &[u8]) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        transaction.octets = transaction.octets.saturating_add(octets.len() as u64);
        let needed = (transaction.message.len() + octets.len()).div_ceil(MEMORY_UNIT);
        if needed > transaction.memory_units {
            let more = (needed - transaction.memory_units).max(MEMORY_STEP_UNITS);
            let permit = u32::try_from(more)
                .ok()
                .and_then(|n| self.ctx.memory.clone().try_acquire_many_owned(n).ok());
            let Some(permit) = permit else {
                transaction.message = Vec::new();
                transaction.memory.clear();
                transaction.memory_units = usize::MAX;
                return server.refuse_message(replies::BUSY);
            };
            transaction.memory.push(permit);
            transaction.memory_units += more;
        }
        transaction.message.extend_from_slice(octets);
    }

    /// The machine ended the transaction without a message.
    pub(crate) async fn dropped(&mut self) {
        self.end_transaction("the client dropped it").await;
    }
}

/// Why a recipient is refused.
pub(crate) struct RefusedRecipient {
    pub(crate) reply: Reply,
    pub(crate) rule: &'static str,
    pub(crate) remedy: Option<String>,
}
