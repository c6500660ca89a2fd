//! Groups: addresses with members, and a rule who may post to them.

use crate::leads::owners_in;
use crate::record::{GroupRecord, Leads, Owner, Posting};
use crate::{Directory, Error};
use mail::{AccountId, EmailAddress};

/// An address with members.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Group {
    /// The address, folded.
    pub address: EmailAddress,
    /// Members that have an account here.
    pub accounts: Vec<AccountId>,
    /// Other members: aliases and groups here, and addresses elsewhere.
    pub addresses: Vec<EmailAddress>,
    /// Who may post.
    pub post: Posting,
    /// Whether members may send as the group.
    pub members_send: bool,
}

impl Group {
    fn new(address: EmailAddress, record: GroupRecord) -> Self {
        Self {
            address,
            accounts: record.leads.accounts,
            addresses: record.leads.addresses,
            post: record.post,
            members_send: record.members_send,
        }
    }
}

/// The changes of one order; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct GroupChange {
    /// Who may post.
    pub post: Option<Posting>,
    /// Whether members may send as the group.
    pub members_send: Option<bool>,
    /// Members to add.
    pub more: Leads,
    /// Members to take away.
    pub less: Leads,
}

impl Directory {
    /// Makes a group.
    ///
    /// # Errors
    /// [`Error::Exists`] when the address is taken; as [`Directory::change_group`] otherwise.
    pub async fn add_group(&self, address: &EmailAddress, change: &GroupChange) -> Result<Group, Error> {
        self.alter_group(address, change, true).await
    }

    /// Changes a group.
    ///
    /// # Errors
    /// [`Error::NoSuch`], [`Error::NoSuchAccount`], [`Error::Invalid`] when no member is left,
    /// [`Error::Limit`], [`Error::Loop`] when a member leads back to the group.
    pub async fn change_group(&self, address: &EmailAddress, change: &GroupChange) -> Result<Group, Error> {
        self.alter_group(address, change, false).await
    }

    async fn alter_group(
        &self,
        address: &EmailAddress,
        change: &GroupChange,
        is_new: bool,
    ) -> Result<Group, Error> {
        let owner = self
            .change_owner(address, &|before| {
                let mut group = match before {
                    None if is_new => GroupRecord::default(),
                    Some(Owner::Group(group)) if !is_new => group,
                    Some(owner) if is_new => {
                        return Err(Error::Exists(format!("{} {address}", owner.kind())));
                    }
                    _ => return Err(Error::NoSuch("group")),
                };
                let before = group.leads.len();
                group.leads.take(&change.less);
                if !change.less.is_empty() && group.leads.len() == before {
                    return Err(Error::NoSuch("member of the group"));
                }
                group.leads.accounts.extend(&change.more.accounts);
                group
                    .leads
                    .addresses
                    .extend(change.more.addresses.iter().cloned());
                group.post = change.post.unwrap_or(group.post);
                group.members_send = change.members_send.unwrap_or(group.members_send);
                Ok(Owner::Group(group))
            })
            .await?;
        let folded = EmailAddress::parse(&address.folded()).unwrap_or_else(|_| address.clone());
        match owner {
            Owner::Group(record) => Ok(Group::new(folded, record)),
            _ => Err(Error::NoSuch("group")),
        }
    }

    /// Removes a group.
    ///
    /// # Errors
    /// [`Error::NoSuch`]; [`Error::InUse`] while another address leads to it.
    pub async fn remove_group(&self, address: &EmailAddress) -> Result<(), Error> {
        self.remove_owner(address, "group", |owner| matches!(owner, Owner::Group(_)))
            .await
    }

    /// All groups, by address.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn groups(&self) -> Result<Vec<Group>, Error> {
        let snapshot = self.store.snapshot().await?;
        let owners = owners_in(snapshot.as_ref()).await?;
        let groups = owners.into_iter().filter_map(|(address, owner)| match owner {
            Owner::Group(record) => Some(Group::new(address, record)),
            _ => None,
        });
        Ok(groups.collect())
    }
}
