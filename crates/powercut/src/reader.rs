//! A person who reads, flags, moves and deletes mail while it comes in; and an operator who looks
//! at the queue. What they see counts as promised.

use crate::failure::Failure;
use crate::house::House;
use crate::ledger::{Leaving, Sight};
use crate::life::Scene;
use crate::sight::{self, Look};
use mail::{AccountId, Uid};
use mailbox::{ExpungeWhich, FlagChange, FlagOp, Flags, Place, Role};
use std::sync::Arc;
use store::CommitError;
use store::simulated::Dice;
use tokio::task::yield_now;

/// Messages that a person keeps; of more, several go at once.
const KEPT: usize = 8;

/// Reads for some rounds. Only one reader a person at a time.
pub async fn work(house: Arc<House>, scene: Arc<Scene>, person: usize, account: AccountId, mut dice: Dice) {
    for _ in 0..1 + dice.below(4) {
        for _ in 0..dice.below(60) {
            yield_now().await;
        }
        if let Err(failure) = round(&house, &scene, person, account, &mut dice).await {
            return scene.fail(failure);
        }
    }
}

async fn round(
    house: &House,
    scene: &Scene,
    person: usize,
    account: AccountId,
    dice: &mut Dice,
) -> Result<(), Failure> {
    let sights = sight::mailboxes(house, &scene.ledger, person, account, Look::AtNews).await?;
    scene.note(|ledger| ledger.shown(person, &sights));
    if dice.chance(1, 3) {
        let open = sight::queue(house, &scene.ledger, Look::AtNews).await?;
        scene.note(|ledger| ledger.queue_shows(&open));
    }
    let Some(sight) = dice.pick(&filled(&sights)).copied() else {
        return Ok(());
    };
    let place = Place {
        account,
        mailbox: sight.mailbox,
    };
    let mut uids: Vec<Uid> = sight.entries.iter().map(|seen| seen.uid).collect();
    let surplus = uids.len().saturating_sub(KEPT);
    let first = dice.below(uids.len() as u64) as usize;
    uids.rotate_left(first);
    uids.truncate(1 + surplus);
    match dice.below(4) {
        0 => flag(house, scene, person, place, &uids).await,
        1 if surplus == 0 => move_away(house, scene, person, place, &uids).await,
        _ => expunge(house, scene, person, place, &uids).await,
    }
    Ok(())
}

fn filled(sights: &[Sight]) -> Vec<&Sight> {
    sights.iter().filter(|sight| !sight.entries.is_empty()).collect()
}

async fn flag(house: &House, scene: &Scene, person: usize, place: Place, uids: &[Uid]) {
    let change = FlagChange {
        op: FlagOp::Add,
        flags: Flags::SEEN,
        keywords: Vec::new(),
        unchanged_since: None,
    };
    if let Ok(done) = house.mailboxes.store_flags(place, uids, &change).await {
        for entry in done.entries {
            scene.note(|ledger| ledger.flagged(person, place.mailbox, entry.uid));
        }
    }
}

async fn move_away(house: &House, scene: &Scene, person: usize, place: Place, uids: &[Uid]) {
    let Ok(Some(archive)) = house.mailboxes.find(place.account, Role::Archive).await else {
        return;
    };
    if archive.id == place.mailbox {
        return;
    }
    ask(scene, person, place, uids, Leaving::Moved);
    let moved = house.mailboxes.move_(place, uids, archive.place()).await;
    let gone = moved.map(|moved| moved.uids.into_iter().map(|(old, _)| old).collect());
    answered(scene, person, place, uids, gone);
}

async fn expunge(house: &House, scene: &Scene, person: usize, place: Place, uids: &[Uid]) {
    ask(scene, person, place, uids, Leaving::Expunged);
    let done = house.mailboxes.expunge(place, uids, ExpungeWhich::All).await;
    answered(scene, person, place, uids, done.map(|done| done.uids));
}

fn ask(scene: &Scene, person: usize, place: Place, uids: &[Uid], how: Leaving) {
    for uid in uids {
        scene.note(|ledger| ledger.leaving(person, place.mailbox, *uid, how));
    }
}

/// Notes the answer. When the store has stopped, nobody knows before the next life.
fn answered(
    scene: &Scene,
    person: usize,
    place: Place,
    asked: &[Uid],
    gone: Result<Vec<Uid>, mailbox::Error>,
) {
    let gone = match gone {
        Ok(gone) => gone,
        Err(mailbox::Error::Commit(CommitError::Fatal(_) | CommitError::Unknown(_))) => return,
        Err(_) => Vec::new(),
    };
    for uid in asked {
        match gone.contains(uid) {
            true => scene.note(|ledger| ledger.left(person, place.mailbox, *uid)),
            false => scene.note(|ledger| ledger.stays(person, place.mailbox, *uid)),
        };
    }
}
