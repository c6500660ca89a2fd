//! What each command does: first whether it may stand here, then what it asks of the driver.

use super::{Doing, Event, Info, Selected, Session, State, Task, Ticket, ask};
use crate::command::{Command, StatusItem, Tag};
use crate::list::Pattern;
use crate::name::MailboxName;
use crate::parse::{self, split_tag};
use crate::response::{Code, put};
use crate::sequence::{MessageSet, SequenceSet};
use crate::view::Targets;
use mail::Uid;

/// In which state a command may stand (RFC 3501 §6).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    NoLogin,
    Login,
    Mailbox,
}

fn needs(command: &Command) -> Needs {
    match command {
        Command::Capability | Command::Noop | Command::Logout | Command::Id(_) => Needs::Nothing,
        Command::StartTls | Command::Authenticate { .. } | Command::Login { .. } => Needs::NoLogin,
        Command::Check
        | Command::Close
        | Command::Unselect
        | Command::Expunge(_)
        | Command::Search { .. }
        | Command::SearchBadCharset
        | Command::Fetch { .. }
        | Command::Store { .. }
        | Command::Copy { .. }
        | Command::Move { .. } => Needs::Mailbox,
        _ => Needs::Login,
    }
}

/// Information of an answer with these words.
fn info(done: &'static str) -> Info {
    Info {
        done,
        ..Info::default()
    }
}

/// RFC 3501 §7.4.1: sequence numbers must hold until FETCH and STORE are answered; their UID forms
/// use none.
fn info_of_set(done: &'static str, set: &MessageSet) -> Info {
    Info {
        uid: set.is_uid(),
        no_expunge: !set.is_uid(),
        ..info(done)
    }
}

impl Session {
    pub(super) fn command_line(&mut self, text: &[u8]) -> Option<Event> {
        self.note_line(text);
        let Some((tag, rest)) = split_tag(text) else {
            self.bad(None, "Expected a tag");
            return None;
        };
        let command = match parse::command(rest) {
            Ok(command) => command,
            Err(error) => {
                self.bad(Some(&tag), &error.to_string());
                return None;
            }
        };
        let misplaced = match (needs(&command), &self.state) {
            (Needs::NoLogin, State::Authenticated | State::Selected(_)) => Some("Already logged in"),
            (Needs::Login | Needs::Mailbox, State::NotAuthenticated) => Some("Log in first"),
            (Needs::Mailbox, State::Authenticated) => Some("Select a mailbox first"),
            _ => None,
        };
        if let Some(why) = misplaced {
            self.bad(Some(&tag), why);
            return None;
        }
        self.obey(tag, command)
    }

    fn obey(&mut self, tag: Tag, command: Command) -> Option<Event> {
        match command {
            Command::Capability => {
                let line = format!("* CAPABILITY {}\r\n", self.capabilities());
                put(&mut self.output, &line);
                self.ok(&tag, None, "Capabilities listed");
            }
            Command::Noop if self.is_logged_in() => return Some(self.task(tag, info("Done"), Task::Sync)),
            Command::Noop => self.ok(&tag, None, "Done"),
            Command::Check => return Some(self.task(tag, info("Checked"), Task::Sync)),
            Command::Logout => self.logout(&tag),
            Command::StartTls => self.starttls(&tag),
            Command::Id(_) => {
                put(&mut self.output, "* ID (\"name\" \"Posthaste\")\r\n");
                self.ok(&tag, None, "Pleased to meet you");
            }
            Command::Enable => {
                // RFC 5161: what is not known is passed over; nothing here has to be enabled.
                put(&mut self.output, "* ENABLED\r\n");
                self.ok(&tag, None, "Enabled");
            }
            Command::Namespace => {
                put(&mut self.output, "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
                self.ok(&tag, None, "Namespaces listed");
            }
            Command::Idle => {
                put(&mut self.output, "+ Idling\r\n");
                self.doing = Doing::Idle(tag);
                self.tell_news();
            }
            Command::Login { user, .. } if !self.may_log_in() => {
                self.note_unseen(sasl::Mechanism::Login.name(), Some(user), sasl::Why::BeforeTls);
                self.privacy_required(&tag);
            }
            Command::Login { user, password } => return Some(self.ask_login(tag, user, password)),
            Command::Authenticate { mechanism, initial } => {
                return self.authenticate(tag, mechanism, initial);
            }
            other => return self.obey_on_mailboxes(tag, other),
        }
        None
    }

    fn obey_on_mailboxes(&mut self, tag: Tag, command: Command) -> Option<Event> {
        Some(match command {
            Command::Select { mailbox, read_only } => self.select(tag, mailbox, read_only),
            Command::List(None) => {
                // RFC 3501 §6.3.8: the empty pattern asks for the separator and the root.
                put(&mut self.output, "* LIST (\\Noselect) \"/\" \"\"\r\n");
                self.ok(&tag, None, "Listed");
                return None;
            }
            Command::List(Some(pattern)) => self.list(tag, pattern, false),
            Command::Lsub(pattern) => self.list(tag, pattern, true),
            Command::Status { mailbox, items } => self.ask_status(tag, mailbox, items),
            Command::Create(name) => self.task(tag, info("Created"), Task::Create(name)),
            Command::Delete(name) => self.task(tag, info("Deleted"), Task::Delete(name)),
            Command::Rename { from, to } => self.task(tag, info("Renamed"), Task::Rename { from, to }),
            Command::Subscribe(name) => self.task(tag, info("Subscribed"), Task::Subscribe(name)),
            Command::Unsubscribe(name) => self.task(tag, info("Unsubscribed"), Task::Unsubscribe(name)),
            other => return self.obey_on_messages(tag, other),
        })
    }

    fn obey_on_messages(&mut self, tag: Tag, command: Command) -> Option<Event> {
        let State::Selected(Selected { read_only, .. }) = &self.state else {
            return None;
        };
        let read_only = *read_only;
        let changes = matches!(
            command,
            Command::Store { .. } | Command::Expunge(_) | Command::Move { .. }
        );
        if changes && read_only {
            self.no(&tag, Code::Cannot, "The mailbox was opened read-only");
            return None;
        }
        Some(match command {
            Command::Close => self.deselect(tag, "Closed", !read_only),
            Command::Unselect => self.deselect(tag, "Unselected", false),
            Command::Expunge(set) => self.expunge(tag, set),
            Command::SearchBadCharset => {
                self.no(&tag, Code::BadCharset, "Unknown charset");
                return None;
            }
            Command::Search { uid, key } => {
                let largest = self
                    .view()
                    .map(crate::View::largest)
                    .unwrap_or((crate::SeqNum(0), Uid(0)));
                let info = Info {
                    uid,
                    no_expunge: !uid,
                    ..info("Searched")
                };
                let ticket = self.ticket(tag, info);
                let key = key.prepared(largest);
                Event::Search { ticket, key }
            }
            Command::Fetch { set, items } => {
                let targets = self.targets(&tag, &set)?;
                let may_set_seen = !read_only;
                let task = Task::Fetch {
                    targets,
                    items,
                    may_set_seen,
                };
                self.task(tag, info_of_set("Fetched", &set), task)
            }
            Command::Store {
                set,
                mode,
                silent,
                flags,
            } => {
                let targets = self.targets(&tag, &set)?;
                let task = Task::Store {
                    targets,
                    mode,
                    silent,
                    flags,
                };
                self.task(tag, info_of_set("Stored", &set), task)
            }
            Command::Copy { set, mailbox } => self.copy(tag, &set, mailbox, false)?,
            Command::Move { set, mailbox } => self.copy(tag, &set, mailbox, true)?,
            _ => return None,
        })
    }

    fn ticket<Of>(&mut self, tag: Tag, info: Info) -> Ticket<Of> {
        self.doing = Doing::Waiting;
        Ticket::new(tag, info)
    }

    fn task(&mut self, tag: Tag, info: Info, task: Task) -> Event {
        let ticket: Ticket<ask::Task> = self.ticket(tag, info);
        Event::Task { ticket, task }
    }

    fn logout(&mut self, tag: &Tag) {
        self.say("*", crate::response::Status::Bye, None, "Goodbye");
        self.ok(tag, None, "Logged out");
        self.doing = Doing::Closed;
    }

    fn starttls(&mut self, tag: &Tag) {
        if !self.may_start_tls() {
            return self.bad(Some(tag), "TLS is not available, or runs already");
        }
        if self.framer.pending() > 0 {
            // What came before TLS could be anybody's; it must not be taken for the client's.
            return self.bye("Nothing may follow STARTTLS before the handshake");
        }
        self.ok(tag, None, "Begin TLS now");
        self.doing = Doing::Handshake;
    }

    fn select(&mut self, tag: Tag, mailbox: MailboxName, read_only: bool) -> Event {
        // RFC 3501 §6.3.1: also a SELECT that fails ends the selection before it.
        self.state = State::Authenticated;
        let info = Info {
            done: if read_only { "Examined" } else { "Selected" },
            read_only,
            ..Info::default()
        };
        Event::Select {
            ticket: self.ticket(tag, info),
            mailbox,
            read_only,
        }
    }

    fn list(&mut self, tag: Tag, pattern: Pattern, lsub: bool) -> Event {
        let info = Info {
            lsub,
            pattern: Some(pattern),
            ..info("Listed")
        };
        Event::List(self.ticket(tag, info))
    }

    fn ask_status(&mut self, tag: Tag, mailbox: MailboxName, items: Vec<StatusItem>) -> Event {
        let info = Info {
            items,
            mailbox: Some(mailbox.clone()),
            ..info("Status told")
        };
        Event::Status {
            ticket: self.ticket(tag, info),
            mailbox,
        }
    }

    fn deselect(&mut self, tag: Tag, done: &'static str, expunge: bool) -> Event {
        let info = Info {
            deselects: true,
            ..info(done)
        };
        self.task(tag, info, Task::Deselect { expunge })
    }

    fn expunge(&mut self, tag: Tag, set: Option<SequenceSet<Uid>>) -> Event {
        let targets = match (set, self.view()) {
            (Some(set), Some(view)) => view.targets(&MessageSet::Uid(set)),
            (None, Some(view)) => Some(view.all()),
            (_, None) => None,
        };
        self.task(
            tag,
            info("Expunged"),
            Task::Expunge(targets.unwrap_or(Targets::none())),
        )
    }

    fn copy(&mut self, tag: Tag, set: &MessageSet, mailbox: MailboxName, is_move: bool) -> Option<Event> {
        let targets = self.targets(&tag, set)?;
        let info = Info {
            uid: set.is_uid(),
            is_move,
            ..info(if is_move { "Moved" } else { "Copied" })
        };
        Some(Event::Copy {
            ticket: self.ticket(tag, info),
            targets,
            mailbox,
            is_move,
        })
    }

    /// The messages of a set, or BAD when there is none of such a number.
    fn targets(&mut self, tag: &Tag, set: &MessageSet) -> Option<Targets> {
        let targets = self.view().and_then(|v| v.targets(set));
        if targets.is_none() {
            self.bad(Some(tag), "No message has such a number");
        }
        targets
    }
}
