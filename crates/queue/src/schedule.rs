//! When to try again and when to give up: a pure function of an errand's past and the clock.
//!
//! Intervals grow by a factor up to a ceiling, with jitter so that what failed together does not
//! come back together. The last attempt falls on the moment of expiry. A [`Forecast`] says what is to
//! come if every attempt fails for now: times from and to, since the jitter is not known yet.

use mail::delivery::Priority;
use mail::{ReversePath, Timestamp};
use std::collections::BTreeMap;
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
    /// The same for messages without a reverse-path, whose end nobody is told of. Default 2 days; never
    /// more than the other.
    pub expire_reports_after: Duration,
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
            expire_reports_after: Duration::from_secs(2 * 24 * HOUR),
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

/// How far an errand has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Past {
    /// Attempts made.
    pub attempts: u32,
    /// When its time began.
    pub first_queued: Timestamp,
    /// When it is tried next.
    pub next_attempt: Timestamp,
    /// Whether the sender was told of the delay, or does not want to be.
    pub delay_told: bool,
    /// By when it is to be there (RFC 2852): a try falls on that moment.
    pub deadline: Option<Timestamp>,
    /// Whether it comes back at the deadline instead of going on (mode R).
    pub returns_at_deadline: bool,
}

/// A moment that is not known to the second: from and to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Span {
    /// Not before this.
    pub from: Timestamp,
    /// Not after this.
    pub to: Timestamp,
}

/// What is to come if every attempt fails for now.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Forecast {
    /// The next tries in order, the last one before the end at the end; [`TRIES_TOLD_MAX`] at most.
    pub tries: Vec<Span>,
    /// Tries before the last one that are not told.
    pub tries_left_out: usize,
    /// When the sender is told of the delay; `None`: it was told, or is not to be.
    pub delay_notice: Option<Span>,
    /// When it is given up and reported.
    pub ends: Timestamp,
}

/// Tries that a forecast tells at most.
pub const TRIES_TOLD_MAX: usize = 100;
/// Tries that a forecast looks ahead at most, against odd settings.
const TRIES_MAX: usize = 10_000;

/// Lifetimes shorter than the schedule's, for some messages and some failures. A longer one is as long as the
/// schedule's; of several the shortest counts.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Lifetimes {
    /// Of messages that their sender gave a priority below 0 (RFC 6710), such as bulk mail. Default `None`:
    /// as others.
    pub low_priority: Option<Duration>,
    /// By the class of the last failure, such as `mailbox-full`: a message that is that old when it fails so
    /// is given up. Default none.
    pub by_class: BTreeMap<String, Duration>,
}

impl Lifetimes {
    /// How long this message may be tried after a failure of this class; `None`: as long as others.
    #[must_use]
    pub fn of(&self, priority: Priority, class: Option<&str>) -> Option<Duration> {
        let low = self.low_priority.filter(|_| priority < Priority::NORMAL);
        let by_class = class.and_then(|class| self.by_class.get(class)).copied();
        low.into_iter().chain(by_class).min()
    }
}

impl Schedule {
    /// The same, which gives up after this long at the latest.
    #[must_use]
    pub fn within(&self, lifetime: Option<Duration>) -> Self {
        let expire_after = lifetime.map_or(self.expire_after, |most| self.expire_after.min(most));
        Self {
            expire_after,
            ..*self
        }
    }

    /// The schedule for messages of this sender.
    #[must_use]
    pub fn of(&self, sender: &ReversePath) -> Self {
        match sender {
            ReversePath::Address(_) => *self,
            ReversePath::Null => Self {
                expire_after: self.expire_after.min(self.expire_reports_after),
                ..*self
            },
        }
    }

    /// What is to come for an errand, as far as it can be known at `now`: attempts are taken to begin
    /// when they are due, and to fail for now at once.
    #[must_use]
    pub fn forecast(&self, past: &Past, now: Timestamp) -> Forecast {
        let expires = self.expires(past.first_queued);
        let end = match past.deadline {
            Some(at) if past.returns_at_deadline => at.min(expires),
            _ => expires,
        };
        let mut tries = self.tries(past, now, end);
        let notice = self.delay_notice_after.filter(|_| !past.delay_told);
        let notice = notice.and_then(|after| told_at(&tries, past.first_queued.plus(after), end));
        let ends = tries.last().map_or(end, |last| last.to.max(end));
        let left_out = tries.len().saturating_sub(TRIES_TOLD_MAX);
        if left_out > 0 {
            let last = tries.pop();
            tries.truncate(TRIES_TOLD_MAX - 1);
            tries.extend(last);
        }
        Forecast {
            tries,
            tries_left_out: left_out,
            delay_notice: notice,
            ends,
        }
    }

    /// All tries up to the one at `end`.
    fn tries(&self, past: &Past, now: Timestamp, end: Timestamp) -> Vec<Span> {
        let first = past.next_attempt.max(now);
        let mut last = Span {
            from: first,
            to: first,
        };
        let mut tries = vec![last];
        for made in (past.attempts.saturating_add(1)..).take(TRIES_MAX) {
            if last.from >= end {
                break;
            }
            let behind = |at: Timestamp, jitter| {
                let next = at.plus(self.interval(made, jitter)).min(end);
                let deadline = past.deadline.filter(|deadline| *deadline > at);
                deadline.map_or(next, |deadline| next.min(deadline))
            };
            last = Span {
                from: behind(last.from, 0.0),
                to: behind(last.to, 1.0),
            };
            tries.push(last);
        }
        tries
    }

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

/// When the sender is told of the delay: with the first try from `at` on, unless that is the last one.
fn told_at(tries: &[Span], at: Timestamp, end: Timestamp) -> Option<Span> {
    let earliest = tries.iter().find(|span| span.to >= at)?.from.max(at);
    let surely = tries.iter().find(|span| span.from >= at);
    let latest = surely.map_or(end, |span| span.to);
    (earliest < end).then_some(Span {
        from: earliest,
        to: latest,
    })
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
    fn reports_are_given_up_earlier() {
        let s = Schedule::default();
        let from = ReversePath::Address(mail::EmailAddress::parse("alice@gmail.com").unwrap());
        assert_eq!(s.of(&from), s);
        let reports = s.of(&ReversePath::Null);
        assert_eq!(reports.expires(at(0)), at(2 * 86_400));
        let short = Schedule {
            expire_after: Duration::from_secs(60),
            ..s
        };
        assert_eq!(short.of(&ReversePath::Null).expires(at(0)), at(60));
    }

    #[test]
    fn the_shortest_lifetime_counts() {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let lifetimes = Lifetimes {
            low_priority: Some(hours(24)),
            by_class: [("mailbox-full", 48), ("greylisted", 12), ("tls", 10_000)]
                .map(|(class, n)| (class.to_owned(), hours(n)))
                .into(),
        };
        let low = Priority::new(-1).unwrap();
        for (priority, class, wanted) in [
            (Priority::NORMAL, None, 120),
            (Priority::NORMAL, Some("busy"), 120),
            (Priority::NORMAL, Some("mailbox-full"), 48),
            (Priority::NORMAL, Some("tls"), 120),
            (low, None, 24),
            (low, Some("mailbox-full"), 24),
            (low, Some("greylisted"), 12),
        ] {
            let schedule = Schedule::default().within(lifetimes.of(priority, class));
            assert_eq!(schedule.expire_after, hours(wanted), "{priority:?} {class:?}");
        }
        // One of no time: the first failure of that class is the last.
        let at_once = Schedule::default().within(Some(Duration::ZERO));
        assert_eq!(at_once.next(1, at(0), at(0), 0.5), Next::Expire);
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

    fn fresh() -> Past {
        Past {
            attempts: 0,
            first_queued: at(0),
            next_attempt: at(0),
            delay_told: false,
            deadline: None,
            returns_at_deadline: false,
        }
    }

    #[test]
    fn the_forecast_of_a_new_errand() {
        let told = Schedule::default().forecast(&fresh(), at(0));
        let span = |from, to| Span {
            from: at(from),
            to: at(to),
        };
        // 300 s and a tenth either way, then 450 s and a tenth either way more.
        assert_eq!(told.tries[..3], [span(0, 0), span(270, 330), span(675, 825)]);
        let end = at(5 * 86_400);
        assert_eq!(told.tries.last(), Some(&Span { from: end, to: end }));
        assert_eq!((told.ends, told.tries_left_out), (end, 0));
        let notice = told.delay_notice.unwrap();
        assert!(
            notice.from >= at(4 * 3600) && notice.to < at(10 * 3600),
            "{notice:?}"
        );
    }

    #[test]
    fn the_forecast_knows_what_was_told_and_what_is_over() {
        let schedule = Schedule::default();
        let told = Past {
            delay_told: true,
            ..fresh()
        };
        assert_eq!(schedule.forecast(&told, at(0)).delay_notice, None);
        let end = 5 * 86_400;
        let late = Past {
            attempts: 9,
            next_attempt: at(end + 5),
            ..fresh()
        };
        let told = schedule.forecast(&late, at(end + 60));
        let now = Span {
            from: at(end + 60),
            to: at(end + 60),
        };
        assert_eq!(
            (told.tries, told.delay_notice),
            (vec![now], None),
            "one try is left"
        );
        assert_eq!(told.ends, at(end + 60));
        let busy = Schedule {
            first_retry: Duration::ZERO,
            factor: 1.0,
            ..schedule
        };
        let told = busy.forecast(&fresh(), at(0));
        assert_eq!(told.tries.len(), TRIES_TOLD_MAX);
        assert!(told.tries_left_out > 0 && told.ends == at(end));
    }

    #[test]
    fn the_forecast_ends_at_the_deadline() {
        let schedule = Schedule::default();
        let due = Past {
            deadline: Some(at(1_000)),
            returns_at_deadline: true,
            ..fresh()
        };
        let told = schedule.forecast(&due, at(0));
        assert_eq!(told.ends, at(1_000));
        assert_eq!(told.delay_notice, None, "it is back by then");
        let goes_on = Past {
            returns_at_deadline: false,
            ..due
        };
        let told = schedule.forecast(&goes_on, at(0));
        assert_eq!(told.ends, at(5 * 86_400));
        assert!(told.tries.iter().any(|span| span.to == at(1_000)));
    }

    proptest! {
        #[test]
        fn what_happens_was_forecast(jitters in proptest::collection::vec(0.0f64..=1.0, 60), late in 0u64..500_000) {
            let s = Schedule::default();
            let past = Past { next_attempt: at(late), ..fresh() };
            let told = s.forecast(&past, at(0));
            let (mut now, mut attempts, mut notice) = (at(late), 0, None);
            for jitter in jitters {
                let span = told.tries.get(attempts).copied().unwrap_or(Span { from: told.ends, to: told.ends });
                prop_assert!(span.from <= now && now <= span.to, "try {attempts}: {now:?} in {span:?}");
                attempts += 1;
                match s.next(attempts as u32, at(0), now, jitter) {
                    Next::Expire => break,
                    Next::Retry(next) => {
                        if s.delay_notice_due(at(0), now, notice.is_some()) {
                            notice = Some(now);
                        }
                        now = next;
                    }
                }
            }
            if let Some(at) = notice {
                let span = told.delay_notice.expect("it was forecast");
                prop_assert!(span.from <= at && at <= span.to, "{at:?} in {span:?}");
            }
        }

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
