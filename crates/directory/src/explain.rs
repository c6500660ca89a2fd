//! Where mail for an address goes and why, in words.

use crate::record::Owner;
use crate::resolve::{How, Place, locate};
use crate::senders::OriginalSender;
use crate::spread::{Flaw, Walk};
use crate::{Directory, Disabled, Error, Posting, Spread};
use mail::{EmailAddress, Timestamp};

/// Where mail for an address goes and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The steps from the address to where it leads, each a sentence.
    pub steps: Vec<String>,
    /// Where it leads in the end; empty when mail for it is refused.
    pub spread: Spread,
    /// Whether mail for it is taken from strangers.
    pub is_taken: bool,
    /// Whether its domain is not served here.
    pub is_elsewhere: bool,
}

impl Explanation {
    fn refused(steps: Vec<String>) -> Self {
        Self {
            steps,
            spread: Spread::default(),
            is_taken: false,
            is_elsewhere: false,
        }
    }
}

impl Directory {
    /// Where mail for an address goes and why.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn explain(&self, address: &EmailAddress, now: Timestamp) -> Result<Explanation, Error> {
        let snapshot = self.store.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let found = match locate(snapshot, address).await? {
            Place::Found(found) => found,
            Place::NotOurs => {
                let step = format!(
                    "the domain of {address} is not served here: mail for it is taken from people who are logged in, and goes to the servers that its domain names"
                );
                return Ok(Explanation {
                    is_elsewhere: true,
                    ..Explanation::refused(vec![step])
                });
            }
            Place::Unknown => {
                return Ok(Explanation::refused(vec![format!(
                    "{address} is nobody here: no account, alias or group has it, and its domain has no catch-all; refused with 550 5.1.1"
                )]));
            }
            Place::Closed(disabled) => return Ok(Explanation::refused(vec![closed(address, &disabled)])),
            Place::Returning => {
                let step = match self.original_sender(address, now).await? {
                    OriginalSender::Known(sender) => {
                        format!(
                            "{address} is a sender that was rewritten here: mail for it is sent to {sender}"
                        )
                    }
                    OriginalSender::Refused(why) => {
                        format!("{address} has the form of a rewritten sender, but {why}: refused with 550")
                    }
                };
                return Ok(Explanation::refused(vec![step]));
            }
        };
        let mut steps = Vec::new();
        if address.domain() != found.address.domain() {
            steps.push(format!(
                "{address} is at an alias of the domain {}",
                found.address.host()
            ));
        }
        let at = &found.address;
        steps.push(match found.how {
            How::Own => format!("{at} is {}", found.owner.kind()),
            How::Tag => format!("without its tag it is {at}, which is {}", found.owner.kind()),
            How::Named => {
                format!("{address} has no entry of its own: who gets its mail is set for its domain")
            }
            How::FirstAccount => {
                format!("{address} has no entry of its own: its mail goes to the domain's first account")
            }
            How::CatchAll => format!("{address} is nobody here: its mail goes to the domain's catch-all"),
        });
        if let Owner::Group(group) = &found.owner {
            steps.push(
                match group.post {
                    Posting::Anyone => "everybody may post to it",
                    Posting::Domain => {
                        "only people who are logged in and whose own address is at its domain may post to it"
                    }
                    Posting::Members => "only members who are logged in may post to it",
                }
                .to_owned(),
            );
        }
        let (more, spread, flaw) = Walk::telling(snapshot).steps(at, found.owner).await?;
        steps.extend(more);
        if let Some(flaw) = flaw {
            steps.push(flawed(&flaw));
            return Ok(Explanation::refused(steps));
        }
        Ok(Explanation {
            is_taken: spread.post == Posting::Anyone,
            is_elsewhere: false,
            steps,
            spread,
        })
    }
}

fn closed(address: &EmailAddress, disabled: &Disabled) -> String {
    let how = if disabled.temporary {
        "for now (450 4.2.1)"
    } else {
        "(550 5.2.1)"
    };
    let words = match disabled.words.as_str() {
        "" => String::new(),
        words => format!(", with the words: {words}"),
    };
    format!("the domain of {address} is disabled: mail for it is refused {how}{words}")
}

fn flawed(flaw: &Flaw) -> String {
    match flaw {
        Flaw::Loop { through } => {
            format!("it leads back to itself through {through}: mail for it is refused")
        }
        Flaw::TooMany => format!(
            "it leads to more than {} accounts and addresses: mail for it is refused",
            crate::SPREAD_MAX
        ),
        Flaw::TooDeep => format!(
            "aliases and groups stand more than {} deep in each other: mail for it is refused",
            crate::NESTING_MAX
        ),
        Flaw::ClosedForNow(disabled) => format!(
            "some of what it leads to takes no mail for now, so mail for it waits with the sender (450 4.2.1): {}",
            disabled.words
        ),
        Flaw::Nobody => "nobody is left to whom it leads: mail for it is refused".to_owned(),
    }
}
