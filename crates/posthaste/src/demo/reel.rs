//! What the servers say and ask, in the order in which it happens, for the parts to look through.
//!
//! The two servers work at the same time, so their lines come mixed. Everything is kept here, and
//! each part follows what is its own: first what happened already, then live until it is over.
//!
//! Promises: nothing is waited for by sleeping; who follows is woken by what happens.

use lab::dns::Asked;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long anything in the demo may take; a healthy run needs a few hundredths of it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Happening {
    /// A line of an SMTP session that one of the servers holds.
    Line {
        /// The server, by its domain, that reports it.
        host: &'static str,
        /// The session's name, given by the server.
        session: String,
        /// Who said it.
        from_client: bool,
        /// The line.
        text: String,
    },
    /// One of the servers asked the DNS.
    Asked {
        /// The server, by its domain.
        host: &'static str,
        /// Question and answer.
        asked: Asked,
    },
}

/// Everything that happened so far.
pub struct Reel {
    happenings: Mutex<Vec<Happening>>,
    length: watch::Sender<usize>,
}

/// What was waited for did not happen within [`PATIENCE`].
#[derive(Debug, thiserror::Error)]
#[error("{0} did not happen within {secs} seconds", secs = PATIENCE.as_secs())]
pub struct NeverHappened(pub &'static str);

impl Reel {
    pub fn new() -> Self {
        Self {
            happenings: Mutex::default(),
            length: watch::Sender::new(0),
        }
    }

    /// Keeps what happened and wakes who follows.
    pub fn add(&self, happening: Happening) {
        let mut happenings = self.happenings.lock().unwrap_or_else(PoisonError::into_inner);
        happenings.push(happening);
        self.length.send_replace(happenings.len());
    }

    /// The place of what happens next.
    pub fn mark(&self) -> usize {
        *self.length.borrow()
    }

    /// What happened from `mark` to now.
    pub fn since(&self, mark: usize) -> Vec<Happening> {
        let happenings = self.happenings.lock().unwrap_or_else(PoisonError::into_inner);
        happenings.get(mark..).unwrap_or_default().to_vec()
    }

    /// Hands each happening from `mark` on to `each`, old ones at once and new ones as they come,
    /// until `each` answers with something.
    pub async fn follow<T>(
        &self,
        mark: usize,
        what: &'static str,
        mut each: impl FnMut(&Happening) -> Option<T>,
    ) -> Result<T, NeverHappened> {
        let mut length = self.length.subscribe();
        let mut next = mark;
        let work = async {
            loop {
                length.borrow_and_update();
                for happening in self.since(next) {
                    next += 1;
                    if let Some(found) = each(&happening) {
                        return found;
                    }
                }
                // The sender lives as long as `self`.
                let _ = length.changed().await;
            }
        };
        tokio::time::timeout(PATIENCE, work)
            .await
            .map_err(|_| NeverHappened(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn line(text: &str) -> Happening {
        Happening::Line {
            host: "a.test",
            session: "1".to_owned(),
            from_client: true,
            text: text.to_owned(),
        }
    }

    #[tokio::test]
    async fn old_and_new_come_in_order_and_once() {
        let reel = Arc::new(Reel::new());
        reel.add(line("before"));
        let mark = reel.mark();
        reel.add(line("one"));
        let writer = Arc::clone(&reel);
        let task = tokio::spawn(async move {
            for text in ["two", "three"] {
                tokio::task::yield_now().await;
                writer.add(line(text));
            }
        });
        let mut seen = Vec::new();
        let last = reel
            .follow(mark, "three", |h| {
                seen.push(h.clone());
                (*h == line("three")).then_some("found")
            })
            .await
            .unwrap();
        task.await.unwrap();
        assert_eq!(
            (last, seen),
            ("found", vec![line("one"), line("two"), line("three")])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let reel = Reel::new();
        let error = reel.follow(0, "rain", |_| None::<()>).await.unwrap_err();
        assert_eq!(error.to_string(), "rain did not happen within 20 seconds");
    }
}
