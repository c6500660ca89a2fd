//! One life of the server: it opens what the disk kept, everything is checked, it works under load,
//! and the power goes.

use crate::check;
use crate::client::Client;
use crate::engine::{self, Driven};
use crate::failure::{Failure, What};
use crate::house::{House, PEOPLE};
use crate::ledger::Ledger;
use crate::next_server::Net;
use crate::reader;
use mail::{Clock, Timestamp};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::simulated::{Dice, Fault, SimDisk};
use store::{LogStore, Options, Stats};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// The folder of the store on the simulated disk.
pub const FOLDER: &str = "/home/posthaste/store";
/// How long deliveries may go on when all is sent and read.
const AFTERGLOW: Duration = Duration::from_secs(45 * 60);

/// How one life goes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything is drawn from.
    pub dice: Dice,
    /// Its number in its era.
    pub life: u64,
    /// The disk operation at which the power goes; none: it goes when all is quiet.
    pub cut_at: Option<u64>,
    /// The fault that the disk meets instead of a cut; then the server may refuse everything.
    pub fault: Option<(u64, Fault)>,
    /// Reception answers before the batch is durable.
    pub hasty: bool,
    /// Whether anything is done but to open, check and close again.
    pub idle: bool,
    /// When it begins.
    pub began: Timestamp,
}

/// How a life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The power went while the store was being opened.
    CutInRecovery,
    /// The power went under way.
    Cut,
    /// All was done.
    Quiet,
    /// All was done and the store closed in order.
    Closed,
    /// The store or the server gave up, because of the fault that was planned.
    GaveUp,
}

/// Why a life went no further.
enum Trouble {
    /// The server refused: right when its disk fails, wrong otherwise.
    Refused(String),
    /// A promise is broken.
    Broken(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Broken(failure)
    }
}

fn refused(error: impl std::fmt::Display) -> Trouble {
    Trouble::Refused(error.to_string())
}

fn panicked(error: tokio::task::JoinError) -> Trouble {
    Trouble::Broken(Failure::new(What::Misbehaved, error.to_string()))
}

/// What the tasks of a life share.
pub struct Scene {
    /// The account.
    pub ledger: Mutex<Ledger>,
    disk: SimDisk,
    /// Its number in its era.
    pub life: u64,
    /// The store, once it is open.
    store: Mutex<Option<Arc<LogStore>>>,
}

impl Scene {
    /// A life on this disk.
    #[must_use]
    pub fn new(ledger: Ledger, disk: SimDisk, life: u64) -> Arc<Self> {
        let ledger = Mutex::new(ledger);
        let store = Mutex::default();
        Arc::new(Self {
            ledger,
            disk,
            life,
            store,
        })
    }

    /// Whether there is still power; without it nothing happens any more.
    #[must_use]
    pub fn has_power(&self) -> bool {
        !self.disk.has_lost_power()
    }

    /// Notes something in the ledger, while there is power.
    pub fn note<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
        self.has_power()
            .then(|| work(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Notes a broken promise, while there is power.
    pub fn fail(&self, failure: Failure) {
        self.note(|ledger| ledger.failures.push(failure));
    }

    /// The store's figures, as far as it got; it ends with this.
    #[must_use]
    pub fn figures(&self) -> Stats {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.take().map(|store| store.stats()).unwrap_or_default()
    }

    /// Takes the account out.
    #[must_use]
    pub fn into_ledger(&self) -> Ledger {
        std::mem::take(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Small segments and rare hand-overs to the index, so that every kind of work happens often.
#[must_use]
pub fn options(dice: &mut Dice) -> Options {
    Options {
        segment_octets: *dice.pick(&[16 << 10, 48 << 10, 256 << 10]).unwrap_or(&(16 << 10)),
        apply_octets: *dice.pick(&[1, 8 << 10, 64 << 10]).unwrap_or(&1),
        apply_interval: Duration::from_secs(86_400),
        overlay_octets: 1 << 20,
        index_cache_octets: 1 << 20,
        reserve_octets: 16 << 10,
        spare_segments: dice.below(4) as usize,
        collect_below_percent: *dice.pick(&[0, 50, 50, 80]).unwrap_or(&50),
        // As fast as it can: pauses are in real time, and those can't be repeated.
        collect_octets_per_second: u64::MAX,
        identity: Some(0x5eed),
        ..Options::default()
    }
}

/// Lives one life on a disk. Answers how it ended and what time it is then.
///
/// # Errors
/// Whatever is broken. Failures in the ledger of the scene count, too.
pub fn live(plan: &Plan, scene: &Arc<Scene>) -> Result<(End, Timestamp), Failure> {
    let broken = |error: std::io::Error| Failure::new(What::Misbehaved, error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(broken)?;
    let cut = Arc::new(Notify::new());
    let alarm = cut.clone();
    scene.disk.at_power_loss(move || alarm.notify_one());
    if let Some(at) = plan.cut_at {
        scene.disk.fail_at(at, Fault::PowerLoss);
    }
    if let Some((at, fault)) = plan.fault {
        scene.disk.fail_at(at, fault);
    }
    let mut now = plan.began;
    let ended = runtime.block_on(async {
        tokio::select! {
            biased;
            () = cut.notified() => Ok(End::Cut),
            ended = story(plan, scene, &mut now) => ended,
        }
    });
    // Whatever was still said after the power went, nobody heard.
    let ended = match ended {
        Ok(End::CutInRecovery) => End::CutInRecovery,
        _ if !scene.has_power() => End::Cut,
        Ok(end) => end,
        Err(Trouble::Refused(_)) if plan.fault.is_some() => End::GaveUp,
        Err(Trouble::Refused(why)) => return Err(Failure::new(What::Misbehaved, why)),
        Err(Trouble::Broken(failure)) => return Err(failure),
    };
    Ok((ended, now.plus(Duration::from_secs(1))))
}

async fn story(plan: &Plan, scene: &Arc<Scene>, now: &mut Timestamp) -> Result<End, Trouble> {
    let mut dice = plan.dice.clone();
    let opened = LogStore::open_stepped(
        Arc::new(scene.disk.clone()),
        Path::new(FOLDER),
        options(&mut dice),
    );
    let (store, stepper) = match opened {
        Ok(opened) => opened,
        Err(_) if !scene.has_power() => return Ok(End::CutInRecovery),
        Err(error) if plan.fault.is_some() => return Err(refused(error)),
        Err(error) => return Err(Failure::unreadable("opening", &error).into()),
    };
    if let Some(damage) = store.damage().first() {
        return Err(Failure::new(What::Half, format!("damage: {damage:?}")).into());
    }
    *scene.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.clone());
    let driven = Driven::new(store);
    let house = House::over(&driven, plan.began, Dice::new(dice.word()), plan.hasty);
    let house = Arc::new(house.map_err(refused)?);
    check::after_cut(&house, &scene.ledger).await?;
    let mut stepper = stepper;
    let worked = {
        let drive = engine::drive(driven.clone(), &mut stepper, Dice::new(dice.word()));
        let work = work(plan, scene, &house, &mut dice);
        tokio::select! {
            biased;
            worked = work => worked,
            () = drive => Ok(()),
        }
    };
    *now = house.clock.now();
    worked?;
    if dice.chance(1, 4) {
        stepper.close();
        return Ok(End::Closed);
    }
    Ok(End::Quiet)
}

/// Clients, readers and the delivery service, until all is done.
async fn work(plan: &Plan, scene: &Arc<Scene>, house: &Arc<House>, dice: &mut Dice) -> Result<(), Trouble> {
    house.furnish(&scene.ledger).await.map_err(refused)?;
    if plan.idle {
        return Ok(());
    }
    let reception = house.reception().map_err(refused)?;
    let delivery = house
        .delivery(Net::new(scene.clone(), Dice::new(dice.word())))
        .map_err(refused)?;
    let (stop, stopped) = watch::channel(false);
    let mut servers = JoinSet::new();
    let mut clients = Vec::new();
    for n in 0..2 + dice.below(4) {
        let mut client = Client::connect(&reception, n < 2, &mut servers, &stopped);
        // One at a time: a password is checked on a thread of its own, and nothing else may happen
        // meanwhile, or no run could be repeated.
        client.greet().await.map_err(refused)?;
        clients.push(client);
    }
    servers.spawn(deliver::run(delivery, stopped));
    let mut people = JoinSet::new();
    for client in clients {
        people.spawn(client.work(scene.clone(), Dice::new(dice.word())));
    }
    let accounts = PEOPLE.map(|name| scene.note(|ledger| ledger.account(name)).flatten());
    for (person, account) in accounts.into_iter().enumerate() {
        if let Some(account) = account {
            let dice = Dice::new(dice.word());
            people.spawn(reader::work(house.clone(), scene.clone(), person, account, dice));
        }
    }
    while let Some(ended) = people.join_next().await {
        ended.map_err(panicked)?;
    }
    // What is queued goes its way, or some of it.
    let afterglow = AFTERGLOW.mul_f64(dice.below(3) as f64 / 2.0);
    tokio::time::sleep(afterglow).await;
    if dice.chance(1, 2) {
        // A second that sees the outcomes.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stop.send_replace(true);
    while let Some(ended) = servers.join_next().await {
        ended.map_err(panicked)?;
    }
    Ok(())
}
