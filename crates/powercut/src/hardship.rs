//! Disks that fail without a cut: an error at any operation, syncs that fail, a disk that is full,
//! a bit that is flipped; each at the level of the whole server.

use crate::client::Client;
use crate::engine::{self, Driven};
use crate::era::{Counts, Era, Setting};
use crate::failure::{Failure, What};
use crate::house::{House, PEOPLE};
use crate::ledger::Ledger;
use crate::letter::Size;
use crate::life::{self, FOLDER, Scene};
use crate::run;
use crate::sight::{self, Look};
use mail::{AccountId, Timestamp, Uid};
use mailbox::{ExpungeWhich, Role};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::LogStore;
use store::simulated::{Dice, Fault, SimDisk};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long, in real time, the server may take to notice that room has returned.
const PATIENCE: Duration = Duration::from_secs(20);
/// From one try to the next, in the time of the simulation.
const MOMENT: Duration = Duration::from_millis(100);
/// Letters at most until a disk is full.
const LETTERS_MAX: usize = 10_000;

/// The first life of a seed, with one error of this kind at every `step`-th operation; after each,
/// the end of the process, a second start and a cut.
///
/// # Errors
/// What is broken, and at which operation.
pub fn error_at_every(seed: u64, kind: ErrorKind, step: usize) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    for operation in (1..=run::operations_of(seed)).step_by(step.max(1)) {
        let mut era = Era::new(seed, 1, Setting::default());
        let lived = era.life_with_fault(operation, Fault::Once(kind));
        let looked = lived.and_then(|_| era.look());
        looked.map_err(|failure| Failure {
            about: format!("{kind} at operation {operation}: {}", failure.about),
            ..failure
        })?;
        counts.add(&era.counts());
    }
    Ok(counts)
}

/// A server with one client and everything at hand.
struct Stage {
    house: Arc<House>,
    scene: Arc<Scene>,
    client: Client,
    dice: Dice,
    reception: Arc<receive::Context>,
    sessions: JoinSet<()>,
    stopped: watch::Receiver<bool>,
}

impl Stage {
    async fn connect(&mut self) -> std::io::Result<()> {
        self.client = Client::connect(&self.reception, false, &mut self.sessions, &self.stopped);
        self.client.greet().await
    }

    async fn send(&mut self, size: Size) -> Result<String, Failure> {
        let mut sent = self.client.send(&self.scene, Some(size), &mut self.dice).await;
        if sent.is_err() {
            // A session that is refused too often is ended; the client comes again.
            let connected = self.connect().await;
            connected.map_err(|error| misbehaved(format!("no connection: {error}")))?;
            sent = self.client.send(&self.scene, Some(size), &mut self.dice).await;
        }
        sent.map_err(|error| misbehaved(format!("the server hung up: {error}")))
    }

    /// Sends, and expects this reply.
    async fn expect(&mut self, size: Size, reply: &str, when: &str) -> Result<(), Failure> {
        let said = self.send(size).await?;
        match said.starts_with(reply) {
            true => Ok(()),
            false => Err(misbehaved(format!("{when}: {}", said.trim_end()))),
        }
    }

    /// Sends until this is the reply. Meanwhile the server may say that it can't look things up: a
    /// full disk closes the index for a moment.
    async fn expect_soon(&mut self, size: Size, reply: &str, when: &str) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            let said = self.send(size).await?;
            if said.starts_with(reply) {
                return Ok(());
            }
            if said.starts_with("250 ") || since.elapsed() > PATIENCE {
                return Err(misbehaved(format!("{when}: {}", said.trim_end())));
            }
            tokio::time::sleep(MOMENT).await;
        }
    }

    /// Looks until everything can be read; see [`Stage::expect_soon`].
    async fn look_soon(&self) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            match self.look().await {
                Err(failure) if failure.what == What::Unreadable && since.elapsed() < PATIENCE => {
                    tokio::time::sleep(MOMENT).await;
                }
                looked => return looked,
            }
        }
    }

    fn account(&self, person: usize) -> Result<AccountId, Failure> {
        let account = self.scene.note(|ledger| ledger.account(PEOPLE[person])).flatten();
        account.ok_or_else(|| misbehaved("an account is missing"))
    }

    /// Reads everything that everybody has.
    async fn look(&self) -> Result<(), Failure> {
        for person in 0..PEOPLE.len() {
            let account = self.account(person)?;
            let sights =
                sight::mailboxes(&self.house, &self.scene.ledger, person, account, Look::AtAll).await?;
            self.scene.note(|ledger| ledger.shown(person, &sights));
        }
        Ok(())
    }
}

fn misbehaved(about: impl Into<String>) -> Failure {
    Failure::new(What::Misbehaved, about)
}

/// Runs a scene on a disk, with a server that is driven beside it. `close`: the store is closed in
/// order at its end.
fn play<F>(disk: &SimDisk, scene: &Arc<Scene>, close: bool, act: F) -> Result<(), Failure>
where
    F: AsyncFnOnce(Stage) -> Result<(), Failure>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.map_err(|error| misbehaved(error.to_string()))?;
    runtime.block_on(async {
        let mut dice = Dice::new(7);
        let options = life::options(&mut dice);
        let opened = LogStore::open_stepped(Arc::new(disk.clone()), Path::new(FOLDER), options);
        let (store, mut stepper) = opened.map_err(|error| Failure::unreadable("opening", &error))?;
        let driven = Driven::new(store);
        let drive = engine::drive(driven.clone(), &mut stepper, Dice::new(dice.word()));
        let work = async {
            let began = Timestamp::from_secs(1_795_439_053 + i64::from(close));
            let house = House::over(&driven, began, Dice::new(dice.word()), false);
            let house = Arc::new(house.map_err(|error| misbehaved(error.to_string()))?);
            let furnished = house.furnish(&scene.ledger).await;
            furnished.map_err(|error| misbehaved(error.to_string()))?;
            let reception = house.reception();
            let reception = reception.map_err(|error| misbehaved(error.to_string()))?;
            let mut sessions = JoinSet::new();
            let (_stop, stopped) = watch::channel(false);
            let client = Client::connect(&reception, false, &mut sessions, &stopped);
            let mut stage = Stage {
                house,
                scene: scene.clone(),
                client,
                dice: Dice::new(dice.word()),
                reception,
                sessions,
                stopped,
            };
            let greeted = stage.client.greet().await;
            greeted.map_err(|error| misbehaved(error.to_string()))?;
            act(stage).await
        };
        tokio::select! {
            biased;
            worked = work => worked,
            () = drive => Ok(()),
        }?;
        if close {
            stepper.close();
        }
        first_failure(scene)
    })
}

fn first_failure(scene: &Scene) -> Result<(), Failure> {
    match scene.note(|ledger| ledger.failures.first().cloned()).flatten() {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// What is there after the end of the process, and after a cut behind that.
fn account_for(disk: &SimDisk, scene: &Scene) -> Result<(), Failure> {
    let mut era = Era::resumed(disk.after_kill(), scene.into_ledger());
    era.look()?;
    era.look()
}

/// After a sync that failed nothing is acknowledged any more, also when syncs work again; what was
/// before is there.
///
/// # Errors
/// What is broken.
pub fn failed_sync() -> Result<(), Failure> {
    let disk = SimDisk::default();
    let scene = Scene::new(Ledger::default(), disk.clone(), 1);
    let syncs = disk.clone();
    play(&disk, &scene, false, async move |mut stage| {
        for _ in 0..5 {
            stage.expect(Size::Small, "250 ", "a good disk").await?;
        }
        stage.look().await?;
        syncs.fail_syncs(true);
        for _ in 0..3 {
            stage.expect(Size::Small, "45", "while syncs fail").await?;
        }
        stage.expect(Size::Large, "45", "while syncs fail").await?;
        syncs.fail_syncs(false);
        for _ in 0..3 {
            stage.expect(Size::Small, "45", "after a sync failed").await?;
        }
        // The store has stopped, and serves what it has.
        stage.look_soon().await
    })?;
    account_for(&disk, &scene)
}

/// A full disk is answered with 452 4.3.1; reading and deleting go on; when room returns, mail is
/// taken again, by itself.
///
/// # Errors
/// What is broken.
pub fn full_disk() -> Result<(), Failure> {
    let disk = SimDisk::default();
    let scene = Scene::new(Ledger::default(), disk.clone(), 1);
    let room = disk.clone();
    play(&disk, &scene, false, async move |mut stage| {
        for _ in 0..5 {
            stage.expect(Size::Small, "250 ", "a disk with room").await?;
        }
        stage.look().await?;
        room.set_room(Some(room.used() + 200_000));
        for _ in 0..LETTERS_MAX {
            if !stage.send(Size::Small).await?.starts_with("250 ") {
                break;
            }
        }
        let full = "452 4.3.1";
        // A short one may still fit behind the last; this one does not.
        stage.expect_soon(Size::Middle, full, "the disk is full").await?;
        stage.expect_soon(Size::Large, full, "the disk is full").await?;
        stage.look_soon().await?;
        delete_one(&stage).await?;
        stage.look_soon().await?;
        stage
            .expect_soon(Size::Middle, full, "the disk is still full")
            .await?;
        room.set_room(None);
        let since = Instant::now();
        while !stage.send(Size::Small).await?.starts_with("250 ") {
            if since.elapsed() > PATIENCE {
                return Err(misbehaved("room has returned, and mail is still refused"));
            }
            tokio::time::sleep(MOMENT).await;
        }
        stage.look_soon().await
    })?;
    account_for(&disk, &scene)
}

/// Deletes the first message that anybody has; a store that is busy may ask to come again.
async fn delete_one(stage: &Stage) -> Result<(), Failure> {
    let since = Instant::now();
    for person in 0..PEOPLE.len() {
        let inbox = stage
            .house
            .mailboxes
            .find(stage.account(person)?, Role::Inbox)
            .await;
        let inbox = inbox.map_err(|error| Failure::unreadable("an inbox", &error))?;
        let Some(place) = inbox.map(|inbox| inbox.place()) else {
            continue;
        };
        let entries = stage.house.mailboxes.entries(place, Uid(1), 1).await;
        let entries = entries.map_err(|error| Failure::unreadable("an inbox", &error))?;
        let Some(uid) = entries.first().map(|entry| entry.uid) else {
            continue;
        };
        let how = crate::ledger::Leaving::Expunged;
        stage
            .scene
            .note(|ledger| ledger.leaving(person, place.mailbox, uid, how));
        loop {
            match stage
                .house
                .mailboxes
                .expunge(place, &[uid], ExpungeWhich::All)
                .await
            {
                Ok(done) if done.uids == [uid] => {
                    stage.scene.note(|ledger| ledger.left(person, place.mailbox, uid));
                    return Ok(());
                }
                other if since.elapsed() > PATIENCE => {
                    return Err(misbehaved(format!("deleting on a full disk: {other:?}")));
                }
                _ => tokio::task::yield_now().await,
            }
        }
    }
    Err(misbehaved("nobody has mail"))
}

/// A flipped bit in a stored message is found when it is read, the error names the blob, and all
/// other messages stay readable; new mail comes in.
///
/// # Errors
/// What is broken.
pub fn flipped_bit(size: Size) -> Result<(), Failure> {
    let disk = SimDisk::default();
    let scene = Scene::new(Ledger::default(), disk.clone(), 1);
    play(&disk, &scene, true, async move |mut stage| {
        for size in [Size::Small, size, Size::Small] {
            stage.expect(size, "250 ", "a good disk").await?;
        }
        stage.look().await
    })?;
    // The second letter, wherever it stands.
    let sent = scene
        .note(|ledger| ledger.octets(crate::letter::LetterId(2)))
        .flatten();
    let sent = sent.ok_or_else(|| misbehaved("the letter is unknown"))?;
    let mut flipped = 0;
    for (path, mut octets) in disk.all_files() {
        if let Some(at) = memchr::memmem::find(&octets, &sent[sent.len() / 2..]) {
            octets[at] ^= 1;
            disk.write(&path, &octets);
            flipped += 1;
        }
    }
    if flipped != 1 {
        return Err(misbehaved(format!("the letter stands in {flipped} files")));
    }
    play(&disk, &scene, true, async move |mut stage| {
        let (mut good, mut bad) = (0, 0);
        for person in 0..PEOPLE.len() {
            let inbox = stage
                .house
                .mailboxes
                .find(stage.account(person)?, Role::Inbox)
                .await;
            let inbox = inbox.map_err(|error| Failure::unreadable("an inbox", &error))?;
            let Some(place) = inbox.map(|inbox| inbox.place()) else {
                continue;
            };
            let entries = stage.house.mailboxes.entries(place, Uid(1), 100).await;
            for entry in entries.map_err(|error| Failure::unreadable("an inbox", &error))? {
                match stage.house.mailboxes.read(&entry, 0..entry.size()).await {
                    Ok(_) => good += 1,
                    Err(error) if error.to_string().contains(&entry.blob.to_string()) => bad += 1,
                    Err(error) => return Err(Failure::unreadable("without its name", &error)),
                }
            }
        }
        if bad == 0 || good == 0 {
            return Err(misbehaved(format!("{good} are readable, {bad} are not")));
        }
        stage.expect(Size::Small, "250 ", "behind a flipped bit").await
    })
}
