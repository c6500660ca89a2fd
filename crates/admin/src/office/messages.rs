//! The telling of journeys.

use super::{Office, STORIES_MAX};
use crate::words::{Refusal, Response, Told};
use journey::Query;

impl Office {
    pub(super) async fn trace(&self, what: &str, limit: usize) -> Result<Response, Refusal> {
        let query = Query::parse(what).ok_or_else(|| {
            Refusal::invalid(format!(
                "\"{what}\" is neither a queue id, a Message-ID nor an address"
            ))
        })?;
        let mut told = Vec::new();
        for id in self.journey.find(&query, limit.min(STORIES_MAX)).await? {
            let story = journey::tell(&self.journey.events(id).await?);
            let text = story.to_string();
            let story = serde_json::to_value(&story).map_err(Refusal::failed)?;
            told.push(Told { id, text, story });
        }
        if told.is_empty() {
            return Err(Refusal::not_found(format!(
                "no journey is known for \"{what}\": it was never seen here, or is forgotten by now"
            )));
        }
        Ok(Response::Stories(told))
    }
}
