//! One file as a process sees it, as the medium has it, and all that lies between the two.

use super::dice::Dice;
use super::octets::{Octets, SECTOR};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A change that no sync has followed yet.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

/// How much of what was not synced is kept at a cut. Which parts, the dice say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keeping {
    /// Nothing.
    Nothing,
    /// All of it, as after the mere end of a process.
    All,
    /// Each sector by itself, so many times out of 64.
    Sectors(u64),
    /// Each write as a whole, so many times out of 64: later ones without earlier ones.
    Writes(u64),
    /// The writes in their order up to one, which is torn.
    UpTo,
    /// All sectors but one, or one alone.
    One { missing: bool },
}

impl Keeping {
    /// A way of keeping for this seed; 0 keeps nothing.
    pub(super) fn of(seed: u64, dice: &mut Dice) -> Self {
        if seed == 0 {
            return Self::Nothing;
        }
        match dice.below(9) {
            0 => Self::Nothing,
            1 => Self::All,
            2 => Self::Sectors(4),
            3 => Self::Sectors(32),
            4 => Self::Sectors(60),
            5 => Self::Writes(32),
            6 => Self::UpTo,
            7 => Self::One { missing: true },
            _ => Self::One { missing: false },
        }
    }
}

/// A file.
#[derive(Clone, Default, Debug)]
pub(super) struct Content {
    /// What reads see.
    pub(super) now: Octets,
    /// What the medium surely has.
    durable: Octets,
    /// What reads saw at the last sync, whether it failed or not.
    base: Octets,
    unsynced: Vec<Change>,
    /// Sectors whose sync failed: the system counts them as written, the medium may have any of
    /// these versions or none, and no later sync helps.
    limbo: BTreeMap<u64, Vec<Arc<Octets>>>,
}

impl Content {
    /// A file that is wholly on the medium.
    pub(super) fn durable(octets: Octets) -> Self {
        Self {
            now: octets.clone(),
            durable: octets.clone(),
            base: octets,
            ..Self::default()
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.now.write(bytes, offset);
        self.unsynced.push(Change::Write {
            offset,
            bytes: bytes.to_vec(),
        });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.now.set_len(len);
        self.unsynced.push(Change::SetLen(len));
    }

    /// A good sync: all is on the medium, but for what an earlier failed sync has lost.
    pub(super) fn sync(&mut self) {
        let before = std::mem::replace(&mut self.durable, self.now.clone());
        if !self.limbo.is_empty() {
            let mut seen = self.base.clone();
            for change in &self.unsynced {
                for sector in apply(change, &mut seen) {
                    self.limbo.remove(&sector);
                }
            }
            for sector in self.limbo.keys() {
                self.durable.take_sector(*sector, &before);
            }
        }
        self.settled();
    }

    /// A failed sync: any part is on the medium, and the system forgets which.
    pub(super) fn fail_sync(&mut self) {
        let mut seen = self.base.clone();
        for change in &self.unsynced {
            let sectors = apply(change, &mut seen);
            let version = Arc::new(seen.clone());
            for sector in sectors {
                self.limbo.entry(sector).or_default().push(version.clone());
            }
        }
        self.settled();
    }

    /// A sync by a disk that lies: part of what waits lands now, the rest with the next sync.
    pub(super) fn sync_in_part(&mut self, dice: &mut Dice) {
        for sector in std::mem::take(&mut self.limbo).into_keys() {
            self.durable.take_sector(sector, &self.base);
        }
        self.fail_sync();
        let (now, durable) = (&self.now, &mut self.durable);
        durable.set_len(now.len());
        self.limbo.retain(|sector, _| {
            let lands = dice.chance(1, 2);
            if lands {
                durable.take_sector(*sector, now);
            }
            !lands
        });
    }

    fn settled(&mut self) {
        self.base = self.now.clone();
        self.unsynced.clear();
    }

    /// What the medium has after a cut.
    pub(super) fn after_cut(&self, keeping: Keeping, dice: &mut Dice) -> Octets {
        let mut kept = self.durable.clone();
        for (sector, versions) in &self.limbo {
            let version = dice.below(versions.len() as u64 + 1) as usize;
            if let Some(version) = versions.get(version) {
                kept.take_sector(*sector, version);
            }
        }
        let mut lengths = vec![self.durable.len()];
        let mut seen = self.base.clone();
        let last = dice.below(self.unsynced.len() as u64 + 1) as usize;
        let mut touched = 0;
        for (n, change) in self.unsynced.iter().enumerate() {
            let sectors = apply(change, &mut seen);
            lengths.push(seen.len());
            let whole = match keeping {
                Keeping::Nothing => Some(false),
                Keeping::All => Some(true),
                Keeping::Writes(of_64) => Some(dice.chance(of_64, 64)),
                Keeping::UpTo if n != last => Some(n < last),
                Keeping::UpTo | Keeping::Sectors(_) | Keeping::One { .. } => None,
            };
            for sector in sectors {
                touched += 1;
                let keeps = whole.unwrap_or_else(|| match keeping {
                    Keeping::Sectors(of_64) => dice.chance(of_64, 64),
                    Keeping::One { missing } => missing,
                    _ => dice.chance(1, 2),
                });
                if keeps {
                    kept.take_sector(sector, &seen);
                }
            }
        }
        if let Keeping::One { missing } = keeping {
            self.all_but_one(&mut kept, dice.below(touched), missing);
        }
        lengths.push(self.now.len());
        let len = match keeping {
            Keeping::Nothing => lengths.first(),
            Keeping::All => lengths.last(),
            Keeping::UpTo => lengths.get(last + dice.below(2) as usize),
            _ => dice.pick(&lengths),
        };
        kept.set_len(len.copied().unwrap_or(0));
        kept
    }

    /// Takes the one touched sector back, or lets it alone be kept.
    fn all_but_one(&self, kept: &mut Octets, chosen: u64, missing: bool) {
        let mut seen = self.base.clone();
        let mut touched = 0;
        for change in &self.unsynced {
            for sector in apply(change, &mut seen) {
                if touched == chosen {
                    kept.take_sector(sector, if missing { &self.durable } else { &seen });
                    return;
                }
                touched += 1;
            }
        }
    }
}

/// Makes a change, and answers the sectors that it touches.
fn apply(change: &Change, octets: &mut Octets) -> Vec<u64> {
    match change {
        Change::Write { offset, bytes } => {
            octets.write(bytes, *offset);
            let first = offset / SECTOR as u64;
            let end = (offset + bytes.len() as u64).div_ceil(SECTOR as u64);
            (first..end).collect()
        }
        Change::SetLen(len) => {
            // Behind the new end there are zeros from now on, also when the file grows again.
            let cut = match *len < octets.len() {
                true => octets.sectors_from(len / SECTOR as u64),
                false => Vec::new(),
            };
            octets.set_len(*len);
            cut
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first: u8, sectors: usize) -> Content {
        let mut octets = Octets::default();
        octets.write(&vec![first; sectors * SECTOR], 0);
        Content::durable(octets)
    }

    /// The first octet of each sector, in every image that many seeds give.
    fn images(content: &Content) -> std::collections::BTreeSet<Vec<u8>> {
        let image = |seed| {
            let mut dice = Dice::new(seed);
            let keeping = Keeping::of(seed, &mut dice);
            content.after_cut(keeping, &mut dice).all()
        };
        (0..3000)
            .map(|seed| image(seed).iter().step_by(SECTOR).copied().collect())
            .collect()
    }

    #[test]
    fn unsynced_sectors_are_kept_in_any_subset_and_in_any_version() {
        let mut content = file(b'a', 3);
        content.write(&[b'b'; 3 * SECTOR], 0);
        content.write(&[b'c'; SECTOR], SECTOR as u64);
        let images = images(&content);
        for first in [b'a', b'b'] {
            for second in [b'a', b'b', b'c'] {
                for third in [b'a', b'b'] {
                    assert!(
                        images.contains(&vec![first, second, third]),
                        "{first} {second} {third}"
                    );
                }
            }
        }
        assert_eq!(images.len(), 12);
    }

    #[test]
    fn what_was_synced_is_always_there() {
        let mut content = file(b'a', 2);
        content.write(&[b'b'; 2 * SECTOR], 0);
        content.sync();
        assert_eq!(images(&content), [vec![b'b', b'b']].into());
    }

    #[test]
    fn a_length_comes_without_its_octets_and_octets_without_their_length() {
        let mut content = file(b'a', 1);
        content.write(&[b'b'; SECTOR], SECTOR as u64);
        let expected = [vec![b'a'], vec![b'a', 0], vec![b'a', b'b']];
        assert_eq!(images(&content), expected.into());
    }

    #[test]
    fn what_was_cut_off_comes_back_or_not() {
        let mut content = file(b'a', 3);
        content.set_len(SECTOR as u64);
        content.set_len(3 * SECTOR as u64);
        let images = images(&content);
        for kept in [
            vec![b'a'],
            vec![b'a', 0, b'a'],
            vec![b'a', b'a', b'a'],
            vec![b'a', 0, 0],
        ] {
            assert!(images.contains(&kept), "{kept:?}");
        }
        assert!(images.iter().all(|image| image[0] == b'a'));
    }

    #[test]
    fn after_a_failed_sync_no_later_one_helps() {
        let mut content = file(b'a', 2);
        content.write(&[b'b'; 2 * SECTOR], 0);
        content.fail_sync();
        content.write(&[b'c'; SECTOR], 0);
        content.sync();
        let expected = [vec![b'c', b'a'], vec![b'c', b'b']];
        assert_eq!(images(&content), expected.into());
    }
}
