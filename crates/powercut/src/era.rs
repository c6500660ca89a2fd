//! A chain of lives: each goes on with what the disk kept of the one before.
//!
//! An era begins with an empty disk. Its lives are numbered through within a seed, so that seed and
//! life name one cut; to repeat it, the lives of its era before it are lived again.

use crate::failure::Failure;
use crate::ledger::{Ledger, Tally};
use crate::life::{self, End, Plan, Scene};
use mail::Timestamp;
use std::time::Duration;
use store::simulated::{Dice, Fault, Sabotage, SimDisk};

/// Lives of an era.
pub const LIVES: u64 = 100;
/// Lives of an era before anything is broken on purpose, so that there is something to lose.
const HEALTHY: u64 = 3;
/// Monday, 23 November 2026.
const BEGAN: Timestamp = Timestamp::from_secs(1_795_439_053);

/// What is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    /// How the disk breaks its promise.
    pub sabotage: Option<Sabotage>,
    /// Reception answers before the batch is durable.
    pub hasty: bool,
}

/// Counts of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Lives, each ended by a cut.
    pub cuts: u64,
    /// Cuts while the store was being opened.
    pub cuts_in_recovery: u64,
    /// Cuts when all was quiet.
    pub cuts_when_quiet: u64,
    /// Cuts after the store was closed in order.
    pub cuts_when_closed: u64,
    /// Ends of the process alone, each with a start and a cut behind it.
    pub kills: u64,
    /// Lives that a failing disk ended.
    pub gave_up: u64,
    /// Groups of the log, each with one sync.
    pub groups: u64,
    /// Dead segments of the log that became the next ones.
    pub segments_recycled: u64,
    /// Half-dead segments that were emptied by copying.
    pub segments_collected: u64,
    /// Disk operations.
    pub operations: u64,
    /// A checksum over all of them with their octets: it shows that two runs were the same.
    pub trace: u64,
    /// What was promised and found.
    #[serde(flatten)]
    pub tally: Tally,
}

impl Counts {
    /// These and those.
    pub fn add(&mut self, other: &Counts) {
        let pairs = [
            (&mut self.cuts, other.cuts),
            (&mut self.cuts_in_recovery, other.cuts_in_recovery),
            (&mut self.cuts_when_quiet, other.cuts_when_quiet),
            (&mut self.cuts_when_closed, other.cuts_when_closed),
            (&mut self.kills, other.kills),
            (&mut self.gave_up, other.gave_up),
            (&mut self.operations, other.operations),
            (&mut self.groups, other.groups),
            (&mut self.segments_recycled, other.segments_recycled),
            (&mut self.segments_collected, other.segments_collected),
            (&mut self.trace, other.trace),
            (&mut self.tally.acknowledged, other.tally.acknowledged),
            (
                &mut self.tally.unacknowledged_kept,
                other.tally.unacknowledged_kept,
            ),
            (
                &mut self.tally.unacknowledged_gone,
                other.tally.unacknowledged_gone,
            ),
            (&mut self.tally.relayed, other.tally.relayed),
            (
                &mut self.tally.relayed_again_after_cut,
                other.tally.relayed_again_after_cut,
            ),
            (
                &mut self.tally.relayed_again_after_hang_up,
                other.tally.relayed_again_after_hang_up,
            ),
            (&mut self.tally.reported, other.tally.reported),
            (&mut self.tally.expunged, other.tally.expunged),
            (&mut self.tally.compared, other.tally.compared),
        ];
        for (sum, more) in pairs {
            *sum = sum.wrapping_add(more);
        }
    }

    fn count(&mut self, end: End) {
        match end {
            End::CutInRecovery => self.cuts_in_recovery += 1,
            End::Cut => {}
            End::Quiet => self.cuts_when_quiet += 1,
            End::Closed => self.cuts_when_closed += 1,
            End::GaveUp => self.gave_up += 1,
        }
    }
}

/// A chain of lives under way.
pub struct Era {
    dice: Dice,
    setting: Setting,
    healthy_until: u64,
    /// What the next life finds.
    pub disk: SimDisk,
    ledger: Ledger,
    now: Timestamp,
    /// The number of the last life.
    pub life: u64,
    counts: Counts,
}

impl Era {
    /// An era on an empty disk, whose first life has this number.
    #[must_use]
    pub fn new(seed: u64, first_life: u64, setting: Setting) -> Self {
        let mut dice = Dice::new(seed);
        let era = dice.word() ^ first_life;
        Self {
            dice: Dice::new(era),
            setting,
            disk: SimDisk::default(),
            healthy_until: first_life + HEALTHY,
            ledger: Ledger::default(),
            now: BEGAN,
            life: first_life - 1,
            counts: Counts::default(),
        }
    }

    /// An era that goes on with a disk and an account from elsewhere.
    #[must_use]
    pub fn resumed(disk: SimDisk, ledger: Ledger) -> Self {
        Self {
            disk,
            ledger,
            // Behind everything that happened there.
            now: BEGAN.plus(Duration::from_secs(86_400)),
            ..Self::new(0, 1, Setting::default())
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            tally: self.ledger.tally,
            ..self.counts
        }
    }

    /// One life with a cut that the dice place, and now and then the end of the process alone and
    /// a second start before it.
    ///
    /// # Errors
    /// What is broken.
    pub fn next_life(&mut self) -> Result<End, Failure> {
        let cut_at = match self.dice.below(10) {
            0 => None,
            1 | 2 => Some(1 + self.dice.below(40)),
            3..=7 => Some(1 + self.dice.below(200)),
            _ => Some(1 + self.dice.below(600)),
        };
        self.life += 1;
        let end = self.live(cut_at, None, false)?;
        if self.dice.chance(1, 12) {
            self.kill()?;
        }
        self.cut();
        Ok(end)
    }

    /// One life with its cut at this operation.
    ///
    /// # Errors
    /// What is broken.
    pub fn life_cut_at(&mut self, operation: u64) -> Result<End, Failure> {
        self.life += 1;
        let end = self.live(Some(operation), None, false)?;
        self.cut();
        Ok(end)
    }

    /// One life whose disk meets a fault at this operation; then the end of the process, a start
    /// that shows what is there, and a cut.
    ///
    /// # Errors
    /// What is broken.
    pub fn life_with_fault(&mut self, operation: u64, fault: Fault) -> Result<End, Failure> {
        self.life += 1;
        let end = self.live(None, Some((operation, fault)), false)?;
        self.kill()?;
        self.cut();
        Ok(end)
    }

    /// A life in which everything is only looked at, and the cut behind it.
    ///
    /// # Errors
    /// What is broken.
    pub fn look(&mut self) -> Result<(), Failure> {
        self.live(None, None, true)?;
        self.cut();
        Ok(())
    }

    /// The process ends, and a second one looks: what it shows has to stay, synced or not.
    fn kill(&mut self) -> Result<(), Failure> {
        self.counts.kills += 1;
        self.disk = self.disk.after_kill();
        self.live(None, None, true).map(|_| ())
    }

    fn cut(&mut self) {
        // Three times in sixteen nothing unsynced is kept for sure.
        let keep = match self.dice.chance(3, 16) {
            true => 0,
            false => self.dice.word() | 1,
        };
        self.disk = self.disk.after_power_loss(keep);
        self.counts.cuts += 1;
    }

    fn live(&mut self, cut_at: Option<u64>, fault: Option<(u64, Fault)>, idle: bool) -> Result<End, Failure> {
        let setting = match self.life < self.healthy_until {
            true => Setting::default(),
            false => self.setting,
        };
        self.disk.sabotage(setting.sabotage);
        let plan = Plan {
            dice: Dice::new(self.dice.word()),
            life: self.life,
            cut_at,
            fault,
            hasty: setting.hasty,
            idle,
            began: self.now,
        };
        let scene = Scene::new(std::mem::take(&mut self.ledger), self.disk.clone(), self.life);
        let lived = life::live(&plan, &scene);
        self.ledger = scene.into_ledger();
        let figures = scene.figures();
        self.counts.groups += figures.groups;
        self.counts.segments_recycled += figures.segments_recycled;
        self.counts.segments_collected += figures.segments_collected;
        self.counts.operations += self.disk.operations();
        let trace = u64::from(self.disk.trace());
        self.counts.trace = self.counts.trace.wrapping_mul(31).wrapping_add(trace);
        let (end, now) = lived?;
        self.now = now;
        self.counts.count(end);
        match self.ledger.failures.first() {
            Some(failure) => Err(failure.clone()),
            None => Ok(end),
        }
    }
}
