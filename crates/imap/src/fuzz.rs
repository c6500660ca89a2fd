//! The whole session machine under any input, with its invariants checked; for fuzzers and tests.

use crate::fetch::{MessageData, respond};
use crate::list::Entry;
use crate::session::{Copied, Opened, StatusData, Task};
use crate::{Event, Flag, MailboxName, Options, Refusal, SeqNum, Session};
use mail::mime::Structure;
use mail::{Timestamp, Uid, UidValidity};
use sasl::{Answer, Request};

const MESSAGE: &[u8] = b"From: a@b.c\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\none\r\n--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nbody\r\n--x--\r\n";

/// Runs a session over `data`: its first octet chooses how it is split and whether TLS runs.
///
/// # Panics
/// When an invariant does not hold: memory beyond the limits, a tagged answer that does not end in
/// CR LF, a session that asks for an answer that it has.
pub fn server(data: &[u8]) {
    let Some((control, data)) = data.split_first() else {
        return;
    };
    let options = Options {
        allow_plaintext_login: control & 1 != 0,
        line_octets_max: 2_000,
        line_octets_max_before_login: 1_000,
        literal_octets_max: 1_000,
        append_octets_max: 1_000_000,
        mechanisms: sasl::Mechanism::ALL.into_iter().collect(),
        ..Options::default()
    };
    let mut session = Session::new(options, control & 2 != 0);
    let piece = usize::from(control >> 2) + 1;
    let mut driver = Driver::default();
    for piece in data.chunks(piece) {
        session.feed(piece);
        // 2,000 of line, 1,256 of literals, a piece, and output up to the soft limit and one answer.
        assert!(session.held() < 300_000, "memory is bounded");
        if !driver.run(&mut session) {
            return;
        }
    }
}

/// Answers every question in some way that depends on what was asked before.
#[derive(Default)]
struct Driver {
    turn: u32,
    next_uid: u32,
}

impl Driver {
    /// Runs until input is needed; false when the session has ended.
    fn run(&mut self, session: &mut Session) -> bool {
        loop {
            self.turn = self.turn.wrapping_add(1);
            let event = session.step();
            let output = session.take_output();
            assert!(output.is_empty() || output.ends_with(b"\r\n") || output.ends_with(b"+ "));
            match event {
                Event::NeedInput => return true,
                Event::Close => return false,
                Event::Flush => {}
                Event::Waiting => panic!("no ticket is out"),
                Event::StartTls => session.tls_started(),
                event => self.answer(session, event),
            }
        }
    }

    fn answer(&mut self, session: &mut Session, event: Event) {
        let refuse = self.turn.is_multiple_of(5);
        let no = Refusal::unavailable();
        match event {
            Event::Login { ticket, .. } if refuse => session.login(ticket, Answer::Refused(no)),
            Event::Login {
                ticket,
                request: Request::Salt { .. },
                ..
            } => session.login(
                ticket,
                Answer::Salted(sasl::Salted {
                    salt: b"salt".to_vec(),
                    iterations: 1,
                    nonce: "server".to_owned(),
                }),
            ),
            // Nobody here knows a key.
            Event::Login {
                ticket,
                request: Request::Proof { .. },
                ..
            } => session.login(ticket, Answer::Refused(no)),
            Event::Login { ticket, .. } => session.login(ticket, Answer::Accepted((), None)),
            Event::Select { ticket, .. } if refuse => session.refuse(ticket, no),
            Event::Select { ticket, .. } => {
                self.next_uid = self.next_uid.max(4);
                let opened = Opened {
                    uids: (1..self.next_uid).map(Uid).collect(),
                    recent: Uid(2)..Uid(4),
                    first_unseen: Some(Uid(1)),
                    uid_validity: UidValidity(1),
                    uid_next: Uid(self.next_uid),
                    keywords: vec!["k".to_owned()],
                };
                session.selected(ticket, opened);
            }
            Event::List(ticket) => {
                let entry = Entry {
                    name: MailboxName::inbox(),
                    special_use: None,
                    subscribed: true,
                    exists: true,
                };
                session.listed(ticket, &[entry]);
            }
            Event::Status { ticket, .. } => {
                let data = StatusData {
                    messages: 3,
                    recent: 1,
                    unseen: 1,
                    uid_next: Uid(4),
                    uid_validity: UidValidity(1),
                };
                session.status(ticket, &data);
            }
            Event::Search { ticket, .. } => session.found(ticket, &[Uid(1), Uid(3)]),
            Event::Copy {
                ticket,
                targets,
                is_move,
                ..
            } => {
                let uids = session.view().map(|v| targets.uids(v)).unwrap_or_default();
                if let Some(view) = session.view_mut().filter(|_| is_move) {
                    uids.iter().for_each(|u| view.expunged(*u));
                }
                let copied = Copied {
                    uid_validity: UidValidity(2),
                    uids: uids.into_iter().map(|u| (u, u)).collect(),
                };
                session.copied(ticket, copied);
            }
            Event::Append { ticket, .. } if refuse => session.refuse_append(ticket, no),
            Event::Append { ticket, .. } => session.accept_append(ticket),
            Event::AppendEnd(ticket) => session.appended(ticket, Some((UidValidity(1), Uid(9)))),
            Event::Task { ticket, task } => {
                self.work(session, task);
                match refuse {
                    true => session.refuse(ticket, no),
                    false => session.done(ticket),
                }
            }
            _ => {}
        }
    }

    fn work(&mut self, session: &mut Session, task: Task) {
        match task {
            Task::Sync => {
                self.next_uid = self.next_uid.saturating_add(1);
                if let Some(view) = session.view_mut() {
                    view.arrived([Uid(self.next_uid)]);
                }
            }
            Task::Fetch {
                mut targets, items, ..
            } => {
                let structure = Structure::of(MESSAGE);
                let Some(view) = session.view() else { return };
                for (seq, uid) in targets.next(view, 3) {
                    let pieces = respond(
                        &items,
                        &MessageData {
                            seq,
                            uid,
                            flags: &[Flag::Seen],
                            recent: false,
                            internal_date: Timestamp::default(),
                            octets: MESSAGE.len() as u64,
                            content: Some((MESSAGE, &structure)),
                        },
                    );
                    assert!(!pieces.is_empty());
                }
            }
            Task::Store { targets, flags, .. } => {
                let uids = session.view().map(|v| targets.uids(v)).unwrap_or_default();
                if let Some(view) = session.view_mut() {
                    uids.iter().for_each(|u| view.flags_changed(*u, flags.clone()));
                }
            }
            Task::Expunge(mut targets) => {
                let gone = session.view().map(|v| targets.next(v, 1)).unwrap_or_default();
                if let Some(view) = session.view_mut() {
                    gone.iter().for_each(|(_, u)| view.expunged(*u));
                    assert!(view.seq(Uid(0)).is_none_or(|SeqNum(n)| n > 0));
                }
            }
            _ => {}
        }
    }
}
