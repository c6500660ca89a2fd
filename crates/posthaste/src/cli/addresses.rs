//! The commands about addresses as requests, and their answers in words.

use super::out::outln;
use super::print::{grouped, table};
use crate::args::addresses::{
    Address, Alias, DomainSet, Group, GroupRules, Member, MtaSts, Post, SendAs, YesNo,
};
use admin::Request;
use admin::addresses::{AliasRow, DomainView, ExplanationView, GroupRow, Order};
use directory::Posting;

fn ask(order: Order) -> Request {
    Request::Addresses { order }
}

pub fn alias(order: Alias) -> Request {
    ask(match order {
        Alias::Add { alias, targets } => Order::AliasAdd { alias, targets },
        Alias::Remove { alias, targets } => Order::AliasTake { alias, targets },
        Alias::List => Order::AliasList,
    })
}

pub fn group(order: Group) -> Request {
    ask(match order {
        Group::Add {
            group,
            members,
            rules,
        } => {
            let (post, members_send) = rules_of(rules);
            Order::GroupAdd {
                group,
                members,
                post,
                members_send,
            }
        }
        Group::Set { group, rules } => {
            let (post, members_send) = rules_of(rules);
            Order::GroupSet {
                group,
                post,
                members_send,
            }
        }
        Group::Member(Member::Add { group, members }) => Order::MembersAdd { group, members },
        Group::Member(Member::Remove { group, members }) => Order::MembersTake { group, members },
        Group::Remove { group } => Order::GroupRemove { group },
        Group::List => Order::GroupList,
    })
}

fn rules_of(rules: GroupRules) -> (Option<Posting>, Option<bool>) {
    let post = rules.post.map(|post| match post {
        Post::Anyone => Posting::Anyone,
        Post::Domain => Posting::Domain,
        Post::Members => Posting::Members,
    });
    (post, rules.members_send.map(|yes| yes == YesNo::Yes))
}

pub fn domain_set(order: DomainSet) -> Request {
    let mta_sts = order.mta_sts.map(|mode| {
        let mode = match mode {
            MtaSts::Off => return None,
            MtaSts::Testing => directory::MtaStsMode::Testing,
            MtaSts::Enforce => directory::MtaStsMode::Enforce,
            MtaSts::None => directory::MtaStsMode::None,
        };
        let mut policy = directory::MtaSts::new(mode);
        if let Some(age) = order.mta_sts_max_age {
            policy.max_age_secs = age.as_secs();
        }
        policy.mx = order.mta_sts_mx;
        Some(policy)
    });
    let disabled = match (order.disable, order.enable) {
        (Some(words), _) => Some(Some(words)),
        (None, true) => Some(None),
        (None, false) => None,
    };
    ask(Order::DomainSet {
        domain: order.domain,
        separator: order.separator,
        catch_all: order.catch_all,
        postmaster: order.postmaster,
        abuse: order.abuse,
        disable: disabled.clone().flatten(),
        temporarily: order.temporarily,
        enable: disabled == Some(None),
        alias_of: order.alias_of,
        mta_sts,
    })
}

pub fn domain_show(domain: mail::Domain) -> Request {
    ask(Order::DomainShow { domain })
}

pub fn address(order: Address) -> Request {
    let Address::Explain { address } = order;
    ask(Order::Explain { address })
}

pub fn quota(address: mail::EmailAddress, quota: String) -> Request {
    ask(Order::Quota { address, quota })
}

pub fn send_as(order: SendAs) -> Request {
    ask(match order {
        SendAs::Add { account, what } => Order::SendAsAdd { account, what },
        SendAs::Remove { account, what } => Order::SendAsRemove { account, what },
        SendAs::List { account } => Order::SendAsList { account },
    })
}

pub fn aliases_in_words(rows: &[AliasRow]) {
    let cells = rows
        .iter()
        .map(|row| vec![row.alias.to_string(), row.targets.join(", ")]);
    table(&["ALIAS", "LEADS TO"], cells.collect());
}

pub fn groups_in_words(rows: &[GroupRow]) {
    let cells = rows.iter().map(|row| {
        let post = match row.post {
            Posting::Anyone => "anyone",
            Posting::Domain => "domain",
            Posting::Members => "members",
        };
        let send = if row.members_send { "yes" } else { "no" };
        vec![
            row.group.to_string(),
            post.to_owned(),
            send.to_owned(),
            row.members.join(", "),
        ]
    });
    table(
        &["GROUP", "WHO MAY POST", "MEMBERS SEND AS IT", "MEMBERS"],
        cells.collect(),
    );
}

pub fn domain_in_words(view: &DomainView) {
    let settings = &view.settings;
    let named = |address: &Option<mail::EmailAddress>, otherwise: &str| {
        address
            .as_ref()
            .map_or_else(|| otherwise.to_owned(), ToString::to_string)
    };
    outln!("{}", view.domain);
    if let Some(other) = &settings.alias_of {
        outln!("  every address is the same one at {other}");
    }
    match &settings.disabled {
        Some(disabled) => outln!(
            "  disabled: mail is refused with {}: {}",
            if disabled.temporary {
                "450 4.2.1"
            } else {
                "550 5.2.1"
            },
            disabled.words
        ),
        None => outln!("  mail is taken"),
    }
    match settings.tag_separator {
        Some(separator) => outln!("  tags: user{separator}tag is user"),
        None => outln!("  tags: off"),
    }
    outln!("  catch-all: {}", named(&settings.catch_all, "none"));
    outln!(
        "  postmaster: {}",
        named(&settings.postmaster, "the first account")
    );
    outln!("  abuse: {}", named(&settings.abuse, "as postmaster"));
    match &settings.mta_sts {
        Some(sts) => outln!(
            "  MTA-STS: {}, for {} days, {}",
            sts.mode.as_str(),
            sts.max_age_secs / 86_400,
            match sts.mx.as_slice() {
                [] => "this server".to_owned(),
                hosts => hosts.join(", "),
            }
        ),
        None => outln!("  MTA-STS: off"),
    }
}

pub fn explanation_in_words(view: &ExplanationView) {
    outln!("{}", view.address);
    for step in &view.steps {
        outln!("  - {step}");
    }
    for account in &view.accounts {
        outln!("  => the mailbox of {account}");
    }
    for forward in &view.forwards {
        outln!("  => forwarded to {forward}");
    }
}

/// A quota and what of it is used.
pub fn room(used_octets: u64, quota_octets: Option<u64>) -> String {
    match quota_octets {
        Some(quota) => format!("{} of {} octets", grouped(used_octets), grouped(quota)),
        None => format!("{} octets, no quota", grouped(used_octets)),
    }
}
