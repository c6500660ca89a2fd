//! APPEND: the message is handed out in chunks and never held.

use super::{Doing, Event, Info, Session, Ticket, ask};
use crate::command::{AppendHead, Tag};
use crate::response::{Code, Refusal, put};
use mail::{Uid, UidValidity};

impl Session {
    pub(super) fn append_asked(
        &mut self,
        tag: Tag,
        head: AppendHead,
        size: u64,
        waits: bool,
    ) -> Option<Event> {
        if self.transcript.is_some() {
            let line = self.framer.command().to_vec();
            self.note_line(&line);
        }
        if !self.is_logged_in() {
            self.drop_command(Some(tag), size, waits, "Log in first");
            return None;
        }
        if size > self.options.append_octets_max {
            let max = self.options.append_octets_max;
            let refusal = Refusal::new(Code::TooBig, format!("The message is larger than {max} octets"));
            self.refuse_literal(Some(tag), size, waits, refusal);
            return None;
        }
        if size == 0 {
            let refusal = Refusal::new(Code::Cannot, "The message is empty");
            self.refuse_literal(Some(tag), size, waits, refusal);
            return None;
        }
        self.doing = Doing::Waiting;
        let info = Info {
            literal: size,
            waits,
            ..Info::default()
        };
        Some(Event::Append {
            ticket: Ticket::new(tag, info),
            head,
            octets: size,
        })
    }

    /// Lets the message come: [`Event::AppendChunk`]s follow, then [`Event::AppendEnd`] or
    /// [`Event::AppendBroken`]. A driver that fails in the middle takes the rest and refuses the
    /// end.
    pub fn accept_append(&mut self, ticket: Ticket<ask::Append>) {
        if ticket.info.waits {
            put(&mut self.output, "+ Ready for the message\r\n");
        }
        self.framer.stream(ticket.info.literal);
        self.doing = Doing::Appending {
            tag: ticket.tag,
            has_nul: false,
        };
    }

    /// Refuses the message before it comes.
    pub fn refuse_append(&mut self, ticket: Ticket<ask::Append>, refusal: Refusal) {
        self.resume();
        self.refuse_literal(Some(ticket.tag), ticket.info.literal, ticket.info.waits, refusal);
    }

    /// The line behind the message must be empty.
    pub(super) fn append_line(&mut self, tag: Tag, has_nul: bool, text: &[u8]) -> Event {
        if !text.is_empty() {
            self.bad(Some(&tag), "Expected the end of the command");
            return Event::AppendBroken;
        }
        if has_nul {
            // RFC 3501 §9: CHAR8 is any octet but NUL.
            self.bad(Some(&tag), "The message holds NUL");
            return Event::AppendBroken;
        }
        self.doing = Doing::Waiting;
        let info = Info {
            done: "Append completed",
            ..Info::default()
        };
        Event::AppendEnd(Ticket::new(tag, info))
    }

    /// The message is in its mailbox, durably (RFC 4315 APPENDUID).
    pub fn appended(&mut self, ticket: Ticket<ask::Appended>, place: Option<(UidValidity, Uid)>) {
        let code = place.map(|(validity, uid)| Code::AppendUid(validity, uid));
        self.finish(&ticket.tag, &ticket.info, code.as_ref());
    }
}
