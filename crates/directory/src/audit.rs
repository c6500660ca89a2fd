//! Checking the directory against itself: every address has its owner, every account its address
//! and its domain, and nothing is left of accounts that are gone.
//!
//! Pure over one snapshot, page by page; memory is some octets for each account. Never: a repair, a
//! secret in a finding.

use crate::record::Owner;
use crate::resolve::{Place, locate};
use crate::{Account, DomainSettings, Error, Quota, RouteSpec, domain, keys, value};
use mail::{AccountId, Domain, EmailAddress};
use std::collections::{BTreeMap, HashSet};
use store::{Finding, Key, KeyRange, Severity, Snapshot, Tell, Where};

/// Rows that are read at once.
const PAGE: usize = 1_000;

const RESTORE: &str = "check the disk, then restore what is named from a backup";
const REMAKE: &str = "make the account anew with: posthaste account add, or restore it from a backup";
const ALIAS: &str = "remove the alias and make it anew: posthaste account remove-alias, then add-alias";
const TARGET: &str = "posthaste address explain <address> tells the way; set it anew, or take it out";
const ROUTE: &str = "set the route anew: posthaste route add; without it the DNS decides";
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
        settings: Vec::new(),
        accounts: Accounts::new(),
        damaged: HashSet::new(),
    };
    work.domains().await?;
    work.accounts().await?;
    work.addresses().await?;
    work.settings().await?;
    work.belongings().await?;
    work.of_server().await?;
    work.routes().await?;
    Ok(work.accounts)
}

struct Work<'a> {
    snapshot: &'a dyn Snapshot,
    tell: Tell<'a>,
    domains: HashSet<Domain>,
    /// Of domains that have any.
    settings: Vec<(Domain, DomainSettings)>,
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
                match domain::decode(&key, &stored.value) {
                    Ok(record) => {
                        if !record.settings.is_default() {
                            self.settings.push((record.name.clone(), record.settings));
                        }
                        self.domains.insert(record.name);
                    }
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
                self.address(&text, owner).await?;
            }
        }
    }

    async fn address(&mut self, text: &str, owner: Owner) -> Result<(), Error> {
        let place = || Where::Named(format!("address {text}"));
        match owner {
            Owner::Account(id) => {
                let is_its = self.accounts.get(&id).map(|address| address.folded() == text);
                if is_its == Some(false) || !self.is_there(id) {
                    let what = format!("it leads to account {}, whose address it is not", id.0);
                    self.tell(Severity::Error, "address-without-account", place(), what, REMAKE);
                }
            }
            owner => {
                let leads = owner.leads();
                let kind = owner.kind();
                let gone: Vec<AccountId> = leads
                    .accounts
                    .into_iter()
                    .filter(|id| !self.is_there(*id))
                    .collect();
                for id in gone {
                    let what = format!("it is {kind} that leads to account {}, which is not there", id.0);
                    self.tell(Severity::Error, "address-without-account", place(), what, ALIAS);
                }
                for address in leads.addresses {
                    self.leads_somewhere(text, &address).await?;
                }
            }
        }
        Ok(())
    }

    /// An address that an alias or a group leads to, or a setting of a domain names.
    async fn leads_somewhere(&mut self, from: &str, to: &EmailAddress) -> Result<(), Error> {
        let is_nobody = match locate(self.snapshot, to).await {
            Ok(Place::Unknown) => true,
            Ok(_) | Err(Error::Damaged { .. }) => false,
            Err(error) => return Err(error),
        };
        if is_nobody {
            let what = format!("it leads to {to}, which is nobody here: nothing is sent there");
            let place = Where::Named(format!("address {from}"));
            self.tell(Severity::Warning, "address-leads-nowhere", place, what, TARGET);
        }
        Ok(())
    }

    /// What the settings of domains name.
    async fn settings(&mut self) -> Result<(), Error> {
        for (name, settings) in std::mem::take(&mut self.settings) {
            let named = [&settings.catch_all, &settings.postmaster, &settings.abuse];
            for address in named.into_iter().flatten() {
                self.leads_somewhere(&format!("settings of {name}"), address)
                    .await?;
            }
            if let Some(other) = settings.alias_of
                && !self.domains.contains(&other)
            {
                let what = format!("it stands for {other}, which is not served here: it gets no mail");
                let place = Where::Named(format!("domain {name}"));
                self.tell(Severity::Error, "domain-missing", place, what, TARGET);
            }
        }
        Ok(())
    }

    /// Quotas of accounts, and the server's own rows.
    async fn of_server(&mut self) -> Result<(), Error> {
        let mut range = keys::settings_of_server().prefix_range();
        loop {
            let rows = self.page(&mut range).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, stored) in rows {
                let mut parts = key.reader();
                let kind = parts.u8();
                let id = parts.u64().map(AccountId);
                let read = match kind {
                    Some(1) => value::decode::<serde_json::Value>(&key, &stored.value).map(drop),
                    Some(2) => value::decode::<Quota>(&key, &stored.value).map(drop),
                    _ => value::decode::<EmailAddress>(&key, &stored.value).map(drop),
                };
                if let Err(error) = read {
                    let what = error.to_string();
                    self.tell(
                        Severity::Error,
                        "setting-damaged",
                        Where::Entry(key),
                        what,
                        RESTORE,
                    );
                } else if kind == Some(2)
                    && let Some(id) = id.filter(|id| !self.is_there(*id))
                {
                    let what = format!("it is the quota of account {}, which is not there", id.0);
                    let place = Where::Entry(key);
                    self.tell(Severity::Warning, "account-left-over", place, what, LEFT_OVER);
                }
            }
        }
    }

    /// Routes that cannot be read, or say nothing.
    async fn routes(&mut self) -> Result<(), Error> {
        let mut range = keys::routes().prefix_range();
        loop {
            let rows = self.page(&mut range).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, stored) in rows {
                let read = value::decode::<RouteSpec>(&key, &stored.value);
                let what = match read.map_err(|e| e.to_string()).and_then(|spec| spec.check()) {
                    Ok(()) => continue,
                    Err(what) => what,
                };
                self.tell(Severity::Error, "route-damaged", Where::Entry(key), what, ROUTE);
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
                    let id = id.filter(|id| *id != 0).map(AccountId);
                    if let Some(id) = id.filter(|id| !self.is_there(*id)) {
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
