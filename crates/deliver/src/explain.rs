//! What a failure means and what would help, in words that a sender understands. A table by enhanced
//! status (RFC 3463, RFC 7372, RFC 7505); the reply's own words are shown beside it, never replaced.

use crate::failure::{Failure, Source};

/// A failure explained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// What is wrong.
    pub problem: &'static str,
    /// What would help.
    pub remedy: &'static str,
}

const fn say(problem: &'static str, remedy: &'static str) -> Explanation {
    Explanation { problem, remedy }
}

/// Explains a failure.
#[must_use]
pub fn explain(failure: &Failure) -> Explanation {
    let status = failure.status;
    let by_peer = matches!(failure.source, Source::Peer(_));
    match (status.subject, status.detail) {
        (1, 1) => say(
            "The address does not exist there.",
            "Check the spelling of the address, or ask the recipient for the current one.",
        ),
        (1, 2) => say(
            "The domain of the address does not take mail.",
            "Check the spelling of the part after the @.",
        ),
        (1, 10) => say(
            "The domain says in the DNS that it takes no mail at all.",
            "Reach the recipient another way; no message to this domain can arrive.",
        ),
        (1, 8 | 7) => say(
            "The receiving server does not accept the sender's address.",
            "The sender's domain needs MX or address records in the DNS, and the address must exist.",
        ),
        (1, _) => say(
            "The receiving server does not accept an address of the message.",
            "Check the addresses, or ask the recipient how they can be reached.",
        ),
        (2, 2) => say(
            "The recipient's mailbox is full.",
            "Ask the recipient to make room, then send the message again.",
        ),
        (2, 3) | (3, 4) => say(
            "The message is too large for the receiving server.",
            "Send it without the large attachment, or share the file another way.",
        ),
        (2, _) => say(
            "The recipient's mailbox does not take the message now.",
            "If it happens again, ask the recipient to look at their mailbox.",
        ),
        (3, 1) => say(
            "The receiving server has no room.",
            "Nothing on your side; its operator has to make room.",
        ),
        (3, 2) if by_peer => say(
            "The receiving server is not accepting mail now.",
            "Nothing on your side; it is tried again by itself.",
        ),
        (4, 1) => say(
            "No connection to the receiving server could be made.",
            "The server may be down, or a firewall blocks port 25: from hosting and home networks outgoing port 25 is often closed; a route through the provider's mail server (smarthost) helps then.",
        ),
        (4, 2) => say(
            "The connection to the receiving server broke.",
            "It is tried again by itself; if it goes on, the network between the servers is to be looked at.",
        ),
        (4, 3) => say(
            "The DNS could not be asked where the message goes.",
            "The name servers of the recipient's domain, or ours, do not answer; their operators have to look.",
        ),
        (4, 4) => say(
            "No way to the recipient's domain could be found.",
            "The operator of the recipient's domain has to correct its MX records.",
        ),
        (4, 6) => say(
            "The mail would go in circles.",
            "The operator has to correct the MX records of the recipient's domain, or add the domain to this server.",
        ),
        (4, 7) => say(
            "The message could not be delivered in time.",
            "Send it again later, or reach the recipient another way.",
        ),
        (6, 7) => say(
            "The receiving server cannot handle international addresses (SMTPUTF8).",
            "Use an address with only ASCII letters, for yourself and for the recipient.",
        ),
        (7, 5 | 10 | 11) => say(
            "A secure connection to the receiving server is required, and could not be made.",
            "The receiving server needs TLS with a certificate that is valid for its name, or the route's TLS setting has to change.",
        ),
        (7, 8) => say(
            "The next server did not accept our login.",
            "The operator has to correct user name and password of the route.",
        ),
        (7, 20..=26) => say(
            "The receiving server could not tell that the message is really from its sender.",
            "The operator of the sender's domain has to correct SPF, DKIM or DMARC in its DNS.",
        ),
        (7, 1) => say(
            "The receiving server refuses the message by its policy.",
            "Its words often say why: a blocklist, missing SPF, DKIM or DMARC, a poor reputation of the sending address, or content taken for spam. Show them to the operator of your mail server.",
        ),
        (7, _) => say(
            "The receiving server refuses the message for reasons of security or policy.",
            "Show its words to the operator of your mail server.",
        ),
        (5, _) => say(
            "The two servers did not understand each other.",
            "Show the words to the operator of your mail server.",
        ),
        _ if status.is_permanent() => say(
            "The receiving server refuses the message.",
            "Its words may say why; otherwise ask the recipient, another way, to ask their operator.",
        ),
        _ => say(
            "The receiving server does not take the message now.",
            "It is tried again by itself.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::EnhancedStatus;

    #[test]
    fn the_common_issues_have_their_remedy() {
        for ((subject, detail), wanted) in [
            ((4, 1), "port 25"),
            ((1, 1), "spelling"),
            ((7, 26), "DMARC"),
            ((7, 1), "blocklist"),
            ((7, 8), "password"),
            ((2, 3), "attachment"),
        ] {
            let failure = Failure::ours(550, EnhancedStatus::new(5, subject, detail), "x");
            assert!(explain(&failure).remedy.contains(wanted), "{subject}.{detail}");
        }
    }
}
