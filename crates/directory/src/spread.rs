//! Following an address through aliases and groups to all that it leads to, within limits.
//!
//! Breadth first, so that the answer and its order do not depend on how the rows came to be. An
//! address that was met already is not followed again, so a circle ends by itself; whoever changes a
//! row is told of it before it is true ([`Flaw::Loop`]).

use crate::Error;
use crate::domain_settings::Disabled;
use crate::record::{Owner, Posting};
use crate::resolve::{Place, locate};
use mail::{AccountId, EmailAddress};
use std::collections::{HashSet, VecDeque};
use store::Snapshot;

/// Accounts and addresses elsewhere that one address leads to at most, in all.
pub const SPREAD_MAX: usize = 1_000;
/// How deep aliases and groups may stand one in another.
pub const NESTING_MAX: usize = 8;
/// Addresses that are looked up for one address at most.
const LOOKED_UP_MAX: usize = 2_000;

/// All that an address leads to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    /// Accounts here, each once.
    pub accounts: Vec<AccountId>,
    /// Addresses elsewhere, each once.
    pub forwards: Vec<Forward>,
    /// Who may post, when it is a group.
    pub post: Posting,
}

/// An address elsewhere that mail is sent on to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward {
    /// Where to.
    pub to: EmailAddress,
    /// The address here that leads there.
    pub by: EmailAddress,
}

impl Spread {
    /// How many places there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len() + self.forwards.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is wrong with where an address leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// It leads back to itself.
    Loop {
        /// The address that leads back.
        through: EmailAddress,
    },
    /// It leads to more than [`SPREAD_MAX`].
    TooMany,
    /// Aliases and groups stand deeper than [`NESTING_MAX`] in each other.
    TooDeep,
    /// Nobody is left to whom it leads.
    Nobody,
    /// A domain on the way takes no mail for now: whoever is behind it shall not miss what the others get.
    ClosedForNow(Disabled),
}

/// One walk.
pub(crate) struct Walk<'a> {
    snapshot: &'a dyn Snapshot,
    spread: Spread,
    accounts: HashSet<AccountId>,
    forwards: HashSet<EmailAddress>,
    met: HashSet<String>,
    looked_up: usize,
    /// Why some of what it leads to takes no mail for now.
    closed_for_now: Option<Disabled>,
    /// Whether a way back to the start is a flaw.
    checks_loops: bool,
    /// Whether groups are followed only when their members may send as them.
    for_sending: bool,
    /// What was found on the way, in words, when somebody wants to know.
    told: Option<Vec<String>>,
}

/// An address that is still to be followed.
struct Stop {
    address: EmailAddress,
    owner: Owner,
    depth: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(snapshot: &'a dyn Snapshot) -> Self {
        Self {
            snapshot,
            spread: Spread::default(),
            accounts: HashSet::new(),
            forwards: HashSet::new(),
            met: HashSet::new(),
            looked_up: 0,
            closed_for_now: None,
            checks_loops: false,
            for_sending: false,
            told: None,
        }
    }

    /// A walk that finds a way back to where it began.
    pub(crate) fn checking(snapshot: &'a dyn Snapshot) -> Self {
        Self {
            checks_loops: true,
            ..Self::new(snapshot)
        }
    }

    /// A walk that finds who may send as the address.
    pub(crate) fn for_sending(snapshot: &'a dyn Snapshot) -> Self {
        Self {
            for_sending: true,
            ..Self::new(snapshot)
        }
    }

    /// A walk that tells its steps.
    pub(crate) fn telling(snapshot: &'a dyn Snapshot) -> Self {
        Self {
            told: Some(Vec::new()),
            ..Self::new(snapshot)
        }
    }

    /// The steps of a walk that tells them, in words.
    pub(crate) async fn steps(
        mut self,
        address: &EmailAddress,
        owner: Owner,
    ) -> Result<(Vec<String>, Spread, Option<Flaw>), Error> {
        let flaw = self.follow(address, owner).await?;
        Ok((self.told.unwrap_or_default(), self.spread, flaw))
    }

    pub(crate) async fn run(
        mut self,
        address: &EmailAddress,
        owner: Owner,
    ) -> Result<(Spread, Option<Flaw>), Error> {
        let flaw = self.follow(address, owner).await?;
        Ok((self.spread, flaw))
    }

    async fn follow(&mut self, address: &EmailAddress, owner: Owner) -> Result<Option<Flaw>, Error> {
        if let Owner::Group(group) = &owner {
            self.spread.post = group.post;
        }
        let start = address.folded();
        // However the sender wrote it, it is told in one form.
        let address = EmailAddress::parse(&start).unwrap_or_else(|_| address.clone());
        self.met.insert(start.clone());
        let mut stops = VecDeque::from([Stop {
            address,
            owner,
            depth: 0,
        }]);
        while let Some(stop) = stops.pop_front() {
            if self.for_sending && matches!(&stop.owner, Owner::Group(g) if !g.members_send) {
                continue;
            }
            let leads = stop.owner.leads();
            for id in leads.accounts {
                if self.accounts.insert(id) {
                    self.spread.accounts.push(id);
                    let by = &stop.address;
                    self.tell(|| format!("{by} leads to account {id}"));
                }
            }
            for target in leads.addresses {
                if self.checks_loops && target.folded() == start {
                    return Ok(Some(Flaw::Loop {
                        through: stop.address,
                    }));
                }
                if let Some(next) = self.target(&stop, target).await? {
                    if self.checks_loops && next.address.folded() == start {
                        return Ok(Some(Flaw::Loop {
                            through: stop.address,
                        }));
                    }
                    if next.depth > NESTING_MAX {
                        return Ok(Some(Flaw::TooDeep));
                    }
                    if self.met.insert(next.address.folded()) {
                        stops.push_back(next);
                    }
                }
                if self.spread.len() > SPREAD_MAX || self.looked_up > LOOKED_UP_MAX {
                    return Ok(Some(Flaw::TooMany));
                }
            }
        }
        let nobody = || self.spread.is_empty().then_some(Flaw::Nobody);
        Ok(self.closed_for_now.take().map(Flaw::ClosedForNow).or_else(nobody))
    }

    async fn target(&mut self, stop: &Stop, target: EmailAddress) -> Result<Option<Stop>, Error> {
        self.looked_up += 1;
        let by = &stop.address;
        match locate(self.snapshot, &target).await? {
            Place::NotOurs => {
                self.tell(|| {
                    format!("{by} leads to {target}, an address elsewhere: the message is sent on to it")
                });
                if self.forwards.insert(target.clone()) {
                    let by = stop.address.clone();
                    self.spread.forwards.push(Forward { to: target, by });
                }
                Ok(None)
            }
            Place::Found(found) => {
                self.tell(|| format!("{by} leads to {}, which is {}", found.address, found.owner.kind()));
                Ok(Some(Stop {
                    address: found.address,
                    owner: found.owner,
                    depth: stop.depth + 1,
                }))
            }
            Place::Closed(disabled) if disabled.temporary => {
                self.tell(|| format!("{by} leads to {target}, whose domain takes no mail for now"));
                self.closed_for_now = Some(disabled);
                Ok(None)
            }
            Place::Unknown | Place::Closed(_) | Place::Returning => {
                self.tell(|| format!("{by} leads to {target}, which is nobody here: nothing is sent there"));
                Ok(None)
            }
        }
    }

    fn tell(&mut self, words: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(words());
        }
    }
}
