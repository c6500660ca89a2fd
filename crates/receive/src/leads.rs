//! Where a recipient's mail goes, asked of the directory at RCPT; and whether there is room for it.

use crate::mail_in::{RELAYING_DENIED, RefusedRecipient, UNKNOWN_USER};
use crate::session::Session;
use crate::transaction::{Target, Transaction};
use directory::{Flaw, Forward, OriginalSender, Resolution, Spread};
use mail::{AccountId, EmailAddress};
use smtp::{Reply, replies};

/// Mailboxes and addresses elsewhere that one message may go to in all, whatever its recipients lead
/// to: as many as the queue takes errands of one message.
pub(crate) const PLACES_MAX: usize = queue::ERRANDS_PER_MESSAGE_MAX;

impl Session {
    /// Where mail for the address goes.
    pub(crate) async fn lead(&self, address: &EmailAddress) -> Result<Target, RefusedRecipient> {
        let resolution = self.resolve(address).await?;
        if resolution != Resolution::Rewritten {
            let may_relay = self.is_ours();
            return self.lead_to(address, resolution, may_relay).await;
        }
        let directory = &self.ctx.parts.directory;
        let now = self.ctx.parts.clock.now();
        let original = directory.original_sender(address, now).await;
        match original.map_err(|error| unreadable(&error))? {
            OriginalSender::Refused(why) => Err(RefusedRecipient {
                reply: replies::rewritten_sender_refused(address, why),
                rule: "a rewritten sender must be one of ours",
                remedy: None,
            }),
            OriginalSender::Known(sender) => match self.resolve(&sender).await? {
                // One of our own tags is as good as a login: mail goes to that one address.
                Resolution::NotOurs | Resolution::Rewritten => Ok(Target::Spread(Box::new(Spread {
                    forwards: vec![Forward {
                        to: sender,
                        by: address.clone(),
                    }],
                    ..Spread::default()
                }))),
                resolution => self.lead_to(&sender, resolution, false).await,
            },
        }
    }

    async fn resolve(&self, address: &EmailAddress) -> Result<Resolution, RefusedRecipient> {
        let directory = &self.ctx.parts.directory;
        directory.resolve(address).await.map_err(|e| unreadable(&e))
    }

    async fn lead_to(
        &self,
        address: &EmailAddress,
        resolution: Resolution,
        may_relay: bool,
    ) -> Result<Target, RefusedRecipient> {
        let refused = |reply, rule, remedy| Err(RefusedRecipient { reply, rule, remedy });
        let explain = || Some(format!("posthaste address explain {address}"));
        match resolution {
            Resolution::Local(accounts) => {
                self.must_have_room(address, &accounts).await?;
                Ok(Target::Local(accounts))
            }
            Resolution::Spread(spread) => {
                let login = self.login.as_ref().map(|login| login.account);
                let directory = &self.ctx.parts.directory;
                let may = directory.may_post(login, address, &spread).await;
                if !may.map_err(|error| unreadable(&error))? {
                    return refused(
                        replies::may_not_post(address),
                        "who may post to the group",
                        explain(),
                    );
                }
                if spread.forwards.is_empty() {
                    self.must_have_room(address, &spread.accounts).await?;
                }
                Ok(Target::Spread(spread))
            }
            Resolution::Disabled(disabled) => refused(
                replies::domain_disabled(address, disabled.temporary, &disabled.words),
                "the domain is disabled",
                explain(),
            ),
            Resolution::Flawed(Flaw::Nobody) => refused(
                replies::unknown_user(address),
                "the address leads to nobody any more",
                explain(),
            ),
            Resolution::Flawed(_) => refused(
                replies::address_flawed(address),
                "where the address leads is not in order",
                explain(),
            ),
            Resolution::UnknownUser | Resolution::Rewritten => refused(
                replies::unknown_user(address),
                UNKNOWN_USER,
                Some(format!(
                    "check the address; the operator can add it: posthaste account add {address}"
                )),
            ),
            Resolution::NotOurs if may_relay => Ok(Target::Remote),
            Resolution::NotOurs => refused(
                replies::relaying_denied(address.host()),
                RELAYING_DENIED,
                Some("submit on port 465 or 587 with a login".to_owned()),
            ),
        }
    }

    /// Some account of the address has room for the message, as far as its size is known: by SIZE, or
    /// at least one octet. (What the others have no room for waits in the queue.)
    async fn must_have_room(
        &self,
        address: &EmailAddress,
        accounts: &[AccountId],
    ) -> Result<(), RefusedRecipient> {
        let transaction = self.transaction.as_ref();
        let octets = transaction.map_or(0, |t| t.declared_octets.max(t.octets));
        for id in accounts {
            let room = self.has_room(*id, octets.max(1)).await;
            if room.map_err(lookup_failed)? {
                return Ok(());
            }
        }
        Err(RefusedRecipient {
            reply: replies::mailbox_full(address),
            rule: "the quota of the account",
            remedy: Some(format!(
                "delete mail, or give it more room: posthaste account quota {address} <octets>"
            )),
        })
    }

    /// Whether so many octets fit into an account. Reads nothing for one without a quota.
    pub(crate) async fn has_room(&self, id: AccountId, octets: u64) -> Result<bool, Reply> {
        let parts = &self.ctx.parts;
        let quota = parts.directory.quota(id).await.map_err(|error| {
            tracing::error!(%error, "the directory could not be read");
            replies::LOOKUP_FAILED
        })?;
        let Some(quota) = quota else { return Ok(true) };
        let used = parts.mailboxes.usage(id).await.map_err(|error| {
            tracing::error!(%error, "the mailboxes could not be read");
            replies::LOOKUP_FAILED
        })?;
        Ok(used.saturating_add(octets) <= quota)
    }
}

impl Transaction {
    /// Whether one more target is within what one message may go to.
    pub(crate) fn has_place_for(&self, target: &Target) -> bool {
        let places = |target: &Target| {
            let (accounts, forwards) = target.places();
            accounts.len() + forwards.len() + usize::from(*target == Target::Remote)
        };
        let taken: usize = self.recipients.iter().map(|r| places(&r.target)).sum();
        taken + places(target) <= PLACES_MAX
    }

    /// Breaks circles: takes away what would be sent on by an address that sent this very message on
    /// before (RFC 9228). Gives the addresses, each with its recipient.
    ///
    /// # Errors
    /// Such an address when that is true of every recipient: the message has come back.
    pub(crate) fn break_circles(&mut self) -> Result<Vec<(EmailAddress, EmailAddress)>, EmailAddress> {
        let mut forwards = self.recipients.iter().flat_map(|r| r.target.places().1);
        if forwards.next().is_none() {
            return Ok(Vec::new());
        }
        let fields = mail::header::fields(&self.message).take(crate::header::FIELDS_MAX);
        let named: Vec<String> = fields
            .filter(|field| field.is(letterbox::DELIVERED_TO))
            .filter_map(|field| EmailAddress::parse(&field.value()).ok())
            .map(|address| address.folded())
            .collect();
        let goes_round = |forward: &Forward| named.contains(&forward.by.folded());
        let mut found = Vec::new();
        for recipient in &self.recipients {
            let (_, forwards) = recipient.target.places();
            if let Some(forward) = forwards.iter().find(|f| goes_round(f)) {
                found.push((recipient.address.clone(), forward.by.clone()));
            }
        }
        match found.first() {
            Some((_, by)) if found.len() == self.recipients.len() => return Err(by.clone()),
            _ => {}
        }
        for recipient in &mut self.recipients {
            if let Target::Spread(spread) = &mut recipient.target {
                spread.forwards.retain(|forward| !goes_round(forward));
            }
        }
        Ok(found)
    }
}

impl Target {
    /// The mailboxes here, and the addresses elsewhere that aliases and groups lead to.
    pub(crate) fn places(&self) -> (&[AccountId], &[Forward]) {
        match self {
            Target::Local(accounts) => (accounts, &[]),
            Target::Spread(spread) => (&spread.accounts, &spread.forwards),
            Target::Remote => (&[], &[]),
        }
    }
}

fn unreadable(error: &directory::Error) -> RefusedRecipient {
    tracing::error!(%error, "the directory could not be read");
    lookup_failed(replies::LOOKUP_FAILED)
}

fn lookup_failed(reply: Reply) -> RefusedRecipient {
    RefusedRecipient {
        reply,
        rule: "the directory could not be read",
        remedy: None,
    }
}
