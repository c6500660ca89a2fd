//! Random sequences of operations against a plain model of mailboxes: UIDs only rise, the modseq
//! never falls, the counters equal what is there, and following the changes gives the same picture.
#![allow(clippy::unwrap_used)]

use mail::{AccountId, ModSeq, Timestamp, Uid};
use mailbox::{Change, Delivery, ExpungeWhich, FlagChange, FlagOp, Flags, Keyword, Mailboxes, Place, Role};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::memory::MemoryStore;
use store::{Batch, Blobs, Tables};

const ACCOUNT: AccountId = AccountId(7);

#[derive(Clone, Debug)]
enum Op {
    Deliver {
        to: usize,
        seen: bool,
        len: usize,
    },
    Flag {
        of: usize,
        uids: Vec<u32>,
        op: FlagOp,
        flags: u8,
        keyword: bool,
    },
    Copy {
        from: usize,
        to: usize,
        uids: Vec<u32>,
    },
    Move {
        from: usize,
        to: usize,
        uids: Vec<u32>,
    },
    Expunge {
        of: usize,
        uids: Vec<u32>,
        which: ExpungeWhich,
    },
    Prune {
        of: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let uids = || proptest::collection::vec(1u32..12, 0..6);
    let of = || 0usize..2;
    let flag_op = prop_oneof![Just(FlagOp::Replace), Just(FlagOp::Add), Just(FlagOp::Remove)];
    let which = prop_oneof![Just(ExpungeWhich::All), Just(ExpungeWhich::Deleted)];
    let op = prop_oneof![
        4 => (of(), any::<bool>(), 1usize..50).prop_map(|(to, seen, len)| Op::Deliver { to, seen, len }),
        3 => (of(), uids(), flag_op, 0u8..32, any::<bool>())
            .prop_map(|(of, uids, op, flags, keyword)| Op::Flag { of, uids, op, flags, keyword }),
        1 => (of(), of(), uids()).prop_map(|(from, to, uids)| Op::Copy { from, to, uids }),
        1 => (of(), of(), uids()).prop_map(|(from, to, uids)| Op::Move { from, to, uids }),
        2 => (of(), uids(), which).prop_map(|(of, uids, which)| Op::Expunge { of, uids, which }),
        1 => of().prop_map(|of| Op::Prune { of }),
    ];
    proptest::collection::vec(op, 1..40)
}

fn flags(bits: u8) -> Flags {
    Flags::NAMES
        .iter()
        .enumerate()
        .filter(|(i, _)| bits & (1 << i) != 0)
        .fold(Flags::NONE, |all, (_, (f, _))| all.with(*f))
}

#[derive(Clone, PartialEq, Debug)]
struct Known {
    flags: Flags,
    keywords: Vec<String>,
    size: u64,
}

#[derive(Default)]
struct Box_ {
    messages: BTreeMap<u32, Known>,
    last_uid: u32,
    last_modseq: u64,
}

/// What a session that follows the changes believes to be there.
#[derive(Default)]
struct Follower {
    messages: BTreeMap<u32, Known>,
    modseq: u64,
}

struct World {
    store: Arc<MemoryStore>,
    boxes: Mailboxes,
    places: [Place; 2],
    model: [Box_; 2],
    followers: [Follower; 2],
}

async fn world() -> World {
    let store = MemoryStore::new();
    let boxes = Mailboxes::new(store.clone());
    let mut batch = Batch::new();
    boxes.create_defaults(&mut batch, ACCOUNT, Timestamp::from_secs(1_800_000_000));
    store.commit(batch).await.unwrap();
    let mut places = Vec::new();
    for role in [Role::Inbox, Role::Junk] {
        places.push(boxes.find(ACCOUNT, role).await.unwrap().unwrap().place());
    }
    World {
        store,
        boxes,
        places: [places[0], places[1]],
        model: Default::default(),
        followers: Default::default(),
    }
}

impl World {
    async fn deliver(&mut self, to: usize, seen: bool, len: usize) {
        let mut writer = self.store.stage(len as u64).await.unwrap();
        writer.write(&vec![b'x'; len]).await.unwrap();
        let staged = writer.finish().await.unwrap();
        let mut batch = Batch::new();
        let delivery = Delivery {
            blob: staged.id,
            blob_len: staged.len,
            prefix: b"Return-Path: <>\r\n".to_vec(),
            flags: if seen { Flags::SEEN } else { Flags::NONE },
            keywords: Vec::new(),
            internal_date: Timestamp(5),
            queue_id: None,
        };
        let delivered = self.boxes.deliver(&mut batch, self.places[to], delivery).unwrap();
        batch.blob(staged);
        let receipt = self.store.commit(batch).await.unwrap();
        let known = Known {
            flags: if seen { Flags::SEEN } else { Flags::NONE },
            keywords: Vec::new(),
            size: len as u64 + 17,
        };
        self.came(to, delivered.uid(&receipt), known);
    }

    fn came(&mut self, to: usize, uid: Uid, known: Known) {
        let model = &mut self.model[to];
        assert!(uid.0 > model.last_uid, "UIDs only rise");
        model.last_uid = uid.0;
        model.messages.insert(uid.0, known);
    }

    async fn flag(&mut self, of: usize, uids: &[u32], op: FlagOp, bits: u8, keyword: bool) {
        let named: Vec<Uid> = uids.iter().map(|u| Uid(*u)).collect();
        let keywords: Vec<Keyword> = keyword
            .then(|| Keyword::parse("$Later").unwrap())
            .into_iter()
            .collect();
        let change = FlagChange {
            op,
            flags: flags(bits),
            keywords,
            unchanged_since: None,
        };
        let done = self
            .boxes
            .store_flags(self.places[of], &named, &change)
            .await
            .unwrap();
        for uid in uids {
            if let Some(known) = self.model[of].messages.get_mut(uid) {
                match op {
                    FlagOp::Replace => {
                        known.flags = flags(bits);
                        known.keywords = if keyword {
                            vec!["$Later".into()]
                        } else {
                            Vec::new()
                        };
                    }
                    FlagOp::Add => {
                        known.flags = known.flags.with(flags(bits));
                        if keyword && known.keywords.is_empty() {
                            known.keywords.push("$Later".into());
                        }
                    }
                    FlagOp::Remove => {
                        known.flags = known.flags.without(flags(bits));
                        if keyword {
                            known.keywords.clear();
                        }
                    }
                }
            }
        }
        for entry in done.entries {
            assert_eq!(self.model[of].messages[&entry.uid.0], known(&entry));
            let stored = self
                .boxes
                .entry(self.places[of], entry.uid)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(stored, entry, "what is answered is what is stored");
        }
    }

    async fn transfer(&mut self, from: usize, to: usize, uids: &[u32], moving: bool) {
        let named: Vec<Uid> = uids.iter().map(|u| Uid(*u)).collect();
        let (source, target) = (self.places[from], self.places[to]);
        let moved = if moving {
            self.boxes.move_(source, &named, target).await.unwrap()
        } else {
            self.boxes.copy(source, &named, target).await.unwrap()
        };
        let mut expected: Vec<u32> = uids
            .iter()
            .copied()
            .filter(|u| self.model[from].messages.contains_key(u))
            .collect();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(
            moved.uids.iter().map(|(old, _)| old.0).collect::<Vec<_>>(),
            expected
        );
        for (old, new) in moved.uids {
            let known = if moving {
                self.model[from].messages.remove(&old.0).unwrap()
            } else {
                self.model[from].messages[&old.0].clone()
            };
            self.came(to, new, known);
        }
    }

    async fn expunge(&mut self, of: usize, uids: &[u32], which: ExpungeWhich) {
        let named: Vec<Uid> = uids.iter().map(|u| Uid(*u)).collect();
        let done = self.boxes.expunge(self.places[of], &named, which).await.unwrap();
        let gone: Vec<u32> = done.uids.iter().map(|u| u.0).collect();
        for uid in uids {
            let matches = self.model[of]
                .messages
                .get(uid)
                .is_some_and(|k| which == ExpungeWhich::All || k.flags.has(Flags::DELETED));
            if matches {
                assert!(gone.contains(uid));
                self.model[of].messages.remove(uid);
            }
        }
    }

    async fn run(&mut self, op: &Op) {
        match op {
            Op::Deliver { to, seen, len } => self.deliver(*to, *seen, *len).await,
            Op::Flag {
                of,
                uids,
                op,
                flags,
                keyword,
            } => self.flag(*of, uids, *op, *flags, *keyword).await,
            Op::Copy { from, to, uids } => self.transfer(*from, *to, uids, false).await,
            Op::Move { from, to, uids } => self.transfer(*from, *to, uids, true).await,
            Op::Expunge { of, uids, which } => self.expunge(*of, uids, *which).await,
            Op::Prune { of } => {
                // Only what the follower knows already, so that it stays complete.
                let before = ModSeq(self.followers[*of].modseq);
                self.boxes
                    .prune_expunged(self.places[*of], before, 100)
                    .await
                    .unwrap();
            }
        }
    }

    async fn check(&mut self) {
        let mut all_octets = 0;
        for i in 0..2 {
            let status = self.boxes.status(self.places[i]).await.unwrap();
            let model = &mut self.model[i];
            assert_eq!(status.messages, model.messages.len() as u64);
            let unseen = model
                .messages
                .values()
                .filter(|k| !k.flags.has(Flags::SEEN))
                .count();
            assert_eq!(status.unseen, unseen as u64);
            let octets: u64 = model.messages.values().map(|k| k.size).sum();
            assert_eq!(status.octets, octets);
            all_octets += octets;
            assert_eq!(status.uid_next.0, model.last_uid + 1);
            assert!(
                status.highest_modseq.0 >= model.last_modseq.max(1),
                "the modseq never falls"
            );
            model.last_modseq = status.highest_modseq.0;
            let entries = self.boxes.entries(self.places[i], Uid(1), 1000).await.unwrap();
            let there: BTreeMap<u32, Known> = entries.iter().map(|e| (e.uid.0, known(e))).collect();
            assert_eq!(there, model.messages);
            assert!(entries.iter().all(|e| e.modseq <= status.highest_modseq));
        }
        assert_eq!(self.boxes.usage(ACCOUNT).await.unwrap(), all_octets);
        let mut found = Vec::new();
        let snapshot = self.store.snapshot().await.unwrap();
        let name = |id: AccountId| id.0.to_string();
        let audited = mailbox::audit(snapshot.as_ref(), &name, &mut |f| found.push(f)).await;
        assert_eq!(audited.unwrap().octets, all_octets);
        assert_eq!(found, []);
    }

    async fn follow(&mut self, limit: usize) {
        for i in 0..2 {
            loop {
                let since = ModSeq(self.followers[i].modseq);
                let told = self
                    .boxes
                    .changes_since(self.places[i], since, limit)
                    .await
                    .unwrap();
                assert!(told.complete);
                let follower = &mut self.followers[i];
                for change in told.changes {
                    match change {
                        Change::Expunged(uid) => drop(follower.messages.remove(&uid.0)),
                        Change::Flags(e) => {
                            assert!(
                                follower.messages.insert(e.uid.0, known(&e)).is_some(),
                                "was told before"
                            );
                        }
                        Change::Arrived(e) => drop(follower.messages.insert(e.uid.0, known(&e))),
                    }
                }
                assert!(told.highest_modseq.0 > since.0 || !told.more, "each page goes on");
                follower.modseq = told.highest_modseq.0;
                if !told.more {
                    break;
                }
            }
            assert_eq!(self.followers[i].messages, self.model[i].messages);
        }
    }
}

fn known(e: &mailbox::Entry) -> Known {
    Known {
        flags: e.flags,
        keywords: e.keywords.iter().map(|k| k.as_str().to_owned()).collect(),
        size: e.size(),
    }
}

fn block_on<F: Future>(f: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(f)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn agrees_with_the_model(ops in ops(), limit in 1usize..5, follow_every in 1usize..8) {
        block_on(async {
            let mut world = world().await;
            for (n, op) in ops.iter().enumerate() {
                world.run(op).await;
                world.check().await;
                if n % follow_every == 0 {
                    world.follow(limit).await;
                }
            }
            world.follow(limit).await;
        });
    }
}

#[test]
fn a_late_client_finds_the_first_arrival_by_search() {
    block_on(async {
        let mut world = world().await;
        for _ in 0..300 {
            world.deliver(0, false, 3).await;
        }
        world
            .expunge(0, &(100..180).collect::<Vec<_>>(), ExpungeWhich::All)
            .await;
        let all = world.boxes.entries(world.places[0], Uid(1), 1000).await.unwrap();
        for since in [
            0, 1, 2, 50, 99, 100, 101, 150, 180, 181, 236, 237, 238, 299, 300, 301,
        ] {
            let told = world
                .boxes
                .changes_since(world.places[0], ModSeq(since), 1000)
                .await
                .unwrap();
            let arrived: Vec<u32> = told
                .changes
                .iter()
                .filter_map(|c| {
                    if let Change::Arrived(e) = c {
                        Some(e.uid.0)
                    } else {
                        None
                    }
                })
                .collect();
            let expected: Vec<u32> = all
                .iter()
                .filter(|e| e.arrived_modseq.0 > since)
                .map(|e| e.uid.0)
                .collect();
            assert_eq!(arrived, expected, "since {since}");
        }
    });
}
