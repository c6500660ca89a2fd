//! Due errands that have no room yet, by domain. Pure.
//!
//! Promises: however much is due, only so much is remembered; a domain of which some was left out
//! is known, so that the queue is looked through again when it has room. Never: an order between
//! domains that lets one of them hold the others; old news as truth (a claim tells).

use crate::attempt::RECIPIENTS_MAX;
use mail::QueueId;
use mail::delivery::Priority;
use queue::Due;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Errands that are remembered, if one domain has them all; about three times as many when it is
/// many domains. Some 100 octets each.
const REMEMBERED_MAX: usize = 30_000;
/// Errands of a domain that are remembered in any case.
const OF_A_DOMAIN: usize = 100;

/// How many connections there may be.
pub(crate) struct Room<'a> {
    /// More, in all.
    pub(crate) all: usize,
    /// To one domain, those that are there included.
    pub(crate) per_domain: usize,
    /// Those that are there.
    pub(crate) running: &'a HashMap<String, usize>,
}

impl Room<'_> {
    /// More, to this domain.
    pub(crate) fn at(&self, domain: &str) -> usize {
        let running = self.running.get(domain).copied().unwrap_or(0);
        self.per_domain.saturating_sub(running).min(self.all)
    }
}

/// What waits for one domain: higher priorities first (RFC 6710), and among equal ones in the order in
/// which it was found, the longest due first.
#[derive(Default)]
struct Waiting {
    by_priority: BTreeMap<Reverse<Priority>, VecDeque<Due>>,
    len: usize,
}

impl Waiting {
    fn push(&mut self, due: Due) {
        let of_priority = self.by_priority.entry(Reverse(due.priority)).or_default();
        of_priority.push_back(due);
        self.len += 1;
    }

    fn front(&self) -> Option<&Due> {
        self.by_priority.values().next()?.front()
    }

    fn pop_front(&mut self) -> Option<Due> {
        let mut first = self.by_priority.first_entry()?;
        let due = first.get_mut().pop_front();
        if first.get().is_empty() {
            first.remove();
        }
        self.len -= usize::from(due.is_some());
        due
    }

    /// Forgets the last one, if it is less urgent than this. Answers whether it was.
    fn make_room_for(&mut self, due: &Due) -> bool {
        let Some(mut last) = self.by_priority.last_entry().filter(|e| e.key().0 < due.priority) else {
            return false;
        };
        last.get_mut().pop_back();
        if last.get().is_empty() {
            last.remove();
        }
        self.len -= 1;
        true
    }
}

/// What waits for room.
#[derive(Default)]
pub(crate) struct Backlog {
    waiting: HashMap<String, Waiting>,
    /// Domains of which not all was remembered.
    left_out: HashSet<String>,
}

impl Backlog {
    /// Remembers an errand, or at least that its domain has more.
    pub(crate) fn remember(&mut self, due: Due) {
        let most = (REMEMBERED_MAX / self.waiting.len().max(1)).max(OF_A_DOMAIN);
        match self.waiting.get_mut(&due.domain) {
            Some(waiting) if waiting.len >= most => {
                self.left_out.insert(due.domain.clone());
                if waiting.make_room_for(&due) {
                    waiting.push(due);
                }
            }
            Some(waiting) => waiting.push(due),
            None => {
                let domain = due.domain.clone();
                self.waiting.entry(domain).or_default().push(due);
            }
        }
    }

    /// Takes the errands for which there is room, counted in connections: one for each message and
    /// [`RECIPIENTS_MAX`] of its recipients. The domain with the most urgent one comes first, and among
    /// equals the one that waits longest.
    pub(crate) fn choose(&mut self, mut room: Room<'_>) -> Vec<Due> {
        let ready = self.waiting.iter().filter(|(domain, _)| room.at(domain) > 0);
        let mut ready: Vec<_> = ready
            .map(|(domain, waiting)| {
                let first = waiting.front().map(|due| (Reverse(due.priority), due.at));
                (first, domain.clone())
            })
            .collect();
        ready.sort_unstable();
        let mut chosen = Vec::new();
        for (_, domain) in ready {
            let here = room.at(&domain);
            let Some(waiting) = self.waiting.get_mut(&domain) else {
                continue;
            };
            room.all -= take(waiting, here, &mut chosen);
            if waiting.len == 0 {
                self.waiting.remove(&domain);
            }
        }
        chosen
    }

    /// Whether nothing of a domain is known to wait.
    pub(crate) fn is_free(&self, domain: &str) -> bool {
        !self.waiting.contains_key(domain) && !self.left_out.contains(domain)
    }

    /// Whether nothing is known to wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.left_out.is_empty()
    }

    /// Whether more is due than is remembered.
    pub(crate) fn is_partial(&self) -> bool {
        !self.left_out.is_empty()
    }

    /// Whether a domain has room and only errands that were left out.
    pub(crate) fn starves(&self, room: &Room<'_>) -> bool {
        self.left_out
            .iter()
            .any(|domain| room.at(domain) > 0 && !self.waiting.contains_key(domain))
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.left_out.clear();
    }
}

/// Takes what `connections` have room for. Answers how many of them are used.
fn take(waiting: &mut Waiting, connections: usize, chosen: &mut Vec<Due>) -> usize {
    let mut used = 0;
    let mut recipients: HashMap<QueueId, usize> = HashMap::new();
    while let Some(due) = waiting.front() {
        let count = recipients.entry(due.message).or_default();
        if count.is_multiple_of(RECIPIENTS_MAX) {
            if used == connections {
                break;
            }
            used += 1;
        }
        *count += 1;
        chosen.extend(waiting.pop_front());
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Timestamp;

    fn due(message: u64, no: u32, domain: &str) -> Due {
        Due {
            at: Timestamp(message as i64),
            message: QueueId(message),
            no,
            domain: domain.to_owned(),
            priority: Priority::NORMAL,
        }
    }

    fn urgent(priority: i8, due: Due) -> Due {
        Due {
            priority: Priority::new(priority).unwrap(),
            ..due
        }
    }

    fn room(all: usize, per_domain: usize, running: &HashMap<String, usize>) -> Room<'_> {
        Room {
            all,
            per_domain,
            running,
        }
    }

    fn of(list: impl IntoIterator<Item = Due>) -> Backlog {
        let mut backlog = Backlog::default();
        list.into_iter().for_each(|due| backlog.remember(due));
        backlog
    }

    #[test]
    fn room_is_shared_between_domains() {
        let list: Vec<Due> = (0..10)
            .map(|m| due(m, 0, "slow.example"))
            .chain([due(20, 0, "other.example"), due(20, 1, "other.example")])
            .collect();
        let running = HashMap::from([("slow.example".to_owned(), 1)]);
        let mut backlog = of(list.clone());
        let chosen = backlog.choose(room(100, 3, &running));
        let count = |domain| chosen.iter().filter(|d| d.domain == domain).count();
        assert_eq!((count("slow.example"), count("other.example")), (2, 2));
        assert!(!backlog.is_free("slow.example"), "the rest waits");
        assert!(backlog.is_free("other.example"));
        let none = HashMap::new();
        assert_eq!(
            of(list.clone()).choose(room(1, 3, &none)),
            list[..1],
            "one in all"
        );
        let all: Vec<Due> = std::iter::repeat_with(|| backlog.choose(room(9, 9, &none)))
            .take_while(|chosen| !chosen.is_empty())
            .flatten()
            .collect();
        assert_eq!(all, list[2..10], "in order, each once");
        assert!(backlog.is_empty());
    }

    #[test]
    fn higher_priorities_go_first() {
        let none = HashMap::new();
        let list = [
            due(1, 0, "a.example"),
            urgent(-9, due(2, 0, "a.example")),
            urgent(3, due(3, 0, "a.example")),
            urgent(3, due(4, 0, "a.example")),
            urgent(4, due(5, 0, "b.example")),
        ];
        let mut backlog = of(list.clone());
        let order: Vec<u64> = std::iter::repeat_with(|| backlog.choose(room(1, 1, &none)))
            .take_while(|chosen| !chosen.is_empty())
            .flatten()
            .map(|due| due.message.0)
            .collect();
        assert_eq!(order, [5, 3, 4, 1, 2]);
        let mut full = of((0..40_000).map(|m| due(m, 0, "a.example")));
        full.remember(urgent(1, due(50_000, 0, "a.example")));
        assert_eq!(full.waiting["a.example"].len, REMEMBERED_MAX);
        assert_eq!(full.choose(room(1, 1, &none))[0].message, QueueId(50_000));
    }

    #[test]
    fn many_recipients_of_one_message_take_more_connections() {
        let none = HashMap::new();
        let count = |all| {
            let mut backlog = of((0..250).map(|n| due(1, n, "a.example")));
            backlog.choose(room(all, 100, &none)).len()
        };
        assert_eq!(count(100), 250);
        assert_eq!(count(2), 2 * RECIPIENTS_MAX);
    }

    #[test]
    fn a_million_that_are_due_are_not_remembered() {
        let mut backlog = of((0..1_000_000).map(|m| due(m, 0, "slow.example")));
        assert_eq!(backlog.waiting["slow.example"].len, REMEMBERED_MAX);
        let none = HashMap::new();
        let full = HashMap::from([("slow.example".to_owned(), 20)]);
        assert!(!backlog.starves(&room(100, 20, &none)), "some are remembered");
        backlog.remember(due(2_000_000, 0, "other.example"));
        assert_eq!(backlog.choose(room(100, 20, &full)).len(), 1, "the other one's");
        while !backlog.choose(room(1_000, 1_000, &none)).is_empty() {}
        assert!(backlog.starves(&room(100, 20, &none)) && !backlog.starves(&room(100, 20, &full)));
        assert!(!backlog.is_free("slow.example") && !backlog.is_empty());
        backlog.clear();
        assert!(backlog.is_empty());
    }

    #[test]
    fn many_long_domains_share_the_memory() {
        let backlog = of((0..500_000).map(|m| due(m, 0, &format!("d{}.example", m % 10))));
        let remembered: usize = backlog.waiting.values().map(|of| of.len).sum();
        assert!(remembered <= 3 * REMEMBERED_MAX, "{remembered}");
        assert!(backlog.waiting.values().all(|of| of.len >= REMEMBERED_MAX / 10));
    }
}
