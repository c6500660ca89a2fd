//! One IMAP session as a machine: bytes in; bytes, questions and events out.
//!
//! The driver feeds bytes ([`Session::feed`]), asks what is next ([`Session::step`]), writes what
//! [`Session::take_output`] gives, and answers questions. A question comes with a [`Ticket`] that
//! belongs to this one question; until it is handed back the session reads nothing further.
//! Commands are answered in order, one at a time (RFC 3501 §5.5).
//!
//! Never: a socket, a clock, a look into a mailbox.

mod answer;
mod append;
mod command;
mod event;
mod login;

pub use answer::{Copied, Opened, StatusData};
pub use event::{Event, Task, Ticket, ask};

use crate::command::Tag;
use crate::framer::{Frame, Framer};
use crate::options::Options;
use crate::parse::{self, split_tag};
use crate::response::{self, Code, Refusal, Status, put};
use crate::view::View;
use event::Info;
use sasl::Mechanism;

/// Octets of output after which the session wants them written before it goes on.
pub const OUTPUT_OCTETS_SOFT_MAX: usize = 32 * 1024;
/// Octets of a literal before login, whatever the options say.
const LITERAL_OCTETS_MAX_BEFORE_LOGIN: usize = 4_096;

/// What the session knows of its client.
#[derive(Debug)]
enum State {
    NotAuthenticated,
    Authenticated,
    Selected(Selected),
}

#[derive(Debug)]
struct Selected {
    view: View,
    read_only: bool,
}

/// What the session is in the middle of.
#[derive(Debug)]
enum Doing {
    /// Reading commands.
    Commands,
    /// A ticket is out.
    Waiting,
    /// AUTHENTICATE waits for a line.
    Sasl(Tag, Mechanism, Box<login::Exchange>),
    /// AUTHENTICATE waits for an answer of the driver.
    SaslAsked(Mechanism, Box<login::Asking>),
    /// IDLE waits for DONE.
    Idle(Tag),
    /// The message of an APPEND is coming.
    Appending { tag: Tag, has_nul: bool },
    /// A refused command passes by; then this is said.
    Dropping { tag: Option<Tag>, refusal: Refusal },
    /// STARTTLS was answered.
    Handshake,
    /// Nothing more is read.
    Closed,
}

/// One session, from the greeting on.
#[derive(Debug)]
pub struct Session {
    options: Options,
    tls: bool,
    state: State,
    doing: Doing,
    framer: Framer,
    output: Vec<u8>,
    bad_in_a_row: u32,
    login_failures: u32,
    channel: Option<Box<sasl::Channel>>,
    unseen: Option<Box<sasl::Unseen>>,
    /// Lines of the client without secrets, when they are wanted.
    transcript: Option<Vec<u8>>,
}

impl Session {
    /// A new session; its greeting is in the output. `tls` tells whether TLS runs already.
    #[must_use]
    pub fn new(options: Options, tls: bool) -> Self {
        let mut session = Self {
            framer: Framer::new(options.line_octets_max_before_login),
            options,
            tls,
            state: State::NotAuthenticated,
            doing: Doing::Commands,
            output: Vec::new(),
            bad_in_a_row: 0,
            login_failures: 0,
            channel: None,
            unseen: None,
            transcript: None,
        };
        let capability = Code::Capability(session.capabilities());
        let greeting = format!("{} ready", session.options.hostname);
        session.say("*", Status::Ok, Some(&capability), &greeting);
        session
    }

    /// Keeps the client's lines, without passwords, for [`Session::take_transcript`].
    pub fn keep_transcript(&mut self) {
        self.transcript = Some(Vec::new());
    }

    /// The client's lines since the last call, when they are kept.
    pub fn take_transcript(&mut self) -> Vec<u8> {
        self.transcript.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Adds bytes. Give at most some KiB at a time and only after [`Event::NeedInput`].
    pub fn feed(&mut self, bytes: &[u8]) {
        if !matches!(self.doing, Doing::Closed) {
            self.framer.feed(bytes);
        }
    }

    /// What shall be written.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Octets of input and output held in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        self.framer.held() + self.output.len()
    }

    /// Whether a login has succeeded.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        !matches!(self.state, State::NotAuthenticated)
    }

    /// Whether the client waits in IDLE: news may be told at any time, see [`Session::tell_news`].
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.doing, Doing::Idle(_))
    }

    /// The view of the selected mailbox.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        match &self.state {
            State::Selected(selected) => Some(&selected.view),
            _ => None,
        }
    }

    /// The view of the selected mailbox, to tell it what changed. The client hears of it with the
    /// next answer that may carry it.
    #[must_use]
    pub fn view_mut(&mut self) -> Option<&mut View> {
        match &mut self.state {
            State::Selected(selected) => Some(&mut selected.view),
            _ => None,
        }
    }

    /// Tells an idle client what it was not told; does nothing otherwise.
    pub fn tell_news(&mut self) {
        if self.is_idle()
            && let State::Selected(selected) = &mut self.state
        {
            selected.view.tell(&mut self.output, true, false);
        }
    }

    /// Ends the session from our side (RFC 3501 §7.1.5).
    pub fn bye(&mut self, text: &str) {
        if !matches!(self.doing, Doing::Closed) {
            self.say("*", Status::Bye, None, text);
            self.doing = Doing::Closed;
        }
    }

    /// The selected mailbox is gone: the session cannot go on with it.
    pub fn mailbox_vanished(&mut self) {
        self.bye("The selected mailbox was deleted");
    }

    /// TLS runs. What was said before it is forgotten (RFC 3501 §6.2.1).
    pub fn tls_started(&mut self) {
        self.tls = true;
        self.channel = None;
        self.framer = Framer::new(self.options.line_octets_max_before_login);
        self.state = State::NotAuthenticated;
        self.doing = Doing::Commands;
    }

    /// Goes on as far as it can without the driver.
    pub fn step(&mut self) -> Event {
        loop {
            if self.output.len() > OUTPUT_OCTETS_SOFT_MAX {
                return Event::Flush;
            }
            match self.doing {
                Doing::Closed => return Event::Close,
                Doing::Waiting | Doing::SaslAsked(..) => return Event::Waiting,
                Doing::Handshake => return Event::StartTls,
                _ => {}
            }
            let frame = self.framer.frame();
            if let Some(event) = self.take(frame) {
                return event;
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Option<Event> {
        match frame {
            Frame::NeedMore => return Some(Event::NeedInput),
            Frame::Command(text) => return self.take_line(&text),
            Frame::Literal { size, waits } => return self.take_literal(size, waits),
            Frame::Chunk(octets) => {
                if let Doing::Appending { has_nul, .. } = &mut self.doing {
                    *has_nul |= memchr::memchr(0, &octets).is_some();
                }
                return Some(Event::AppendChunk(octets));
            }
            Frame::TooLong(prefix) => return self.take_broken_line(&prefix, "Line too long"),
            Frame::BareLf(prefix) => {
                return self.take_broken_line(&prefix, "Lines must end in CR LF");
            }
            Frame::Dropped => {
                if let Doing::Dropping { tag, refusal } = std::mem::replace(&mut self.doing, Doing::Commands)
                {
                    self.say_refusal(tag.as_ref(), &refusal);
                }
            }
            Frame::Hopeless => self.bye("Literal too large"),
        }
        None
    }

    fn take_line(&mut self, text: &[u8]) -> Option<Event> {
        match std::mem::replace(&mut self.doing, Doing::Commands) {
            Doing::Sasl(tag, mechanism, exchange) => self.sasl_line(tag, mechanism, *exchange, text),
            Doing::Idle(tag) => {
                self.note_line(text);
                self.idle_line(&tag, text);
                None
            }
            Doing::Appending { tag, has_nul } => Some(self.append_line(tag, has_nul, text)),
            _ => self.command_line(text),
        }
    }

    /// A line that cannot be a command, because of its form. It ends whatever waited for it.
    fn take_broken_line(&mut self, prefix: &[u8], why: &'static str) -> Option<Event> {
        match std::mem::replace(&mut self.doing, Doing::Commands) {
            Doing::Sasl(tag, ..) | Doing::Idle(tag) => self.bad(Some(&tag), why),
            Doing::Appending { tag, .. } => {
                self.bad(Some(&tag), why);
                return Some(Event::AppendBroken);
            }
            _ => {
                let tag = split_tag(prefix).map(|(tag, _)| tag);
                self.bad(tag.as_ref(), why);
            }
        }
        None
    }

    /// A line ended by announcing a literal.
    fn take_literal(&mut self, size: u64, waits: bool) -> Option<Event> {
        match std::mem::replace(&mut self.doing, Doing::Commands) {
            Doing::Sasl(tag, ..) | Doing::Idle(tag) => {
                self.drop_command(Some(tag), size, waits, "No literal is expected here");
                return None;
            }
            Doing::Appending { tag, .. } => {
                self.drop_command(Some(tag), size, waits, "One message at a time");
                return Some(Event::AppendBroken);
            }
            _ => {}
        }
        let Some((tag, text)) = split_tag(self.framer.command()) else {
            self.drop_command(None, size, waits, "Expected a tag");
            return None;
        };
        if parse::is_append(text) {
            match parse::append_head(text) {
                Ok(Some(head)) => return self.append_asked(tag, head, size, waits),
                Ok(None) => {}
                Err(error) => {
                    self.drop_command(Some(tag), size, waits, &error.to_string());
                    return None;
                }
            }
        }
        let max = match self.is_logged_in() {
            true => self.options.literal_octets_max,
            false => self
                .options
                .literal_octets_max
                .min(LITERAL_OCTETS_MAX_BEFORE_LOGIN),
        };
        // What the command holds already counts too: literals together are bounded.
        let fits =
            usize::try_from(size).is_ok_and(|n| n.saturating_add(self.framer.command().len()) <= max + 256);
        if !fits {
            let refusal = Refusal::new(Code::TooBig, "Literal too large");
            self.refuse_literal(Some(tag), size, waits, refusal);
            return None;
        }
        self.framer.collect(size);
        if waits {
            put(&mut self.output, "+ Ready for the literal\r\n");
        }
        None
    }

    fn drop_command(&mut self, tag: Option<Tag>, size: u64, waits: bool, why: &str) {
        self.bad_in_a_row += 1;
        let refusal = Refusal {
            code: None,
            text: why.to_owned(),
        };
        self.refuse_literal(tag, size, waits, refusal);
    }

    /// Says no to a command whose literal was announced, once what is on its way has passed.
    fn refuse_literal(&mut self, tag: Option<Tag>, size: u64, waits: bool, refusal: Refusal) {
        if waits {
            self.framer.forget();
            self.doing = Doing::Commands;
            self.say_refusal(tag.as_ref(), &refusal);
        } else if size > crate::framer::SKIPPED_OCTETS_MAX {
            self.bye("Literal too large");
        } else {
            self.framer.skip(size);
            self.doing = Doing::Dropping { tag, refusal };
        }
    }

    fn idle_line(&mut self, tag: &Tag, text: &[u8]) {
        if !text.eq_ignore_ascii_case(b"DONE") {
            return self.bad(Some(tag), "Expected DONE");
        }
        if let State::Selected(selected) = &mut self.state {
            selected.view.tell(&mut self.output, true, false);
        }
        self.ok(tag, None, "Idle ended");
    }

    /// What may be said of a line is kept for the transcript: nothing of passwords.
    fn note_line(&mut self, line: &[u8]) {
        let Some(kept) = &mut self.transcript else { return };
        let words: Vec<&[u8]> = line.splitn(4, |b| *b == b' ').collect();
        let shown = match words.get(1) {
            Some(verb) if verb.eq_ignore_ascii_case(b"LOGIN") => 2,
            Some(verb) if verb.eq_ignore_ascii_case(b"AUTHENTICATE") => 3,
            _ => 4,
        };
        kept.extend_from_slice(&words[..words.len().min(shown)].join(&b' '));
        put(kept, if words.len() > shown { " …\r\n" } else { "\r\n" });
        // The driver takes it after each event; this bounds it all the same.
        if kept.len() > 4 * OUTPUT_OCTETS_SOFT_MAX {
            kept.clear();
        }
    }

    /// The question is answered: commands are read again, unless the session has ended.
    fn resume(&mut self) {
        if !matches!(self.doing, Doing::Closed) {
            self.doing = Doing::Commands;
        }
    }

    fn say(&mut self, tag: &str, status: Status, code: Option<&Code>, text: &str) {
        response::status(&mut self.output, tag, status, code, text);
    }

    fn ok(&mut self, tag: &Tag, code: Option<&Code>, text: &str) {
        self.bad_in_a_row = 0;
        self.say(&tag.0, Status::Ok, code, text);
    }

    fn no(&mut self, tag: &Tag, code: Code, text: &str) {
        self.say(&tag.0, Status::No, Some(&code), text);
    }

    fn say_refusal(&mut self, tag: Option<&Tag>, refusal: &Refusal) {
        let tag = tag.map_or("*", |t| t.0.as_str());
        // A refusal without a code is about the form of the command.
        let status = if refusal.code.is_some() {
            Status::No
        } else {
            Status::Bad
        };
        response::status(
            &mut self.output,
            tag,
            status,
            refusal.code.as_ref(),
            &refusal.text,
        );
        self.end_if_hopeless();
    }

    fn bad(&mut self, tag: Option<&Tag>, text: &str) {
        self.bad_in_a_row += 1;
        self.say(tag.map_or("*", |t| t.0.as_str()), Status::Bad, None, text);
        self.end_if_hopeless();
    }

    /// Whoever sends nothing but nonsense is not a mail client.
    fn end_if_hopeless(&mut self) {
        if self.bad_in_a_row >= self.options.bad_commands_max {
            self.bye("Too many bad commands");
        }
    }
}
