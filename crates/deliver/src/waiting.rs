//! Due errands that wait for one site: by priority, and among equal ones in turn by sender. Pure.
//!
//! Promises: a sender with any number of messages does not hold up another's one; the errands of a message
//! for one domain come together; each step costs the same with one sender and with a hundred thousand, but
//! for a logarithm. Never: more than it is told to remember.

use crate::attempt::RECIPIENTS_MAX;
use mail::Timestamp;
use mail::delivery::Priority;
use queue::Due;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What waits: higher priorities first (RFC 6710); among equal ones the senders take turns, a message each;
/// of one sender in the order in which it was found, the longest due first.
#[derive(Default)]
pub(crate) struct Waiting {
    by_priority: BTreeMap<Reverse<Priority>, Turns>,
    len: usize,
}

/// The senders' lists, and whose turn is next. No list is empty.
#[derive(Default)]
struct Turns {
    /// By turn, which rises.
    order: BTreeMap<u64, u32>,
    lists: BTreeMap<u32, List>,
    /// The senders by how much of theirs waits.
    by_len: BTreeSet<(usize, u32)>,
    next_turn: u64,
}

struct List {
    turn: u64,
    dues: VecDeque<Due>,
}

impl Turns {
    fn push(&mut self, due: Due) {
        let sender = due.sender;
        let next_turn = self.next_turn;
        let list = self.lists.entry(sender).or_insert_with(|| List {
            turn: next_turn,
            dues: VecDeque::new(),
        });
        if list.dues.is_empty() {
            self.next_turn += 1;
            self.order.insert(next_turn, sender);
        }
        self.by_len.remove(&(list.dues.len(), sender));
        list.dues.push_back(due);
        self.by_len.insert((list.dues.len(), sender));
    }

    /// What is next.
    fn first(&self) -> Option<&Due> {
        let (_, sender) = self.order.first_key_value()?;
        self.lists.get(sender)?.dues.front()
    }

    /// The next message for one domain, of the sender whose turn it is; then it is the next one's.
    fn pop_message(&mut self) -> Vec<Due> {
        let mut popped: Vec<Due> = Vec::new();
        let Some((_, sender)) = self.order.pop_first() else {
            return popped;
        };
        let Some(mut list) = self.lists.remove(&sender) else {
            return popped;
        };
        self.by_len.remove(&(list.dues.len(), sender));
        while let Some(due) = list.dues.front() {
            let same = popped
                .first()
                .is_none_or(|f| f.message == due.message && f.domain == due.domain);
            if !same || popped.len() == RECIPIENTS_MAX {
                break;
            }
            popped.extend(list.dues.pop_front());
        }
        if !list.dues.is_empty() {
            list.turn = self.next_turn;
            self.next_turn += 1;
            self.order.insert(list.turn, sender);
            self.by_len.insert((list.dues.len(), sender));
            self.lists.insert(sender, list);
        }
        popped
    }

    /// The sender of whom most waits, and how much.
    fn longest(&self) -> Option<(usize, u32)> {
        self.by_len.last().copied()
    }

    /// Forgets the last one of a sender.
    fn drop_last(&mut self, sender: u32) {
        let Some(list) = self.lists.get_mut(&sender) else {
            return;
        };
        self.by_len.remove(&(list.dues.len(), sender));
        list.dues.pop_back();
        if list.dues.is_empty() {
            self.order.remove(&list.turn);
            self.lists.remove(&sender);
        } else {
            self.by_len.insert((list.dues.len(), sender));
        }
    }
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
        self.by_priority
            .entry(Reverse(due.priority))
            .or_default()
            .push(due);
        self.len += 1;
    }

    /// What is next: how urgent, and since when it is due.
    pub(crate) fn first(&self) -> Option<(Reverse<Priority>, Timestamp)> {
        let (priority, turns) = self.by_priority.first_key_value()?;
        Some((*priority, turns.first()?.at))
    }

    /// The next message for one domain: as many of its errands as share a transaction.
    pub(crate) fn pop_message(&mut self) -> Vec<Due> {
        let Some(mut first) = self.by_priority.first_entry() else {
            return Vec::new();
        };
        let popped = first.get_mut().pop_message();
        if first.get().lists.is_empty() {
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
        let Some((most, longest)) = turns.longest() else {
            return false;
        };
        let own = turns.lists.get(&due.sender).map_or(0, |list| list.dues.len());
        if !lower && own + 1 >= most {
            return false;
        }
        turns.drop_last(longest);
        if turns.lists.is_empty() {
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

    /// Looking through all senders for each errand that is left out would take minutes here.
    #[test]
    fn a_hundred_thousand_senders_with_one_message_each() {
        let mut waiting = of((0..30_000).map(|n| due(n, n as u32)));
        for n in 30_000..130_000 {
            assert!(!waiting.make_room_for(&due(n, n as u32)), "all have as much");
        }
        for n in 200_000..210_000 {
            let higher = Due {
                priority: Priority::new(1).unwrap(),
                ..due(n, n as u32)
            };
            assert!(waiting.make_room_for(&higher));
            waiting.push(higher);
        }
        assert_eq!(waiting.len(), 30_000);
        let order = order(waiting);
        assert_eq!((order[0], order[10_000]), (200_000, 0));
        assert_eq!(order.len(), 30_000);
    }
}
