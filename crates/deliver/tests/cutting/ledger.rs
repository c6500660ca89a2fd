//! Who took what, and whether that is right: the account of the runs with cut connections.
//!
//! Servers write down what they took, in the moment in which they have all of it. `check` holds that
//! against what became of every recipient. Never: a look into the service; it knows what was
//! submitted, what servers did, and what the sender was told.

use super::net::Wire;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

/// A message that a server took for one recipient.
pub struct Acceptance {
    /// The connection and the octet of the server's at which its reply was over; `None`: it never
    /// came to that.
    reply: Option<(Arc<Wire>, u64)>,
    /// Whether the service was killed after the reply came and before it was recorded.
    unrecorded: bool,
}

impl Acceptance {
    /// Whether the whole reply came to the client.
    fn is_answered(&self) -> bool {
        let heard = |(wire, end): &(Arc<Wire>, u64)| wire.heard() >= *end;
        self.reply.as_ref().is_some_and(heard)
    }
}

/// Names an acceptance: the recipient, and its place among those for that recipient.
pub type Taken = (String, usize);

#[derive(Default)]
struct State {
    /// By recipient, the octets that must arrive.
    sent: HashMap<String, String>,
    taken: BTreeMap<String, Vec<Acceptance>>,
    asked: HashMap<String, u32>,
    wrong: Vec<String>,
}

/// What was sent and what was taken.
#[derive(Default)]
pub struct Book {
    state: Mutex<State>,
}

/// What became of a recipient, as the sender and the operator see it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Failure reports that name it.
    pub reported: u32,
    /// Ends in its journey.
    pub ends: u32,
}

/// The counts of one run or of many.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Account {
    pub recipients: u64,
    pub arrived: u64,
    pub bounced: u64,
    /// Copies beyond one, because the answer to the one before never came (RFC 1047).
    pub twice_reply_cut: u64,
    /// Copies beyond one, because the service was killed before it recorded the answer.
    pub twice_unrecorded: u64,
    /// Last copies whose answer never came: the sender was told of a failure although it arrived.
    /// Must be none before expiry; counted to see that.
    pub never_known: u64,
    pub reported_twice: u64,
    /// What may not be, in words.
    pub wrong: Vec<String>,
}

impl Book {
    /// A recipient gets this text.
    pub fn sends(&self, recipient: &str, text: &str) {
        let mut state = self.state.lock().unwrap();
        state.sent.insert(recipient.to_owned(), text.to_owned());
    }

    /// How often a server was asked for this recipient, this time included.
    pub fn asked_for(&self, recipient: &str) -> u32 {
        let mut state = self.state.lock().unwrap();
        let asked = state.asked.entry(recipient.to_owned()).or_default();
        *asked += 1;
        *asked
    }

    /// A server has the whole message and takes it.
    pub fn take(&self, recipients: &[String], text: &str) -> Vec<Taken> {
        let mut state = self.state.lock().unwrap();
        let mut taken = Vec::new();
        for recipient in recipients {
            match state.sent.get(recipient) {
                Some(sent) if sent == text => {}
                Some(sent) => {
                    let (is, was) = (text.len(), sent.len());
                    state.wrong.push(format!(
                        "{recipient} got {is} octets, not the {was} that were sent"
                    ));
                }
                None => state
                    .wrong
                    .push(format!("{recipient} got a message and was never written to")),
            }
            let list = state.taken.entry(recipient.clone()).or_default();
            list.push(Acceptance {
                reply: None,
                unrecorded: false,
            });
            taken.push((recipient.clone(), list.len() - 1));
        }
        taken
    }

    /// The reply to these was written out, up to that octet.
    pub fn replied(&self, wire: &Arc<Wire>, taken: &[Taken], end: u64) {
        let mut state = self.state.lock().unwrap();
        for (recipient, place) in taken {
            if let Some(acceptance) = state
                .taken
                .get_mut(recipient)
                .and_then(|list| list.get_mut(*place))
            {
                acceptance.reply = Some((Arc::clone(wire), end));
            }
        }
    }

    /// The service was killed while these recipients were open: what was answered for them was not
    /// recorded.
    pub fn killed<'a>(&self, open: impl Iterator<Item = &'a str>) {
        let mut state = self.state.lock().unwrap();
        for recipient in open {
            for acceptance in state.taken.get_mut(recipient).into_iter().flatten() {
                if acceptance.is_answered() {
                    acceptance.unrecorded = true;
                }
            }
        }
    }

    /// Draws up the account. `told` says what became of each recipient; `kills` whether the service
    /// was ever killed. Recipients whose name begins with `no` are nobody, every other is somebody.
    pub fn check(&self, told: &BTreeMap<String, Told>, killed: bool) -> Account {
        let state = self.state.lock().unwrap();
        let mut account = Account {
            wrong: state.wrong.clone(),
            ..Account::default()
        };
        for recipient in state.sent.keys() {
            let told = told.get(recipient).cloned().unwrap_or_default();
            let none = Vec::new();
            let taken = state.taken.get(recipient).unwrap_or(&none);
            account.recipients += 1;
            account.one(recipient, taken, &told, killed);
        }
        account
    }
}

impl Account {
    fn one(&mut self, recipient: &str, taken: &[Acceptance], told: &Told, killed: bool) {
        let mut bad = |what: &str| self.wrong.push(format!("{recipient} {what}"));
        if told.ends != 1 {
            bad(&format!("ended {} times", told.ends));
        }
        match (recipient.starts_with("no"), taken.len(), told.reported) {
            (true, 0, 0) => bad("is nobody, and the sender was not told"),
            (true, 0, 1) => self.bounced += 1,
            (true, 0, _) if killed => {
                self.bounced += 1;
                self.reported_twice += 1;
            }
            (true, 0, n) => bad(&format!("was reported {n} times")),
            (true, ..) => bad("is nobody, and got mail"),
            (false, 0, _) => bad("never got the message"),
            (false, _, 0) => self.arrived += 1,
            (false, ..) => bad("got the message, and the sender was told that it failed"),
        }
        let (last, before) = match taken.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, taken),
        };
        self.never_known += u64::from(last.is_some_and(|last| !last.is_answered()));
        for acceptance in before {
            match (acceptance.is_answered(), acceptance.unrecorded) {
                (false, _) => self.twice_reply_cut += 1,
                (true, true) => self.twice_unrecorded += 1,
                (true, false) => self
                    .wrong
                    .push(format!("{recipient} got it again although the answer had come")),
            }
        }
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Account) {
        self.recipients += other.recipients;
        self.arrived += other.arrived;
        self.bounced += other.bounced;
        self.twice_reply_cut += other.twice_reply_cut;
        self.twice_unrecorded += other.twice_unrecorded;
        self.never_known += other.never_known;
        self.reported_twice += other.reported_twice;
        self.wrong.extend(other.wrong.iter().cloned());
    }
}
