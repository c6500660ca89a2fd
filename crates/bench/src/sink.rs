//! A counting SMTP sink: takes everything, keeps nothing. For measuring what a server sends.
//!
//! Promises: every 250 after DATA is counted, with its octets and the time of the first and the last.
//! Never: keeps a message; says anything about safety (nothing is written).

use crate::hub::{Bell, Hub, Keeper};
use crate::problem::Outcome;
use serde::Serialize;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// When the sink ends by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Until {
    /// After so many messages.
    pub messages: Option<u64>,
    /// After so long without a new one, once there was one.
    pub idle: Option<Duration>,
}

/// What came in.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct SinkReport {
    /// Messages answered with 250.
    pub messages: u64,
    /// Their octets, without the final dot.
    pub octets: u64,
    /// From the first message to the last.
    pub seconds: f64,
    /// Messages a second in that time.
    pub per_second: f64,
}

struct Counter {
    buffer: Vec<u8>,
    until: Until,
    messages: u64,
    octets: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Keeper for Counter {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn took(&mut self, _: u64, _: bool) -> bool {
        self.messages += 1;
        self.octets += self.buffer.len() as u64;
        self.buffer.clear();
        self.last = Some(Instant::now());
        self.first = self.first.or(self.last);
        true
    }

    fn enough(&mut self) -> bool {
        let full = self.until.messages.is_some_and(|most| self.messages >= most);
        let still = self
            .until
            .idle
            .zip(self.last)
            .is_some_and(|(idle, last)| last.elapsed() >= idle);
        full || still
    }
}

/// Takes mail on `listener` until `until` or the bell's end.
///
/// # Errors
/// When the kernel refuses epoll.
pub fn serve(listener: TcpListener, until: Until, bell: Bell) -> Outcome<SinkReport> {
    let counter = Counter {
        buffer: Vec::new(),
        until,
        messages: 0,
        octets: 0,
        first: None,
        last: None,
    };
    let counter = Hub::new(listener, bell, counter)?.run()?;
    let seconds = counter
        .first
        .zip(counter.last)
        .map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    Ok(SinkReport {
        messages: counter.messages,
        octets: counter.octets,
        seconds,
        per_second: if seconds > 0.0 {
            counter.messages as f64 / seconds
        } else {
            0.0
        },
    })
}
