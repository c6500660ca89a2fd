//! The end of a message in LMTP (RFC 2033): who cannot get it any more is told alone, the others get
//! it by one commit.

use crate::session::Session;
use smtp::{Reply, replies};

impl Session {
    /// Answers the end of a message, once for each accepted RCPT in their order. A positive reply
    /// means: durable, for that recipient.
    pub(crate) async fn accept_for_each(&mut self) -> Vec<Reply> {
        let Some(transaction) = &mut self.transaction else {
            return vec![replies::INTERNAL_ERROR];
        };
        let due = std::mem::take(&mut transaction.answers_due);
        let named = std::mem::take(&mut transaction.recipients);
        let mut refusals = Vec::with_capacity(named.len());
        for recipient in named {
            // Its mailbox may have gone, or filled up, since RCPT.
            let refusal = match self.target(&recipient.address).await {
                Ok(_) => None,
                Err(refused) => Some(self.refuse_recipient("DATA", &recipient.address, refused)),
            };
            if let (None, Some(transaction)) = (&refusal, &mut self.transaction) {
                transaction.recipients.push(recipient);
            }
            refusals.push(refusal);
        }
        let reply = if refusals.iter().all(Option::is_some) {
            self.end_transaction("no recipient was left").await;
            replies::STORE_FAILED
        } else {
            self.accept().await
        };
        let answer = |place: usize| refusals.get(place).cloned().flatten();
        due.into_iter()
            .map(|place| answer(place).unwrap_or_else(|| reply.clone()))
            .collect()
    }
}
