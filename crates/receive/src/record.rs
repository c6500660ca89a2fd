//! The journeys of transactions that ended in a refusal, and the budget that bounds them.

use crate::session::{Session, role_name};
use crate::transaction::Transaction;
use journey::{Event, TlsUsed};
use listen::Peer;
use mail::{EmailAddress, Timestamp};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use store::Batch;

impl Session {
    /// Forgets the open transaction; if something of it was refused, its journey is kept.
    pub(crate) async fn end_transaction(&mut self, why: &str) {
        let Some(transaction) = self.transaction.take() else {
            return;
        };
        self.filter_abort().await;
        if transaction.refusals.is_empty() {
            return tracing::debug!(id = %transaction.id, why, "a transaction ended without a message");
        }
        Box::pin(self.record_refused(&transaction, None, Vec::new())).await;
    }

    /// Records a transaction that was refused, as far as the budget allows.
    pub(crate) async fn record_refused(
        &self,
        transaction: &Transaction,
        message_id: Option<&str>,
        more: Vec<(Timestamp, Event)>,
    ) {
        log_refusal(transaction, self.peer, transaction.refusals.iter().chain(&more));
        if !self.ctx.refusals.take(self.ctx.parts.clock.now()) {
            return;
        }
        let mut batch = Batch::new();
        self.record_arrival(&mut batch, transaction, message_id);
        let journey = &self.ctx.parts.journey;
        for (at, event) in transaction.refusals.iter().chain(&more) {
            journey.record(&mut batch, transaction.id, *at, event);
        }
        if let Err(error) = self.ctx.parts.store.commit(batch).await {
            tracing::warn!(%error, id = %transaction.id, "a refusal could not be recorded");
        }
    }

    /// Who the client is, as journeys keep it: its address and the name found for it; or the user of
    /// this machine.
    pub(crate) fn who(&self) -> (Option<IpAddr>, Option<String>) {
        if let Some(user) = self.peer.user {
            return (None, Some(format!("local, user {user}")));
        }
        let name = self.connection.as_ref().and_then(|c| c.iprev.name.as_ref());
        (Some(self.ip()), name.map(ToString::to_string))
    }

    /// The connection's TLS, as journeys keep it.
    pub(crate) fn tls_used(&self) -> Option<TlsUsed> {
        self.tls.as_ref().map(|t| TlsUsed {
            version: t.version.to_owned(),
            cipher: t.cipher.clone(),
            verified: None,
            resumed: false,
        })
    }

    /// Adds the first step of the journey, and by what it is found.
    pub(crate) fn record_arrival(
        &self,
        batch: &mut Batch,
        transaction: &Transaction,
        message_id: Option<&str>,
    ) {
        let journey = &self.ctx.parts.journey;
        let recipients: Vec<EmailAddress> =
            transaction.recipients.iter().map(|r| r.address.clone()).collect();
        let addresses: Vec<&EmailAddress> = transaction
            .reverse_path
            .address()
            .into_iter()
            .chain(&recipients)
            .chain(&transaction.refused_addresses)
            .collect();
        journey.index(batch, transaction.id, transaction.began, message_id, &addresses);
        let (peer_ip, peer_name) = self.who();
        let event = Event::Received {
            service: role_name(self.role).to_owned(),
            peer_ip,
            peer_name,
            helo: transaction.helo.clone(),
            tls: self.tls_used(),
            login: self.is_ours().then(|| self.sender_name()),
            reverse_path: Some(transaction.reverse_path.clone()),
            size: transaction.octets,
            message_id: message_id.map(str::to_owned),
            recipients,
        };
        journey.record(batch, transaction.id, transaction.began, &event);
    }
}

/// One log line that says what was refused, and why.
fn log_refusal<'a>(
    transaction: &Transaction,
    peer: Peer,
    events: impl DoubleEndedIterator<Item = &'a (Timestamp, Event)>,
) {
    let last = events.rev().find_map(|(_, event)| match event {
        Event::Refused {
            stage, reply, rule, ..
        } => Some((stage, reply, rule)),
        _ => None,
    });
    if let Some((stage, reply, rule)) = last {
        tracing::info!(id = %transaction.id, %peer, from = %transaction.reverse_path, stage, code = reply.code,
            text = reply.text, rule, "refused");
    }
}

/// How many refusals may be recorded: a bucket of one second's worth.
pub(crate) struct RefusalBudget {
    per_second: u32,
    state: Mutex<(i64, u32)>,
}

impl RefusalBudget {
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            state: Mutex::new((i64::MIN, 0)),
        }
    }

    pub(crate) fn take(&self, now: Timestamp) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 != now.secs() {
            *state = (now.secs(), 0);
        }
        state.1 += 1;
        state.1 <= self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_by_the_second() {
        let budget = RefusalBudget::new(2);
        let at = Timestamp::from_secs;
        assert!(budget.take(at(1)) && budget.take(at(1)));
        assert!(!budget.take(at(1)));
        assert!(budget.take(at(2)));
    }
}
