//! How much goes to one site at a time, and how fast: a pure function of what it answered and the clock.
//!
//! A site is a set of exchangers, however many domains they serve. Strategies: slow start (2 attempts at a
//! time, doubled while all goes well), then one more for each round of successes; halved when the site is
//! in trouble (421, a 4xx that is about us and not about a mailbox, no connection), never below 1 and never
//! above the setting. A site that cannot be reached twice in a row is *down*: nothing goes to it but one
//! probe at a time, at growing distances; one that was probed in vain has the rest put off without an
//! attempt. Rates are buckets that fill with time.

use crate::failure::Failure;
use std::time::Duration;
use tokio::time::Instant;

/// Attempts at a time to a site that nothing is known of.
const WIDTH_AT_FIRST: f64 = 2.0;
/// Attempts in a row that found nobody there, after which a site is down.
const DOWN_AFTER: u32 = 2;
/// From the moment when it is down to the first probe; doubled from probe to probe.
pub const PROBE_AFTER: Duration = Duration::from_secs(30);
/// The longest wait for a probe.
pub const PROBE_AFTER_MAX: Duration = Duration::from_secs(600);
/// A bucket holds what a tenth of a minute brings, but at least one.
const BURST_MINUTES: f64 = 0.1;

/// What the settings allow for a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Attempts, and so connections, at a time. At least 1.
    pub connections_max: usize,
    /// Messages begun in a minute; `None` for any number.
    pub messages_per_minute: Option<u32>,
    /// Connections opened in a minute; `None` for any number.
    pub connections_per_minute: Option<u32>,
}

impl Limits {
    /// No more than either allows.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let least = |a: Option<u32>, b: Option<u32>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        };
        Self {
            connections_max: self.connections_max.min(other.connections_max),
            messages_per_minute: least(self.messages_per_minute, other.messages_per_minute),
            connections_per_minute: least(self.connections_per_minute, other.connections_per_minute),
        }
    }
}

/// What an attempt says of the site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It took a message, or refused one for reasons of its own: it is well.
    Well,
    /// Nothing that counts: nobody asked it.
    Nothing,
    /// It asks for less: 421, or a 4xx that is not about the mailbox.
    Trouble(Failure),
    /// No host of it could be reached.
    Unreachable(Failure),
}

impl Heard {
    /// The same, if it counts for the site.
    #[must_use]
    pub(crate) fn filter(self, counts: bool) -> Self {
        match counts {
            true => self,
            false => Self::Nothing,
        }
    }
}

/// What is known of a site.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    limits: Limits,
    width: f64,
    /// Up to here the width doubles in a round; above it grows by one.
    threshold: f64,
    /// What began before does not shrink it again: it was under way when the site had its trouble.
    shrunk: Option<Instant>,
    standing: Standing,
    messages: Option<Bucket>,
    connections: Option<Bucket>,
}

#[derive(Clone, Debug)]
enum Standing {
    Up {
        /// Attempts in a row that came to nothing.
        in_vain: u32,
    },
    Down {
        since: Instant,
        why: Failure,
        /// Probes that were made in vain.
        probes: u32,
        next: Instant,
        probing: bool,
    },
}

impl Control {
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        let mut control = Self {
            limits,
            width: WIDTH_AT_FIRST,
            threshold: f64::INFINITY,
            shrunk: None,
            standing: Standing::Up { in_vain: 0 },
            messages: None,
            connections: None,
        };
        control.limit(limits, now);
        control
    }

    /// Takes limits that are no wider than those before.
    pub(crate) fn limit(&mut self, limits: Limits, now: Instant) {
        let bucket = |rate: Option<u32>, old: &Option<Bucket>| {
            let per_minute = f64::from(rate?.max(1));
            match old {
                Some(old) if old.per_minute == per_minute => Some(old.clone()),
                _ => Some(Bucket::new(per_minute, now)),
            }
        };
        self.limits = limits;
        self.messages = bucket(limits.messages_per_minute, &self.messages);
        self.connections = bucket(limits.connections_per_minute, &self.connections);
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Attempts at a time now, whatever is under way.
    pub(crate) fn width(&self) -> usize {
        (self.width as usize).clamp(1, self.limits.connections_max.max(1))
    }

    /// How many more may begin, where so many are under way and so many connections wait to be used.
    pub(crate) fn room(&self, under_way: usize, idle: usize, now: Instant) -> usize {
        let room = match &self.standing {
            Standing::Up { .. } => self.width().saturating_sub(under_way),
            Standing::Down { next, probing, .. } => usize::from(!probing && under_way == 0 && now >= *next),
        };
        let messages = self.messages.as_ref().map_or(room, |bucket| bucket.whole(now));
        let connections = self
            .connections
            .as_ref()
            // Whoever is under way may have opened one, or taken an idle one up.
            .map_or(room, |bucket| {
                (bucket.whole(now) + idle).saturating_sub(under_way)
            });
        room.min(messages).min(connections)
    }

    /// When there may be more room although nothing ended: a probe is due, or a bucket has filled. A probe
    /// waits for the end of what is under way, and that end tells.
    pub(crate) fn next_change(&self, under_way: usize, idle: usize, now: Instant) -> Option<Instant> {
        let probe = match &self.standing {
            Standing::Down { next, probing, .. } if !probing && under_way == 0 => Some(*next),
            _ => None,
        };
        let messages = self.messages.as_ref().and_then(|bucket| bucket.next(now));
        let connections = self
            .connections
            .as_ref()
            .filter(|_| idle == 0)
            .and_then(|bucket| bucket.next(now));
        probe.into_iter().chain(messages).chain(connections).max()
    }

    /// Somebody wants to know now whether the site is back: the next probe waits no longer.
    pub(crate) fn probe_now(&mut self, now: Instant) {
        if let Standing::Down { next, .. } = &mut self.standing {
            *next = now.min(*next);
        }
    }

    /// An attempt begins.
    pub(crate) fn began(&mut self, now: Instant) {
        if let Some(bucket) = &mut self.messages {
            bucket.take(1, now);
        }
        if let Standing::Down { probing, .. } = &mut self.standing {
            *probing = true;
        }
    }

    /// An attempt ended: when it began, how many connections it opened, how many were under way with it,
    /// and what it says of the site. `jitter` is a number from 0 to 1.
    pub(crate) fn ended(
        &mut self,
        began: Instant,
        opened: usize,
        under_way: usize,
        heard: &Heard,
        now: Instant,
        jitter: f64,
    ) {
        if let Some(bucket) = &mut self.connections {
            bucket.take(opened, now);
        }
        match heard {
            Heard::Well => self.well(under_way),
            Heard::Nothing => {
                if let Standing::Down { probing, .. } = &mut self.standing {
                    *probing = false;
                }
            }
            // What serves one message at a time and still asks for less gets none for a while. A probe is one
            // at a time however wide the site was.
            Heard::Trouble(why) if self.width() == 1 || self.is_down() => self.in_vain(why, now, jitter),
            Heard::Trouble(_) => {
                self.shrink(began, now);
                if let Standing::Up { in_vain } = &mut self.standing {
                    *in_vain = 0;
                }
            }
            Heard::Unreachable(why) => {
                self.shrink(began, now);
                self.in_vain(why, now, jitter);
            }
        }
    }

    fn well(&mut self, under_way: usize) {
        if let Standing::Down { .. } = self.standing {
            (self.width, self.threshold) = (WIDTH_AT_FIRST, f64::INFINITY);
        }
        self.standing = Standing::Up { in_vain: 0 };
        // A site that was never filled says nothing of how much it bears.
        if under_way >= self.width() {
            let step = if self.width < self.threshold {
                1.0
            } else {
                1.0 / self.width
            };
            self.width = (self.width + step).min(self.limits.connections_max.max(1) as f64);
        }
    }

    fn shrink(&mut self, began: Instant, now: Instant) {
        if self.shrunk.is_none_or(|shrunk| began >= shrunk) {
            self.width = (self.width / 2.0).max(1.0);
            self.threshold = self.width;
            self.shrunk = Some(now);
        }
    }

    fn in_vain(&mut self, why: &Failure, now: Instant, jitter: f64) {
        let (since, probes) = match &mut self.standing {
            Standing::Up { in_vain } if *in_vain + 1 < DOWN_AFTER => {
                *in_vain += 1;
                return;
            }
            Standing::Up { .. } => (now, 0),
            // What was under way when it went down says nothing new.
            Standing::Down { probing: false, .. } => return,
            Standing::Down { since, probes, .. } => (*since, *probes + 1),
        };
        let wait = PROBE_AFTER
            .saturating_mul(1 << probes.min(10))
            .min(PROBE_AFTER_MAX);
        self.standing = Standing::Down {
            since,
            why: why.clone(),
            probes,
            next: now + wait.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0),
            probing: false,
        };
    }

    /// Why what waits for the site is to be put off without an attempt, and how long it has been down. Not
    /// before it was probed in vain: many are back in seconds.
    pub(crate) fn put_off(&self, now: Instant) -> Option<(&Failure, Duration)> {
        match &self.standing {
            Standing::Down {
                since,
                why,
                probes: 1..,
                next,
                ..
            } if now < *next => Some((why, now - *since)),
            _ => None,
        }
    }

    fn is_down(&self) -> bool {
        matches!(self.standing, Standing::Down { .. })
    }

    /// How many messages the rate lets begin behind those that have room now, as far as is known.
    pub(crate) fn ahead(&self, room: usize, now: Instant) -> usize {
        let messages = self.messages.as_ref();
        let left = messages.map_or(usize::MAX, |bucket| bucket.whole(now).saturating_sub(room));
        self.width().min(left)
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self.standing, Standing::Up { in_vain: 0 })
    }
}

/// What is left of a rate.
#[derive(Clone, Debug)]
struct Bucket {
    per_minute: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_minute: f64, now: Instant) -> Self {
        Self {
            per_minute,
            tokens: (per_minute * BURST_MINUTES).max(1.0),
            at: now,
        }
    }

    fn tokens(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        let most = (self.per_minute * BURST_MINUTES).max(1.0);
        (self.tokens + since * self.per_minute / 60.0).min(most)
    }

    fn whole(&self, now: Instant) -> usize {
        // Times are floats: a token that lacks a billionth is there.
        (self.tokens(now) + 1e-6).max(0.0) as usize
    }

    fn take(&mut self, tokens: usize, now: Instant) {
        self.tokens = self.tokens(now) - tokens as f64;
        self.at = now;
    }

    /// When there is one, if there is none.
    fn next(&self, now: Instant) -> Option<Instant> {
        let lacking = 1.0 - self.tokens(now);
        (lacking > 1e-6).then(|| now + Duration::from_secs_f64(lacking * 60.0 / self.per_minute))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::EnhancedStatus;

    fn limits(connections_max: usize) -> Limits {
        Limits {
            connections_max,
            messages_per_minute: None,
            connections_per_minute: None,
        }
    }

    fn failure() -> Failure {
        Failure::ours(451, EnhancedStatus::new(4, 4, 1), "connection refused")
    }

    fn later(now: Instant, secs: u64) -> Instant {
        now + Duration::from_secs(secs)
    }

    /// A round: as many attempts as have room begin now and end so.
    fn round(control: &mut Control, now: Instant, heard: &Heard) -> usize {
        let room = control.room(0, 0, now);
        (0..room).for_each(|_| control.began(now));
        for n in 0..room {
            control.ended(now, 1, room - n + usize::from(n > 0), heard, later(now, 1), 0.0);
        }
        room
    }

    #[test]
    fn slow_start_up_to_the_ceiling() {
        let now = Instant::now();
        let mut control = Control::new(limits(10), now);
        let mut widths = Vec::new();
        for _ in 0..4 {
            let width = control.width();
            // All are under way all the time, as with a long backlog.
            (0..width).for_each(|_| control.ended(now, 0, control_width(&control), &Heard::Well, now, 0.0));
            widths.push(width);
        }
        assert_eq!(widths, [2, 4, 8, 10]);
        // A site that is asked little stays narrow.
        let mut quiet = Control::new(limits(10), now);
        (0..100).for_each(|_| quiet.ended(now, 0, 1, &Heard::Well, now, 0.0));
        assert_eq!(quiet.width(), 2);
    }

    fn control_width(control: &Control) -> usize {
        control.width()
    }

    #[test]
    fn trouble_halves_once_a_round_and_then_it_grows_by_one_a_round() {
        let now = Instant::now();
        let mut control = Control::new(limits(16), now);
        control.width = 16.0;
        (0..16).for_each(|_| control.ended(now, 0, 16, &Heard::Trouble(failure()), later(now, 1), 0.0));
        assert_eq!(control.width(), 8, "those of one round count once");
        let now = later(now, 2);
        (0..8).for_each(|_| control.ended(now, 0, 16, &Heard::Well, now, 0.0));
        assert_eq!(control.width(), 8, "not doubled");
        (0..2).for_each(|_| control.ended(now, 0, 16, &Heard::Well, now, 0.0));
        assert_eq!(control.width(), 9);
        for n in 3..9 {
            control.ended(
                later(now, n),
                0,
                16,
                &Heard::Trouble(failure()),
                later(now, n),
                0.0,
            );
        }
        assert_eq!(
            control.room(0, 0, later(now, 10)),
            0,
            "1 at a time was too much too"
        );
        assert_eq!(control.room(0, 0, later(now, 60)), 1);
    }

    #[test]
    fn a_site_that_is_down_costs_one_probe_at_a_time() {
        let now = Instant::now();
        let down = Heard::Unreachable(failure());
        let mut control = Control::new(limits(10), now);
        assert_eq!(round(&mut control, now, &down), 2);
        let mut probes = Vec::new();
        let mut at = later(now, 1);
        for _ in 0..8 {
            assert_eq!(control.room(0, 0, at), 0);
            let next = control.next_change(0, 0, at).unwrap();
            assert_eq!(control.put_off(at).is_some(), !probes.is_empty());
            probes.push((next - at).as_secs());
            assert!(control.put_off(next).is_none(), "one goes as the probe");
            assert_eq!(control.room(0, 0, next), 1);
            assert_eq!(control.room(1, 0, next), 0);
            control.began(next);
            assert_eq!(control.room(0, 0, next), 0, "one at a time");
            control.ended(next, 1, 1, &down, later(next, 30), 0.0);
            at = later(next, 30);
        }
        assert_eq!(probes, [30, 60, 120, 240, 480, 600, 600, 600]);
        let next = control.next_change(0, 0, at).unwrap();
        control.began(next);
        control.ended(next, 1, 1, &Heard::Well, next, 0.0);
        assert_eq!(control.room(0, 0, next), 2, "slowly again");
        assert!(control.is_fresh() && control.put_off(next).is_none());
    }

    #[test]
    fn whoever_asks_has_a_site_probed_at_once() {
        let now = Instant::now();
        let down = Heard::Unreachable(failure());
        let mut control = Control::new(limits(10), now);
        round(&mut control, now, &down);
        let at = later(now, 1);
        assert_eq!(control.room(0, 0, at), 0);
        control.probe_now(at);
        assert_eq!(control.room(0, 0, at), 1);
        control.began(at);
        control.probe_now(at);
        assert_eq!(control.room(1, 0, at), 0, "one at a time");
        control.ended(at, 1, 1, &down, at, 0.0);
        assert!(control.put_off(at).is_some());
        control.probe_now(at);
        assert!(control.put_off(at).is_none() && control.room(0, 0, at) == 1);
    }

    #[test]
    fn one_failure_is_no_death_and_what_says_nothing_frees_the_probe() {
        let now = Instant::now();
        let down = Heard::Unreachable(failure());
        let mut control = Control::new(limits(10), now);
        control.ended(now, 1, 1, &down, now, 0.0);
        assert_eq!(control.room(0, 0, now), 1, "halved");
        control.ended(now, 1, 1, &Heard::Well, now, 0.0);
        control.ended(now, 1, 1, &down, now, 0.0);
        assert!(control.room(0, 0, now) > 0);
        control.ended(now, 1, 1, &down, now, 0.0);
        let next = control.next_change(0, 0, now).unwrap();
        control.began(next);
        control.ended(next, 0, 1, &Heard::Nothing, next, 0.0);
        assert_eq!(control.room(0, 0, next), 1, "it was no probe");
    }

    /// The probe met somebody, who asks for less: that was no success, and no end of the probing either.
    #[test]
    fn a_probe_that_meets_trouble_is_followed_by_another() {
        let now = Instant::now();
        let down = Heard::Unreachable(failure());
        let mut control = Control::new(limits(20), now);
        control.width = 20.0;
        (0..3).for_each(|_| control.ended(now, 1, 20, &down, now, 0.0));
        assert!(control.width() > 1);
        let mut at = now;
        for waited in [30, 60, 120] {
            let next = control.next_change(0, 0, at).expect("a probe is to come");
            assert_eq!((next - at).as_secs(), waited);
            assert_eq!(control.room(0, 0, next), 1);
            control.began(next);
            at = later(next, 5);
            control.ended(next, 1, 1, &Heard::Trouble(failure()), at, 0.0);
        }
    }

    /// Nothing is gained by looking again and again while an old attempt holds the probe up.
    #[test]
    fn a_probe_that_is_held_up_sets_no_timer() {
        let now = Instant::now();
        let mut control = Control::new(limits(20), now);
        (0..2).for_each(|_| control.ended(now, 1, 3, &Heard::Unreachable(failure()), now, 0.0));
        let due = later(now, 60);
        assert_eq!(control.room(1, 0, due), 0);
        assert_eq!(control.next_change(1, 0, due), None);
        assert_eq!(control.room(0, 0, due), 1);
    }

    #[test]
    fn rates_are_kept() {
        let start = Instant::now();
        let mut control = Control::new(
            Limits {
                connections_max: 100,
                messages_per_minute: Some(60),
                connections_per_minute: None,
            },
            start,
        );
        control.width = 100.0;
        let mut sent = 0;
        for tenths in 0..600 {
            let now = start + Duration::from_millis(tenths * 100);
            let room = control.room(0, 0, now);
            (0..room).for_each(|_| control.began(now));
            sent += room;
            if room == 0 {
                assert!(control.next_change(0, 0, now).unwrap() <= now + Duration::from_millis(1001));
            }
        }
        assert!(
            (60..=66).contains(&sent),
            "{sent}: a minute's, and what a bucket holds"
        );
    }

    #[test]
    fn new_connections_are_counted_and_idle_ones_are_free() {
        let now = Instant::now();
        let mut control = Control::new(
            Limits {
                connections_max: 100,
                messages_per_minute: None,
                connections_per_minute: Some(20),
            },
            now,
        );
        control.width = 100.0;
        assert_eq!(control.room(0, 0, now), 2);
        control.ended(now, 2, 2, &Heard::Well, now, 0.0);
        assert_eq!((control.room(0, 0, now), control.room(0, 2, now)), (0, 2));
        assert_eq!(control.next_change(0, 0, now), Some(later(now, 3)));
        assert_eq!(control.next_change(0, 2, now), None);
        assert_eq!(control.room(0, 0, later(now, 3)), 1);
    }

    #[test]
    fn the_stricter_limit_counts() {
        let wide = limits(10);
        let narrow = Limits {
            connections_max: 20,
            messages_per_minute: Some(5),
            connections_per_minute: None,
        };
        let both = wide.and(narrow);
        assert_eq!((both.connections_max, both.messages_per_minute), (10, Some(5)));
    }
}
