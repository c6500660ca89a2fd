//! Mailboxes as such: making, listing, renaming, deleting, subscribing.

use crate::{Error, Mailbox, Mailboxes, Role};
use mail::{AccountId, MailboxId, Timestamp};
use store::Batch;

/// Mailboxes of one account at most.
pub const MAILBOXES_PER_ACCOUNT_MAX: usize = 5_000;

impl Mailboxes {
    /// Adds to a batch a new account's first mailboxes: INBOX and one of each role.
    /// The commit conflicts when the account has mailboxes already.
    pub fn create_defaults(&self, batch: &mut Batch, account: AccountId, now: Timestamp) {
        let _ = (batch, account, now);
        todo!()
    }

    /// All mailboxes of an account, by name; INBOX first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, account: AccountId) -> Result<Vec<Mailbox>, Error> {
        let _ = account;
        todo!()
    }

    /// The mailbox of that name (INBOX in any case).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn by_name(&self, account: AccountId, name: &str) -> Result<Option<Mailbox>, Error> {
        let _ = (account, name);
        todo!()
    }

    /// The mailbox of that id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn by_id(&self, account: AccountId, id: MailboxId) -> Result<Option<Mailbox>, Error> {
        let _ = (account, id);
        todo!()
    }

    /// The mailbox of that role.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(&self, account: AccountId, role: Role) -> Result<Option<Mailbox>, Error> {
        let _ = (account, role);
        todo!()
    }

    /// The mailbox of that role, made if it is missing.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find_or_create(
        &self,
        account: AccountId,
        role: Role,
        now: Timestamp,
    ) -> Result<Mailbox, Error> {
        let _ = (account, role, now);
        todo!()
    }

    /// Makes a mailbox, and its superiors where they are missing (RFC 3501 §6.3.3).
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::BadName`], [`Error::Limit`]; otherwise what the store says.
    pub async fn create(&self, account: AccountId, name: &str, now: Timestamp) -> Result<Mailbox, Error> {
        let _ = (account, name, now);
        todo!()
    }

    /// Deletes a mailbox with its messages. Inferior mailboxes stay (RFC 3501 §6.3.4).
    ///
    /// # Errors
    /// [`Error::NoSuchMailbox`], [`Error::Forbidden`] for INBOX; otherwise what the store says.
    pub async fn delete(&self, account: AccountId, name: &str) -> Result<(), Error> {
        let _ = (account, name);
        todo!()
    }

    /// Deletes all mailboxes, subscriptions and messages of an account.
    ///
    /// # Errors
    /// What the store says.
    pub async fn delete_all(&self, account: AccountId) -> Result<(), Error> {
        let _ = account;
        todo!()
    }

    /// Removes what is left of deleted mailboxes, e.g. after a crash in [`Mailboxes::delete`].
    /// Call it once at start; it costs nothing when there is nothing left.
    ///
    /// # Errors
    /// What the store says.
    pub async fn sweep(&self) -> Result<(), Error> {
        todo!()
    }

    /// Renames a mailbox and its inferiors. Renaming INBOX moves its messages to the new name and
    /// leaves an empty INBOX; its inferiors stay (RFC 3501 §6.3.5).
    ///
    /// # Errors
    /// [`Error::NoSuchMailbox`], [`Error::Exists`], [`Error::BadName`], [`Error::Forbidden`] for a
    /// new name below the old one; otherwise what the store says.
    pub async fn rename(
        &self,
        account: AccountId,
        from: &str,
        to: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let _ = (account, from, to, now);
        todo!()
    }

    /// Subscribes to a name; there need not be a mailbox of that name (RFC 3501 §6.3.6).
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::Limit`]; otherwise what the store says.
    pub async fn subscribe(&self, account: AccountId, name: &str) -> Result<(), Error> {
        let _ = (account, name);
        todo!()
    }

    /// Ends a subscription; no error when there was none.
    ///
    /// # Errors
    /// [`Error::BadName`]; otherwise what the store says.
    pub async fn unsubscribe(&self, account: AccountId, name: &str) -> Result<(), Error> {
        let _ = (account, name);
        todo!()
    }

    /// The subscribed names, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn subscriptions(&self, account: AccountId) -> Result<Vec<String>, Error> {
        let _ = account;
        todo!()
    }

    /// Octets of all messages of an account.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn usage(&self, account: AccountId) -> Result<u64, Error> {
        let _ = account;
        todo!()
    }
}
