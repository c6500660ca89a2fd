//! Due errands that wait for one site: by priority, and among equal ones in turn by sender. Pure.
//!
//! Promises: a sender with any number of messages does not hold up another's one; the errands of a message
//! for one domain come together. Never: more than it is told to remember.

use crate::attempt::RECIPIENTS_MAX;
use mail::Timestamp;
use mail::delivery::Priority;
use queue::Due;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

/// What waits: higher priorities first (RFC 6710); among equal ones the senders take turns, a message each;
/// of one sender in the order in which it was found, the longest due first.
#[derive(Default)]
pub(crate) struct Waiting {
    by_priority: BTreeMap<Reverse<Priority>, Turns>,
    len: usize,
}

/// The senders' lists, and whose turn is next.
#[derive(Default)]
struct Turns {
    order: VecDeque<u32>,
    lists: BTreeMap<u32, VecDeque<Due>>,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether something of this sender waits.
    pub(crate) fn has_of(&self, sender: u32) -> bool {
        self.by_priority
            .values()
            .any(|turns| turns.lists.contains_key(&sender))
    }

    pub(crate) fn push(&mut self, due: Due) {
        let turns = self.by_priority.entry(Reverse(due.priority)).or_default();
        let list = turns.lists.entry(due.sender).or_default();
        if list.is_empty() {
            turns.order.push_back(due.sender);
        }
        list.push_back(due);
        self.len += 1;
    }

    /// What is next: how urgent, and since when it is due.
    pub(crate) fn first(&self) -> Option<(Reverse<Priority>, Timestamp)> {
        let (priority, turns) = self.by_priority.first_key_value()?;
        let due = turns.lists.get(turns.order.front()?)?.front()?;
        Some((*priority, due.at))
    }

    /// The next message for one domain: as many of its errands as share a transaction.
    pub(crate) fn pop_message(&mut self) -> Vec<Due> {
        let mut popped: Vec<Due> = Vec::new();
        let Some(mut first) = self.by_priority.first_entry() else {
            return popped;
        };
        let turns = first.get_mut();
        let Some(sender) = turns.order.pop_front() else {
            return popped;
        };
        if let Some(list) = turns.lists.get_mut(&sender) {
            while let Some(due) = list.front() {
                let same = popped
                    .first()
                    .is_none_or(|f| f.message == due.message && f.domain == due.domain);
                if !same || popped.len() == RECIPIENTS_MAX {
                    break;
                }
                popped.extend(list.pop_front());
            }
            match list.is_empty() {
                true => drop(turns.lists.remove(&sender)),
                false => turns.order.push_back(sender),
            }
        }
        if turns.order.is_empty() {
            first.remove();
        }
        self.len -= popped.len();
        popped
    }

    /// Forgets one that matters less than this: one of a lower priority, or the last of the sender that has
    /// the most, if this one's has fewer. Answers whether it did.
    pub(crate) fn make_room_for(&mut self, due: &Due) -> bool {
        let Some(mut last) = self.by_priority.last_entry() else {
            return false;
        };
        if last.key().0 > due.priority {
            return false;
        }
        let lower = last.key().0 < due.priority;
        let turns = last.get_mut();
        let Some((&longest, most)) = turns
            .lists
            .iter()
            .map(|(s, l)| (s, l.len()))
            .max_by_key(|(_, n)| *n)
        else {
            return false;
        };
        let own = turns.lists.get(&due.sender).map_or(0, VecDeque::len);
        if !lower && own + 1 >= most {
            return false;
        }
        if let Some(list) = turns.lists.get_mut(&longest) {
            list.pop_back();
            if list.is_empty() {
                turns.lists.remove(&longest);
                turns.order.retain(|sender| *sender != longest);
            }
        }
        if turns.order.is_empty() {
            last.remove();
        }
        self.len -= 1;
        true
    }

    /// All of it, in the order in which it would go.
    pub(crate) fn take_all(&mut self) -> Vec<Due> {
        let mut all = Vec::with_capacity(self.len);
        while !self.is_empty() {
            all.extend(self.pop_message());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::QueueId;

    fn due(message: u64, sender: u32) -> Due {
        Due {
            at: Timestamp(message as i64),
            message: QueueId(message),
            no: 0,
            domain: "a.example".to_owned(),
            priority: Priority::NORMAL,
            sender,
        }
    }

    fn of(list: impl IntoIterator<Item = Due>) -> Waiting {
        let mut waiting = Waiting::default();
        list.into_iter().for_each(|due| waiting.push(due));
        waiting
    }

    fn order(mut waiting: Waiting) -> Vec<u64> {
        waiting.take_all().iter().map(|due| due.message.0).collect()
    }

    #[test]
    fn senders_take_turns() {
        let mut list: Vec<Due> = (0..50_000).map(|n| due(n, 1)).collect();
        list.extend([due(60_000, 2), due(60_001, 2), due(60_002, 3)]);
        assert_eq!(order(of(list))[..6], [0, 60_000, 60_002, 1, 60_001, 2]);
    }

    #[test]
    fn higher_priorities_go_before_all_senders() {
        let urgent = |priority, due| Due {
            priority: Priority::new(priority).unwrap(),
            ..due
        };
        let list = [
            due(1, 1),
            urgent(-9, due(2, 2)),
            urgent(3, due(3, 1)),
            urgent(3, due(4, 1)),
        ];
        assert_eq!(order(of(list)), [3, 4, 1, 2]);
    }

    #[test]
    fn a_message_goes_whole_and_its_domains_apart() {
        let mut list: Vec<Due> = (0..150).map(|no| Due { no, ..due(1, 1) }).collect();
        list.push(Due {
            domain: "b.example".to_owned(),
            no: 150,
            ..due(1, 1)
        });
        list.push(due(2, 2));
        let mut waiting = of(list);
        let counts: Vec<usize> = std::iter::repeat_with(|| waiting.pop_message().len())
            .take_while(|n| *n > 0)
            .collect();
        assert_eq!(counts, [RECIPIENTS_MAX, 1, 50, 1]);
        assert!(waiting.is_empty() && waiting.first().is_none());
    }

    #[test]
    fn room_is_made_by_who_has_the_most() {
        let mut waiting = of((0..10).map(|n| due(n, 1)));
        assert!(!waiting.make_room_for(&due(20, 1)), "its own sender has the most");
        assert!(waiting.make_room_for(&due(20, 2)));
        waiting.push(due(20, 2));
        assert_eq!(waiting.len(), 10);
        assert!(waiting.has_of(2) && !waiting.has_of(3));
        let lower = Due {
            priority: Priority::new(-1).unwrap(),
            ..due(30, 3)
        };
        assert!(!waiting.make_room_for(&lower));
        let higher = Due {
            priority: Priority::new(1).unwrap(),
            ..due(31, 1)
        };
        assert!(waiting.make_room_for(&higher));
        assert_eq!(order(waiting), [0, 20, 1, 2, 3, 4, 5, 6, 7]);
    }
}
