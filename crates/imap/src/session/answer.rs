//! The driver's answers, and how the client hears of them.

use super::{Info, Selected, Session, State, Ticket, ask};
use crate::command::{StatusItem, Tag};
use crate::flag::Flag;
use crate::list::{self, Entry};
use crate::name::encode;
use crate::response::{Code, Refusal, Status, put, status, string};
use crate::sequence::SeqNum;
use crate::view::View;
use mail::{Uid, UidValidity};
use std::ops::Range;

/// An opened mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The UIDs of its messages, ascending.
    pub uids: Vec<Uid>,
    /// The UIDs that this session is the first to see; they are recent in it.
    pub recent: Range<Uid>,
    /// The first message without `\Seen`.
    pub first_unseen: Option<Uid>,
    /// The validity value of the UIDs.
    pub uid_validity: UidValidity,
    /// The next UID.
    pub uid_next: Uid,
    /// Keywords in use, beside the system flags.
    pub keywords: Vec<String>,
}

/// The numbers of a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusData {
    /// Messages.
    pub messages: u64,
    /// Messages that no session has seen yet.
    pub recent: u64,
    /// Messages without `\Seen`.
    pub unseen: u64,
    /// The next UID.
    pub uid_next: Uid,
    /// The validity value of the UIDs.
    pub uid_validity: UidValidity,
}

/// What a copy or move did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copied {
    /// The validity value of the destination's UIDs.
    pub uid_validity: UidValidity,
    /// UIDs before and after, in the same order; empty when there was nothing to copy.
    pub uids: Vec<(Uid, Uid)>,
}

impl Session {
    /// Says no to any question but a login or the beginning of an APPEND.
    pub fn refuse<Of>(&mut self, ticket: Ticket<Of>, refusal: Refusal) {
        self.resume();
        let refusal = Refusal {
            code: refusal.code.or(Some(Code::Cannot)),
            ..refusal
        };
        self.say_refusal(Some(&ticket.tag), &refusal);
    }

    /// It is done.
    pub fn done(&mut self, ticket: Ticket<ask::Task>) {
        if ticket.info.deselects {
            self.state = State::Authenticated;
        }
        self.finish(&ticket.tag, &ticket.info, None);
    }

    /// A fetch is done, but some of its messages are gone (RFC 5530 EXPUNGEISSUED).
    /// A UID command passes over messages that are not there (RFC 3501 §6.4.8), so it is just done.
    pub fn done_partly(&mut self, ticket: Ticket<ask::Task>) {
        if ticket.info.uid {
            return self.finish(&ticket.tag, &ticket.info, None);
        }
        self.tell(&ticket.info);
        self.resume();
        self.no(
            &ticket.tag,
            Code::ExpungeIssued,
            "Some of the messages were expunged",
        );
    }

    /// Tells what may be told now, then the tagged OK.
    pub(super) fn finish(&mut self, tag: &Tag, info: &Info, code: Option<&Code>) {
        self.tell(info);
        self.resume();
        self.ok(tag, code, info.done);
    }

    fn tell(&mut self, info: &Info) {
        if let State::Selected(selected) = &mut self.state {
            selected.view.tell(&mut self.output, !info.no_expunge, info.uid);
        }
    }

    /// The mailbox is open.
    pub fn selected(&mut self, ticket: Ticket<ask::Select>, opened: Opened) {
        let out = &mut self.output;
        let view = View::new(opened.uids, opened.recent);
        let mut flags: Vec<String> = Flag::SYSTEM.iter().map(Flag::to_string).collect();
        flags.extend(opened.keywords);
        put(out, &format!("* FLAGS ({})\r\n", flags.join(" ")));
        put(
            out,
            &format!("* {} EXISTS\r\n* {} RECENT\r\n", view.len(), view.recent()),
        );
        let mut tell = |code: Code, text: &str| status(out, "*", Status::Ok, Some(&code), text);
        let read_only = ticket.info.read_only;
        if read_only {
            tell(Code::PermanentFlags(Vec::new()), "Nothing can be changed");
        } else {
            flags.push("\\*".to_owned());
            tell(Code::PermanentFlags(flags), "These flags are kept");
        }
        if let Some(seq) = opened.first_unseen.and_then(|uid| view.seq(uid)) {
            tell(Code::Unseen(seq), "The first unseen message");
        }
        tell(Code::UidValidity(opened.uid_validity), "UIDs are valid");
        tell(Code::UidNext(opened.uid_next), "The next UID");
        self.state = State::Selected(Selected { view, read_only });
        let code = if read_only {
            Code::ReadOnly
        } else {
            Code::ReadWrite
        };
        self.finish(&ticket.tag, &ticket.info, Some(&code));
    }

    /// All mailboxes and subscriptions of the account; the session picks those that were asked.
    pub fn listed(&mut self, ticket: Ticket<ask::List>, entries: &[Entry]) {
        let (verb, lines) = match &ticket.info.pattern {
            Some(pattern) if ticket.info.lsub => ("LSUB", list::lsub(entries, pattern)),
            Some(pattern) => ("LIST", list::list(entries, pattern)),
            None => ("LIST", Vec::new()),
        };
        for line in lines {
            put(
                &mut self.output,
                &format!("* {verb} ({}) \"/\" ", line.attributes.join(" ")),
            );
            string(&mut self.output, encode(&line.name).as_bytes());
            put(&mut self.output, "\r\n");
        }
        self.finish(&ticket.tag, &ticket.info, None);
    }

    /// The numbers of the mailbox.
    pub fn status(&mut self, ticket: Ticket<ask::StatusOf>, data: &StatusData) {
        let item = |item: &StatusItem| match item {
            StatusItem::Messages => format!("MESSAGES {}", data.messages),
            StatusItem::Recent => format!("RECENT {}", data.recent),
            StatusItem::UidNext => format!("UIDNEXT {}", data.uid_next),
            StatusItem::UidValidity => format!("UIDVALIDITY {}", data.uid_validity),
            StatusItem::Unseen => format!("UNSEEN {}", data.unseen),
        };
        let items: Vec<String> = ticket.info.items.iter().map(item).collect();
        let name = ticket
            .info
            .mailbox
            .as_ref()
            .map(|m| m.to_wire())
            .unwrap_or_default();
        put(&mut self.output, "* STATUS ");
        string(&mut self.output, name.as_bytes());
        put(&mut self.output, &format!(" ({})\r\n", items.join(" ")));
        self.finish(&ticket.tag, &ticket.info, None);
    }

    /// The messages that match, by UID, ascending; those that the view does not know are passed over.
    pub fn found(&mut self, ticket: Ticket<ask::Search>, uids: &[Uid]) {
        put(&mut self.output, "* SEARCH");
        if let State::Selected(selected) = &self.state {
            for uid in uids {
                if let Some(SeqNum(seq)) = selected.view.seq(*uid) {
                    let n = if ticket.info.uid { uid.0 } else { seq };
                    put(&mut self.output, &format!(" {n}"));
                }
            }
        }
        put(&mut self.output, "\r\n");
        self.finish(&ticket.tag, &ticket.info, None);
    }

    /// The messages are copied or moved, durably. After a move, the driver has told the view
    /// which messages are gone.
    pub fn copied(&mut self, ticket: Ticket<ask::Copy>, copied: Copied) {
        let mut code = None;
        if !copied.uids.is_empty() {
            let (from, to) = copied.uids.into_iter().unzip();
            code = Some(Code::CopyUid(copied.uid_validity, from, to));
        }
        if ticket.info.is_move && code.is_some() {
            // RFC 6851 §4.3: before the EXPUNGE responses, so that the client can match them.
            status(&mut self.output, "*", Status::Ok, code.as_ref(), "Moved");
            code = None;
        }
        self.finish(&ticket.tag, &ticket.info, code.as_ref());
    }
}
