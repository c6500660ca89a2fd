//! The end of a message: gathered, judged, committed; or, from our own people, checked, completed,
//! signed, committed. The reply to the end of DATA comes from here.

use crate::author;
use crate::commit::Ready;
use crate::filter::{Filtered, When};
use crate::header::{self, Found};
use crate::session::Session;
use crate::transaction::{Refusal, Transaction};
use journey::{Check, Event};
use judge::{Disposition, Judgement};
use mail::trace::Received;
use mail::{Domain, Recipient, Timestamp};
use smtp::{Reply, replies};
use std::borrow::Cow;

/// What keeps a message out.
struct Refused {
    reply: Reply,
    rule: Cow<'static, str>,
    remedy: Option<String>,
    /// What was found out before the refusal.
    before: Vec<(Timestamp, Event)>,
}

impl Refused {
    fn plain(reply: Reply, rule: &'static str) -> Self {
        Self {
            reply,
            rule: Cow::Borrowed(rule),
            remedy: None,
            before: Vec::new(),
        }
    }
}

impl Session {
    /// Answers the end of a message. A positive reply means: durable.
    pub(crate) async fn accept(&mut self) -> Reply {
        let Some(mut transaction) = self.transaction.take() else {
            return replies::INTERNAL_ERROR;
        };
        if let Err(reply) = self.make_whole(&mut transaction).await {
            let refused = Refused::plain(reply, "no room for a large message now");
            return self.refuse(&transaction, None, refused).await;
        }
        let found = header::look(&transaction.message);
        let ready = match self.prepare(&mut transaction, &found).await {
            Ok(ready) => ready,
            Err(refused) => {
                return self
                    .refuse(&transaction, found.message_id.as_deref(), refused)
                    .await;
            }
        };
        if let Some(by) = &ready.discarded_by {
            return self.record_discarded(&transaction, &ready, by).await;
        }
        match self.commit(&transaction, ready).await {
            Ok(()) => {
                if let Some(held) = transaction.held.take() {
                    held.keep();
                }
                tracing::info!(id = %transaction.id, peer = %self.peer, from = %transaction.reverse_path,
                    recipients = transaction.recipients.len(), "accepted");
                replies::queued(transaction.id)
            }
            Err(reply) => reply.with_reference(transaction.id),
        }
    }

    async fn prepare(&mut self, transaction: &mut Transaction, found: &Found) -> Result<Ready, Refused> {
        if found.fields > header::FIELDS_MAX {
            return Err(Refused::plain(replies::TOO_MANY_FIELDS, "too many header fields"));
        }
        if found.received > self.ctx.options.received_max {
            return Err(Refused::plain(replies::MAIL_LOOP, "too many Received fields"));
        }
        let circles = transaction.break_circles().map_err(|by| {
            Refused::plain(
                replies::forward_loop(&by),
                "it was forwarded by this address before",
            )
        })?;
        let now = self.ctx.parts.clock.now();
        transaction
            .refusals
            .extend(circles.into_iter().map(|(recipient, by)| {
                let dropped = Event::Dropped {
                    recipient: Some(recipient),
                    by: format!("the rule that {by}, which has sent it on before, does not do so again"),
                };
                (now, dropped)
            }));
        if self.is_ours() {
            self.prepare_submitted(transaction, found).await
        } else if self.was_judged_before() {
            self.prepare_handed_over(transaction, found).await
        } else {
            self.prepare_received(transaction, found).await
        }
    }

    /// From a stranger: gathers, judges, and puts on top what was found.
    async fn prepare_received(
        &mut self,
        transaction: &mut Transaction,
        found: &Found,
    ) -> Result<Ready, Refused> {
        let Some(evidence) = self.gather(transaction).await else {
            let why = "The DNS took too long to answer; try again later";
            return Err(Refused::plain(
                replies::dns_unavailable(why),
                "the DNS took too long",
            ));
        };
        let judgement = judge::judge(&evidence, &self.ctx.policy);
        if evidence.denies_reverse_path() {
            transaction.report_to_nobody();
        }
        let now = self.ctx.parts.clock.now();
        let judged = (now, judged_event(&judgement));
        let mut refusal = disposition_reply(&judgement.disposition);
        if let Some(reply) = refusal.take_if(|_| !self.has_filters(When::Before)) {
            return Err(judged_out(reply, judgement, vec![judged]));
        }
        if self.connection.is_none() {
            self.connection = Some(std::sync::Arc::new(evidence.connection.clone()));
        }
        let hostname = self.ctx.hostname.clone();
        let name = hostname.as_str();
        let sender = judge::spf::mail_from_text(&transaction.reverse_path);
        let mut places = judge::headers::forged(&transaction.message, name);
        places.extend(found.return_paths.iter().cloned());
        let message = cut(std::mem::take(&mut transaction.message), places);
        let mut filtered = Filtered::default();
        let message = self
            .filter(Some(When::Before), transaction, message, &mut filtered, &judged)
            .await?;
        if let Some(reply) = refusal.filter(|_| filtered.discarded_by.is_none()) {
            let mut before = vec![judged];
            before.extend(filtered.events.drain(..).map(|event| (now, event)));
            return Err(judged_out(reply, judgement, before));
        }
        let body = self
            .filter(Some(When::After), transaction, message, &mut filtered, &judged)
            .await?;
        let top = [
            judge::headers::authentication_results(&evidence, name),
            judge::headers::received_spf(&evidence.spf, &sender, name),
            self.received_field(transaction, now),
        ];
        let tls_reports = self.tls_reports(transaction, &body, &evidence).await;
        let junk = (judgement.disposition == Disposition::Junk).then_some(judgement.because);
        let ready = Ready {
            top: top.concat(),
            body,
            message_id: found.message_id.clone(),
            junk,
            events: vec![judged],
            discarded_by: None,
            tls_reports,
        };
        Ok(with_filtered(ready, filtered, now))
    }

    /// Asks the filters; what they refuse is told with what was found out before.
    async fn filter(
        &mut self,
        when: Option<When>,
        transaction: &mut Transaction,
        message: Vec<u8>,
        filtered: &mut Filtered,
        judged: impl Into<Option<&(Timestamp, Event)>>,
    ) -> Result<Vec<u8>, Refused> {
        if self.filters.is_none() {
            return Ok(message);
        }
        let kept = self.filter_content(when, transaction, message, filtered).await;
        kept.map_err(|kept_out| {
            let now = self.ctx.parts.clock.now();
            let mut before: Vec<_> = judged.into().into_iter().cloned().collect();
            before.extend(filtered.events.drain(..).map(|event| (now, event)));
            Refused {
                reply: kept_out.reply,
                rule: Cow::Owned(kept_out.rule),
                remedy: None,
                before,
            }
        })
    }

    /// From a mail server of the same operator, which has judged it already.
    async fn prepare_handed_over(
        &mut self,
        transaction: &mut Transaction,
        found: &Found,
    ) -> Result<Ready, Refused> {
        let now = self.ctx.parts.clock.now();
        // What it found stands under its own name; under ours only we write.
        let mut places = judge::headers::forged(&transaction.message, self.ctx.hostname.as_str());
        places.extend(found.return_paths.iter().cloned());
        let message = cut(std::mem::take(&mut transaction.message), places);
        let mut filtered = Filtered::default();
        let body = self
            .filter(None, transaction, message, &mut filtered, None)
            .await?;
        let ready = Ready {
            top: self.received_field(transaction, now),
            body,
            message_id: found.message_id.clone(),
            junk: None,
            events: Vec::new(),
            discarded_by: None,
            tls_reports: Vec::new(),
        };
        Ok(with_filtered(ready, filtered, now))
    }

    /// From one of our own: checks the author, completes and signs.
    async fn prepare_submitted(
        &mut self,
        transaction: &mut Transaction,
        found: &Found,
    ) -> Result<Ready, Refused> {
        let now = self.ctx.parts.clock.now();
        let domain = self.author_domain(found).await?;
        let mut message = cut(
            std::mem::take(&mut transaction.message),
            [found.bcc.clone(), found.return_paths.clone()].concat(),
        );
        let (missing, message_id) = header::missing(found, transaction.id, &domain, now);
        if !missing.is_empty() {
            message.splice(0..0, missing.bytes());
        }
        let mut filtered = Filtered::default();
        let message = self
            .filter(None, transaction, message, &mut filtered, None)
            .await?;
        let (body, signed) = self.ctx.sign(&domain, message, now).await.map_err(|error| {
            tracing::error!(%error, "the directory could not be read");
            Refused::plain(replies::LOOKUP_FAILED, "the directory could not be read")
        })?;
        let ready = Ready {
            top: self.received_field(transaction, now) + &signed.fields,
            body,
            message_id: Some(message_id),
            junk: None,
            events: Vec::new(),
            discarded_by: None,
            tls_reports: Vec::new(),
        };
        let mut ready = with_filtered(ready, filtered, now);
        ready
            .events
            .extend(signed.events.into_iter().map(|event| (now, event)));
        Ok(ready)
    }

    /// The domain that the message is signed for, once every author is known to be the login's own.
    async fn author_domain(&self, found: &Found) -> Result<Domain, Refused> {
        let rule = "the author must be an address of the login";
        let missing = || Refused::plain(replies::AUTHOR_MISSING, "a message has one author field");
        let authors = author::authors(&found.from).ok_or_else(missing)?;
        for address in &authors {
            if !self
                .may_send_as(address)
                .await
                .map_err(|reply| Refused::plain(reply, rule))?
            {
                let login = self.sender_name();
                return Err(Refused::plain(replies::author_not_yours(address, login), rule));
            }
        }
        authors
            .first()
            .and_then(|a| a.domain())
            .cloned()
            .ok_or_else(missing)
    }

    fn received_field(&self, transaction: &Transaction, at: Timestamp) -> String {
        let only = match transaction.recipients.as_slice() {
            [only] => Some(Recipient::Address(only.address.clone())),
            _ => None,
        };
        let tls = self.tls.as_ref().map(ToString::to_string);
        let peer_name = self.connection.as_ref().and_then(|c| c.iprev.name.as_ref());
        Received {
            helo: &transaction.helo,
            peer: self.ip(),
            peer_name: peer_name.map(Domain::as_str),
            by: self.ctx.hostname.as_str(),
            with: transaction.protocol,
            tls: tls.as_deref(),
            id: transaction.id,
            only_recipient: only.as_ref(),
            at,
        }
        .to_field()
    }

    async fn refuse(&self, transaction: &Transaction, message_id: Option<&str>, refused: Refused) -> Reply {
        let reply = refused.reply.with_reference(transaction.id);
        let event = Refusal {
            stage: "DATA",
            address: None,
            reply: &reply,
            rule: &refused.rule,
            remedy: refused.remedy,
        }
        .event();
        let mut events = refused.before;
        events.push((self.ctx.parts.clock.now(), event));
        self.record_refused(transaction, message_id, events).await;
        reply
    }
}

/// Adds what the filters made of it.
fn with_filtered(mut ready: Ready, filtered: Filtered, now: Timestamp) -> Ready {
    if filtered.changed {
        ready.message_id = header::look(&ready.body).message_id;
    }
    ready.junk = filtered.quarantine.or(ready.junk);
    ready.discarded_by = filtered.discarded_by;
    ready
        .events
        .extend(filtered.events.into_iter().map(|event| (now, event)));
    ready
}

fn judged_out(reply: Reply, judgement: Judgement, before: Vec<(Timestamp, Event)>) -> Refused {
    Refused {
        reply,
        rule: Cow::Owned(judgement.because),
        remedy: judgement.remedy,
        before,
    }
}

/// Cuts fields out, when there are any.
fn cut(message: Vec<u8>, places: Vec<std::ops::Range<usize>>) -> Vec<u8> {
    if places.is_empty() {
        message
    } else {
        header::without(&message, places)
    }
}

/// The reply that a disposition asks for; none when the message is taken.
pub(crate) fn disposition_reply(disposition: &Disposition) -> Option<Reply> {
    match disposition {
        Disposition::Accept | Disposition::Junk => None,
        Disposition::Refuse { code, status, text } | Disposition::Defer { code, status, text } => {
            Some(replies::judged(*code, *status, text))
        }
    }
}

fn judged_event(judgement: &Judgement) -> Event {
    let checks = judgement.checks.iter().map(|c| Check {
        name: c.name.to_owned(),
        result: c.result.clone(),
        because: c.because.clone(),
    });
    let disposition = match &judgement.disposition {
        Disposition::Accept => "accept".to_owned(),
        Disposition::Junk => "junk".to_owned(),
        Disposition::Refuse { .. } => "refuse".to_owned(),
        Disposition::Defer { .. } => "defer".to_owned(),
    };
    Event::Judged {
        checks: checks.collect(),
        disposition,
        rule: judgement.because.clone(),
        remedy: judgement.remedy.clone(),
    }
}
