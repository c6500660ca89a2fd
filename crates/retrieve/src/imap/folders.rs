//! Mailboxes as such: LIST, STATUS, CREATE, DELETE, RENAME, SUBSCRIBE.

use super::Driver;
use super::refuse::refusal;
use ::imap::list::{Entry, SpecialUse};
use ::imap::session::{StatusData, Task, ask};
use ::imap::{MailboxName, Refusal, Ticket};
use mail::AccountId;
use mailbox::{Error, Mailbox, Role};
use std::collections::{BTreeMap, BTreeSet};

impl Driver {
    /// Whose mailboxes the session works on. The machine asks only after a login.
    pub(super) fn account(&self) -> Result<AccountId, Refusal> {
        self.user
            .as_ref()
            .map(|u| u.account)
            .ok_or_else(Refusal::unavailable)
    }

    /// The mailbox of a name.
    pub(super) async fn mailbox(&self, name: &str) -> Result<Mailbox, Refusal> {
        let found = self.ctx.mailboxes.by_name(self.account()?, name).await;
        found
            .map_err(|e| refusal(&e))?
            .ok_or_else(Refusal::no_such_mailbox)
    }

    pub(super) async fn list(&mut self, ticket: Ticket<ask::List>) {
        match self.entries_to_list().await {
            Ok(entries) => {
                self.sync().await;
                self.session.listed(ticket, &entries);
            }
            Err(r) => self.session.refuse(ticket, r),
        }
    }

    async fn entries_to_list(&self) -> Result<Vec<Entry>, Refusal> {
        let account = self.account()?;
        let read = async {
            let mailboxes = self.ctx.mailboxes.list(account).await?;
            let subscribed = self.ctx.mailboxes.subscriptions(account).await?;
            Ok::<_, Error>((mailboxes, subscribed))
        };
        let (mailboxes, subscribed) = read.await.map_err(|e| refusal(&e))?;
        let mut subscribed: BTreeSet<String> = subscribed.into_iter().collect();
        let mut entries: BTreeMap<String, (Option<SpecialUse>, bool, bool)> = BTreeMap::new();
        for m in mailboxes {
            let is_subscribed = subscribed.remove(&m.name);
            entries.insert(m.name, (m.role.and_then(special_use), is_subscribed, true));
        }
        entries.extend(subscribed.into_iter().map(|name| (name, (None, true, false))));
        let to_entry = |(name, (special_use, subscribed, exists)): (String, _)| {
            // A name that IMAP cannot say is not shown.
            let name = MailboxName::new(&name).ok()?;
            Some(Entry {
                name,
                special_use,
                subscribed,
                exists,
            })
        };
        Ok(entries.into_iter().filter_map(to_entry).collect())
    }

    pub(super) async fn status(&mut self, ticket: Ticket<ask::StatusOf>, name: &str) {
        let read = async {
            let mailbox = self.mailbox(name).await?;
            let status = self.ctx.mailboxes.status(mailbox.place()).await;
            status.map_err(|e| refusal(&e))
        };
        match read.await {
            Ok(status) => {
                let data = StatusData {
                    messages: status.messages,
                    // UIDs since the last session looked; those already expunged count too.
                    recent: u64::from(status.uid_next.0.saturating_sub(status.first_recent.0))
                        .min(status.messages),
                    unseen: status.unseen,
                    uid_next: status.uid_next,
                    uid_validity: status.uid_validity,
                };
                self.sync().await;
                self.session.status(ticket, &data);
            }
            Err(r) => self.session.refuse(ticket, r),
        }
    }

    pub(super) async fn change_folders(&mut self, task: Task) -> Result<(), Refusal> {
        let account = self.account()?;
        let mailboxes = &self.ctx.mailboxes;
        let now = self.ctx.clock.now();
        let outcome = match task {
            Task::Create(name) => mailboxes.create(account, name.as_str(), now).await.map(|_| ()),
            Task::Delete(name) => return self.delete(account, name.as_str()).await,
            Task::Rename { from, to } => mailboxes.rename(account, from.as_str(), to.as_str(), now).await,
            Task::Subscribe(name) => mailboxes.subscribe(account, name.as_str()).await,
            Task::Unsubscribe(name) => mailboxes.unsubscribe(account, name.as_str()).await,
            Task::Sync
            | Task::Fetch { .. }
            | Task::Store { .. }
            | Task::Expunge(_)
            | Task::Deselect { .. } => Ok(()),
        };
        outcome.map_err(|e| refusal(&e))
    }
}

impl Driver {
    async fn delete(&mut self, account: AccountId, name: &str) -> Result<(), Refusal> {
        let place = self.mailbox(name).await?.place();
        let deleted = self.ctx.mailboxes.delete(account, name).await;
        deleted.map_err(|e| refusal(&e))?;
        // The client may delete what it has selected (RFC 3501 §6.3.4): it stays selected, empty.
        if let (Some(selected), Some(view)) = (&mut self.selected, self.session.view_mut())
            && selected.place == place
        {
            selected.deleted = true;
            let uids = view.uids().to_vec();
            uids.into_iter().for_each(|uid| view.expunged(uid));
        }
        Ok(())
    }
}

fn special_use(role: Role) -> Option<SpecialUse> {
    Some(match role {
        Role::Inbox => return None,
        Role::Sent => SpecialUse::Sent,
        Role::Drafts => SpecialUse::Drafts,
        Role::Junk => SpecialUse::Junk,
        Role::Trash => SpecialUse::Trash,
        Role::Archive => SpecialUse::Archive,
    })
}
