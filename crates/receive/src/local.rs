//! Programs of this machine that send without a login: the operating system tells whose they are
//! (SO_PEERCRED), and this table who may send as whom.

use mail::{Domain, EmailAddress};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who may send through the local socket.
#[derive(Clone, Debug, Default)]
pub struct LocalSenders {
    /// By the number of the user.
    pub users: BTreeMap<u32, Arc<LocalSender>>,
}

/// A user of this machine.
#[derive(Clone, Debug)]
pub struct LocalSender {
    /// The user's name, for journeys and replies.
    pub name: String,
    /// As whom.
    pub may: SendAs,
}

/// As whom somebody may send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SendAs {
    /// As anybody: the user has the machine, or the server itself, anyway.
    Anybody,
    /// As one of these.
    These(Vec<SenderPattern>),
}

/// An address, or all addresses of a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SenderPattern {
    /// Exactly this one.
    Address(EmailAddress),
    /// Any at this domain.
    Domain(Domain),
}

impl LocalSender {
    /// Whether this address may be the sender or the author.
    #[must_use]
    pub fn may_send_as(&self, address: &EmailAddress) -> bool {
        match &self.may {
            SendAs::Anybody => true,
            SendAs::These(patterns) => patterns.iter().any(|pattern| match pattern {
                SenderPattern::Address(known) => known.folded() == address.folded(),
                SenderPattern::Domain(domain) => address.domain() == Some(domain),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_whom() {
        let address = |text| EmailAddress::parse(text).unwrap();
        let www = LocalSender {
            name: "www-data".to_owned(),
            may: SendAs::These(vec![
                SenderPattern::Address(address("shop@example.com")),
                SenderPattern::Domain(Domain::parse("list.example.com").unwrap()),
            ]),
        };
        assert!(www.may_send_as(&address("Shop@EXAMPLE.com")));
        assert!(www.may_send_as(&address("any@list.example.com")));
        assert!(!www.may_send_as(&address("mia@example.com")));
        let root = LocalSender {
            name: "root".to_owned(),
            may: SendAs::Anybody,
        };
        assert!(root.may_send_as(&address("mia@example.com")));
    }
}
