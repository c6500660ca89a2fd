//! A set of blob ids that takes about eight octets for each. Never: I/O.

use crate::blob::BlobId;
use std::collections::BTreeMap;

/// The set. What was added counts only after [`IdSet::settle`].
#[derive(Default, Debug)]
pub(super) struct IdSet {
    /// By the first half of the id (the opening of the store), the second halves in order.
    settled: BTreeMap<u64, Vec<u64>>,
    added: Vec<(u64, u64)>,
}

fn halves(id: BlobId) -> (u64, u64) {
    let n = u128::from_be_bytes(id.0);
    ((n >> 64) as u64, n as u64)
}

impl IdSet {
    /// Adds an id.
    pub(super) fn add(&mut self, id: BlobId) {
        self.added.push(halves(id));
    }

    /// Makes everything that was added count.
    pub(super) fn settle(&mut self) {
        for (first, second) in std::mem::take(&mut self.added) {
            self.settled.entry(first).or_default().push(second);
        }
        for seconds in self.settled.values_mut() {
            if !seconds.is_sorted() {
                seconds.sort_unstable();
            }
            seconds.dedup();
        }
    }

    /// Whether an id was added and settled.
    pub(super) fn contains(&self, id: BlobId) -> bool {
        let (first, second) = halves(id);
        let seconds = self.settled.get(&first);
        seconds.is_some_and(|seconds| seconds.binary_search(&second).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_settled_is_there_in_any_order() {
        let id = |a: u64, b: u64| BlobId(((u128::from(a) << 64) | u128::from(b)).to_be_bytes());
        let mut set = IdSet::default();
        for (a, b) in [(2, 9), (1, 5), (2, 3), (2, 9), (1, 4)] {
            set.add(id(a, b));
        }
        assert!(!set.contains(id(1, 5)));
        set.settle();
        assert!(
            [(2, 9), (1, 5), (2, 3), (1, 4)]
                .iter()
                .all(|(a, b)| set.contains(id(*a, *b)))
        );
        assert!(!set.contains(id(2, 4)) && !set.contains(id(3, 9)));
    }
}
