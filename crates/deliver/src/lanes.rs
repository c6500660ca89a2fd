//! What waits for each site, what is under way there, and what may begin. Pure but for the moments that are
//! handed in.
//!
//! Promises: however much is due, only so much is remembered; a site of which some was left out is known, so
//! that the queue is looked through again when it has room; choosing costs the same with one site and with
//! a hundred thousand. Never: an order between sites that lets one of them hold the others; old news as
//! truth (a claim tells).

use crate::control::{Control, Heard, Limits};
use crate::failure::Failure;
use crate::waiting::Waiting;
use mail::Timestamp;
use mail::delivery::Priority;
use queue::Due;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Errands that are remembered, if one site has them all; about three times as many when it is many
/// sites. Some 100 octets each.
const REMEMBERED_MAX: usize = 30_000;
/// Errands of a site that are remembered while there is room in all.
const OF_A_SITE: usize = 100;
/// Errands that are remembered in all, but for [`IN_ANY_CASE`] of each site.
const IN_ALL_MAX: usize = 100_000;
/// Errands of a site that are remembered however many others there are.
const IN_ANY_CASE: usize = 4;
/// A site that is neither down nor asked for anything is forgotten after this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// One that is down, after this.
const FORGOTTEN_DOWN_AFTER: Duration = Duration::from_secs(3600);
/// Sites that are known at most when a round begins. Those that are in use are not counted out.
const SITES_MAX: usize = 100_000;
/// Attempts at a time from which on a site has its next errands claimed ahead.
const AHEAD_FROM: usize = 4;

/// The name of a site.
pub(crate) type Site = Arc<str>;

/// Which site is next: the one with the most urgent errand, among equals the one that waits longest.
type Turn = (Reverse<Priority>, Timestamp, Site);

/// Errands of one message that were chosen, and their site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chosen {
    pub(crate) site: Site,
    pub(crate) dues: Vec<Due>,
}

struct Lane {
    waiting: Waiting,
    control: Control,
    /// Attempts that use a connection.
    under_way: usize,
    /// Attempts that are over and being recorded.
    recording: usize,
    /// Messages that were chosen and did not begin yet.
    ahead: usize,
    turn: Option<(Reverse<Priority>, Timestamp)>,
    timer: Option<Instant>,
    used: Instant,
}

/// All sites.
#[derive(Default)]
pub(crate) struct Lanes {
    lanes: HashMap<Site, Lane>,
    ready: BTreeSet<Turn>,
    timers: BTreeSet<(Instant, Site)>,
    /// Sites of which not all was remembered.
    left_out: HashSet<Site>,
    /// Those of them of which nothing that was remembered is left.
    drained: HashSet<Site>,
    /// Sites that were down for longer when they were looked at last, and for which something waits.
    down: BTreeSet<Site>,
    remembered: usize,
    /// Sites for which something waits.
    in_use: usize,
    under_way: usize,
}

impl Lane {
    fn is_in_use(&self) -> bool {
        self.under_way + self.recording + self.ahead > 0
    }

    /// Attempts that count against the width. One outcome for each connection may still be on its way to
    /// the store; more than that holds up the next, so that little could be sent twice after a crash.
    fn busy(&self) -> usize {
        self.under_way + self.recording.saturating_sub(self.control.width())
    }

    fn room(&self, idle: usize, now: Instant) -> usize {
        self.control.room(self.busy(), idle, now)
    }

    /// How many messages are to be claimed: for those that may begin, and where a site is quick as many
    /// again, so that none waits for the store. Not one by one.
    fn wanted(&self, idle: usize, now: Instant) -> usize {
        let (room, width) = (self.room(idle, now), self.control.width());
        // What a rate keeps back is left to the others: claimed, it would take their room.
        let ahead = match self.control.is_fresh() && width >= AHEAD_FROM {
            true => self.control.ahead(room, now),
            false => 0,
        };
        let wanted = (room + ahead).saturating_sub(self.ahead);
        match wanted * 2 >= ahead {
            true => wanted,
            false => 0,
        }
    }
}

impl Lanes {
    /// Makes a site known, or its limits stricter.
    pub(crate) fn know(&mut self, site: &Site, limits: Limits, now: Instant) {
        match self.lanes.get_mut(site) {
            Some(lane) => {
                let both = lane.control.limits().and(limits);
                lane.control.limit(both, now);
            }
            None => {
                let lane = Lane {
                    waiting: Waiting::default(),
                    control: Control::new(limits, now),
                    under_way: 0,
                    recording: 0,
                    ahead: 0,
                    turn: None,
                    timer: None,
                    used: now,
                };
                self.lanes.insert(site.clone(), lane);
            }
        }
    }

    /// Whether the site is known.
    pub(crate) fn knows(&self, site: &str) -> bool {
        self.lanes.contains_key(site)
    }

    /// Remembers an errand, or at least that its site has more. The site must be known.
    pub(crate) fn remember(&mut self, site: &Site, due: Due, idle: usize, now: Instant) {
        let most = (REMEMBERED_MAX / self.in_use.max(1)).max(OF_A_SITE);
        let full = self.remembered >= IN_ALL_MAX;
        let Some(lane) = self.lanes.get_mut(site) else {
            return;
        };
        lane.used = now;
        if lane.waiting.len() >= most || full && lane.waiting.len() >= IN_ANY_CASE {
            self.left_out.insert(site.clone());
            if !lane.waiting.make_room_for(&due) {
                return;
            }
            self.remembered -= 1;
        }
        let was_empty = lane.waiting.is_empty();
        let is_first = lane
            .waiting
            .first()
            .is_none_or(|(p, _)| Reverse(due.priority) < p);
        lane.waiting.push(due);
        self.remembered += 1;
        self.in_use += usize::from(was_empty);
        if is_first {
            self.refresh(site, idle, now);
        }
    }

    /// Takes messages to be claimed, `all` at most. `idle` tells how many connections to a site wait to be
    /// used.
    pub(crate) fn choose(
        &mut self,
        mut all: usize,
        idle: &dyn Fn(&str) -> usize,
        now: Instant,
    ) -> Vec<Chosen> {
        let mut chosen = Vec::new();
        while all > 0 {
            let Some((.., site)) = self.ready.first().cloned() else {
                break;
            };
            let idle = idle(&site);
            let Some(lane) = self.lanes.get_mut(&site) else {
                break;
            };
            let wanted = lane.wanted(idle, now).min(all);
            for _ in 0..wanted {
                let dues = lane.waiting.pop_message();
                if dues.is_empty() {
                    break;
                }
                self.remembered -= dues.len();
                lane.ahead += 1;
                all -= 1;
                let site = site.clone();
                chosen.push(Chosen { site, dues });
            }
            self.in_use -= usize::from(lane.waiting.is_empty());
            self.refresh(&site, idle, now);
        }
        chosen
    }

    /// A chosen message begins, if there is room. Answers whether it does.
    pub(crate) fn begin(&mut self, site: &Site, idle: usize, now: Instant) -> bool {
        let Some(lane) = self.lanes.get_mut(site) else {
            return false;
        };
        if lane.room(idle, now) == 0 {
            return false;
        }
        lane.control.began(now);
        lane.ahead = lane.ahead.saturating_sub(1);
        lane.under_way += 1;
        lane.used = now;
        self.under_way += 1;
        self.refresh(site, idle, now);
        true
    }

    /// A chosen message does not begin: its claim was lost, or it was given back.
    pub(crate) fn forgo(&mut self, site: &Site, idle: usize, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(site) {
            lane.ahead = lane.ahead.saturating_sub(1);
        }
        self.refresh(site, idle, now);
    }

    /// An attempt needs its connection no longer; it is being recorded.
    pub(crate) fn ended(
        &mut self,
        site: &Site,
        (began, opened): (Instant, usize),
        heard: &Heard,
        idle: usize,
        now: Instant,
        jitter: f64,
    ) {
        if let Some(lane) = self.lanes.get_mut(site) {
            let busy = lane.busy();
            lane.control.ended(began, opened, busy, heard, now, jitter);
            lane.under_way = lane.under_way.saturating_sub(1);
            lane.recording += 1;
        }
        self.under_way = self.under_way.saturating_sub(1);
        self.refresh(site, idle, now);
    }

    /// What became of an attempt is recorded.
    pub(crate) fn recorded(&mut self, site: &Site, idle: usize, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(site) {
            lane.recording = lane.recording.saturating_sub(1);
        }
        self.refresh(site, idle, now);
    }

    /// Looks again at the sites whose time has come; which they are.
    pub(crate) fn tick(&mut self, idle: &dyn Fn(&str) -> usize, now: Instant) -> Vec<Site> {
        let mut ticked = Vec::new();
        while let Some((at, site)) = self.timers.pop_first() {
            if at > now {
                self.timers.insert((at, site));
                break;
            }
            if let Some(lane) = self.lanes.get_mut(&site) {
                lane.timer = None;
            }
            ticked.push(site);
        }
        for site in &ticked {
            self.refresh(site, idle(site), now);
        }
        ticked
    }

    /// Has the sites that are down probed at once.
    pub(crate) fn probe_now(&mut self, idle: &dyn Fn(&str) -> usize, now: Instant) {
        let sites: Vec<Site> = self.lanes.keys().cloned().collect();
        for site in &sites {
            if let Some(lane) = self.lanes.get_mut(site) {
                lane.control.probe_now(now);
            }
            self.refresh(site, idle(site), now);
        }
    }

    /// When [`Lanes::tick`] is to be called.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Errands of a site that is down for longer, to be put off without an attempt: the first `limit` that
    /// are remembered, why, and since when it is down.
    pub(crate) fn put_off(&mut self, limit: usize, now: Instant) -> Option<(Vec<Due>, Failure, Duration)> {
        let (site, why, since) = loop {
            let site = self.down.first()?.clone();
            let lane = self.lanes.get(&site).filter(|lane| !lane.waiting.is_empty());
            if let Some((why, since)) = lane.and_then(|lane| lane.control.put_off(now)) {
                break (site, why.clone(), since);
            }
            // Its probe is due meanwhile; should it be in vain, it is here again.
            self.down.remove(&site);
        };
        let lane = self.lanes.get_mut(&site)?;
        let mut dues = Vec::new();
        while dues.len() < limit && !lane.waiting.is_empty() {
            dues.extend(lane.waiting.pop_message());
        }
        self.remembered -= dues.len();
        self.in_use -= usize::from(lane.waiting.is_empty());
        self.refresh(&site, 0, now);
        Some((dues, why, since))
    }

    /// Attempts that use a connection, in all.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether nothing of a sender is known to wait for a site, though something of others may.
    pub(crate) fn is_free(&self, site: &str, sender: u32) -> bool {
        match self.lanes.get(site) {
            None => true,
            Some(lane) if lane.waiting.is_empty() => !self.left_out.contains(site),
            Some(lane) => !lane.waiting.has_of(sender),
        }
    }

    /// Whether a site is well: nothing is claimed ahead for one that is not.
    pub(crate) fn is_well(&self, site: &str) -> bool {
        self.lanes.get(site).is_some_and(|lane| lane.control.is_fresh())
    }

    /// Whether nothing is known to wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_use == 0 && self.left_out.is_empty()
    }

    /// Whether more is due than is remembered.
    pub(crate) fn is_partial(&self) -> bool {
        !self.left_out.is_empty()
    }

    /// Whether a site has room, or is to be put off, and has only errands that were left out.
    pub(crate) fn starves(&self, now: Instant) -> bool {
        self.drained.iter().any(|site| {
            let lane = self.lanes.get(site);
            lane.is_some_and(|lane| lane.room(0, now) > 0 || lane.control.put_off(now).is_some())
        })
    }

    /// Forgets what waits, and sites that were not used for long. What was chosen keeps its timer.
    pub(crate) fn clear(&mut self, idle: &dyn Fn(&str) -> usize, now: Instant) {
        self.left_out.clear();
        self.drained.clear();
        self.down.clear();
        self.ready.clear();
        self.timers.clear();
        (self.remembered, self.in_use) = (0, 0);
        self.lanes.retain(|_, lane| {
            (lane.waiting, lane.turn, lane.timer) = (Waiting::default(), None, None);
            let unused = now.saturating_duration_since(lane.used);
            let forgotten = match lane.control.is_fresh() {
                true => unused > FORGOTTEN_AFTER,
                false => unused > FORGOTTEN_DOWN_AFTER,
            };
            lane.is_in_use() || !forgotten
        });
        self.forget_surplus();
        let ahead = self.lanes.iter().filter(|(_, lane)| lane.ahead > 0);
        let ahead: Vec<Site> = ahead.map(|(site, _)| site.clone()).collect();
        for site in &ahead {
            self.refresh(site, idle(site), now);
        }
    }

    /// Forgets the sites that were used longest ago, when there are too many: first those that are well.
    fn forget_surplus(&mut self) {
        let Some(surplus) = self.lanes.len().checked_sub(SITES_MAX).filter(|n| *n > 0) else {
            return;
        };
        let unused = self.lanes.iter().filter(|(_, lane)| !lane.is_in_use());
        let mut unused: Vec<(bool, Instant, Site)> = unused
            .map(|(site, lane)| (!lane.control.is_fresh(), lane.used, site.clone()))
            .collect();
        unused.sort_unstable();
        for (.., site) in unused.into_iter().take(surplus) {
            self.lanes.remove(&site);
        }
    }

    /// Puts a site where it belongs: among those that may go, or to a timer, or nowhere.
    fn refresh(&mut self, site: &Site, idle: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(site) else {
            return;
        };
        let first = lane.waiting.first();
        let turn = first.filter(|_| lane.wanted(idle, now) > 0);
        let waits = first.is_some() || lane.ahead > 0;
        let timer = match turn {
            None if waits && lane.room(idle, now) == 0 => lane.control.next_change(lane.busy(), idle, now),
            _ => None,
        };
        match first {
            None if self.left_out.contains(site) => drop(self.drained.insert(site.clone())),
            _ => drop(self.drained.remove(site)),
        }
        match first.is_some() && lane.control.put_off(now).is_some() {
            true => drop(self.down.insert(site.clone())),
            false => drop(self.down.remove(site)),
        }
        if lane.turn != turn {
            if let Some((priority, at)) = lane.turn {
                self.ready.remove(&(priority, at, site.clone()));
            }
            if let Some((priority, at)) = turn {
                self.ready.insert((priority, at, site.clone()));
            }
            lane.turn = turn;
        }
        if lane.timer != timer {
            if let Some(at) = lane.timer {
                self.timers.remove(&(at, site.clone()));
            }
            if let Some(at) = timer {
                self.timers.insert((at, site.clone()));
            }
            lane.timer = timer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::{EnhancedStatus, QueueId};

    const NONE_IDLE: &dyn Fn(&str) -> usize = &|_| 0;

    fn due(message: u64, no: u32, domain: &str) -> Due {
        Due {
            at: Timestamp(message as i64),
            message: QueueId(message),
            no,
            domain: domain.to_owned(),
            priority: Priority::NORMAL,
            sender: 0,
        }
    }

    fn urgent(priority: i8, due: Due) -> Due {
        Due {
            priority: Priority::new(priority).unwrap(),
            ..due
        }
    }

    fn limits(connections_max: usize) -> Limits {
        Limits {
            connections_max,
            messages_per_minute: None,
            connections_per_minute: None,
        }
    }

    /// Each domain is a site of its own.
    fn of(list: impl IntoIterator<Item = Due>, width: usize, now: Instant) -> Lanes {
        let mut lanes = Lanes::default();
        list.into_iter().for_each(|due| add(&mut lanes, due, width, now));
        lanes
    }

    fn add(lanes: &mut Lanes, due: Due, width: usize, now: Instant) {
        let site: Site = due.domain.as_str().into();
        lanes.know(&site, limits(width), now);
        lanes.remember(&site, due, 0, now);
    }

    fn down() -> Heard {
        Heard::Unreachable(Failure::ours(451, EnhancedStatus::new(4, 4, 1), "refused"))
    }

    fn counts(chosen: &[Chosen], site: &str) -> usize {
        chosen
            .iter()
            .filter(|c| &*c.site == site)
            .map(|c| c.dues.len())
            .sum()
    }

    #[test]
    fn room_is_shared_between_sites() {
        let now = Instant::now();
        let list = (0..10)
            .map(|m| due(m, 0, "slow.example"))
            .chain([due(20, 0, "other.example"), due(20, 1, "other.example")]);
        let mut lanes = of(list, 2, now);
        let chosen = lanes.choose(100, NONE_IDLE, now);
        assert_eq!(
            (counts(&chosen, "slow.example"), counts(&chosen, "other.example")),
            (2, 2)
        );
        assert!(!lanes.is_free("slow.example", 0), "the rest waits");
        assert!(lanes.is_free("slow.example", 7) && lanes.is_free("other.example", 0));
        assert!(lanes.choose(100, NONE_IDLE, now).is_empty());
        let mut order = Vec::new();
        for c in &chosen {
            assert!(lanes.begin(&c.site, 0, now));
        }
        assert_eq!(lanes.under_way(), 3);
        let slow: Site = "slow.example".into();
        for _ in 0..8 {
            assert!(!lanes.begin(&slow, 0, now), "no more than its width");
            lanes.ended(&slow, (now, 1), &Heard::Nothing, 0, now, 0.0);
            lanes.recorded(&slow, 0, now);
            for c in lanes.choose(100, NONE_IDLE, now) {
                order.push(c.dues[0].message.0);
                assert!(lanes.begin(&slow, 0, now));
            }
        }
        assert_eq!(order, (2..10).collect::<Vec<_>>(), "in order, each once");
        assert!(lanes.is_empty());
    }

    #[test]
    fn what_is_not_recorded_holds_up_the_next_ones() {
        let now = Instant::now();
        let mut lanes = of((0..100).map(|m| due(m, 0, "a.example")), 2, now);
        let site: Site = "a.example".into();
        let mut begun = 0;
        for _ in 0..100 {
            begun += lanes.choose(100, NONE_IDLE, now).len();
            while lanes.begin(&site, 0, now) {
                lanes.ended(&site, (now, 1), &Heard::Well, 0, now, 0.0);
            }
        }
        assert!(begun < 10, "{begun}");
        (0..4).for_each(|_| lanes.recorded(&site, 0, now));
        assert!(lanes.begin(&site, 0, now) || !lanes.choose(1, NONE_IDLE, now).is_empty());
    }

    #[test]
    fn the_most_urgent_site_goes_first() {
        let now = Instant::now();
        let list = [
            due(1, 0, "a.example"),
            urgent(-9, due(2, 0, "b.example")),
            urgent(3, due(3, 0, "c.example")),
            due(0, 0, "d.example"),
        ];
        let mut lanes = of(list, 2, now);
        let order: Vec<u64> = std::iter::repeat_with(|| lanes.choose(1, NONE_IDLE, now))
            .take_while(|chosen| !chosen.is_empty())
            .map(|chosen| chosen[0].dues[0].message.0)
            .collect();
        assert_eq!(order, [3, 0, 1, 2]);
    }

    #[test]
    fn a_quick_site_has_its_next_ones_claimed_ahead() {
        let now = Instant::now();
        let mut lanes = of((0..1_000).map(|m| due(m, 0, "a.example")), 8, now);
        let site: Site = "a.example".into();
        assert_eq!(
            lanes.choose(100, NONE_IDLE, now).len(),
            2,
            "not before it is known to be quick"
        );
        for _ in 0..40 {
            while lanes.begin(&site, 0, now) {}
            lanes.ended(&site, (now, 0), &Heard::Well, 0, now, 0.0);
            lanes.recorded(&site, 0, now);
            lanes.choose(100, NONE_IDLE, now);
        }
        let lane = &lanes.lanes[&site];
        assert_eq!(lane.control.width(), 8);
        assert!((4..=16).contains(&lane.ahead), "{}", lane.ahead);
        lanes.ended(&site, (now, 0), &down(), 0, now, 0.0);
        assert!(!lanes.is_well(&site));
    }

    #[test]
    fn a_million_that_are_due_are_not_remembered() {
        let now = Instant::now();
        let mut lanes = of((0..1_000_000).map(|m| due(m, 0, "slow.example")), 2, now);
        assert_eq!(lanes.lanes["slow.example"].waiting.len(), REMEMBERED_MAX);
        assert!(!lanes.starves(now), "some are remembered");
        assert!(lanes.is_partial());
        add(&mut lanes, due(2_000_000, 0, "other.example"), 2, now);
        let site: Site = "slow.example".into();
        for _ in 0..REMEMBERED_MAX {
            lanes.choose(10, NONE_IDLE, now);
            while lanes.begin(&site, 0, now) {}
            lanes.ended(&site, (now, 0), &Heard::Nothing, 0, now, 0.0);
            lanes.recorded(&site, 0, now);
        }
        lanes.ended(&site, (now, 0), &Heard::Nothing, 0, now, 0.0);
        lanes.recorded(&site, 0, now);
        assert!(lanes.starves(now) && !lanes.is_free("slow.example", 0));
        lanes.forgo(&"other.example".into(), 0, now);
        lanes.clear(NONE_IDLE, now);
        assert!(lanes.is_empty() && lanes.knows("slow.example"));
        lanes.clear(NONE_IDLE, now + FORGOTTEN_DOWN_AFTER * 2);
        assert!(!lanes.knows("other.example"));
    }

    #[test]
    fn many_long_sites_share_the_memory() {
        let now = Instant::now();
        let lanes = of(
            (0..500_000).map(|m| due(m, 0, &format!("d{}.example", m % 10))),
            2,
            now,
        );
        let remembered: usize = lanes.lanes.values().map(|lane| lane.waiting.len()).sum();
        assert_eq!(remembered, lanes.remembered);
        assert!(remembered <= IN_ALL_MAX, "{remembered}");
        assert!(
            lanes
                .lanes
                .values()
                .all(|lane| lane.waiting.len() >= REMEMBERED_MAX / 10)
        );
    }

    #[test]
    fn what_waits_for_a_dead_site_is_put_off_after_a_probe_in_vain() {
        let now = Instant::now();
        let mut lanes = of((0..10).map(|m| due(m, 0, "dead.example")), 5, now);
        let site: Site = "dead.example".into();
        let fail = |lanes: &mut Lanes, now| {
            let tried = lanes.choose(100, NONE_IDLE, now).len();
            for _ in 0..tried {
                assert!(lanes.begin(&site, 0, now));
            }
            for _ in 0..tried {
                lanes.ended(&site, (now, 1), &down(), 0, now, 0.0);
                lanes.recorded(&site, 0, now);
            }
            tried
        };
        assert_eq!(fail(&mut lanes, now), 2);
        assert!(lanes.put_off(5, now).is_none() && lanes.choose(1, NONE_IDLE, now).is_empty());
        let probe = lanes.next_tick().unwrap();
        assert_eq!(lanes.tick(NONE_IDLE, probe), vec![site.clone()]);
        assert_eq!(fail(&mut lanes, probe), 1);
        let (dues, why, _) = lanes.put_off(5, probe).unwrap();
        assert_eq!((dues.len(), why.words.as_str()), (5, "refused"));
        assert_eq!(lanes.put_off(5, probe).unwrap().0.len(), 2);
        assert!(lanes.put_off(5, probe).is_none() && lanes.is_empty());
    }

    #[test]
    fn a_rate_claims_nothing_ahead_that_it_keeps_back() {
        let now = Instant::now();
        let mut lanes = Lanes::default();
        let site: Site = "a.example".into();
        let limits = Limits {
            messages_per_minute: Some(300),
            ..limits(8)
        };
        lanes.know(&site, limits, now);
        (0..100).for_each(|m| lanes.remember(&site, due(m, 0, "a.example"), 0, now));
        let (mut begun, mut before) = (0, None);
        while before != Some(begun) {
            before = Some(begun);
            lanes.choose(100, NONE_IDLE, now);
            while lanes.lanes[&site].ahead > 0 && lanes.begin(&site, 0, now) {
                begun += 1;
            }
            while lanes.lanes[&site].under_way > 0 {
                lanes.ended(&site, (now, 0), &Heard::Well, 0, now, 0.0);
                lanes.recorded(&site, 0, now);
            }
        }
        let lane = &lanes.lanes[&site];
        assert!(lane.control.width() >= AHEAD_FROM && lane.control.is_fresh());
        assert_eq!(
            (begun, lane.ahead, lane.room(0, now)),
            (30, 0, 0),
            "others get the room"
        );
        assert!(lanes.next_tick().is_some());
    }

    #[test]
    fn what_is_chosen_keeps_its_timer_when_a_round_begins() {
        let now = Instant::now();
        let mut lanes = Lanes::default();
        let site: Site = "a.example".into();
        let limits = Limits {
            connections_per_minute: Some(10),
            ..limits(2)
        };
        lanes.know(&site, limits, now);
        lanes.remember(&site, due(1, 0, "a.example"), 1, now);
        assert_eq!(lanes.choose(1, &|_| 1, now).len(), 1);
        // The connection that waited goes before the claim is there, and so does the rate.
        if let Some(lane) = lanes.lanes.get_mut(&site) {
            lane.control.ended(now, 1, 1, &Heard::Well, now, 0.0);
        }
        assert!(!lanes.begin(&site, 0, now));
        lanes.forgo(&"other.example".into(), 0, now);
        lanes.clear(NONE_IDLE, now);
        let tick = lanes.next_tick().expect("it is looked at again");
        assert_eq!(lanes.tick(NONE_IDLE, tick), vec![site.clone()]);
        assert!(lanes.begin(&site, 0, tick));
    }

    #[test]
    fn a_hundred_thousand_sites_are_the_most() {
        let now = Instant::now();
        let mut lanes = Lanes::default();
        for n in 0..SITES_MAX + 10 {
            let site: Site = format!("d{n}.example").into();
            let used = now + Duration::from_micros(n as u64);
            lanes.know(&site, limits(2), used);
        }
        // The oldest one is in use, and the next one is not well.
        let (busy, ill): (Site, Site) = ("d0.example".into(), "d1.example".into());
        lanes.remember(&busy, due(1, 0, "d0.example"), 0, now);
        lanes.choose(1, NONE_IDLE, now);
        assert!(lanes.begin(&busy, 0, now));
        lanes.ended(&ill, (now, 1), &down(), 0, now, 0.0);
        lanes.recorded(&ill, 0, now);
        lanes.clear(NONE_IDLE, now);
        assert_eq!(lanes.lanes.len(), SITES_MAX);
        assert!(lanes.knows(&busy) && lanes.knows(&ill));
        assert!(!lanes.knows("d2.example") && lanes.knows("d50.example"));
    }

    /// What there is to put off and what starves is known without a look at every site.
    #[test]
    fn only_sites_of_which_it_can_be_true_are_looked_at() {
        let now = Instant::now();
        let mut lanes = of((0..1_000).map(|m| due(m, 0, &format!("d{m}.example"))), 2, now);
        for n in 0..1_000 {
            let site: Site = format!("d{n}.example").into();
            (0..2).for_each(|_| lanes.ended(&site, (now, 1), &down(), 0, now, 0.0));
            (0..2).for_each(|_| lanes.recorded(&site, 0, now));
        }
        assert_eq!(
            (lanes.timers.len(), lanes.down.len()),
            (1_000, 0),
            "not probed yet"
        );
        assert!(lanes.put_off(5, now).is_none());
        let mut lanes = of(
            (0..200_000).map(|m| due(m, 0, &format!("d{}.example", m % 1_000))),
            2,
            now,
        );
        assert_eq!((lanes.left_out.len(), lanes.drained.len()), (1_000, 0));
        let site: Site = "d7.example".into();
        while !lanes.lanes[&site].waiting.is_empty() {
            for chosen in lanes.choose(1, NONE_IDLE, now) {
                assert!(lanes.begin(&chosen.site, 0, now));
                lanes.ended(&chosen.site, (now, 0), &Heard::Nothing, 0, now, 0.0);
                lanes.recorded(&chosen.site, 0, now);
            }
        }
        assert!(lanes.drained.contains(&site) && lanes.starves(now));
    }
}
