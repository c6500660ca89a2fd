//! How long a client may still take: for its next command, for the next octets of a message, for the
//! whole message; and how fast a message must come at least.
//!
//! A client that sends an octet now and then gets on, but not for ever: in every stretch of the
//! time-out for octets, a message must bring what the least rate asks of that stretch.

use crate::Options;
use smtp::{Reply, Server, replies};
use std::time::Duration;
use tokio::time::Instant;

/// The progress of one session.
pub(crate) struct Pace {
    progress: u64,
    since: Instant,
    message: Option<Message>,
    /// Messages that were accepted. The next one may begin in the same octets (RFC 3030 with pipelining).
    accepted: u32,
    /// What the last deadline was about.
    slow: bool,
}

/// A message that is coming in.
#[derive(Clone, Copy)]
struct Message {
    began: Instant,
    /// When the stretch began that is measured now, and the progress then.
    stretch: Instant,
    progress: u64,
}

impl Pace {
    pub(crate) fn of(server: &Server) -> Self {
        Self {
            progress: server.progress(),
            since: Instant::now(),
            message: None,
            accepted: 0,
            slow: false,
        }
    }

    /// Until when the client must get on.
    pub(crate) fn deadline(&mut self, server: &Server, options: &Options) -> Instant {
        let now = Instant::now();
        if server.progress() != self.progress {
            self.progress = server.progress();
            self.since = now;
        }
        let next = self.since + server.timeout();
        self.slow = false;
        if !server.is_receiving() || server.accepted() != self.accepted {
            self.accepted = server.accepted();
            self.message = None;
        }
        if !server.is_receiving() {
            return next;
        }
        let fresh = Message {
            began: now,
            stretch: now,
            progress: self.progress,
        };
        let message = self.message.get_or_insert(fresh);
        let next = next.min(message.began + options.message_time_max);
        let stretch = options.smtp.timeouts.data;
        let wanted = octets_of(stretch, options.message_octets_per_second_min);
        if self.progress - message.progress >= wanted {
            // Enough: the next stretch begins.
            (message.stretch, message.progress) = (now, self.progress);
        }
        let end = message.stretch + stretch;
        self.slow = wanted > 0 && end < next;
        if self.slow { end } else { next }
    }

    /// What a client hears that is over its deadline.
    pub(crate) fn why_over(&self, options: &Options) -> Reply {
        if self.slow {
            return replies::message_too_slow(options.message_octets_per_second_min);
        }
        replies::TIMED_OUT
    }
}

/// What a rate brings in that time.
fn octets_of(time: Duration, per_second: u32) -> u64 {
    time.as_secs().saturating_mul(u64::from(per_second))
}
