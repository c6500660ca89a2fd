//! The account of what was told to anyone, held against what is found.
//!
//! Told is: a 250, what a mailbox or the queue showed, what the next server was handed. Whatever
//! was seen counts as promised, because the store shows nothing before it is durable.
//!
//! Never: a guess. What was asked for and not answered may have happened or not; what the next
//! life finds decides, and from then on it is as fixed as everything else.

use crate::failure::{Failure, What};
use crate::letter::LetterId;
use mail::{AccountId, MailboxId, ModSeq, Uid, UidValidity};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whether a letter was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It was sent; nobody knows.
    Unknown,
    /// It was acknowledged, or seen.
    Promised,
    /// It was not there when the next life looked; it must never be.
    Never,
}

/// A change that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaving {
    /// Out of the mailbox for good.
    Expunged,
    /// Into another mailbox of the same person.
    Moved,
}

/// A recipient elsewhere.
#[derive(Clone, Default, Debug)]
struct There {
    /// How often the next server took it.
    taken: u64,
    /// The life in which it last did.
    taken_in: u64,
    /// The next server hung up instead of saying so, or our record of it was lost with the power.
    unsure: bool,
    /// The next server hung up the last time.
    hung_up: bool,
    /// A report of the failure was seen.
    reported: bool,
    /// No errand was left for it.
    closed: bool,
}

/// A letter and its recipients.
#[derive(Clone, Debug)]
struct Letter {
    /// Until nobody has it any more.
    octets: Option<Arc<[u8]>>,
    standing: Standing,
    /// Recipients here, by number, and whether they have removed it.
    here: BTreeMap<usize, bool>,
    there: BTreeMap<String, There>,
}

/// What a message in a mailbox is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// A letter.
    Letter(LetterId),
    /// The report that a letter failed for a recipient.
    Report(LetterId, String),
}

/// A message as a reader sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its UID.
    pub uid: Uid,
    /// Its modification sequence.
    pub modseq: ModSeq,
    /// Whether it has `\Seen`.
    pub flagged: bool,
    /// What it is.
    pub subject: Subject,
}

/// A mailbox as a reader sees it.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Which.
    pub mailbox: MailboxId,
    /// Its UIDVALIDITY.
    pub validity: UidValidity,
    /// Its UIDNEXT.
    pub uid_next: Uid,
    /// Its HIGHESTMODSEQ.
    pub modseq: ModSeq,
    /// What is in it, rising.
    pub entries: Vec<Seen>,
}

#[derive(Clone, Debug)]
struct Known {
    subject: Subject,
    modseq: ModSeq,
    flagged: bool,
    leaving: Option<Leaving>,
}

/// What was seen of a mailbox.
#[derive(Clone, Debug)]
struct Memory {
    validity: UidValidity,
    uid_next: Uid,
    modseq: ModSeq,
    known: BTreeMap<Uid, Known>,
}

/// How much was promised and found; what a run adds up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Tally {
    /// Letters that were acknowledged with 250.
    pub acknowledged: u64,
    /// Letters that were sent and not acknowledged before the power went, and were there.
    pub unacknowledged_kept: u64,
    /// The same, and were not there.
    pub unacknowledged_gone: u64,
    /// Recipients elsewhere whose server took a letter.
    pub relayed: u64,
    /// Recipients whose server got a letter again because the power went between its 250 and our
    /// record of it (RFC 1047).
    pub relayed_again_after_cut: u64,
    /// The same, because it hung up instead of saying 250.
    pub relayed_again_after_hang_up: u64,
    /// Reports of failures.
    pub reported: u64,
    /// Deletions that were answered.
    pub expunged: u64,
    /// Messages that were read whole after a cut and compared.
    pub compared: u64,
}

/// The account of one era.
#[derive(Clone, Default, Debug)]
pub struct Ledger {
    letters: BTreeMap<LetterId, Letter>,
    people: BTreeMap<String, AccountId>,
    boxes: BTreeMap<(usize, MailboxId), Memory>,
    next: u64,
    /// What was found to be broken.
    pub failures: Vec<Failure>,
    /// How much there was.
    pub tally: Tally,
}

impl Ledger {
    fn fail(&mut self, what: What, about: impl Into<String>) {
        self.failures.push(Failure::new(what, about));
    }

    /// A number for the next letter.
    pub fn next_letter(&mut self) -> LetterId {
        self.next += 1;
        LetterId(self.next)
    }

    /// An account was made, or found: its number stays.
    pub fn lives_here(&mut self, name: &str, id: AccountId) {
        if *self.people.entry(name.to_owned()).or_insert(id) != id {
            self.fail(What::Numbers, format!("{name} has another account number"));
        }
    }

    /// The number of an account that was made before.
    #[must_use]
    pub fn account(&self, name: &str) -> Option<AccountId> {
        self.people.get(name).copied()
    }

    /// A letter is about to be sent.
    pub fn sending(
        &mut self,
        id: LetterId,
        octets: Arc<[u8]>,
        here: BTreeSet<usize>,
        there: BTreeSet<String>,
    ) {
        let letter = Letter {
            octets: Some(octets),
            standing: Standing::Unknown,
            here: here.into_iter().map(|person| (person, false)).collect(),
            there: there.into_iter().map(|to| (to, There::default())).collect(),
        };
        self.letters.insert(id, letter);
    }

    /// A letter was answered with 250.
    pub fn acknowledged(&mut self, id: LetterId) {
        self.tally.acknowledged += 1;
        if let Some(letter) = self.letters.get_mut(&id) {
            letter.standing = Standing::Promised;
        }
    }

    /// The octets of a letter, while somebody has it.
    #[must_use]
    pub fn octets(&self, id: LetterId) -> Option<Arc<[u8]>> {
        self.letters.get(&id)?.octets.clone()
    }

    /// The next server takes a letter for a recipient, and says so unless it is `unsure`.
    pub fn taken(&mut self, id: LetterId, to: &str, life: u64, unsure: bool) {
        let Some(letter) = self.letters.get_mut(&id) else {
            return self.fail(What::Misbehaved, format!("{to} got {id:?}, which nobody sent"));
        };
        let never = letter.standing == Standing::Never;
        letter.standing = Standing::Promised;
        let Some(there) = letter.there.get_mut(to) else {
            return self.fail(What::Misbehaved, format!("{to} got {id:?}, which was for others"));
        };
        let again = there.taken > 0;
        let excused = there.unsure || there.taken_in < life;
        let closed = there.closed;
        there.taken += 1;
        there.taken_in = life;
        there.unsure = unsure;
        let after_hang_up = std::mem::replace(&mut there.hung_up, unsure);
        self.tally.relayed += 1;
        self.tally.relayed_again_after_cut += u64::from(again && !after_hang_up);
        self.tally.relayed_again_after_hang_up += u64::from(again && after_hang_up);
        if never || closed {
            self.fail(
                What::CameBack,
                format!("{id:?} went to {to} although its errand had ended"),
            );
        } else if again && !excused {
            self.fail(What::Twice, format!("{id:?} went to {to} twice in one life"));
        }
    }

    /// The open errands, as the queue shows them now.
    pub fn queue_shows(&mut self, open: &BTreeSet<(LetterId, String)>) {
        let mut came_back = Vec::new();
        for (id, letter) in &mut self.letters {
            for (to, there) in &mut letter.there {
                let is_open = open.contains(&(*id, to.clone()));
                if is_open {
                    if there.closed || letter.standing == Standing::Never {
                        came_back.push(format!("the errand of {id:?} for {to} is open again"));
                    }
                    letter.standing = Standing::Promised;
                } else if letter.standing == Standing::Promised {
                    there.closed = true;
                }
            }
        }
        for about in came_back {
            self.fail(What::CameBack, about);
        }
        let unknown = open.iter().find(|(id, to)| {
            let letter = self.letters.get(id);
            letter.is_none_or(|letter| !letter.there.contains_key(to))
        });
        if let Some((id, to)) = unknown {
            self.fail(
                What::Misbehaved,
                format!("the queue has {id:?} for {to}, which nobody sent"),
            );
        }
    }

    /// What is in a mailbox at this UID, when that was seen before.
    #[must_use]
    pub fn known(&self, person: usize, mailbox: MailboxId, uid: Uid) -> Option<Subject> {
        let memory = self.boxes.get(&(person, mailbox))?;
        memory.known.get(&uid).map(|known| known.subject.clone())
    }

    /// A message is asked to leave its mailbox.
    pub fn leaving(&mut self, person: usize, mailbox: MailboxId, uid: Uid, how: Leaving) {
        if let Some(known) = self.known_mut(person, mailbox, uid) {
            // An earlier request without an answer may have happened, and a later one can't then.
            known.leaving.get_or_insert(how);
        }
    }

    /// The answer: it has not left, for sure.
    pub fn stays(&mut self, person: usize, mailbox: MailboxId, uid: Uid) {
        if let Some(known) = self.known_mut(person, mailbox, uid) {
            known.leaving = None;
        }
    }

    /// The answer: it has left.
    pub fn left(&mut self, person: usize, mailbox: MailboxId, uid: Uid) {
        let memory = self.boxes.get_mut(&(person, mailbox));
        let Some(known) = memory.and_then(|memory| memory.known.remove(&uid)) else {
            return;
        };
        self.tally.expunged += u64::from(known.leaving == Some(Leaving::Expunged));
        self.gone(person, &known);
    }

    /// A message was flagged, and that was answered.
    pub fn flagged(&mut self, person: usize, mailbox: MailboxId, uid: Uid) {
        if let Some(known) = self.known_mut(person, mailbox, uid) {
            known.flagged = true;
        }
    }

    fn known_mut(&mut self, person: usize, mailbox: MailboxId, uid: Uid) -> Option<&mut Known> {
        self.boxes.get_mut(&(person, mailbox))?.known.get_mut(&uid)
    }

    /// What it means that a message has left a mailbox.
    fn gone(&mut self, person: usize, known: &Known) {
        let (Subject::Letter(id) | Subject::Report(id, _)) = &known.subject;
        let Some(letter) = self.letters.get_mut(id) else {
            return;
        };
        match (&known.subject, known.leaving) {
            (Subject::Letter(_), Some(Leaving::Expunged)) => {
                if let Some(removed) = letter.here.get_mut(&person) {
                    *removed = true;
                }
            }
            // It turns up again in the other mailbox.
            (Subject::Report(_, to), Some(Leaving::Moved)) => {
                if let Some(there) = letter.there.get_mut(to) {
                    there.reported = false;
                    self.tally.reported -= 1;
                }
            }
            _ => {}
        }
    }

    /// All mailboxes of a person, as they are shown now.
    pub fn shown(&mut self, person: usize, sights: &[Sight]) {
        for sight in sights {
            self.held_against_memory(person, sight);
        }
        for sight in sights {
            self.newcomers(person, sight);
        }
    }

    /// What was known must be there still.
    fn held_against_memory(&mut self, person: usize, sight: &Sight) {
        let place = (person, sight.mailbox);
        let Some(memory) = self.boxes.get_mut(&place) else {
            self.boxes.insert(
                place,
                Memory {
                    validity: sight.validity,
                    uid_next: Uid(1),
                    modseq: sight.modseq,
                    known: BTreeMap::new(),
                },
            );
            return;
        };
        let mut broken = Vec::new();
        let numbers = |what: &str| (What::Numbers, format!("{place:?}: {what}"));
        if memory.validity != sight.validity {
            broken.push(numbers("UIDVALIDITY changed"));
        }
        if sight.uid_next < memory.uid_next {
            broken.push(numbers("UIDNEXT fell"));
        }
        if sight.modseq < memory.modseq {
            broken.push(numbers("HIGHESTMODSEQ fell"));
        }
        (memory.uid_next, memory.modseq) = (memory.uid_next.max(sight.uid_next), sight.modseq);
        let mut gone = Vec::new();
        let known_before = std::mem::take(&mut memory.known);
        for (uid, mut known) in known_before {
            let Ok(at) = sight.entries.binary_search_by_key(&uid, |seen| seen.uid) else {
                match known.leaving {
                    Some(_) => gone.push(known),
                    None => broken.push((
                        What::Lost,
                        format!("{place:?}: {uid:?}, {:?}, is gone", known.subject),
                    )),
                }
                continue;
            };
            let seen = &sight.entries[at];
            if seen.subject != known.subject {
                let about = format!(
                    "{place:?}: {uid:?} was {:?} and is {:?}",
                    known.subject, seen.subject
                );
                broken.push((What::Numbers, about));
            }
            if seen.modseq < known.modseq {
                broken.push(numbers("the modification sequence of a message fell"));
            }
            if known.flagged && !seen.flagged {
                broken.push((What::Lost, format!("{place:?}: {uid:?} lost its flag")));
            }
            known = Known {
                modseq: seen.modseq,
                flagged: seen.flagged,
                ..known
            };
            memory.known.insert(uid, known);
        }
        for known in gone {
            self.gone(person, &known);
        }
        for (what, about) in broken {
            self.fail(what, about);
        }
    }

    /// What was not known must be new, and once.
    fn newcomers(&mut self, person: usize, sight: &Sight) {
        let place = (person, sight.mailbox);
        for seen in &sight.entries {
            let Some(memory) = self.boxes.get(&place) else {
                continue;
            };
            if memory.known.contains_key(&seen.uid) {
                continue;
            }
            if seen.uid >= sight.uid_next {
                self.fail(
                    What::Numbers,
                    format!("{place:?}: {:?} is not below UIDNEXT", seen.uid),
                );
            }
            self.newcomer(person, seen);
            let known = Known {
                subject: seen.subject.clone(),
                modseq: seen.modseq,
                flagged: seen.flagged,
                leaving: None,
            };
            if let Some(memory) = self.boxes.get_mut(&place) {
                memory.known.insert(seen.uid, known);
            }
        }
    }

    fn newcomer(&mut self, person: usize, seen: &Seen) {
        if self.copies(person, &seen.subject) > 0 {
            self.fail(
                What::Twice,
                format!("person {person} has {:?} twice", seen.subject),
            );
        }
        let (Subject::Letter(id) | Subject::Report(id, _)) = &seen.subject;
        let Some(letter) = self.letters.get_mut(id) else {
            return self.fail(What::Misbehaved, format!("{:?} is about nothing", seen.subject));
        };
        let never = letter.standing == Standing::Never;
        letter.standing = Standing::Promised;
        let broken = match &seen.subject {
            Subject::Letter(_) => match letter.here.get(&person) {
                None => Some((What::Misbehaved, "was for others")),
                Some(true) => Some((What::CameBack, "was expunged")),
                Some(false) => never.then_some((What::CameBack, "was not there before")),
            },
            Subject::Report(_, to) => match letter.there.get_mut(to) {
                None => Some((What::Misbehaved, "was never sent there")),
                Some(there) if there.reported => Some((What::Twice, "was reported before")),
                Some(there) => {
                    there.reported = true;
                    self.tally.reported += 1;
                    None
                }
            },
        };
        if let Some((what, why)) = broken {
            self.fail(
                what,
                format!("person {person} has {:?}, which {why}", seen.subject),
            );
        }
    }

    /// How often a person has something.
    fn copies(&self, person: usize, subject: &Subject) -> usize {
        let of_person = self
            .boxes
            .range((person, MailboxId(0))..=(person, MailboxId(u64::MAX)));
        of_person
            .flat_map(|(_, memory)| memory.known.values())
            .filter(|known| known.subject == *subject)
            .count()
    }

    /// After a life: everything was shown; what is promised must be there, and what is not settles.
    pub fn settle(&mut self) {
        // What is still in its mailbox now has not left.
        for known in self
            .boxes
            .values_mut()
            .flat_map(|memory| memory.known.values_mut())
        {
            known.leaving = None;
        }
        let mut shown: BTreeMap<(usize, LetterId), usize> = BTreeMap::new();
        for ((person, _), memory) in &self.boxes {
            for known in memory.known.values() {
                if let Subject::Letter(id) = known.subject {
                    *shown.entry((*person, id)).or_default() += 1;
                }
            }
        }
        let mut broken = Vec::new();
        for (id, letter) in &mut self.letters {
            match letter.standing {
                Standing::Never => continue,
                Standing::Unknown => {
                    // Nothing of it was seen anywhere, or it would be promised.
                    letter.standing = Standing::Never;
                    letter.octets = None;
                    self.tally.unacknowledged_gone += 1;
                    continue;
                }
                Standing::Promised => {}
            }
            let mut over = true;
            for (person, removed) in &letter.here {
                let copies = shown.get(&(*person, *id)).copied().unwrap_or(0);
                over &= *removed;
                if copies != usize::from(!*removed) {
                    let what = if copies == 0 { What::Lost } else { What::Twice };
                    broken.push((what, format!("person {person} has {copies} of {id:?}")));
                }
            }
            for (to, there) in &mut letter.there {
                over &= there.closed;
                // The power went between the next server's 250 and our record of it.
                there.unsure |= !there.closed && there.taken > 0;
                if there.closed && there.taken == 0 && !there.reported {
                    broken.push((What::Lost, format!("{id:?} for {to} ended without an outcome")));
                }
                if there.reported && there.taken > 0 && !there.unsure {
                    let about = format!("{id:?} went to {to} and was reported as failed");
                    broken.push((What::Twice, about));
                }
            }
            if over {
                letter.octets = None;
            }
        }
        for (what, about) in broken {
            self.fail(what, about);
        }
    }

    /// Letters that nobody answered for, as long as their life lasts.
    #[must_use]
    pub fn unanswered(&self) -> BTreeSet<LetterId> {
        let unknown = |letter: &Letter| letter.standing == Standing::Unknown;
        self.letters
            .iter()
            .filter(|(_, letter)| unknown(letter))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Counts those of the unanswered that turned out to be there.
    pub fn count_kept(&mut self, unanswered: &BTreeSet<LetterId>) {
        let kept = unanswered.iter().filter(|id| {
            let letter = self.letters.get(id);
            letter.is_some_and(|letter| letter.standing == Standing::Promised)
        });
        self.tally.unacknowledged_kept += kept.count() as u64;
    }
}
