//! Orders about where addresses lead and who may send as whom.

use super::Office;
use crate::addresses::{AliasRow, DomainView, ExplanationView, GroupRow, Order};
use crate::words::{Refusal, Response};
use directory::{Disabled, DomainChange, Grant, GroupChange, Leads, Posting, Quota};
use mail::{AccountId, Domain, EmailAddress};

impl Office {
    pub(super) async fn addresses(&self, order: Order) -> Result<Response, Refusal> {
        match order {
            Order::AliasAdd { alias, targets } => self.alias_add(&alias, &targets).await,
            Order::AliasTake { alias, targets } => self.alias_take(&alias, &targets).await,
            Order::AliasList => self.alias_list().await,
            Order::GroupAdd {
                group,
                members,
                post,
                members_send,
            } => {
                let change = GroupChange {
                    post,
                    members_send,
                    more: self.leads(&members).await?,
                    less: Leads::default(),
                };
                let made = self.directory.add_group(&group, &change).await?;
                let members = made.accounts.len() + made.addresses.len();
                Ok(Response::Done(format!(
                    "{group} is a group with {members} members"
                )))
            }
            Order::GroupSet {
                group,
                post,
                members_send,
            } => self.group_set(&group, post, members_send).await,
            Order::MembersAdd { group, members } => self.members(&group, &members, true).await,
            Order::MembersTake { group, members } => self.members(&group, &members, false).await,
            Order::GroupRemove { group } => {
                self.directory.remove_group(&group).await?;
                Ok(Response::Done(format!("{group} is no group any more")))
            }
            Order::GroupList => self.group_list().await,
            order @ Order::DomainSet { .. } => self.domain_set(order).await,
            Order::DomainShow { domain } => self.domain_show(&domain).await,
            Order::Explain { address } => self.explain(&address).await,
            Order::Quota { address, quota } => self.quota(&address, &quota).await,
            Order::SendAsAdd { account, what } => {
                let (id, grant) = (self.account(&account).await?.id, Grant::parse(&what)?);
                self.directory.grant_sending(id, &grant).await?;
                Ok(Response::Done(format!("{account} may send as {grant}")))
            }
            Order::SendAsRemove { account, what } => {
                let (id, grant) = (self.account(&account).await?.id, Grant::parse(&what)?);
                self.directory.revoke_sending(id, &grant).await?;
                Ok(Response::Done(format!(
                    "{account} has no grant for {grant} any more"
                )))
            }
            Order::SendAsList { account } => {
                let id = self.account(&account).await?.id;
                let grants = self.directory.grants(id).await?;
                Ok(Response::Grants(grants.iter().map(ToString::to_string).collect()))
            }
        }
    }

    async fn leads(&self, targets: &[EmailAddress]) -> Result<Leads, Refusal> {
        let mut leads = Leads::default();
        for target in targets {
            self.directory.target(&mut leads, target).await?;
        }
        Ok(leads)
    }

    /// What is to be taken away may be nobody here by now.
    async fn leads_to_take(&self, targets: &[EmailAddress]) -> Result<Leads, Refusal> {
        let mut leads = Leads::default();
        for target in targets {
            match self.directory.target(&mut leads, target).await {
                Err(directory::Error::NoSuchTarget(_)) => leads.addresses.push(target.clone()),
                other => other?,
            }
        }
        Ok(leads)
    }

    async fn alias_add(&self, alias: &EmailAddress, targets: &[EmailAddress]) -> Result<Response, Refusal> {
        let more = self.leads(targets).await?;
        let made = self.directory.add_to_alias(alias, &more).await?;
        let names = self.names(&made.accounts, &made.addresses).await?;
        Ok(Response::Done(format!(
            "mail to {alias} goes to {}",
            names.join(", ")
        )))
    }

    async fn alias_take(&self, alias: &EmailAddress, targets: &[EmailAddress]) -> Result<Response, Refusal> {
        if targets.is_empty() {
            self.directory.remove_alias(alias).await?;
            return Ok(Response::Done(format!("{alias} is no alias any more")));
        }
        let less = self.leads_to_take(targets).await?;
        self.directory.take_from_alias(alias, &less).await?;
        Ok(Response::Done(match self.directory.alias(alias).await? {
            Some(left) => {
                let names = self.names(&left.accounts, &left.addresses).await?;
                format!("mail to {alias} goes to {} now", names.join(", "))
            }
            None => format!("{alias} led to nobody else: it is no alias any more"),
        }))
    }

    async fn alias_list(&self) -> Result<Response, Refusal> {
        let mut rows = Vec::new();
        for alias in self.directory.aliases().await? {
            rows.push(AliasRow {
                targets: self.names(&alias.accounts, &alias.addresses).await?,
                alias: alias.address,
            });
        }
        Ok(Response::Aliases(rows))
    }

    async fn group_set(
        &self,
        group: &EmailAddress,
        post: Option<Posting>,
        members_send: Option<bool>,
    ) -> Result<Response, Refusal> {
        if post.is_none() && members_send.is_none() {
            return Err(Refusal::invalid(
                "nothing is to be changed; name --post or --members-send",
            ));
        }
        let change = GroupChange {
            post,
            members_send,
            ..GroupChange::default()
        };
        let group = self.directory.change_group(group, &change).await?;
        let who = match group.post {
            Posting::Anyone => "everybody may post to it",
            Posting::Domain => "logged-in people of its domain may post to it",
            Posting::Members => "logged-in members may post to it",
        };
        let send = if group.members_send { "may" } else { "may not" };
        Ok(Response::Done(format!(
            "{}: {who}, and members {send} send as it",
            group.address
        )))
    }

    async fn members(
        &self,
        group: &EmailAddress,
        members: &[EmailAddress],
        is_more: bool,
    ) -> Result<Response, Refusal> {
        let mut change = GroupChange::default();
        if is_more {
            change.more = self.leads(members).await?;
        } else {
            change.less = self.leads_to_take(members).await?;
        }
        let left = self.directory.change_group(group, &change).await?;
        let count = left.accounts.len() + left.addresses.len();
        Ok(Response::Done(format!("{group} has {count} members now")))
    }

    async fn group_list(&self) -> Result<Response, Refusal> {
        let mut rows = Vec::new();
        for group in self.directory.groups().await? {
            rows.push(GroupRow {
                members: self.names(&group.accounts, &group.addresses).await?,
                group: group.address,
                post: group.post,
                members_send: group.members_send,
            });
        }
        Ok(Response::Groups(rows))
    }

    async fn domain_set(&self, order: Order) -> Result<Response, Refusal> {
        let Order::DomainSet {
            domain,
            separator,
            catch_all,
            postmaster,
            abuse,
            disable,
            temporarily,
            enable,
            alias_of,
            mta_sts,
        } = order
        else {
            return Err(Refusal::invalid("this is no order to change a domain"));
        };
        let disabled = match (disable, enable) {
            (Some(words), _) => Some(Some(Disabled {
                temporary: temporarily,
                words,
            })),
            (None, true) => Some(None),
            (None, false) => None,
        };
        let change = DomainChange {
            tag_separator: separator.as_deref().map(parse_separator).transpose()?,
            catch_all: catch_all.as_deref().map(address_or_none).transpose()?,
            postmaster: postmaster.as_deref().map(address_or_none).transpose()?,
            abuse: abuse.as_deref().map(address_or_none).transpose()?,
            disabled,
            alias_of: alias_of.as_deref().map(domain_or_none).transpose()?,
            mta_sts,
        };
        if change == DomainChange::default() {
            return Err(Refusal::invalid(
                "nothing is to be changed; see: posthaste domain set --help",
            ));
        }
        self.directory.set_domain(&domain, &change).await?;
        self.domain_show(&domain).await
    }

    async fn domain_show(&self, domain: &Domain) -> Result<Response, Refusal> {
        let record = self.directory.domain(domain).await?;
        let record = record.ok_or_else(|| directory::Error::NoSuchDomain(domain.to_string()))?;
        Ok(Response::Domain(DomainView {
            domain: record.name,
            settings: record.settings,
        }))
    }

    async fn explain(&self, address: &EmailAddress) -> Result<Response, Refusal> {
        let explained = self.directory.explain(address, self.clock.now()).await?;
        let spread = explained.spread;
        Ok(Response::Explanation(ExplanationView {
            address: address.clone(),
            steps: explained.steps,
            accounts: self.names(&spread.accounts, &[]).await?,
            forwards: spread.forwards.into_iter().map(|f| f.to).collect(),
            taken_from_strangers: explained.is_taken,
            elsewhere: explained.is_elsewhere,
        }))
    }

    async fn quota(&self, address: &EmailAddress, text: &str) -> Result<Response, Refusal> {
        let id = self.account(address).await?.id;
        let quota = parse_quota(text)?;
        self.directory.set_quota(id, quota).await?;
        let now = match self.directory.quota(id).await? {
            Some(octets) => format!("{address} may keep {octets} octets"),
            None => format!("{address} may keep any amount"),
        };
        let used = self.mailboxes.usage(id).await?;
        Ok(Response::Done(format!("{now}; it keeps {used} now")))
    }

    /// Accounts by their addresses, then the addresses.
    async fn names(
        &self,
        accounts: &[AccountId],
        addresses: &[EmailAddress],
    ) -> Result<Vec<String>, Refusal> {
        let mut names = Vec::new();
        for id in accounts {
            names.push(match self.directory.account(*id).await? {
                Some(account) => account.address.to_string(),
                None => format!("account {id}, which is not there"),
            });
        }
        names.extend(addresses.iter().map(ToString::to_string));
        Ok(names)
    }
}

fn parse_separator(text: &str) -> Result<Option<char>, Refusal> {
    let mut characters = text.chars();
    match (text, characters.next(), characters.next()) {
        ("off" | "none", ..) => Ok(None),
        (_, Some(one), None) => Ok(Some(one)),
        _ => Err(Refusal::invalid(format!(
            "\"{text}\" is no separator: write one character, or off"
        ))),
    }
}

fn address_or_none(text: &str) -> Result<Option<EmailAddress>, Refusal> {
    match text {
        "none" => Ok(None),
        text => EmailAddress::parse(text).map(Some).map_err(|why| {
            Refusal::invalid(format!(
                "\"{text}\" is no address: {why}; write an address, or none"
            ))
        }),
    }
}

fn domain_or_none(text: &str) -> Result<Option<Domain>, Refusal> {
    match text {
        "none" => Ok(None),
        text => Domain::parse(text).map(Some).map_err(|why| {
            Refusal::invalid(format!("\"{text}\" is no domain: {why}; write a domain, or none"))
        }),
    }
}

/// `2G`, `500M`, `64K`, octets; `none`; `default`. A letter is a power of 1024.
fn parse_quota(text: &str) -> Result<Option<Quota>, Refusal> {
    match text {
        "default" => return Ok(None),
        "none" => return Ok(Some(Quota::Unlimited)),
        _ => {}
    }
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => (&text[..at], letter.to_ascii_uppercase()),
        _ => (text, 'B'),
    };
    let shift = match unit {
        'B' => Some(0),
        'K' => Some(10),
        'M' => Some(20),
        'G' => Some(30),
        'T' => Some(40),
        _ => None,
    };
    let octets = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    octets.map(|octets| Some(Quota::Octets(octets))).ok_or_else(|| {
        Refusal::invalid(format!(
            "\"{text}\" is no quota: write octets (500M, 2G), none, or default"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_as_people_write_them() {
        let octets = |text: &str| parse_quota(text).ok().flatten();
        assert_eq!(octets("2G"), Some(Quota::Octets(2 << 30)));
        assert_eq!(octets("500m"), Some(Quota::Octets(500 << 20)));
        assert_eq!(octets("0"), Some(Quota::Octets(0)));
        assert_eq!(octets("none"), Some(Quota::Unlimited));
        assert!(matches!(parse_quota("default"), Ok(None)));
        for bad in ["", "G", "-1", "2GB", "99999999999T", "много"] {
            assert!(parse_quota(bad).is_err(), "{bad}");
        }
    }
}
