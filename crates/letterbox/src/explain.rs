//! What a failure means and what would help, in words that a sender understands. A table by enhanced
//! status (RFC 3463, RFC 7372, RFC 7505); the reply's own words are shown beside it, never replaced.

use crate::failure::Failure;

/// A failure explained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// What is wrong.
    pub problem: &'static str,
    /// What would help.
    pub remedy: &'static str,
}

/// One line of the table: a subject, its details (none stands for all), and what is said.
struct Row {
    subject: u16,
    details: &'static [u16],
    said: Explanation,
}

const fn row(subject: u16, details: &'static [u16], problem: &'static str, remedy: &'static str) -> Row {
    let said = Explanation { problem, remedy };
    Row {
        subject,
        details,
        said,
    }
}

/// The first line that fits counts.
const TABLE: &[Row] = &[
    row(
        1,
        &[1],
        "The address does not exist there.",
        "Check the spelling of the address, or ask the recipient for the current one.",
    ),
    row(
        1,
        &[2],
        "The domain of the address does not take mail.",
        "Check the spelling of the part after the @.",
    ),
    row(
        1,
        &[10],
        "The domain says in the DNS that it takes no mail at all.",
        "Reach the recipient another way; no message to this domain can arrive.",
    ),
    row(
        1,
        &[8, 7],
        "The receiving server does not accept the sender's address.",
        "The sender's domain needs MX or address records in the DNS, and the address must exist.",
    ),
    row(
        1,
        &[],
        "The receiving server does not accept an address of the message.",
        "Check the addresses, or ask the recipient how they can be reached.",
    ),
    row(
        2,
        &[2],
        "The recipient's mailbox is full.",
        "Ask the recipient to make room, then send the message again.",
    ),
    row(
        2,
        &[3],
        "The message is too large for the receiving server.",
        "Send it without the large attachment, or share the file another way.",
    ),
    row(
        3,
        &[4],
        "The message is too large for the receiving server.",
        "Send it without the large attachment, or share the file another way.",
    ),
    row(
        2,
        &[],
        "The recipient's mailbox does not take the message now.",
        "If it happens again, ask the recipient to look at their mailbox.",
    ),
    row(
        3,
        &[1],
        "The receiving server has no room.",
        "Nothing on your side; its operator has to make room.",
    ),
    row(
        3,
        &[2],
        "The receiving server is not accepting mail now.",
        "Nothing on your side; it is tried again by itself.",
    ),
    row(
        4,
        &[1],
        "No connection to the receiving server could be made.",
        "The server may be down, or a firewall blocks port 25: from hosting and home networks outgoing port 25 is often closed; a route through the provider's mail server (smarthost) helps then.",
    ),
    row(
        4,
        &[2],
        "The connection to the receiving server broke.",
        "It is tried again by itself; if it goes on, the network between the servers is to be looked at.",
    ),
    row(
        4,
        &[3],
        "The DNS could not be asked where the message goes.",
        "The name servers of the recipient's domain, or ours, do not answer; their operators have to look.",
    ),
    row(
        4,
        &[4],
        "No way to the recipient's domain could be found.",
        "The operator of the recipient's domain has to correct its MX records.",
    ),
    row(
        4,
        &[6],
        "The mail would go in circles.",
        "The operator has to correct the MX records of the recipient's domain, or add the domain to this server.",
    ),
    row(
        4,
        &[7],
        "The message could not be delivered in time.",
        "Send it again later or with more time, or reach the recipient another way.",
    ),
    row(
        6,
        &[3],
        "The message holds raw binary parts (BINARYMIME), which the receiving server cannot take.",
        "Send it with its attachments encoded, as mail programs do by default.",
    ),
    row(
        6,
        &[7],
        "The receiving server cannot handle international addresses (SMTPUTF8).",
        "Use an address with only ASCII letters, for yourself and for the recipient.",
    ),
    row(
        7,
        &[5, 10, 11],
        "A secure connection to the receiving server is required, and could not be made.",
        "The receiving server needs TLS with a certificate that is valid for its name, or the route's TLS setting has to change.",
    ),
    row(
        7,
        &[30],
        "The message was sent with the demand for TLS all the way (REQUIRETLS), which the receiving server does not promise.",
        "Send it without that demand if it may go without, or reach the recipient another way.",
    ),
    row(
        7,
        &[8],
        "The next server did not accept our login.",
        "The operator has to correct user name and password of the route.",
    ),
    row(
        7,
        &[20, 21, 22, 23, 24, 25, 26],
        "The receiving server could not tell that the message is really from its sender.",
        "The operator of the sender's domain has to correct SPF, DKIM or DMARC in its DNS.",
    ),
    row(
        7,
        &[1],
        "The receiving server refuses the message by its policy.",
        "Its words often say why: a blocklist, missing SPF, DKIM or DMARC, a poor reputation of the sending address, or content taken for spam. Show them to the operator of your mail server.",
    ),
    row(
        7,
        &[],
        "The receiving server refuses the message for reasons of security or policy.",
        "Show its words to the operator of your mail server.",
    ),
    row(
        5,
        &[],
        "The two servers did not understand each other.",
        "Show the words to the operator of your mail server.",
    ),
];

const REFUSED: Explanation = Explanation {
    problem: "The receiving server refuses the message.",
    remedy: "Its words may say why; otherwise ask the recipient, another way, to ask their operator.",
};

const NOT_NOW: Explanation = Explanation {
    problem: "The receiving server does not take the message now.",
    remedy: "It is tried again by itself.",
};

/// Explains a failure.
#[must_use]
pub fn explain(failure: &Failure) -> Explanation {
    let status = failure.status;
    let fits = |row: &&Row| {
        row.subject == status.subject && (row.details.is_empty() || row.details.contains(&status.detail))
    };
    match TABLE.iter().find(fits) {
        Some(row) => row.said,
        None if status.is_permanent() => REFUSED,
        None => NOT_NOW,
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
