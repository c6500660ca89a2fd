//! Every reply that the server can give, in one table: number, meaning and words side by side.
//!
//! Promises: a refusal says what to change. Never: a reply written anywhere else.
//! The codes follow RFC 5321 §4.2, RFC 3463, RFC 4954 §6, RFC 7372 and the IANA registry of
//! enhanced status codes.

mod limits;

pub use limits::*;

use crate::reply::Reply;
use mail::{AddressError, EnhancedStatus, QueueId};
use std::fmt::Display;

const fn s(class: u8, subject: u16, detail: u16) -> EnhancedStatus {
    EnhancedStatus::new(class, subject, detail)
}

// The course of a session.

/// The greeting.
#[must_use]
pub fn greeting(hostname: &str) -> Reply {
    Reply {
        code: 220,
        status: None,
        text: format!("{hostname} ESMTP ready").into(),
    }
}

/// The greeting of LMTP (RFC 2033).
#[must_use]
pub fn lmtp_greeting(hostname: &str) -> Reply {
    Reply {
        code: 220,
        status: None,
        text: format!("{hostname} LMTP ready").into(),
    }
}

/// The answer to EHLO: our name, then one extension a line.
#[must_use]
pub fn ehlo(hostname: &str, extensions: &[String]) -> Reply {
    Reply {
        code: 250,
        status: None,
        text: format!("{hostname}\n{}", extensions.join("\n")).into(),
    }
}

/// The answer to HELO.
#[must_use]
pub fn helo(hostname: &str) -> Reply {
    Reply {
        code: 250,
        status: None,
        text: hostname.to_owned().into(),
    }
}

/// STARTTLS may begin.
pub const READY_FOR_TLS: Reply = Reply::fixed(220, s(2, 0, 0), "Ready to start TLS");
/// QUIT.
pub const BYE: Reply = Reply::fixed(221, s(2, 0, 0), "Bye");
/// NOOP.
pub const NOOP: Reply = Reply::fixed(250, s(2, 0, 0), "OK");
/// RSET.
pub const RESET: Reply = Reply::fixed(250, s(2, 0, 0), "OK, nothing is begun now");
/// MAIL was accepted.
pub const SENDER_OK: Reply = Reply::fixed(250, s(2, 1, 0), "OK");
/// RCPT was accepted.
pub const RECIPIENT_OK: Reply = Reply::fixed(250, s(2, 1, 5), "OK");
/// DATA: the message may come.
pub const START_MAIL_INPUT: Reply = Reply::bare(354, "Start mail input; end with <CRLF>.<CRLF>");
/// BDAT: the chunk came, another one may follow (RFC 3030 §2).
#[must_use]
pub fn chunk_taken(octets: u64) -> Reply {
    Reply::made(250, s(2, 0, 0), format!("OK, {octets} octets taken"))
}
/// VRFY: no list of who exists is given to strangers (RFC 5321 §7.3).
pub const VRFY_UNTOLD: Reply = Reply::fixed(
    252,
    s(2, 5, 0),
    "We do not tell who exists; send the message and it will be tried",
);
/// HELP.
pub const HELP: Reply = Reply::fixed(
    214,
    s(2, 0, 0),
    "Commands: EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\n\
     A message goes: EHLO, MAIL FROM:<you>, RCPT TO:<them>, DATA, the message, a line with one dot\n\
     RFC 5321 has the details",
);

/// The message is on stable storage.
#[must_use]
pub fn queued(id: QueueId) -> Reply {
    Reply::made(250, s(2, 0, 0), format!("OK, message queued as {id}"))
}

// Wrong lines.

/// No such command.
pub const UNKNOWN_COMMAND: Reply =
    Reply::fixed(500, s(5, 5, 1), "No such command; HELP lists the ones that exist");
/// The line is longer than the limit (RFC 5321 §4.5.3.1.4).
pub const LINE_TOO_LONG: Reply = Reply::fixed(500, s(5, 5, 2), "The command line is too long");
/// A line of an AUTH exchange is longer than the limit (RFC 4954 §4).
pub const AUTH_LINE_TOO_LONG: Reply = Reply::fixed(500, s(5, 5, 6), "The authentication line is too long");
/// LF without CR.
pub const BARE_LF: Reply = Reply::fixed(
    500,
    s(5, 5, 2),
    "A line must end with CR LF; this one ended with LF alone",
);
/// CR without LF.
pub const BARE_CR: Reply = Reply::fixed(
    500,
    s(5, 5, 2),
    "A line must end with CR LF; this one holds a CR that no LF follows",
);
/// An octet of value zero.
pub const NUL: Reply = Reply::fixed(500, s(5, 5, 2), "The command holds an octet of value zero");
/// Octets that are not UTF-8.
pub const NOT_UTF8: Reply = Reply::fixed(500, s(5, 5, 2), "The command is not valid UTF-8");
/// A control character.
pub const CONTROL_CHARACTER: Reply = Reply::fixed(500, s(5, 5, 2), "The command holds a control character");
/// An HTTP request. The connection closes.
pub const NOT_HTTP: Reply = Reply::fixed(421, s(4, 7, 0), "This is a mail server; it does not speak HTTP");
/// An argument where none belongs.
pub const NO_ARGUMENT_ALLOWED: Reply = Reply::fixed(501, s(5, 5, 4), "This command takes no argument");
/// No argument where one belongs.
pub const ARGUMENT_MISSING: Reply = Reply::fixed(501, s(5, 5, 4), "This command needs an argument");
/// EHLO without a name.
pub const HELO_NAME_MISSING: Reply = Reply::fixed(
    501,
    s(5, 5, 4),
    "Say your host's name, for example: EHLO mail.example.net",
);
/// EHLO with a name that cannot be one.
pub const HELO_NAME_BAD: Reply = Reply::fixed(
    501,
    s(5, 5, 4),
    "The host name must be one word of at most 255 octets without spaces",
);
/// MAIL that is not one.
pub const MAIL_SYNTAX: Reply = Reply::fixed(501, s(5, 5, 4), "Write it so: MAIL FROM:<user@example.net>");
/// RCPT that is not one.
pub const RCPT_SYNTAX: Reply = Reply::fixed(501, s(5, 5, 4), "Write it so: RCPT TO:<user@example.net>");
/// AUTH that is not one.
pub const AUTH_SYNTAX: Reply = Reply::fixed(
    501,
    s(5, 5, 4),
    "Write it so: AUTH PLAIN, optionally with one base64 word behind it",
);
/// A parameter that we know with a value that it cannot have.
pub const PARAMETER_VALUE: Reply = Reply::fixed(
    501,
    s(5, 5, 4),
    "A parameter of the command has a value that it cannot have",
);
/// A parameter that stands twice.
pub const PARAMETER_TWICE: Reply = Reply::fixed(501, s(5, 5, 4), "A parameter stands twice in the command");
/// A parameter of an extension that was not offered (RFC 5321 §4.1.1.11).
pub const UNKNOWN_PARAMETER: Reply = Reply::fixed(
    555,
    s(5, 5, 4),
    "The command has a parameter that the answer to EHLO did not offer",
);
/// A hold that is longer than we keep messages for (RFC 4865 §3).
#[must_use]
pub fn held_too_long(secs_max: u64) -> Reply {
    Reply::made(
        501,
        s(5, 5, 4),
        format!("A message is held for at most {secs_max} seconds; send it later"),
    )
}
/// BDAT that does not tell how long its chunk is. The connection closes.
pub const CHUNK_SIZE: Reply = Reply::fixed(
    501,
    s(5, 5, 4),
    "Write it so: BDAT 1000 or BDAT 1000 LAST; without a good length what follows cannot be read; closing",
);
/// An address that is none.
#[must_use]
pub fn bad_address(why: &AddressError) -> Reply {
    Reply::made(553, s(5, 1, 3), format!("This is not an address: {why}"))
}
/// An address beyond ASCII without SMTPUTF8 (RFC 6531 §3.5).
pub const NEEDS_SMTPUTF8: Reply = Reply::fixed(
    553,
    s(5, 6, 7),
    "The address is not ASCII; MAIL must say SMTPUTF8 to carry it",
);

// Wrong order.

/// Before EHLO or HELO.
pub const EHLO_FIRST: Reply = Reply::fixed(503, s(5, 5, 1), "Say EHLO first");
/// Before LHLO.
pub const LHLO_FIRST: Reply = Reply::fixed(503, s(5, 5, 1), "Say LHLO first");
/// EHLO or HELO in LMTP (RFC 2033 §4.1).
pub const LHLO_HERE: Reply = Reply::fixed(500, s(5, 5, 1), "This is LMTP and not SMTP: say LHLO");
/// LHLO in SMTP.
pub const EHLO_HERE: Reply = Reply::fixed(500, s(5, 5, 1), "This is SMTP and not LMTP: say EHLO");
/// RCPT or DATA before MAIL.
pub const MAIL_FIRST: Reply = Reply::fixed(503, s(5, 5, 1), "Say MAIL FROM first");
/// DATA before RCPT.
pub const RCPT_FIRST: Reply = Reply::fixed(503, s(5, 5, 1), "No recipient was accepted; say RCPT TO first");
/// A second MAIL.
pub const MAIL_TWICE: Reply = Reply::fixed(
    503,
    s(5, 5, 1),
    "A message is begun already; say RSET to begin another",
);
/// RCPT or DATA between the chunks of a message (RFC 3030 §2).
pub const CHUNKS_BEGUN: Reply = Reply::fixed(
    503,
    s(5, 5, 1),
    "The message is coming by BDAT already; end it with BDAT 0 LAST, or say RSET",
);
/// DATA for BODY=BINARYMIME (RFC 3030 §3).
pub const BINARY_NEEDS_BDAT: Reply = Reply::fixed(
    503,
    s(5, 5, 1),
    "A binary message cannot come by DATA; send it by BDAT",
);
/// REQUIRETLS outside TLS (RFC 8689 §4.2.1).
pub const REQUIRETLS_NEEDS_TLS: Reply = Reply::fixed(
    530,
    s(5, 7, 10),
    "A message that must travel by TLS must come by TLS: say STARTTLS first",
);
/// ETRN (RFC 1985 §5.3): nobody's word makes us connect.
pub const ETRN_REFUSED: Reply = Reply::fixed(
    459,
    s(4, 7, 1),
    "Mail is sent when it is due and not on demand; ask the operator to retry it",
);
/// EXPN.
pub const EXPN_UNKNOWN: Reply = Reply::fixed(502, s(5, 5, 1), "Mailing lists are not expanded here");
/// Something stood behind STARTTLS in the same flight (RFC 3207 §4.2, command injection).
pub const DATA_BEHIND_STARTTLS: Reply = Reply::fixed(
    421,
    s(4, 7, 0),
    "Nothing may follow STARTTLS before the handshake; closing",
);
/// STARTTLS inside TLS.
pub const TLS_ALREADY: Reply = Reply::fixed(503, s(5, 5, 1), "TLS is on already");
/// STARTTLS where it is not offered.
pub const TLS_UNAVAILABLE: Reply = Reply::fixed(502, s(5, 5, 1), "STARTTLS is not offered here");
/// The message came before we asked for it.
pub const DATA_TOO_EARLY: Reply = Reply::fixed(
    421,
    s(4, 7, 0),
    "The message came before the 354 that asks for it; wait for each reply to DATA; closing",
);
/// A message that nobody asked for, behind a refused DATA.
pub const MESSAGE_WITHOUT_DATA: Reply = Reply::fixed(
    421,
    s(4, 7, 0),
    "DATA was refused, so no message may come; read the reply to DATA; closing",
);
/// The client spoke before the greeting (RFC 5321 §4.3.1).
pub const EARLY_TALKER: Reply = Reply::fixed(
    554,
    s(5, 7, 0),
    "You spoke before the greeting; a mail client waits for it; closing",
);

/// A user of this machine who may not send without a login.
pub const NO_LOCAL_SENDER: Reply = Reply::fixed(
    554,
    s(5, 7, 1),
    "This user may not send without a login; the operator names who may in sendmail.user",
);
/// XCLIENT from an address that may not say it (XCLIENT_README).
pub const XCLIENT_DENIED: Reply = Reply::fixed(
    550,
    s(5, 7, 0),
    "You may not speak for others; the operator names who may in smtp.xclient_from",
);
/// XCLIENT that is not one.
pub const XCLIENT_SYNTAX: Reply = Reply::fixed(
    501,
    s(5, 5, 4),
    "Write it so: XCLIENT ADDR=192.0.2.1 NAME=host.example.net, with attributes that EHLO offered",
);
/// XCLIENT within a transaction.
pub const XCLIENT_IN_TRANSACTION: Reply =
    Reply::fixed(503, s(5, 5, 1), "A message is begun; say RSET before XCLIENT");
/// XCLIENT with a login that is no account here.
pub const XCLIENT_NO_ACCOUNT: Reply = Reply::fixed(
    550,
    s(5, 7, 0),
    "LOGIN names no account here that may log in; the address of an account is wanted",
);

// Authentication (RFC 4954 §6).

/// A LOGIN or PLAIN prompt.
#[must_use]
pub fn auth_prompt(challenge_base64: String) -> Reply {
    Reply {
        code: 334,
        status: None,
        text: challenge_base64.into(),
    }
}
/// It worked.
pub const AUTH_OK: Reply = Reply::fixed(235, s(2, 7, 0), "Authentication succeeded");
/// A server for strangers.
pub const AUTH_NOT_HERE: Reply = Reply::fixed(
    502,
    s(5, 5, 1),
    "There is no login on this port; send your mail through port 465 or 587",
);
/// AUTH in clear.
pub const AUTH_NEEDS_TLS: Reply = Reply::fixed(
    538,
    s(5, 7, 11),
    "A password must not travel in clear: turn on TLS (STARTTLS) in your mail program, then log in",
);
/// MAIL in clear on a submission port (RFC 3207 §4).
pub const TLS_FIRST: Reply = Reply::fixed(
    530,
    s(5, 7, 0),
    "Must issue a STARTTLS command first: turn on TLS in your mail program",
);
/// MAIL without login.
pub const AUTH_REQUIRED: Reply = Reply::fixed(
    530,
    s(5, 7, 0),
    "Authentication required: give your user name and password in your mail program",
);
/// AUTH after it succeeded.
pub const AUTH_TWICE: Reply = Reply::fixed(503, s(5, 5, 1), "You are logged in already");
/// AUTH within a transaction.
pub const AUTH_IN_TRANSACTION: Reply = Reply::fixed(
    503,
    s(5, 5, 1),
    "Log in before MAIL; say RSET to drop the message",
);
/// A mechanism that we don't offer; these we do.
#[must_use]
pub fn auth_mechanism(offered: &str) -> Reply {
    Reply {
        code: 504,
        status: Some(s(5, 5, 4)),
        text: format!("This way to authenticate is not offered here; use one of: {offered}").into(),
    }
}
/// The mechanism is bound to another TLS connection than this one, or the offer of binding did not
/// reach the client (RFC 5802 §6).
pub const AUTH_CHANNEL: Reply = Reply::fixed(
    535,
    s(5, 7, 8),
    "Your program sees another TLS connection than we do: somebody may stand between; try from another \
     network, or turn off what inspects TLS on the way",
);
/// Not base64, or not what the mechanism wants.
pub const AUTH_MALFORMED: Reply = Reply::fixed(
    501,
    s(5, 5, 2),
    "The authentication data is not what the mechanism asks for",
);
/// `*` (RFC 4954 §4).
pub const AUTH_CANCELLED: Reply = Reply::fixed(501, s(5, 7, 0), "Authentication cancelled, as you asked");
/// Wrong name or wrong password; which of them is not told.
pub const AUTH_FAILED: Reply = Reply::fixed(
    535,
    s(5, 7, 8),
    "User name or password is wrong; the user name is the whole address",
);
/// A bearer token that opens nothing (RFC 7628 §3.2.2); why is in the account's login log.
pub const TOKEN_REFUSED: Reply = Reply::fixed(
    535,
    s(5, 7, 8),
    "The token is not accepted; log in anew at your provider, so that your program gets a fresh one",
);
/// The account has a second factor.
pub const APP_PASSWORD_NEEDED: Reply = Reply::fixed(
    534,
    s(5, 7, 9),
    "This account has a second factor, so mail programs need an app password: make one in your \
     account's settings and use it here",
);
/// The directory could not be asked.
pub const AUTH_UNAVAILABLE: Reply = Reply::fixed(
    454,
    s(4, 7, 0),
    "Logins cannot be checked right now; try again in a minute",
);
/// Too many failures on this connection or from this address.
pub const AUTH_TOO_MANY: Reply = Reply::fixed(
    421,
    s(4, 7, 0),
    "Too many failed logins; wait before you try again; closing",
);

// Limits.

/// SIZE= is over the limit (RFC 1870 §6.1).
#[must_use]
pub fn size_declared_too_large(size_max_octets: u64) -> Reply {
    Reply::made(
        552,
        s(5, 3, 4),
        format!("The message is too large; at most {size_max_octets} octets are taken"),
    )
}
/// The message was over the limit.
#[must_use]
pub fn message_too_large(size_max_octets: u64) -> Reply {
    size_declared_too_large(size_max_octets)
}
/// The recipients' limit (RFC 5321 §4.5.3.1.10: 452).
pub const TOO_MANY_RECIPIENTS: Reply = Reply::fixed(
    452,
    s(4, 5, 3),
    "Too many recipients in one message; send to the others in a further one",
);
/// The errors' limit.
pub const TOO_MANY_ERRORS: Reply = Reply::fixed(421, s(4, 7, 0), "Too many errors; closing");
/// Commands that lead to no message.
pub const TOO_MUCH_IDLE_TALK: Reply =
    Reply::fixed(421, s(4, 7, 0), "Too many commands without a message; closing");
/// Messages of one session.
pub const TOO_MANY_MESSAGES: Reply = Reply::fixed(
    421,
    s(4, 7, 0),
    "Enough messages on one connection; connect again for more; closing",
);
/// The client was silent (RFC 5321 §4.5.3.2.7).
pub const TIMED_OUT: Reply = Reply::fixed(421, s(4, 4, 2), "You were silent for too long; closing");
/// The login that the session had has been taken away.
pub const LOGIN_OVER: Reply = Reply::fixed(
    421,
    s(4, 7, 0),
    "This login has ended; connect and log in again; closing",
);
/// The server shuts down.
pub const SHUTTING_DOWN: Reply = Reply::fixed(
    421,
    s(4, 3, 2),
    "The server is shutting down; try again in a minute; closing",
);
/// Our own fault.
pub const INTERNAL_ERROR: Reply = Reply::fixed(
    421,
    s(4, 3, 0),
    "Something went wrong on our side; try again; closing",
);
/// All connections are taken.
pub const TOO_MANY_CONNECTIONS: Reply = Reply::fixed(
    421,
    s(4, 3, 2),
    "All connections are taken; try again later; closing",
);
/// One address has too many connections.
pub const TOO_MANY_CONNECTIONS_FROM_YOU: Reply = Reply::fixed(
    421,
    s(4, 7, 0),
    "Too many connections from your address; close some; closing",
);
/// No memory for a message now.
pub const BUSY: Reply = Reply::fixed(
    452,
    s(4, 3, 1),
    "Too many messages are coming in right now; try again in a minute",
);
/// The disk is full.
pub const DISK_FULL: Reply = Reply::fixed(452, s(4, 3, 1), "There is no room to store mail; try again later");
/// The store could not keep the message.
pub const STORE_FAILED: Reply = Reply::fixed(
    451,
    s(4, 3, 0),
    "The message could not be stored; try again later",
);

// Mail data.

/// LF without CR in the message (RFC 5321 §2.3.8).
pub const DATA_BARE_LF: Reply = Reply::fixed(
    554,
    s(5, 6, 0),
    "The message has lines that end with LF alone; every line must end with CR LF",
);
/// CR without LF in the message.
pub const DATA_BARE_CR: Reply = Reply::fixed(
    554,
    s(5, 6, 0),
    "The message holds a CR that no LF follows; every line must end with CR LF",
);
/// An octet of value zero in the message.
pub const DATA_NUL: Reply = Reply::fixed(
    554,
    s(5, 6, 0),
    "The message holds an octet of value zero; encode it (base64)",
);
/// A line longer than the operator allows (RFC 5321 §4.5.3.1.6).
pub const DATA_LINE_TOO_LONG: Reply = Reply::fixed(
    554,
    s(5, 6, 0),
    "The message has a line that is too long; fold or encode it (998 octets at most)",
);

// What the driver decides about sender and recipient.

/// No such user here.
#[must_use]
pub fn unknown_user(address: impl Display) -> Reply {
    Reply::made(
        550,
        s(5, 1, 1),
        format!("There is no {address} here; check the address"),
    )
}
/// Not our domain, and the client is nobody that we send for.
#[must_use]
pub fn relaying_denied(domain: impl Display) -> Reply {
    Reply::made(
        550,
        s(5, 7, 1),
        format!(
            "Relaying denied: {domain} is not served here; log in on port 465 or 587 to send mail to others"
        ),
    )
}
/// The account has no room for the message (RFC 3463 X.2.2).
#[must_use]
pub fn mailbox_full(address: impl Display) -> Reply {
    Reply::made(
        452,
        s(4, 2, 2),
        format!("The mailbox of {address} is full; its owner must delete mail, then it can be sent again"),
    )
}
/// No mailbox that the message goes to has room for it.
pub const MAILBOXES_FULL: Reply = Reply::fixed(
    452,
    s(4, 2, 2),
    "The mailbox is full; its owner must delete mail, then the message can be sent again",
);
/// The operator disabled the domain (RFC 3463 X.2.1).
#[must_use]
pub fn domain_disabled(address: impl Display, temporary: bool, words: &str) -> Reply {
    let (code, class) = if temporary { (450, 4) } else { (550, 5) };
    let text = match words {
        "" => format!("Mail for {address} is not taken at present"),
        words => words.to_owned(),
    };
    Reply::made(code, s(class, 2, 1), text)
}
/// The address leads in a circle or to too many (RFC 3463 X.4.6); its operator can mend that, so the
/// sender tries again.
#[must_use]
pub fn address_flawed(address: impl Display) -> Reply {
    Reply::made(
        451,
        s(4, 4, 6),
        format!("Where {address} leads is not in order; its postmaster must mend it; try again later"),
    )
}
/// The group is not for everybody.
#[must_use]
pub fn may_not_post(address: impl Display) -> Reply {
    Reply::made(
        550,
        s(5, 7, 2),
        format!("You may not post to {address}; its members can, when they are logged in on port 465 or 587"),
    )
}
/// An address that looks like a sender which we rewrote, and is none.
#[must_use]
pub fn rewritten_sender_refused(address: impl Display, why: impl Display) -> Reply {
    Reply::made(
        550,
        s(5, 7, 1),
        format!("{address} is no address to which this server returns mail: {why}"),
    )
}
/// A message that an address here forwarded before has come back to it (RFC 3463 X.4.6).
#[must_use]
pub fn forward_loop(address: impl Display) -> Reply {
    Reply::made(
        554,
        s(5, 4, 6),
        format!("{address} has forwarded this message before, and it came back; it goes in a circle"),
    )
}
/// The directory could not be asked.
pub const LOOKUP_FAILED: Reply = Reply::fixed(
    451,
    s(4, 3, 0),
    "The address cannot be looked up right now; try again later",
);
/// The login may not send as this address (envelope).
#[must_use]
pub fn sender_not_yours(address: impl Display, login: impl Display) -> Reply {
    Reply::made(
        553,
        s(5, 7, 1),
        format!("{login} may not send as {address}; send as one of your own addresses"),
    )
}
/// The login may not send as this address (From field).
#[must_use]
pub fn author_not_yours(address: impl Display, login: impl Display) -> Reply {
    Reply::made(
        550,
        s(5, 7, 1),
        format!(
            "The From field says {address}, which does not belong to {login}; write as one of your own addresses"
        ),
    )
}
/// No usable From field (RFC 5322 §3.6).
pub const AUTHOR_MISSING: Reply = Reply::fixed(
    550,
    s(5, 6, 0),
    "The message must have exactly one From field with an address in it",
);
/// Too many Received fields (RFC 5321 §6.3).
pub const MAIL_LOOP: Reply = Reply::fixed(
    554,
    s(5, 4, 6),
    "The message has passed too many servers; it probably goes in a circle",
);
/// More header fields than any honest message has.
pub const TOO_MANY_FIELDS: Reply = Reply::fixed(552, s(5, 3, 4), "The message has too many header fields");
/// A judgement's own code, status and words (RFC 7372 has the codes).
#[must_use]
pub fn judged(code: u16, status: EnhancedStatus, words: &str) -> Reply {
    Reply::made(code, status, words)
}
/// A content filter cannot be asked; the operator wants mail to wait for it.
pub const FILTER_UNAVAILABLE: Reply = Reply::fixed(
    451,
    s(4, 7, 1),
    "A content filter of this server cannot be asked now; try again later",
);
/// A content filter cannot be asked; the operator wants mail refused then.
pub const FILTER_UNAVAILABLE_REFUSED: Reply = Reply::fixed(
    550,
    s(5, 7, 1),
    "A content filter of this server cannot be asked, and nothing is taken without it; tell the postmaster",
);
/// A content filter refuses, without words of its own.
pub const FILTER_REFUSED: Reply = Reply::fixed(
    550,
    s(5, 7, 1),
    "A content filter of this server refuses this; ask the postmaster why",
);
/// A content filter puts it off, without words of its own.
pub const FILTER_DEFERRED: Reply = Reply::fixed(
    451,
    s(4, 7, 1),
    "A content filter of this server puts this off; try again later",
);
/// A content filter wants the connection closed.
pub const FILTER_SHUTDOWN: Reply = Reply::fixed(
    421,
    s(4, 7, 1),
    "A content filter of this server closes the connection; try again later",
);
/// A content filter wants mail kept apart that leads to other servers.
pub const FILTER_QUARANTINES: Reply = Reply::fixed(
    550,
    s(5, 7, 1),
    "A content filter of this server holds this back, and it cannot go to other servers; change it or ask the \
     postmaster",
);
/// A header field does not fit what filters can be shown.
pub const FIELD_TOO_LONG_FOR_FILTER: Reply = Reply::fixed(
    554,
    s(5, 6, 0),
    "A header field is longer than 65000 octets, which the content filters of this server cannot read; shorten it",
);
/// A refusal in the words of a content filter.
#[must_use]
pub fn filter_said(code: u16, status: EnhancedStatus, words: String) -> Reply {
    Reply::made(code, status, words)
}
/// A message that policy refuses for another reason.
#[must_use]
pub fn policy_refused(why: impl Display) -> Reply {
    Reply::made(550, s(5, 7, 1), why.to_string())
}
/// The DNS could not be asked.
#[must_use]
pub fn dns_unavailable(why: impl Display) -> Reply {
    Reply::made(451, s(4, 4, 3), why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_early() -> Vec<Reply> {
        vec![
            READY_FOR_TLS,
            BYE,
            NOOP,
            RESET,
            SENDER_OK,
            RECIPIENT_OK,
            VRFY_UNTOLD,
            HELP,
            UNKNOWN_COMMAND,
            LINE_TOO_LONG,
            AUTH_LINE_TOO_LONG,
            BARE_LF,
            BARE_CR,
            NUL,
            NOT_UTF8,
            CONTROL_CHARACTER,
            NOT_HTTP,
            NO_ARGUMENT_ALLOWED,
            ARGUMENT_MISSING,
            HELO_NAME_MISSING,
            HELO_NAME_BAD,
            MAIL_SYNTAX,
            RCPT_SYNTAX,
            AUTH_SYNTAX,
            PARAMETER_VALUE,
            PARAMETER_TWICE,
            UNKNOWN_PARAMETER,
            NEEDS_SMTPUTF8,
            EHLO_FIRST,
            MAIL_FIRST,
            RCPT_FIRST,
            MAIL_TWICE,
            EXPN_UNKNOWN,
            ETRN_REFUSED,
            LHLO_FIRST,
            LHLO_HERE,
            EHLO_HERE,
            CHUNK_SIZE,
            CHUNKS_BEGUN,
            BINARY_NEEDS_BDAT,
            REQUIRETLS_NEEDS_TLS,
            DATA_BEHIND_STARTTLS,
            TLS_ALREADY,
            TLS_UNAVAILABLE,
            DATA_TOO_EARLY,
            EARLY_TALKER,
            MESSAGE_WITHOUT_DATA,
            NO_LOCAL_SENDER,
        ]
    }

    fn said_later() -> Vec<Reply> {
        vec![
            XCLIENT_DENIED,
            XCLIENT_SYNTAX,
            XCLIENT_IN_TRANSACTION,
            XCLIENT_NO_ACCOUNT,
            AUTH_OK,
            AUTH_NOT_HERE,
            AUTH_NEEDS_TLS,
            TLS_FIRST,
            AUTH_REQUIRED,
            AUTH_TWICE,
            AUTH_IN_TRANSACTION,
            auth_mechanism("PLAIN"),
            AUTH_CHANNEL,
            AUTH_MALFORMED,
            AUTH_CANCELLED,
            AUTH_FAILED,
            TOKEN_REFUSED,
            APP_PASSWORD_NEEDED,
            AUTH_UNAVAILABLE,
            AUTH_TOO_MANY,
            TOO_MANY_RECIPIENTS,
            TOO_MANY_ERRORS,
            TOO_MUCH_IDLE_TALK,
            TOO_MANY_MESSAGES,
            TIMED_OUT,
            LOGIN_OVER,
            SHUTTING_DOWN,
            INTERNAL_ERROR,
            TOO_MANY_CONNECTIONS,
            TOO_MANY_CONNECTIONS_FROM_YOU,
            BUSY,
            DISK_FULL,
            STORE_FAILED,
            DATA_BARE_LF,
            DATA_BARE_CR,
            DATA_NUL,
            DATA_LINE_TOO_LONG,
            LOOKUP_FAILED,
            MAILBOXES_FULL,
            AUTHOR_MISSING,
            MAIL_LOOP,
            TOO_MANY_FIELDS,
            FILTER_UNAVAILABLE,
            FILTER_UNAVAILABLE_REFUSED,
            FILTER_REFUSED,
            FILTER_DEFERRED,
            FILTER_SHUTDOWN,
            FILTER_QUARANTINES,
            FIELD_TOO_LONG_FOR_FILTER,
        ]
    }

    #[test]
    fn code_and_status_agree() {
        for reply in said_early().into_iter().chain(said_later()) {
            // RFC 2034 §4: the class of the status must agree with the first digit of the code.
            let class = u16::from(reply.status.unwrap().class);
            assert_eq!(reply.code / 100, class, "{reply}");
            assert!(reply.text.is_ascii(), "{reply}");
        }
    }
}
