//! When to try again and when to give up: a pure function of an errand's past and the clock.
//!
//! Intervals grow by a factor up to a ceiling, with jitter so that what failed together does not
//! come back together. The last attempt falls on the moment of expiry.

use mail::Timestamp;
use std::time::Duration;

/// When to try again and when to give up.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    /// From the first failed attempt to the second. Default 5 minutes. (RFC 5321 §4.5.4.1 advises
    /// 30 minutes in general and allows quicker ones at first; greylisting passes after minutes.)
    pub first_retry: Duration,
    /// By what each interval grows. Default 1.5; less than 1 counts as 1.
    pub factor: f64,
    /// The longest interval. Default 4 hours.
    pub max_interval: Duration,
    /// From entering the queue to giving up. Default 5 days (RFC 5321 §4.5.4.1: at least 4 to 5).
    pub expire_after: Duration,
    /// After this long the sender is told once that it is delayed. Default 4 hours; `None` never.
    pub delay_notice_after: Option<Duration>,
    /// The part of an interval by which jitter makes it shorter or longer. Default 0.1.
    pub jitter_part: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        Self {
            first_retry: Duration::from_secs(5 * MINUTE),
            factor: 1.5,
            max_interval: Duration::from_secs(4 * HOUR),
            expire_after: Duration::from_secs(5 * 24 * HOUR),
            delay_notice_after: Some(Duration::from_secs(4 * HOUR)),
            jitter_part: 0.1,
        }
    }
}

/// What follows a temporary failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Try again at this time.
    Retry(Timestamp),
    /// Give up and report.
    Expire,
}

impl Schedule {
    /// What follows the failure of attempt number `attempts` (the first is 1) at `now`, for an
    /// errand queued at `first_queued`. `jitter` is a random number from 0 to 1.
    #[must_use]
    pub fn next(&self, attempts: u32, first_queued: Timestamp, now: Timestamp, jitter: f64) -> Next {
        let end = self.expires(first_queued);
        if now >= end {
            return Next::Expire;
        }
        let at = now.plus(self.interval(attempts, jitter));
        Next::Retry(at.min(end))
    }

    /// When an errand queued at `first_queued` is given up.
    #[must_use]
    pub fn expires(&self, first_queued: Timestamp) -> Timestamp {
        first_queued.plus(self.expire_after)
    }

    /// Whether the sender should be told of the delay now.
    #[must_use]
    pub fn delay_notice_due(&self, first_queued: Timestamp, now: Timestamp, already_told: bool) -> bool {
        !already_told
            && self
                .delay_notice_after
                .is_some_and(|after| now.since(first_queued) >= after)
    }

    /// From the failure of attempt `attempts` to the next one.
    fn interval(&self, attempts: u32, jitter: f64) -> Duration {
        let max = self.max_interval.as_secs_f64();
        let exponent = f64::from(attempts.saturating_sub(1));
        let grown = self.first_retry.as_secs_f64() * self.factor.max(1.0).powf(exponent);
        let part = self.jitter_part.clamp(0.0, 1.0);
        let spread = 1.0 + part * (2.0 * jitter.clamp(0.0, 1.0) - 1.0);
        // At least a second, so that no setting makes a busy loop.
        Duration::from_secs_f64((grown.min(max) * spread).max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn at(secs: u64) -> Timestamp {
        START.plus(Duration::from_secs(secs))
    }

    #[test]
    fn default_intervals() {
        let s = Schedule::default();
        // (attempts made, seconds to the next one without jitter)
        for (attempts, secs) in [
            (0, 300.0),
            (1, 300.0),
            (2, 450.0),
            (3, 675.0),
            (4, 1012.5),
            (9, 7688.671875),
            (10, 11533.0078125),
            (11, 14400.0),
            (12, 14400.0),
            (u32::MAX, 14400.0),
        ] {
            let expected = Next::Retry(at(0).plus(Duration::from_secs_f64(secs)));
            assert_eq!(s.next(attempts, at(0), at(0), 0.5), expected, "{attempts}");
        }
    }

    #[test]
    fn jitter_is_a_tenth_either_way() {
        let s = Schedule::default();
        for (jitter, secs) in [(0.0, 270), (1.0, 330), (-9.0, 270), (9.0, 330)] {
            assert_eq!(s.next(1, at(0), at(0), jitter), Next::Retry(at(secs)));
        }
    }

    #[test]
    fn the_last_attempt_is_at_expiry() {
        let s = Schedule::default();
        let five_days = 5 * 86_400;
        assert_eq!(
            s.next(40, at(0), at(five_days - 60), 0.5),
            Next::Retry(at(five_days))
        );
        assert_eq!(s.next(41, at(0), at(five_days), 0.5), Next::Expire);
        assert_eq!(s.next(41, at(0), at(five_days + 9), 0.5), Next::Expire);
    }

    #[test]
    fn delay_notice_once() {
        let s = Schedule::default();
        assert!(!s.delay_notice_due(at(0), at(4 * 3600 - 1), false));
        assert!(s.delay_notice_due(at(0), at(4 * 3600), false));
        assert!(!s.delay_notice_due(at(0), at(4 * 3600), true));
        let never = Schedule {
            delay_notice_after: None,
            ..s
        };
        assert!(!never.delay_notice_due(at(0), at(10_000_000), false));
    }

    #[test]
    fn odd_settings_make_no_busy_loop() {
        let s = Schedule {
            first_retry: Duration::ZERO,
            factor: f64::NAN,
            jitter_part: 1.0,
            ..Schedule::default()
        };
        assert_eq!(s.next(3, at(0), at(0), 0.0), Next::Retry(at(1)));
    }

    proptest! {
        #[test]
        fn always_ahead_and_never_past_expiry(attempts in 0u32..1000, waited in 0u64..1_000_000, jitter in 0.0f64..=1.0) {
            let s = Schedule::default();
            match s.next(attempts, at(0), at(waited), jitter) {
                Next::Retry(t) => prop_assert!(t > at(waited) && t <= s.expires(at(0))),
                Next::Expire => prop_assert!(at(waited) >= s.expires(at(0))),
            }
        }
    }
}
