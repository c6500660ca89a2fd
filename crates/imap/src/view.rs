//! A session's view of its mailbox: which message has which sequence number, and what the client
//! was not told yet.
//!
//! The view changes only when the client is told (RFC 3501 §7.4.1): a message that others removed
//! keeps its number until its EXPUNGE is sent.

use crate::flag::Flag;
use crate::response::{flags, put};
use crate::sequence::{MessageSet, SeqNum};
use mail::Uid;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The view of one selected mailbox.
#[derive(Clone, Debug)]
pub struct View {
    /// UIDs in ascending order; the sequence number is the index and 1.
    uids: Vec<Uid>,
    /// Ranges of UIDs that this session was the first to see, ascending.
    recent: Vec<Range<Uid>>,
    gone: BTreeSet<Uid>,
    changed: BTreeMap<Uid, Vec<Flag>>,
    told_exists: usize,
}

/// Messages that a set named, still to be worked through in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Targets {
    /// Ascending ranges of sequence numbers, first and last.
    ranges: Vec<(u32, u32)>,
    at: usize,
}

impl View {
    /// A view of these messages. `uids` must be ascending; those in `recent` are recent in this
    /// session.
    #[must_use]
    pub fn new(uids: Vec<Uid>, recent: Range<Uid>) -> Self {
        debug_assert!(uids.is_sorted());
        Self {
            told_exists: uids.len(),
            uids,
            recent: vec![recent],
            gone: BTreeSet::new(),
            changed: BTreeMap::new(),
        }
    }

    /// Messages, as far as the client knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.uids.len()
    }

    /// Whether there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// All UIDs, ascending.
    #[must_use]
    pub fn uids(&self) -> &[Uid] {
        &self.uids
    }

    /// The UID of a sequence number.
    #[must_use]
    pub fn uid(&self, seq: SeqNum) -> Option<Uid> {
        let i = usize::try_from(seq.0).ok()?.checked_sub(1)?;
        self.uids.get(i).copied()
    }

    /// The sequence number of a UID.
    #[must_use]
    pub fn seq(&self, uid: Uid) -> Option<SeqNum> {
        let i = self.uids.binary_search(&uid).ok()?;
        u32::try_from(i + 1).ok().map(SeqNum)
    }

    /// The largest sequence number and UID; zeros when there is no message.
    #[must_use]
    pub fn largest(&self) -> (SeqNum, Uid) {
        (
            SeqNum(u32::try_from(self.uids.len()).unwrap_or(u32::MAX)),
            self.uids.last().copied().unwrap_or(Uid(0)),
        )
    }

    /// Whether the message is recent in this session.
    #[must_use]
    pub fn is_recent(&self, uid: Uid) -> bool {
        self.recent.iter().any(|r| r.contains(&uid))
    }

    /// More messages are recent in this session.
    pub fn claimed(&mut self, recent: Range<Uid>) {
        match self.recent.last_mut() {
            _ if recent.is_empty() => {}
            Some(last) if last.end >= recent.start || last.is_empty() => {
                last.start = if last.is_empty() { recent.start } else { last.start };
                last.end = recent.end;
            }
            _ => self.recent.push(recent),
        }
    }

    /// How many are recent.
    #[must_use]
    pub fn recent(&self) -> usize {
        let place = |bound: Uid| self.uids.partition_point(|u| *u < bound);
        self.recent
            .iter()
            .map(|r| place(r.end).saturating_sub(place(r.start)))
            .sum()
    }

    /// The messages of a set. `None` when it names a sequence number that no message has; UIDs
    /// that no message has are passed over (RFC 3501 §6.4.8).
    #[must_use]
    pub fn targets(&self, set: &MessageSet) -> Option<Targets> {
        let (last_seq, last_uid) = self.largest();
        let ranges = match set {
            // `1:*` of an empty mailbox names nothing, and clients do ask it.
            MessageSet::Seq(set) if last_seq.0 == 0 => {
                return set.has_star().then(Targets::none);
            }
            MessageSet::Seq(set) => {
                let ranges = set.resolve(last_seq.0);
                if ranges.last().is_some_and(|(_, last)| *last > last_seq.0) {
                    return None;
                }
                ranges
            }
            MessageSet::Uid(_) if last_seq.0 == 0 => return Some(Targets::none()),
            MessageSet::Uid(set) => {
                let place = |n| u32::try_from(n).unwrap_or(u32::MAX);
                let to_seqs = |(first, last): (u32, u32)| {
                    let from = self.uids.partition_point(|u| u.0 < first);
                    let to = self.uids.partition_point(|u| u.0 <= last);
                    (from < to).then(|| (place(from + 1), place(to)))
                };
                set.resolve(last_uid.0).into_iter().filter_map(to_seqs).collect()
            }
        };
        Some(Targets { ranges, at: 0 })
    }

    /// All messages.
    #[must_use]
    pub fn all(&self) -> Targets {
        match self.largest().0.0 {
            0 => Targets::none(),
            last => Targets {
                ranges: vec![(1, last)],
                at: 0,
            },
        }
    }

    /// Messages came. What is not above the largest UID is known already and passed over.
    pub fn arrived(&mut self, uids: impl IntoIterator<Item = Uid>) {
        for uid in uids {
            if self.uids.last().is_none_or(|last| *last < uid) {
                self.uids.push(uid);
            }
        }
    }

    /// A message was removed; it keeps its number until the client is told.
    pub fn expunged(&mut self, uid: Uid) {
        if self.uids.binary_search(&uid).is_ok() {
            self.changed.remove(&uid);
            self.gone.insert(uid);
        }
    }

    /// A message's flags changed; `flags` are all that it has now.
    pub fn flags_changed(&mut self, uid: Uid, flags: Vec<Flag>) {
        if self.uids.binary_search(&uid).is_ok() && !self.gone.contains(&uid) {
            self.changed.insert(uid, flags);
        }
    }

    /// The client learned of the message's flags in another way.
    pub fn flags_told(&mut self, uid: Uid) {
        self.changed.remove(&uid);
    }

    /// Whether there is something that the client was not told.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.gone.is_empty() || !self.changed.is_empty() || self.told_exists != self.uids.len()
    }

    /// Tells the client what it was not told, EXPUNGE only when it is allowed now.
    /// `with_uid` puts the UID into the FETCH responses.
    pub fn tell(&mut self, out: &mut Vec<u8>, may_expunge: bool, with_uid: bool) {
        if may_expunge && !self.gone.is_empty() {
            self.tell_expunges(out);
        }
        for (uid, now) in std::mem::take(&mut self.changed) {
            let Some(seq) = self.seq(uid) else { continue };
            put(out, &format!("* {seq} FETCH ("));
            if with_uid {
                put(out, &format!("UID {uid} "));
            }
            flags(out, &now, self.is_recent(uid));
            put(out, ")\r\n");
        }
        if self.told_exists != self.uids.len() {
            self.told_exists = self.uids.len();
            put(
                out,
                &format!("* {} EXISTS\r\n* {} RECENT\r\n", self.uids.len(), self.recent()),
            );
        }
    }

    /// From the end, so that each number still means what the client thinks.
    fn tell_expunges(&mut self, out: &mut Vec<u8>) {
        let gone = std::mem::take(&mut self.gone);
        let mut told = 0;
        for uid in gone.iter().rev() {
            if let Some(seq) = self.seq(*uid) {
                // A message that came and went unseen was never announced, but it has a number
                // behind those that were; the client needs to hear of neither.
                if usize::try_from(seq.0).is_ok_and(|n| n <= self.told_exists) {
                    put(out, &format!("* {seq} EXPUNGE\r\n"));
                    told += 1;
                }
            }
        }
        self.told_exists -= told;
        self.uids.retain(|u| !gone.contains(u));
    }
}

impl Targets {
    /// No message.
    #[must_use]
    pub fn none() -> Self {
        Self {
            ranges: Vec::new(),
            at: 0,
        }
    }

    /// At most `max` further messages, in order; none when all were given. Between calls the view
    /// may have got news, as long as no EXPUNGE was told.
    pub fn next(&mut self, view: &View, max: usize) -> Vec<(SeqNum, Uid)> {
        let mut batch = Vec::new();
        while batch.len() < max
            && let Some((first, last)) = self.ranges.get_mut(self.at)
        {
            if let Some(uid) = view.uid(SeqNum(*first)) {
                batch.push((SeqNum(*first), uid));
            }
            if *first >= *last {
                self.at += 1;
            } else {
                *first += 1;
            }
        }
        batch
    }

    /// The UIDs of all that is left.
    #[must_use]
    pub fn uids(mut self, view: &View) -> Vec<Uid> {
        self.next(view, usize::MAX)
            .into_iter()
            .map(|(_, uid)| uid)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::SequenceSet;
    use proptest::prelude::*;

    fn view(uids: &[u32]) -> View {
        View::new(uids.iter().copied().map(Uid).collect(), Uid(0)..Uid(0))
    }

    fn tell(v: &mut View, may_expunge: bool) -> String {
        let mut out = Vec::new();
        v.tell(&mut out, may_expunge, false);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_removed_message_keeps_its_number_until_told() {
        let mut v = view(&[10, 20, 30, 40]);
        v.expunged(Uid(20));
        v.expunged(Uid(40));
        v.arrived([Uid(50)]);
        assert_eq!(tell(&mut v, false), "* 5 EXISTS\r\n* 0 RECENT\r\n");
        assert_eq!(v.uid(SeqNum(2)), Some(Uid(20)));
        assert_eq!(tell(&mut v, true), "* 4 EXPUNGE\r\n* 2 EXPUNGE\r\n");
        assert_eq!(v.uids(), [Uid(10), Uid(30), Uid(50)]);
        assert!(!v.has_news());
    }

    #[test]
    fn what_came_and_went_is_not_told() {
        let mut v = view(&[1]);
        v.arrived([Uid(2), Uid(3)]);
        v.expunged(Uid(2));
        assert_eq!(tell(&mut v, true), "* 2 EXISTS\r\n* 0 RECENT\r\n");
    }

    #[test]
    fn sets_name_messages() {
        let v = view(&[10, 20, 30]);
        let seqs = |t: &str| {
            let set = MessageSet::Seq(SequenceSet::parse(t.as_bytes()).unwrap());
            v.targets(&set).map(|t| t.uids(&v))
        };
        let uids = |t: &str| {
            let set = MessageSet::Uid(SequenceSet::parse(t.as_bytes()).unwrap());
            v.targets(&set).map(|t| t.uids(&v))
        };
        assert_eq!(seqs("2:*"), Some(vec![Uid(20), Uid(30)]));
        assert_eq!(seqs("4"), None);
        assert_eq!(uids("5:20,99"), Some(vec![Uid(10), Uid(20)]));
        assert_eq!(uids("99:*"), Some(vec![Uid(30)]));
        assert_eq!(uids("11:19"), Some(vec![]));
        let empty = view(&[]);
        let star = MessageSet::Seq(SequenceSet::parse(b"1:*").unwrap());
        assert_eq!(empty.targets(&star), Some(Targets::none()));
    }

    #[test]
    fn recent_is_what_this_session_claimed() {
        let mut v = View::new((1..=4).map(Uid).collect(), Uid(3)..Uid(5));
        assert_eq!(v.recent(), 2);
        v.arrived((5..=8).map(Uid));
        v.claimed(Uid(7)..Uid(9));
        assert_eq!(
            (v.recent(), v.is_recent(Uid(6)), v.is_recent(Uid(8))),
            (4, false, true)
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arrive,
        Expunge(prop::sample::Index),
        Tell(bool),
    }

    proptest! {
        /// A client that applies what it is told knows exactly what the view holds.
        #[test]
        fn the_client_can_follow(start in 0usize..6, steps in proptest::collection::vec(prop_oneof![
            Just(Step::Arrive),
            any::<prop::sample::Index>().prop_map(Step::Expunge),
            any::<bool>().prop_map(Step::Tell),
        ], 0..40)) {
            let mut next = 0u32;
            let mut server: Vec<u32> = (0..start).map(|_| { next += 1; next }).collect();
            let mut v = view(&server);
            let mut client = server.len();
            for step in steps.into_iter().chain([Step::Tell(true)]) {
                match step {
                    Step::Arrive => { next += 1; server.push(next); v.arrived([Uid(next)]); }
                    Step::Expunge(i) if !server.is_empty() => {
                        let uid = server.remove(i.index(server.len()));
                        v.expunged(Uid(uid));
                    }
                    Step::Expunge(_) => {}
                    Step::Tell(may_expunge) => {
                        for line in tell(&mut v, may_expunge).lines() {
                            let words: Vec<&str> = line.split(' ').collect();
                            let n: usize = words[1].parse().unwrap();
                            match words[2] {
                                "EXPUNGE" => {
                                    prop_assert!(may_expunge && n >= 1 && n <= client, "{}", line);
                                    client -= 1;
                                }
                                "EXISTS" => { prop_assert!(n >= client); client = n; }
                                _ => {}
                            }
                        }
                        prop_assert_eq!(client, v.len());
                    }
                }
            }
            prop_assert_eq!(v.uids().iter().map(|u| u.0).collect::<Vec<_>>(), server);
        }
    }
}
