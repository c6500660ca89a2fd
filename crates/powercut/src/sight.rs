//! Reading what is there: mailboxes with their messages whole, and the queue.
//!
//! Every message that is new to the ledger is read to its last octet and compared with what was
//! sent; after a cut all of them are.

use crate::failure::{Failure, What};
use crate::house::House;
use crate::ledger::{Ledger, Seen, Sight, Subject};
use crate::letter::{self, LetterId};
use mail::{AccountId, Uid};
use mailbox::{Entry, Flags, Mailbox};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// More than any mailbox or queue here holds.
const ALL: usize = 100_000;
/// Octets that stand in front of a letter at most: our own header fields.
const TOP_OCTETS_MAX: usize = 8_192;

/// How much is read again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// Only what is new.
    AtNews,
    /// All of it.
    AtAll,
}

fn with<T>(ledger: &Mutex<Ledger>, work: impl FnOnce(&mut Ledger) -> T) -> T {
    work(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner))
}

/// All mailboxes of a person.
///
/// # Errors
/// What can't be read, or is not whole.
pub async fn mailboxes(
    house: &House,
    ledger: &Mutex<Ledger>,
    person: usize,
    account: AccountId,
    look: Look,
) -> Result<Vec<Sight>, Failure> {
    let list = house.mailboxes.list(account).await;
    let mut sights = Vec::new();
    for mailbox in list.map_err(|error| Failure::unreadable("the mailboxes", &error))? {
        sights.push(one_mailbox(house, ledger, person, &mailbox, look).await?);
    }
    Ok(sights)
}

async fn one_mailbox(
    house: &House,
    ledger: &Mutex<Ledger>,
    person: usize,
    mailbox: &Mailbox,
    look: Look,
) -> Result<Sight, Failure> {
    let place = mailbox.place();
    let failed =
        |error: mailbox::Error| Failure::unreadable(&format!("person {person}, {}", mailbox.name), &error);
    let status = house.mailboxes.status(place).await.map_err(failed)?;
    let entries = house
        .mailboxes
        .entries(place, Uid(1), ALL)
        .await
        .map_err(failed)?;
    let unseen = entries
        .iter()
        .filter(|entry| !entry.flags.has(Flags::SEEN))
        .count() as u64;
    let octets: u64 = entries.iter().map(Entry::size).sum();
    if (status.messages, status.unseen, status.octets) != (entries.len() as u64, unseen, octets) {
        let about = format!(
            "person {person}, {}: the counters say {status:?}, there are {} messages, {unseen} unseen, {octets} octets",
            mailbox.name,
            entries.len()
        );
        return Err(Failure::new(What::Numbers, about));
    }
    let mut seen = Vec::new();
    for entry in entries {
        let known = with(ledger, |ledger| ledger.known(person, place.mailbox, entry.uid));
        let subject = match known {
            Some(subject) if look == Look::AtNews => subject,
            _ => {
                let whole = house
                    .mailboxes
                    .read(&entry, 0..entry.size())
                    .await
                    .map_err(failed)?;
                subject_of(ledger, &whole).map_err(|why| {
                    Failure::new(What::Half, format!("person {person}, {:?}: {why}", entry.uid))
                })?
            }
        };
        seen.push(Seen {
            uid: entry.uid,
            modseq: entry.modseq,
            flagged: entry.flags.has(Flags::SEEN),
            subject,
        });
    }
    Ok(Sight {
        mailbox: place.mailbox,
        validity: status.uid_validity,
        uid_next: status.uid_next,
        modseq: status.highest_modseq,
        entries: seen,
    })
}

/// What a message is; why not, when it is not whole.
fn subject_of(ledger: &Mutex<Ledger>, octets: &[u8]) -> Result<Subject, String> {
    let id = letter::named_in(octets).ok_or("it is no letter and no report")?;
    let top = &octets[..octets.len().min(TOP_OCTETS_MAX)];
    if memchr::memmem::find(top, b"multipart/report").is_some() {
        return report(id, octets).map(|to| Subject::Report(id, to));
    }
    with(ledger, |ledger| ledger.tally.compared += 1);
    whole(ledger, id, octets).map(|()| Subject::Letter(id))
}

/// Whether octets are a letter behind our header fields.
///
/// # Errors
/// Why not.
pub fn whole(ledger: &Mutex<Ledger>, id: LetterId, octets: &[u8]) -> Result<(), String> {
    let Some(sent) = with(ledger, |ledger| ledger.octets(id)) else {
        return Err(format!("{id:?} should be nowhere any more"));
    };
    let Some(top) = octets.len().checked_sub(sent.len()) else {
        return Err(format!("{id:?} has {} octets of {}", octets.len(), sent.len()));
    };
    if octets[top..] != sent[..] {
        return Err(format!("{id:?} is not what was sent"));
    }
    let fields = &octets[..top];
    let received = memchr::memmem::find(fields, b"Received: ").is_some();
    match received && fields.ends_with(b"\r\n") && top < TOP_OCTETS_MAX {
        true => Ok(()),
        false => Err(format!("{id:?} lacks our header fields")),
    }
}

/// For whom a report is.
fn report(id: LetterId, octets: &[u8]) -> Result<String, String> {
    const FIELD: &[u8] = b"Final-Recipient: rfc822;";
    let at =
        memchr::memmem::find(octets, FIELD).ok_or_else(|| format!("the report on {id:?} names nobody"))?;
    let line = octets[at + FIELD.len()..]
        .split(|b| *b == b'\r')
        .next()
        .unwrap_or_default();
    match octets.ends_with(b"--\r\n") {
        true => Ok(String::from_utf8_lossy(line).trim().to_owned()),
        false => Err(format!("the report on {id:?} has no end")),
    }
}

/// The open errands. The messages of all of them are read whole when everything is looked at.
///
/// # Errors
/// What can't be read, or is not whole.
pub async fn queue(
    house: &House,
    ledger: &Mutex<Ledger>,
    look: Look,
) -> Result<BTreeSet<(LetterId, String)>, Failure> {
    let listed = house.queue.list(&queue::Filter::default(), ALL).await;
    let listed = listed.map_err(|error| Failure::unreadable("the queue", &error))?;
    let stats = house.queue.stats().await;
    let stats = stats.map_err(|error| Failure::unreadable("the queue's counters", &error))?;
    let mut open = BTreeSet::new();
    for queued in &listed {
        let about = |why: String| Failure::new(What::Half, format!("queued {}: {why}", queued.message.id));
        let name = queued.message.message_id.as_deref().unwrap_or_default();
        let id = letter::named_in(format!("<{name}").as_bytes());
        let id = id.ok_or_else(|| about(format!("it is called {name}")))?;
        if look == Look::AtAll {
            let read = house
                .store
                .read(queued.message.blob, 0..queued.message.blob_len)
                .await;
            let octets =
                read.map_err(|error| Failure::unreadable(&format!("queued {}", queued.message.id), &error))?;
            whole(ledger, id, &octets).map_err(about)?;
        }
        let waiting = queued.errands.iter().filter(|errand| errand.state.is_open());
        open.extend(waiting.map(|errand| (id, errand.recipient.to_string())));
    }
    if (stats.messages, stats.errands) != (listed.len() as u64, open.len() as u64) {
        let about = format!(
            "the queue counts {stats:?}, there are {} and {}",
            listed.len(),
            open.len()
        );
        return Err(Failure::new(What::Numbers, about));
    }
    let book = house.queue.ledger().await;
    let book = book.map_err(|error| Failure::unreadable("the queue's ledger", &error))?;
    match book.accepted() == book.accounted_for() {
        true => Ok(open),
        false => Err(Failure::new(
            What::Numbers,
            format!("the ledger is not balanced: {book:?}"),
        )),
    }
}
