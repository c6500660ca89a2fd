//! One conversation with a filter, as a value that is fed with octets.
//!
//! The driver calls [`Client::ask`], writes [`Client::take_output`], and while an answer is awaited
//! feeds what it reads and calls [`Client::step`]. One command is out at a time, so that an answer
//! can only belong to it.

use crate::answer::Answer;
use crate::change::Change;
use crate::command::{Command, Kind};
use crate::flags::{self, Agreed, actions, steps};
use crate::macros::{Choice, Macros, Stage};
use crate::packet::{DATA_OCTETS_MAX, PACKET_OCTETS_MAX, Packets};
use crate::{Fault, FilterReply};

/// What a filter can make us hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Octets of a packet. Default 65,536, the protocol's own.
    pub packet_octets_max: usize,
    /// Changes to one message. Default 1,000.
    pub changes_max: usize,
    /// Octets of all changes to one message but a new body. Default 256 KiB.
    pub change_octets_max: usize,
    /// Octets of a new body. Default 35,882,577.
    pub body_octets_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_octets_max: PACKET_OCTETS_MAX,
            changes_max: 1_000,
            change_octets_max: 256 * 1024,
            body_octets_max: 35_882_577,
        }
    }
}

/// What a filter decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Take it; the filter wants to know no more of it.
    Accept,
    /// Take it and throw it away.
    Discard,
    /// Refuse for good.
    Reject,
    /// Refuse for now.
    TempFail,
    /// Refuse with these words.
    Reply(FilterReply),
    /// Refuse with 421 and close the client's connection.
    Shutdown,
}

/// Whether an answer to a command comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an answer has to be read"]
pub enum Asked {
    /// None comes: it is the same as [`Verdict::Continue`].
    Nothing,
    /// One comes.
    Answer,
}

/// What the driver is to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Read more.
    Read,
    /// The filter says that it works on it: be patient anew.
    Progress,
    /// This is the answer.
    Verdict(Verdict),
}

/// What is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    Nothing,
    Negotiation,
    Answer(Kind),
    /// Nothing more: the conversation is over.
    Over,
}

/// A conversation with a filter.
#[derive(Debug)]
pub struct Client {
    limits: Limits,
    waiting: Waiting,
    agreed: Option<Agreed>,
    choice: Choice,
    packets: Packets,
    output: Vec<u8>,
    changes: Vec<Change>,
    change_octets: usize,
    body: Option<Vec<u8>>,
    skips_body: bool,
}

impl Client {
    /// A conversation that begins with the negotiation; its answer is awaited.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut output = Vec::new();
        Command::offer().encode(&mut output);
        Self {
            limits,
            waiting: Waiting::Negotiation,
            agreed: None,
            choice: Choice::default(),
            packets: Packets::default(),
            output,
            changes: Vec::new(),
            change_octets: 0,
            body: None,
            skips_body: false,
        }
    }

    /// What was agreed on; `None` while it is not.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        self.agreed
    }

    /// Whether the filter wants to be told this. What is not wanted need not be made.
    #[must_use]
    pub fn wants(&self, kind: Kind) -> bool {
        let Some(agreed) = self.agreed else {
            return false;
        };
        agreed.version >= kind.since_version()
            && agreed.steps & kind.bits().0 == 0
            && !(kind == Kind::Body && self.skips_body)
    }

    /// Whether the filter wants to know of refused recipients too.
    #[must_use]
    pub fn wants_refused_recipients(&self) -> bool {
        self.wants(Kind::Rcpt) && self.has_step(steps::REFUSED_RECIPIENTS)
    }

    /// Whether values of fields keep the white space behind the colon.
    #[must_use]
    pub fn keeps_leading_space(&self) -> bool {
        self.has_step(steps::LEADING_SPACE)
    }

    fn has_step(&self, bit: u32) -> bool {
        self.agreed.is_some_and(|a| a.steps & bit != 0)
    }

    /// Whether an answer is awaited.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.waiting, Waiting::Negotiation | Waiting::Answer(_))
    }

    /// Octets to write.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// How many octets wait to be written.
    #[must_use]
    pub fn output_octets(&self) -> usize {
        self.output.len()
    }

    /// Octets that the filter makes us hold.
    #[must_use]
    pub fn held_octets(&self) -> usize {
        self.packets.len() + self.change_octets + self.body.as_ref().map_or(0, Vec::len)
    }

    /// The changes that came with the last answer, in their order.
    #[must_use]
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.change_octets = 0;
        let mut changes = std::mem::take(&mut self.changes);
        changes.extend(self.body.take().map(Change::ReplaceBody));
        changes
    }

    /// Tells the filter something, with the macros that belong to it.
    ///
    /// # Errors
    /// [`Fault::OutOfTurn`] when an answer is still awaited, or the conversation is over.
    pub fn ask(&mut self, command: &Command, macros: &Macros) -> Result<Asked, Fault> {
        if self.waiting != Waiting::Nothing {
            return Err(Fault::OutOfTurn);
        }
        let Some(kind) = command.kind() else {
            return self.tell(command);
        };
        if kind == Kind::Mail {
            self.forget_message();
        }
        if !self.wants(kind) {
            return Ok(Asked::Nothing);
        }
        if let Some(stage) = stage(kind) {
            let told = self.choice.told(stage, macros);
            if !told.is_empty() {
                Command::Macros(command.octet(), told).encode(&mut self.output);
            }
        }
        command.encode(&mut self.output);
        let steps = self.agreed.map_or(0, |a| a.steps);
        if steps & kind.bits().1 != 0 {
            return Ok(Asked::Nothing);
        }
        self.waiting = Waiting::Answer(kind);
        Ok(Asked::Answer)
    }

    /// The commands that have no answer.
    fn tell(&mut self, command: &Command) -> Result<Asked, Fault> {
        match command {
            Command::Abort => self.forget_message(),
            Command::Quit => self.waiting = Waiting::Over,
            Command::QuitNewConnection => self.forget_message(),
            _ => return Err(Fault::OutOfTurn),
        }
        command.encode(&mut self.output);
        Ok(Asked::Nothing)
    }

    fn forget_message(&mut self) {
        let _ = self.take_changes();
        self.skips_body = false;
    }

    /// Takes octets of the filter.
    pub fn feed(&mut self, octets: &[u8]) {
        self.packets.feed(octets);
    }

    /// Goes on with what was fed.
    ///
    /// # Errors
    /// The filter broke the protocol or a limit; the conversation is over.
    pub fn step(&mut self) -> Result<Step, Fault> {
        let step = self.next_step();
        if step.is_err() {
            self.waiting = Waiting::Over;
        }
        step
    }

    fn next_step(&mut self) -> Result<Step, Fault> {
        loop {
            let Some(packet) = self.packets.next(self.limits.packet_octets_max)? else {
                return Ok(Step::Read);
            };
            let answer = Answer::decode(packet)?;
            match self.waiting {
                Waiting::Nothing | Waiting::Over => return Err(Fault::Unexpected("an answer to nothing")),
                Waiting::Negotiation => {
                    self.negotiated(answer)?;
                    return self.settle(Verdict::Continue);
                }
                Waiting::Answer(kind) => {
                    if let Some(step) = self.answered(kind, answer)? {
                        return Ok(step);
                    }
                }
            }
        }
    }

    /// Ends the wait. Nothing may stand behind the answer: it would be taken for the next one.
    fn settle(&mut self, verdict: Verdict) -> Result<Step, Fault> {
        if !self.packets.is_empty() {
            return Err(Fault::Unexpected("octets behind its answer"));
        }
        self.waiting = Waiting::Nothing;
        Ok(Step::Verdict(verdict))
    }

    fn negotiated(&mut self, answer: Answer) -> Result<(), Fault> {
        let Answer::Negotiate {
            version,
            actions,
            steps,
            macros,
        } = answer
        else {
            return Err(Fault::Unexpected("another answer than the negotiation's"));
        };
        if !(flags::VERSION_MIN..=flags::VERSION).contains(&version) {
            return Err(Fault::Version(version));
        }
        for (what, asked, offered) in [
            ("actions", actions, actions::ALL),
            ("protocol steps", steps, steps::ALL),
        ] {
            if asked & !offered != 0 {
                return Err(Fault::NotOffered(what, asked & !offered));
            }
        }
        for (stage, names) in macros {
            self.choice.choose(stage, &names);
        }
        self.agreed = Some(Agreed {
            version,
            actions,
            steps,
        });
        Ok(())
    }

    fn answered(&mut self, kind: Kind, answer: Answer) -> Result<Option<Step>, Fault> {
        let verdict = match answer {
            Answer::Progress => return Ok(Some(Step::Progress)),
            Answer::ConnectionFailed => return Err(Fault::ConnectionFailed),
            Answer::Negotiate { .. } => return Err(Fault::Unexpected("a second negotiation")),
            Answer::Continue => Verdict::Continue,
            Answer::Accept => Verdict::Accept,
            Answer::Reject => Verdict::Reject,
            Answer::TempFail => Verdict::TempFail,
            Answer::Shutdown => Verdict::Shutdown,
            Answer::Reply(text) => Verdict::Reply(FilterReply::parse(&text)?),
            Answer::Discard if matches!(kind, Kind::Connect | Kind::Helo | Kind::Unknown) => {
                return Err(Fault::Unexpected("discard, where there is no message"));
            }
            Answer::Discard => Verdict::Discard,
            Answer::Skip if kind == Kind::Body && self.has_step(steps::SKIP) => {
                self.skips_body = true;
                Verdict::Continue
            }
            Answer::Skip => return Err(Fault::Unexpected("skip")),
            change => {
                if kind != Kind::EndOfMessage {
                    return Err(Fault::Unexpected("a change before the end of the message"));
                }
                self.take_change(change)?;
                return Ok(None);
            }
        };
        self.settle(verdict).map(Some)
    }

    fn take_change(&mut self, answer: Answer) -> Result<(), Fault> {
        let (needed, what) = needed_action(&answer);
        if self.agreed.is_none_or(|a| a.actions & needed == 0) {
            return Err(Fault::NotAgreed(what));
        }
        if let Answer::ReplaceBody(octets) = answer {
            let body = self.body.get_or_insert_default();
            if body.len() + octets.len() > self.limits.body_octets_max {
                return Err(Fault::TooManyOctets(self.limits.body_octets_max));
            }
            body.extend_from_slice(&octets);
            return Ok(());
        }
        if self.changes.len() >= self.limits.changes_max {
            return Err(Fault::TooManyChanges(self.limits.changes_max));
        }
        self.change_octets += octets_of(&answer);
        if self.change_octets > self.limits.change_octets_max {
            return Err(Fault::TooManyOctets(self.limits.change_octets_max));
        }
        let leading_space = self.keeps_leading_space();
        self.changes.extend(Change::from_answer(answer, leading_space)?);
        Ok(())
    }
}

fn stage(kind: Kind) -> Option<Stage> {
    Some(match kind {
        Kind::Connect => Stage::Connect,
        Kind::Helo => Stage::Helo,
        Kind::Mail => Stage::Mail,
        Kind::Rcpt => Stage::Rcpt,
        Kind::Data => Stage::Data,
        Kind::EndOfHeader => Stage::EndOfHeader,
        Kind::EndOfMessage => Stage::EndOfMessage,
        Kind::Unknown | Kind::Header | Kind::Body => return None,
    })
}

fn needed_action(answer: &Answer) -> (u32, &'static str) {
    match answer {
        Answer::AddHeader(..) | Answer::InsertHeader(..) => (actions::ADD_HEADERS, "a new field"),
        Answer::ChangeHeader(..) => (actions::CHANGE_HEADERS, "another field"),
        Answer::ReplaceBody(_) => (actions::CHANGE_BODY, "another body"),
        Answer::AddRecipient(_) => (actions::ADD_RECIPIENTS, "a new recipient"),
        Answer::AddRecipientWithParameters(..) => (
            actions::ADD_RECIPIENTS_WITH_PARAMETERS,
            "a new recipient with parameters",
        ),
        Answer::RemoveRecipient(_) => (actions::REMOVE_RECIPIENTS, "a recipient less"),
        Answer::ChangeSender(..) => (actions::CHANGE_SENDER, "another sender"),
        Answer::Quarantine(_) => (actions::QUARANTINE, "quarantine"),
        _ => (0, "no change"),
    }
}

fn octets_of(answer: &Answer) -> usize {
    match answer {
        Answer::AddHeader(a, b)
        | Answer::InsertHeader(_, a, b)
        | Answer::ChangeHeader(_, a, b)
        | Answer::AddRecipientWithParameters(a, b)
        | Answer::ChangeSender(a, b) => a.len() + b.len(),
        Answer::AddRecipient(a) | Answer::RemoveRecipient(a) | Answer::Quarantine(a) => a.len(),
        _ => 0,
    }
}

/// A header field as a filter is shown it: lines parted by LF alone, and without the one space behind
/// the colon unless the filter keeps it. `None` when it does not fit a packet.
#[must_use]
pub(crate) fn shown_field(name: &[u8], raw_value: &[u8], leading_space: bool) -> Option<Command> {
    let value = match raw_value {
        [b' ', rest @ ..] if !leading_space => rest,
        other => other,
    };
    let value: Vec<u8> = value.iter().copied().filter(|b| *b != b'\r').collect();
    (name.len() + value.len() + 2 <= DATA_OCTETS_MAX).then(|| Command::Header(name.to_vec(), value))
}

impl Command {
    /// A header field for this filter; `None` when it does not fit a packet.
    #[must_use]
    pub fn header(client: &Client, name: &[u8], raw_value: &[u8]) -> Option<Self> {
        shown_field(name, raw_value, client.keeps_leading_space())
    }
}
