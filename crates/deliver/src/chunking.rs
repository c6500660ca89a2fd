//! Which servers get no BDAT for a while although they offer CHUNKING (RFC 3030).
//!
//! A server that refused the command itself gets DATA at once and for a day. Where a session broke while
//! a message was on its way by BDAT (something between us may not know it), the next messages go by DATA
//! for an hour; if it was a mere cut, that costs a round trip each. Promises: what is remembered is
//! bounded. Never: a way for a binary message, which knows none but BDAT.

use crate::memory::Memory;
use smtp::client::Outcome;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a server that refused BDAT gets DATA.
pub const DENIED_FOR: Duration = Duration::from_secs(24 * 3_600);
/// How long a server gets DATA after a session broke in BDAT.
pub const BROKEN_FOR: Duration = Duration::from_secs(3_600);
/// Servers that are remembered at most. Of further ones nothing is: they are asked again.
pub const REMEMBERED_MAX: usize = 10_000;

/// Servers that get no BDAT.
#[derive(Debug)]
pub struct Chunking {
    denied: Mutex<Memory<SocketAddr>>,
}

impl Default for Chunking {
    fn default() -> Self {
        let denied = Mutex::new(Memory::new(REMEMBERED_MAX));
        Self { denied }
    }
}

impl Chunking {
    /// Whether messages may go to this server by BDAT.
    #[must_use]
    pub fn is_allowed(&self, server: SocketAddr) -> bool {
        let denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        !denied.holds(&server)
    }

    /// Learns from what became of a message.
    pub fn learn(&self, server: SocketAddr, outcome: &Outcome) {
        let wait = match outcome.chunking_denied() {
            Some(_) => DENIED_FOR,
            None if outcome.broke_in_chunks() => BROKEN_FOR,
            None => return,
        };
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        denied.learn(server, wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smtp::client::{Failure, PassedOn, ServerReply, Stage, Verdict};

    fn outcome(failure: Failure, by_chunks: bool) -> Outcome {
        Outcome {
            recipients: vec![Verdict::Unanswered(failure)],
            passed_on: PassedOn::default(),
            by_chunks,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn how_long_and_for_whom() {
        let server = |n: u16| SocketAddr::from(([192, 0, 2, 1], n));
        let reply = ServerReply {
            code: 502,
            status: None,
            lines: vec!["what".to_owned()],
        };
        let lost = Failure::Lost {
            stage: Stage::EndOfMessage,
        };
        let chunking = Chunking::default();
        chunking.learn(server(1), &outcome(Failure::ChunkingDenied { reply }, true));
        chunking.learn(server(2), &outcome(lost.clone(), true));
        chunking.learn(server(3), &outcome(lost.clone(), false));
        let allowed = || [1, 2, 3].map(|n| chunking.is_allowed(server(n)));
        assert_eq!(allowed(), [false, false, true]);
        tokio::time::advance(BROKEN_FOR).await;
        assert_eq!(allowed(), [false, true, true]);
        tokio::time::advance(DENIED_FOR).await;
        assert_eq!(allowed(), [true; 3]);
    }
}
