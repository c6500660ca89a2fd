//! Webhooks: whether they listen, and trying them.

use super::Office;
use crate::words::{Refusal, Response, WebhookRow};

impl Office {
    /// Each webhook with what waits for it.
    pub(super) async fn webhooks_now(&self) -> Result<Vec<WebhookRow>, Refusal> {
        let mut rows = Vec::new();
        for endpoint in self.outbox.endpoints() {
            let waiting = self.outbox.waiting(&endpoint.name).await;
            rows.push(WebhookRow {
                name: endpoint.name.clone(),
                url: endpoint.url.to_string(),
                events: endpoint.events.clone(),
                from_domains: endpoint.from_domains.clone(),
                waiting: waiting.map_err(Refusal::failed)?,
                standing: self
                    .webhooks
                    .as_ref()
                    .map(|sender| sender.standing(&endpoint.name)),
            });
        }
        Ok(rows)
    }

    pub(super) fn retry_webhook(&self, name: &str) -> Result<Response, Refusal> {
        let Some(sender) = &self.webhooks else {
            return Err(Refusal::invalid(
                "no server runs, so nobody tells webhooks; what waits is told when it starts",
            ));
        };
        match sender.retry(name) {
            true => Ok(Response::Done(format!(
                "{name} is tried now; see: posthaste webhook list"
            ))),
            false => Err(Refusal::not_found(format!(
                "there is no webhook \"{name}\"; see: posthaste webhook list"
            ))),
        }
    }
}
