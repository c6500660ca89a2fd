//! Checking the directory against itself: every address has its owner, every account its address
//! and its domain, and nothing is left of accounts that are gone.
//!
//! Pure over one snapshot, page by page; memory is some octets for each account. Never: a repair, a
//! secret in a finding.

use crate::domain::DomainRecord;
use crate::record::Owner;
use crate::{Account, Error, keys, value};
use mail::{AccountId, Domain, EmailAddress};
use std::collections::{BTreeMap, HashSet};
use store::{Finding, Key, KeyRange, Severity, Snapshot, Tell, Where};

/// Rows that are read at once.
const PAGE: usize = 1_000;

const RESTORE: &str = "check the disk, then restore what is named from a backup";
const REMAKE: &str = "make the account anew with: posthaste account add, or restore it from a backup";
const ALIAS: &str = "remove the alias and make it anew: posthaste account remove-alias, then add-alias";
const LEFT_OVER: &str = "nobody's mail or login suffers; it takes a little room";

/// What the audit of the directory found to be there: accounts with their addresses.
pub type Accounts = BTreeMap<AccountId, EmailAddress>;

/// Checks the directory of a snapshot and tells what is wrong.
///
/// # Errors
/// When the store cannot be read.
pub async fn audit(snapshot: &dyn Snapshot, tell: Tell<'_>) -> Result<Accounts, Error> {
    let mut work = Work {
        snapshot,
        tell,
        domains: HashSet::new(),
        accounts: Accounts::new(),
        damaged: HashSet::new(),
    };
    work.domains().await?;
    work.accounts().await?;
    work.addresses().await?;
    work.belongings().await?;
    Ok(work.accounts)
}

struct Work<'a> {
    snapshot: &'a dyn Snapshot,
    tell: Tell<'a>,
    domains: HashSet<Domain>,
    accounts: Accounts,
    /// Accounts whose records can't be read.
    damaged: HashSet<AccountId>,
}

impl Work<'_> {
    fn tell(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: Where,
        what: impl Into<String>,
        remedy: &'static str,
    ) {
        (self.tell)(Finding::new(severity, code, place, what, remedy));
    }

    fn is_there(&self, id: AccountId) -> bool {
        self.accounts.contains_key(&id) || self.damaged.contains(&id)
    }

    async fn page(&self, range: &mut KeyRange) -> Result<Vec<(Key, store::Versioned)>, Error> {
        let rows = self.snapshot.scan(range, PAGE).await?;
        if let Some((last, _)) = rows.last() {
            *range = range.after(last);
        }
        Ok(rows)
    }

    async fn domains(&mut self) -> Result<(), Error> {
        let mut range = keys::domains().prefix_range();
        loop {
            let rows = self.page(&mut range).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, stored) in rows {
                match value::decode::<DomainRecord>(&key, &stored.value) {
                    Ok(record) => drop(self.domains.insert(record.name)),
                    Err(error) => {
                        if let Some(Ok(name)) = key.reader().text().map(|name| Domain::parse(&name)) {
                            self.domains.insert(name);
                        }
                        let what = error.to_string();
                        self.tell(
                            Severity::Error,
                            "domain-damaged",
                            Where::Entry(key),
                            what,
                            RESTORE,
                        );
                    }
                }
            }
        }
    }

    async fn accounts(&mut self) -> Result<(), Error> {
        let mut range = keys::accounts().prefix_range();
        let mut most = 0;
        loop {
            let rows = self.page(&mut range).await?;
            if rows.is_empty() {
                break;
            }
            for (key, stored) in rows {
                let id = AccountId(key.reader().u64().unwrap_or(0));
                most = most.max(id.0);
                match value::decode::<Account>(&key, &stored.value) {
                    Ok(account) if account.id == id => {
                        self.accounts.insert(id, account.address);
                    }
                    Ok(_) => {
                        self.damaged.insert(id);
                        let what = "it is stored under the number of another account";
                        self.tell(
                            Severity::Error,
                            "account-damaged",
                            Where::Entry(key),
                            what,
                            RESTORE,
                        );
                    }
                    Err(error) => {
                        self.damaged.insert(id);
                        let what = error.to_string();
                        self.tell(
                            Severity::Error,
                            "account-damaged",
                            Where::Entry(key),
                            what,
                            RESTORE,
                        );
                    }
                }
            }
        }
        let given = self.snapshot.counter(&keys::account_ids()).await?;
        if i64::try_from(most).map_or(true, |most| most > given) {
            let what = format!("account {most} is there, the counter of account ids stands at {given}");
            let place = Where::Counter(keys::account_ids());
            self.tell(Severity::Error, "account-ids-wrong", place, what, RESTORE);
        }
        for (id, address) in self.accounts.clone() {
            self.account(id, &address).await?;
        }
        Ok(())
    }

    async fn account(&mut self, id: AccountId, address: &EmailAddress) -> Result<(), Error> {
        let place = || Where::Named(format!("account {address}"));
        let key = keys::address(&address.folded());
        let owner = match self.snapshot.get(&key).await.map_err(Error::from) {
            Ok(Some(stored)) => value::decode::<Owner>(&key, &stored.value).ok(),
            Ok(None) => None,
            // The walk over all rows tells it.
            Err(Error::Damaged { .. }) => Some(Owner::Account(id)),
            Err(error) => return Err(error),
        };
        if owner != Some(Owner::Account(id)) {
            let what = "its address does not lead to it: it gets no mail and can't log in";
            self.tell(Severity::Error, "address-missing", place(), what, REMAKE);
        }
        let Some(domain) = address.domain() else {
            return Ok(());
        };
        if !self.domains.contains(domain) {
            let what = format!("its domain {domain} is not served here: it gets no mail");
            let remedy = "add the domain with: posthaste domain add";
            self.tell(Severity::Error, "domain-missing", place(), what, remedy);
        }
        if self.snapshot.get(&keys::account_of(domain, id)).await?.is_none() {
            let what = format!("it is not listed among the accounts of {domain}");
            self.tell(Severity::Error, "account-not-listed", place(), what, RESTORE);
        }
        Ok(())
    }

    async fn addresses(&mut self) -> Result<(), Error> {
        let mut range = keys::addresses().prefix_range();
        loop {
            let rows = self.page(&mut range).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, stored) in rows {
                let text = key.reader().text().unwrap_or_default();
                let owner = match value::decode::<Owner>(&key, &stored.value) {
                    Ok(owner) => owner,
                    Err(error) => {
                        let what = error.to_string();
                        self.tell(
                            Severity::Error,
                            "address-damaged",
                            Where::Entry(key),
                            what,
                            RESTORE,
                        );
                        continue;
                    }
                };
                self.address(&text, owner);
            }
        }
    }

    fn address(&mut self, text: &str, owner: Owner) {
        let place = || Where::Named(format!("address {text}"));
        match owner {
            Owner::Account(id) => {
                let is_its = self.accounts.get(&id).map(|address| address.folded() == text);
                if is_its == Some(false) || !self.is_there(id) {
                    let what = format!("it leads to account {}, whose address it is not", id.0);
                    self.tell(Severity::Error, "address-without-account", place(), what, REMAKE);
                }
            }
            Owner::Alias(ids) => {
                for id in ids
                    .into_iter()
                    .filter(|id| !self.is_there(*id))
                    .collect::<Vec<_>>()
                {
                    let what = format!("the alias leads to account {}, which is not there", id.0);
                    self.tell(Severity::Error, "address-without-account", place(), what, ALIAS);
                }
            }
        }
    }

    /// App passwords, last uses, listings of accounts that are not there.
    async fn belongings(&mut self) -> Result<(), Error> {
        for table in keys::BELONGINGS {
            let mut range = Key::table(table).prefix_range();
            loop {
                let rows = self.page(&mut range).await?;
                if rows.is_empty() {
                    break;
                }
                for (key, _) in rows {
                    let mut parts = key.reader();
                    let id = match table {
                        keys::LISTING => parts.text().and_then(|_| parts.u64()),
                        _ => parts.u64(),
                    };
                    if let Some(id) = id.map(AccountId).filter(|id| !self.is_there(*id)) {
                        let what = format!("it belongs to account {}, which is not there", id.0);
                        self.tell(
                            Severity::Warning,
                            "account-left-over",
                            Where::Entry(key),
                            what,
                            LEFT_OVER,
                        );
                    }
                }
            }
        }
        Ok(())
    }
}
