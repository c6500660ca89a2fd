//! Several workers on one queue, some of which stall or die, against a model of a few lines.
//!
//! The model knows of each open errand when it is due and which claim holds it. After every step the
//! queue must say the same: nothing is stuck longer than its lease, only the last claim of an errand
//! can renew, release or settle it, and each errand ends once.
#![allow(clippy::unwrap_used)]

use mail::{EmailAddress, QueueId, ReversePath, Timestamp};
use proptest::prelude::*;
use queue::{Body, Claim, Due, Error, LastOutcome, Message, NewErrand, Options, Outcome, Queue};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::memory::MemoryStore;
use store::{Batch, Blobs, Key, Tables};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const LEASE: Duration = Duration::from_secs(100);

#[derive(Clone, Debug)]
enum Step {
    Accept {
        due_after_secs: Vec<u64>,
    },
    Claim {
        limit: usize,
    },
    /// With an answer that may be old by now.
    ClaimOld,
    Settle {
        which: usize,
        outcome: u8,
    },
    Renew {
        which: usize,
    },
    Release {
        which: usize,
        after_secs: u64,
    },
    Retry {
        which: usize,
    },
    RetryAll,
    Drop {
        which: usize,
    },
    Recover,
    Pass {
        secs: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0usize..50;
    let step = prop_oneof![
        3 => proptest::collection::vec(0u64..200, 1..4).prop_map(|due_after_secs| Step::Accept { due_after_secs }),
        5 => (1usize..5).prop_map(|limit| Step::Claim { limit }),
        2 => Just(Step::ClaimOld),
        6 => (which.clone(), 0u8..6).prop_map(|(which, outcome)| Step::Settle { which, outcome }),
        2 => which.clone().prop_map(|which| Step::Renew { which }),
        2 => (which.clone(), 0u64..90).prop_map(|(which, after_secs)| Step::Release { which, after_secs }),
        1 => which.clone().prop_map(|which| Step::Retry { which }),
        1 => Just(Step::RetryAll),
        1 => which.prop_map(|which| Step::Drop { which }),
        1 => Just(Step::Recover),
        4 => (1u64..120).prop_map(|secs| Step::Pass { secs }),
    ];
    proptest::collection::vec(step, 1..80)
}

/// An open errand.
#[derive(Clone, Copy, Debug)]
struct Open {
    due: Timestamp,
    /// The claim that holds it, by its number.
    holder: Option<usize>,
}

struct World {
    store: Arc<MemoryStore>,
    queue: Queue,
    now: Timestamp,
    open: BTreeMap<(u64, u32), Open>,
    /// Every claim that was ever made: its number is its place.
    claims: Vec<Claim>,
    seen: Vec<Due>,
    accepted: u64,
    messages: u64,
    ended: u64,
}

fn nothing(_: &mut Batch) {}

fn outcome(kind: u8, now: Timestamp) -> Outcome {
    let last = LastOutcome {
        at: now,
        host: None,
        reply: "as it went".to_owned(),
        status: None,
        class: None,
    };
    match kind {
        0 => Outcome::Delivered(last),
        1 => Outcome::Relayed(last),
        2 => Outcome::Bounced(last),
        3 => Outcome::Expired(last),
        _ => Outcome::Deferred {
            next: now.plus(Duration::from_secs(50)),
            last,
            delay_told: false,
            deadline_told: false,
        },
    }
}

impl World {
    fn new() -> Self {
        let store = MemoryStore::new();
        let options = Options {
            lease_for: LEASE,
            ..Options::default()
        };
        Self {
            queue: Queue::new(store.clone(), options),
            store,
            now: START,
            open: BTreeMap::new(),
            claims: Vec::new(),
            seen: Vec::new(),
            accepted: 0,
            messages: 0,
            ended: 0,
        }
    }

    fn in_secs(&self, secs: u64) -> Timestamp {
        self.now.plus(Duration::from_secs(secs))
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Accept { due_after_secs } => self.accept(&due_after_secs).await,
            Step::Claim { limit } => {
                self.seen = self.queue.due(self.now, limit).await.unwrap();
                assert_eq!(self.seen.len(), self.due_now().len().min(limit));
                self.claim().await;
            }
            Step::ClaimOld => self.claim().await,
            Step::Settle { which, outcome } => self.settle(which, outcome).await,
            Step::Renew { which } => {
                if let Some((number, key)) = self.pick_claim(which) {
                    let held = self.holds(number, key);
                    let done = self.queue.renew(&mut self.claims[number], self.now).await;
                    assert_eq!(done, if held { Ok(()) } else { Err(Error::ClaimLost) });
                    if held {
                        self.open.get_mut(&key).unwrap().due = self.now.plus(LEASE);
                    }
                }
            }
            Step::Release { which, after_secs } => {
                if let Some((number, key)) = self.pick_claim(which) {
                    let (held, due) = (self.holds(number, key), self.in_secs(after_secs));
                    let done = self.queue.release(&self.claims[number], due).await;
                    assert_eq!(done, if held { Ok(()) } else { Err(Error::ClaimLost) });
                    if held {
                        self.open.insert(key, Open { due, holder: None });
                    }
                }
            }
            Step::Retry { which } => {
                if let Some(id) = self.pick_message(which) {
                    self.queue.retry(QueueId(id), self.now, &nothing).await.unwrap();
                    let now = self.now;
                    let of_it = self.open.range_mut((id, 0)..=(id, u32::MAX));
                    of_it
                        .filter(|(_, o)| o.holder.is_none())
                        .for_each(|(_, o)| o.due = now);
                }
            }
            Step::RetryAll => {
                let walk = queue::Walk {
                    filter: &queue::Filter::default(),
                    class_of: &|_| String::new(),
                    behind: None,
                    now: self.now,
                };
                let add = &|_: &mut Batch, _, _: &[queue::Errand]| {};
                let retried = self.queue.order_step(walk, &queue::Order::Retry, add).await;
                let retried = retried.unwrap();
                assert_eq!(retried.next, None);
                let now = self.now;
                let free = self.open.values_mut().filter(|o| o.holder.is_none());
                free.for_each(|o| o.due = o.due.min(now));
            }
            Step::Drop { which } => {
                if let Some(id) = self.pick_message(which) {
                    let gone = self
                        .queue
                        .drop(QueueId(id), "admin", self.now, &|_, _| {})
                        .await
                        .unwrap();
                    let before = self.open.len();
                    self.open.retain(|(message, _), _| *message != id);
                    assert_eq!(gone.len(), before - self.open.len());
                    self.ended += gone.len() as u64;
                }
            }
            Step::Recover => {
                let ended = self.queue.recover(self.now).await.unwrap();
                let held: Vec<_> = self.open.values_mut().filter(|o| o.holder.is_some()).collect();
                assert_eq!(ended, held.len());
                for open in held {
                    *open = Open {
                        due: self.now,
                        holder: None,
                    };
                }
            }
            Step::Pass { secs } => self.now = self.in_secs(secs),
        }
    }

    async fn accept(&mut self, due_after_secs: &[u64]) {
        self.messages += 1;
        let id = self.messages;
        let mut writer = self.store.stage(5).await.unwrap();
        writer.write(b"hello").await.unwrap();
        let staged = writer.finish().await.unwrap();
        let message = Message {
            id: QueueId(id),
            reverse_path: ReversePath::Null,
            blob: staged.id,
            blob_len: staged.len,
            prefix: Vec::new(),
            received_at: self.now,
            message_id: None,
            login: None,
            body: Body::SevenBit,
            smtputf8: false,
            envid: None,
            ret: None,
            require_tls: false,
            deliver_by: None,
            priority: mail::delivery::Priority::NORMAL,
        };
        let mut errands = Vec::new();
        for (secs, no) in due_after_secs.iter().zip(0..) {
            let due = self.in_secs(*secs);
            errands.push(NewErrand {
                recipient: EmailAddress::parse("b@c.d").unwrap(),
                original_recipient: None,
                notify: None,
                next_attempt: due,
            });
            self.open.insert((id, no), Open { due, holder: None });
        }
        self.accepted += errands.len() as u64;
        let mut batch = Batch::new();
        self.queue.accept(&mut batch, &message, &errands).unwrap();
        batch.blob(staged);
        self.store.commit(batch).await.unwrap();
    }

    /// Claims what was seen. Exactly what is due by now is got.
    async fn claim(&mut self) {
        let claims = self.queue.claim(&self.seen, self.now).await.unwrap();
        let got: Vec<_> = claims.iter().map(key_of).collect();
        let seen = self.seen.iter().map(|d| (d.message.0, d.no));
        let expected: Vec<_> = seen
            .filter(|key| self.open.get(key).is_some_and(|open| open.due <= self.now))
            .collect();
        assert_eq!(got, expected);
        for claim in claims {
            let open = Open {
                due: self.now.plus(LEASE),
                holder: Some(self.claims.len()),
            };
            self.open.insert(key_of(&claim), open);
            self.claims.push(claim);
        }
    }

    /// Also with claims that are long lost: a worker that stalled and comes back.
    async fn settle(&mut self, which: usize, kind: u8) {
        let Some((number, key)) = self.pick_claim(which) else {
            return;
        };
        let held = self.holds(number, key);
        let outcome = outcome(kind, self.now);
        let done = self
            .queue
            .settle_now(&self.claims[number], &outcome, &nothing)
            .await;
        if !held {
            assert_eq!(done, Err(Error::ClaimLost));
            return;
        }
        done.unwrap();
        if let Outcome::Deferred { next, .. } = outcome {
            self.open.insert(
                key,
                Open {
                    due: next,
                    holder: None,
                },
            );
        } else {
            self.open.remove(&key).expect("it was open");
            self.ended += 1;
        }
    }

    fn holds(&self, number: usize, key: (u64, u32)) -> bool {
        self.open
            .get(&key)
            .is_some_and(|open| open.holder == Some(number))
    }

    fn pick_claim(&self, which: usize) -> Option<(usize, (u64, u32))> {
        let number = which % self.claims.len().max(1);
        // Counted from the newest, so that most are still held.
        let number = self.claims.len().checked_sub(number + 1)?;
        Some((number, key_of(&self.claims[number])))
    }

    fn pick_message(&self, which: usize) -> Option<u64> {
        let place = which % self.open.len().max(1);
        self.open.keys().nth(place).map(|(id, _)| *id)
    }

    fn due_now(&self) -> Vec<(Timestamp, u64, u32)> {
        let due = self.open.iter().filter(|(_, open)| open.due <= self.now);
        let mut due: Vec<_> = due.map(|(key, open)| (open.due, key.0, key.1)).collect();
        due.sort_unstable();
        due
    }

    /// The queue says what the model says.
    async fn check(&self) {
        let due = self.queue.due(self.now, 1_000).await.unwrap();
        let due: Vec<_> = due.iter().map(|d| (d.at, d.message.0, d.no)).collect();
        assert_eq!(due, self.due_now(), "what is due, the longest due first");
        let mut latest = self.queue.due_latest(self.now, 3).await.unwrap();
        latest.reverse();
        let tail = &due[due.len().saturating_sub(3)..];
        assert!(
            latest
                .iter()
                .map(|d| (d.at, d.message.0, d.no))
                .eq(tail.iter().copied())
        );
        let next = self.open.values().map(|open| open.due).min();
        assert_eq!(self.queue.next_due().await.unwrap(), next);
        let later = self
            .open
            .values()
            .map(|open| open.due)
            .filter(|due| *due > self.now);
        assert_eq!(self.queue.next_due_after(self.now).await.unwrap(), later.min());
        let stats = self.queue.stats().await.unwrap();
        assert_eq!(stats.errands, self.open.len() as u64);
        assert_eq!(self.accepted, self.ended + stats.errands, "each ends once");
    }

    /// Everything comes due in the end, whoever died with it, and nothing is left.
    async fn finish(&mut self) {
        while let Some(next) = self.queue.next_due().await.unwrap() {
            assert!(
                next <= self.now.plus(Duration::from_secs(200)),
                "nothing is stuck"
            );
            self.now = self.now.max(next);
            self.seen = self.queue.due(self.now, 1_000).await.unwrap();
            let first = self.claims.len();
            self.claim().await;
            for number in first..self.claims.len() {
                let done = outcome(1, self.now);
                let claim = &self.claims[number];
                self.queue.settle_now(claim, &done, &nothing).await.unwrap();
                self.open.remove(&key_of(claim)).expect("it was open");
                self.ended += 1;
            }
        }
        assert_eq!((self.open.len(), self.ended), (0, self.accepted));
        let snapshot = self.store.snapshot().await.unwrap();
        for table in 0x30..=0x35 {
            let rows = snapshot.scan(&Key::table(table).prefix_range(), 1).await.unwrap();
            assert_eq!(rows, [], "table {table:#x}");
        }
    }
}

fn key_of(claim: &Claim) -> (u64, u32) {
    (claim.errand.message.0, claim.errand.no)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn workers_that_stall_and_die_lose_nothing_and_end_nothing_twice(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
                world.check().await;
            }
            world.finish().await;
        });
    }
}
