//! An event as an endpoint hears of it: JSON, from the event of the journey. Pure.
//!
//! The row in the outbox holds what the event itself says; what is known of the message (sender,
//! Message-ID) is put beside it when it is sent.

use crate::Kind;
use journey::{Event, Reply};
use mail::{EmailAddress, QueueId, Timestamp, date};
use serde_json::{Map, Value, json};

/// Recipients of a message that one event names at most; their number is told in any case.
pub const RECIPIENTS_TOLD_MAX: usize = 100;
const VERSION: u8 = 1;

/// The kind of a step; `None` for steps that are not told.
pub(crate) fn kind_of(event: &Event) -> Option<Kind> {
    Some(match event {
        Event::Accepted { .. } => Kind::Received,
        Event::DeliveredLocal { .. } => Kind::Delivered,
        Event::Relayed { .. } => Kind::Relayed,
        Event::Deferred { .. } => Kind::Deferred,
        Event::Bounced { .. } => Kind::Bounced,
        Event::Expired { .. } => Kind::Expired,
        Event::Dropped { .. } => Kind::Dropped,
        _ => return None,
    })
}

/// The value of a row.
pub(crate) fn encode(kind: Kind, event: &Event) -> Vec<u8> {
    let mut row = vec![VERSION];
    let said = Value::Object(said(kind, event));
    // A map of texts and numbers can be written.
    let _ = serde_json::to_writer(&mut row, &said);
    row
}

/// What a row says; `None` when it is damaged.
pub(crate) fn decode(row: &[u8]) -> Option<Map<String, Value>> {
    match row {
        [VERSION, json @ ..] => serde_json::from_slice(json).ok(),
        _ => None,
    }
}

fn said(kind: Kind, event: &Event) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            out.insert(name.to_owned(), value);
        }
    };
    put("event", json!(kind.name()));
    match event {
        Event::Accepted { local, queued, .. } => {
            put("local", json!(local));
            put("queued", json!(queued));
        }
        Event::DeliveredLocal {
            recipient,
            mailbox_name,
            ..
        } => {
            put("recipient", json!(recipient.to_string()));
            put("mailbox", json!(mailbox_name));
        }
        Event::Relayed {
            recipient,
            host,
            reply,
            ..
        } => {
            put("recipient", json!(recipient.to_string()));
            put("host", json!(host));
            put("reply", reply_of(reply));
        }
        Event::Deferred {
            recipient,
            reply,
            next_attempt,
            expires,
            remedy,
            ..
        } => {
            put("recipient", json!(recipient.to_string()));
            put("reply", reply_of(reply));
            put("next_attempt", json!(date::iso8601(*next_attempt)));
            put("expires", json!(date::iso8601(*expires)));
            put("remedy", json!(remedy));
        }
        Event::Bounced {
            recipient,
            reply,
            remedy,
            ..
        } => {
            put("recipient", json!(recipient.to_string()));
            put("reply", reply_of(reply));
            put("remedy", json!(remedy));
        }
        Event::Expired {
            recipient,
            attempts,
            reply,
            remedy,
            ..
        } => {
            put("recipient", json!(recipient.to_string()));
            put("attempts", json!(attempts));
            put("reply", reply_of(reply));
            put("remedy", json!(remedy));
        }
        Event::Dropped { recipient, by, .. } => {
            put("recipient", json!(recipient.as_ref().map(ToString::to_string)));
            put("by", json!(by));
        }
        _ => {}
    }
    out
}

fn reply_of(reply: &Reply) -> Value {
    json!({
        "code": reply.code,
        "status": reply.status.map(|status| status.to_string()),
        "text": reply.text,
    })
}

/// Puts beside an event what is known of its message.
pub(crate) fn complete(
    mut said: Map<String, Value>,
    (id, at, tiebreak): (QueueId, Timestamp, u32),
    birth: Option<&Event>,
) -> Value {
    said.insert("id".to_owned(), json!(format!("{id}-{}-{tiebreak}", at.micros())));
    said.insert("at".to_owned(), json!(date::iso8601(at)));
    said.insert("message".to_owned(), json!(id.to_string()));
    if let Some(Event::Received {
        service,
        peer_ip,
        login,
        reverse_path,
        recipients,
        size,
        message_id,
        ..
    }) = birth
    {
        let from = reverse_path.as_ref().and_then(|path| path.address());
        said.insert("from".to_owned(), json!(from.map(ToString::to_string)));
        said.insert("message_id".to_owned(), json!(message_id));
        if said.get("event") == Some(&json!(Kind::Received.name())) {
            let told = recipients.iter().take(RECIPIENTS_TOLD_MAX);
            let told: Vec<String> = told.map(EmailAddress::to_string).collect();
            said.insert("recipients".to_owned(), json!(told));
            said.insert("recipients_count".to_owned(), json!(recipients.len()));
            said.insert("service".to_owned(), json!(service));
            said.insert("peer".to_owned(), json!(peer_ip));
            said.insert("login".to_owned(), json!(login));
            said.insert("size".to_owned(), json!(size));
        }
    }
    Value::Object(said)
}

/// The body of a request with events.
pub(crate) fn body(endpoint: &str, events: &[Value], now: Timestamp) -> Vec<u8> {
    let body = json!({
        "webhook": endpoint,
        "sent_at": date::iso8601(now),
        "events": events,
    });
    body.to_string().into_bytes()
}

/// The body of a request that only tries whether the endpoint hears.
#[must_use]
pub fn test_body(endpoint: &str, now: Timestamp) -> Vec<u8> {
    let event = json!({
        "id": format!("test-{}", now.micros()),
        "event": "test",
        "at": date::iso8601(now),
    });
    body(endpoint, &[event], now)
}
