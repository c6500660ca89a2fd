//! What can be asked about TLS reports, and what is answered.

use mail::{Domain, QueueId, Timestamp};
use serde::{Deserialize, Serialize};

/// A question about TLS reports.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum TlsReportsOrder {
    /// Reports that others sent about our domains, the newest first.
    Received {
        /// About this domain; without one, about all.
        #[serde(default)]
        domain: Option<Domain>,
        /// At most.
        limit: usize,
    },
    /// What was counted here and is not reported yet.
    Outgoing {
        /// Of today alone.
        #[serde(default)]
        today: bool,
        /// Domains at most.
        limit: usize,
    },
}

/// A report that another server sent.
#[derive(Serialize, Deserialize)]
pub struct ReceivedRow {
    /// Our domain that it is about.
    pub domain: Domain,
    /// Who reports, in its own words.
    pub organization: String,
    /// Whose signature vouches for it.
    pub signed_by: String,
    /// Whom to ask about it.
    pub contact: String,
    /// The day that it is about.
    pub day: String,
    /// When it came.
    pub received: Timestamp,
    /// The message that brought it.
    pub message: QueueId,
    /// Conversations with the TLS that the policy asks for.
    pub successful: u64,
    /// Conversations without.
    pub failed: u64,
    /// Reasons, as RFC 8460 names them, and how often; the most frequent first.
    pub reasons: Vec<(String, u64)>,
    /// Failure details that were left out for their number or size.
    pub details_left_out: usize,
    /// All of it in words.
    pub text: String,
    /// The report, as RFC 8460 §4.4 writes it.
    pub report: serde_json::Value,
}

/// What was counted of one domain in a day.
#[derive(Serialize, Deserialize)]
pub struct OutgoingRow {
    /// The day.
    pub day: String,
    /// The domain whose servers we spoke to.
    pub domain: String,
    /// When its report is due, if the domain asks for one.
    pub due: Timestamp,
    /// Conversations with the TLS that the policy asks for.
    pub successful: u64,
    /// Conversations without.
    pub failed: u64,
    /// Reasons and how often; the most frequent first.
    pub reasons: Vec<(String, u64)>,
    /// What was counted, policy by policy, as RFC 8460 §4.4 writes it.
    pub policies: serde_json::Value,
}

/// What was counted here.
#[derive(Serialize, Deserialize)]
pub struct OutgoingView {
    /// Day by day, domain by domain.
    pub rows: Vec<OutgoingRow>,
    /// Whether there are more.
    pub more: bool,
}
