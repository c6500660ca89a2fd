//! Refusals that no answer of ours explains yet: of the connection, of the login, of a command that the
//! machine refused by itself. Each is recorded before the client can read its reference.
//!
//! Promises: within a transaction it joins the transaction's journey, outside it the session's own; the
//! number of records is bounded by the budget of refusals; what is over it is still logged.

use crate::session::{Session, role_name, written};
use crate::transaction::{REFUSALS_KEPT_MAX, Refusal};
use journey::Event;
use mail::QueueId;
use smtp::server::Refused;
use smtp::{Reply, Server, replies};
use store::Batch;

impl Session {
    /// Under which id a refusal is told now.
    pub(crate) fn reference_now(&self) -> QueueId {
        self.transaction.as_ref().map_or(self.reference, |t| t.id)
    }

    /// Refuses the connection before there is a session: the reply as octets, its journey recorded.
    pub(crate) async fn refuse_connection(&mut self, stage: &'static str, reply: &Reply) -> Vec<u8> {
        let refused = Refused {
            reference: self.reference,
            stage,
            reply: reply.clone(),
        };
        self.record_session("", &[refused]).await;
        written(&reply.clone().with_reference(self.reference))
    }

    /// Takes what the machine refused, and records it.
    pub(crate) async fn hear_refused(&mut self, server: &mut Server) {
        let mut refused = server.take_refused();
        if refused.is_empty() {
            return;
        }
        if let Some(transaction) = &mut self.transaction {
            let now = self.ctx.parts.clock.now();
            refused.retain(|r| {
                let of_it = r.reference == transaction.id;
                if of_it && transaction.refusals.len() < REFUSALS_KEPT_MAX {
                    transaction.refusals.push((now, event(r)));
                }
                !of_it
            });
        }
        if !refused.is_empty() {
            // On the heap, so that a session that waits does not hold room for it.
            Box::pin(self.record_session(server.helo(), &refused)).await;
        }
    }

    /// Records refusals of the session itself, as far as the budget allows.
    async fn record_session(&mut self, helo: &str, refused: &[Refused]) {
        for r in refused {
            tracing::info!(id = %r.reference, peer = %self.peer, service = role_name(self.role), stage = r.stage,
                code = r.reply.code, text = %r.reply.text, rule = rule(&r.reply).0, "refused");
        }
        let now = self.ctx.parts.clock.now();
        if !self.ctx.refusals.take(now) {
            return;
        }
        let (mut batch, journey) = (Batch::new(), &self.ctx.parts.journey);
        if !self.is_recorded {
            journey.index(&mut batch, self.reference, now, None, &[]);
            journey.record(&mut batch, self.reference, now, &self.arrival(helo));
        }
        for r in refused {
            journey.record(&mut batch, r.reference, now, &event(r));
        }
        match self.ctx.parts.store.commit(batch).await {
            Ok(_) => self.is_recorded = true,
            Err(error) => {
                tracing::warn!(%error, id = %self.reference, "a refusal could not be recorded");
            }
        }
    }

    /// The first step of a session's own journey: who came, and no message.
    fn arrival(&self, helo: &str) -> Event {
        let (peer_ip, peer_name) = self.who();
        Event::Received {
            service: role_name(self.role).to_owned(),
            peer_ip,
            peer_name,
            helo: helo.to_owned(),
            tls: self.tls_used(),
            login: self.is_ours().then(|| self.sender_name()),
            reverse_path: None,
            recipients: Vec::new(),
            size: 0,
            message_id: None,
        }
    }
}

fn event(refused: &Refused) -> Event {
    let (rule, remedy) = rule(&refused.reply);
    Refusal {
        stage: refused.stage,
        address: None,
        reply: &refused.reply,
        rule,
        remedy: remedy.map(str::to_owned),
    }
    .event()
}

/// The rules behind the replies, and what the operator or the client's owner can change where the reply
/// itself does not say it.
static RULES: [(Reply, &str, Option<&str>); 18] = [
    (
        replies::EARLY_TALKER,
        "a client waits for the greeting (RFC 5321 \u{a7}4.3.1)",
        Some("correct the client; smtp.greeting_delay_ms says how long clients are watched"),
    ),
    (
        replies::TOO_MANY_CONNECTIONS,
        "smtp.connections_max",
        Some("raise smtp.connections_max, if the machine has room"),
    ),
    (
        replies::TOO_MANY_CONNECTIONS_FROM_YOU,
        "smtp.connections_per_address_max",
        Some("open fewer connections; or raise smtp.connections_per_address_max"),
    ),
    (
        replies::AUTH_FAILED,
        "a login needs the right name and password",
        Some(
            "the owner checks name and password; the operator sets a new one: posthaste account password <address>",
        ),
    ),
    (
        replies::APP_PASSWORD_NEEDED,
        "an account with a second factor needs an app password",
        Some("make one: posthaste account app-password <address>"),
    ),
    (
        replies::AUTH_TOO_MANY,
        "failed logins are limited, by session and by address",
        Some("wait some minutes; look which device has an old password"),
    ),
    (
        replies::AUTH_REQUIRED,
        "submission needs a login",
        Some("turn on authentication in the mail program"),
    ),
    (
        replies::TLS_FIRST,
        "submission needs TLS",
        Some("turn on STARTTLS in the mail program, or use port 465"),
    ),
    (
        replies::AUTH_NEEDS_TLS,
        "no password in clear",
        Some("turn on STARTTLS in the mail program, or use port 465"),
    ),
    (
        replies::AUTH_NOT_HERE,
        "no login on the port for other servers",
        Some("use port 465 or 587"),
    ),
    (
        replies::LOGIN_OVER,
        "the login was taken away while the session was open",
        Some("log in again"),
    ),
    (
        replies::TOO_MANY_ERRORS,
        "refused commands of a session are limited",
        Some("the steps before this tell each error"),
    ),
    (
        replies::TOO_MUCH_IDLE_TALK,
        "commands without a message are limited",
        None,
    ),
    (
        replies::DATA_TOO_EARLY,
        "a client waits for the reply to DATA (RFC 2920 \u{a7}3.1)",
        Some("correct the client"),
    ),
    (
        replies::DATA_BEHIND_STARTTLS,
        "nothing in clear may pass for what came inside TLS (RFC 3207 \u{a7}4.2)",
        Some("correct the client; if it is a good one, somebody on the way tampers with the connection"),
    ),
    (
        replies::DATA_BARE_LF,
        "lines end with CR LF (RFC 5321 \u{a7}2.3.8): anything else can smuggle messages",
        Some("correct the program that made the message"),
    ),
    (
        replies::DATA_BARE_CR,
        "lines end with CR LF (RFC 5321 \u{a7}2.3.8): anything else can smuggle messages",
        Some("correct the program that made the message"),
    ),
    (
        replies::BUSY,
        "smtp.memory_max_octets",
        Some("raise smtp.memory_max_octets, if the machine has room"),
    ),
];

/// The same for replies that name a time or an address: what they begin with.
const BEGINNINGS: [(&str, &str, &str); 3] = [
    (
        "Your address is blocked",
        "the address is blocked for a time",
        "the operator lists and lifts blocks: posthaste block",
    ),
    (
        "Too many connections from",
        "connections are limited, by address and by network",
        "come again later; the operator sets the rates in [limits]",
    ),
    (
        "Too many messages from",
        "messages are limited, by address and by login",
        "come again later; the operator sets the rates in [limits]",
    ),
];

/// By which rule the machine says this reply, and what would change it.
fn rule(reply: &Reply) -> (&'static str, Option<&'static str>) {
    let known = RULES.iter().find(|(known, ..)| known == reply);
    if let Some((_, rule, remedy)) = known {
        return (rule, *remedy);
    }
    let begins = BEGINNINGS
        .iter()
        .find(|(words, ..)| reply.text.starts_with(words));
    begins.map_or(("the protocol (RFC 5321)", None), |(_, rule, remedy)| {
        (rule, Some(remedy))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_a_rule() {
        assert_eq!(rule(&replies::AUTH_REQUIRED).0, "submission needs a login");
        assert_eq!(rule(&replies::UNKNOWN_COMMAND), ("the protocol (RFC 5321)", None));
    }
}
