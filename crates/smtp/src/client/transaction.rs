//! One message on its way out: what was sent, what each reply answers, what becomes of whom.
//!
//! Promises: every reply is attributed to the command that it answers, pipelined or not (RFC 2920).

use super::chunks::{CHUNKS_OUTSTANDING_MAX, TOGETHER_OCTETS_MAX};
use super::outcome::{Failure, Outcome, Stage, Verdict};
use super::reply::ServerReply;
use super::wishes::{PassedOn, Wishes, rcpt_parameters};
use mail::{EnhancedStatus, Recipient, ReversePath};
use std::collections::VecDeque;

/// Commands without a reply at most. A bound on what waits in buffers on both sides.
pub const OUTSTANDING_MAX: usize = 100;

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The reverse-path.
    pub sender: ReversePath,
    /// The recipients, at least one.
    pub recipients: Vec<Recipient>,
    /// The message's size in octets, told to servers that offer SIZE. Exact where the body is binary.
    pub size_octets: u64,
    /// Whether the message holds octets above 127.
    pub eight_bit: bool,
    /// Whether it is to go octet for octet, line endings and all (RFC 3030 BINARYMIME).
    pub binary: bool,
    /// Whether carrying it needs SMTPUTF8.
    pub smtputf8: bool,
    /// What the sender asked.
    pub wishes: Wishes,
}

impl Outgoing {
    /// Whether message or envelope need SMTPUTF8 (RFC 6531 §3.2).
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        let of_recipient = |r: &Recipient| matches!(r, Recipient::Address(a) if a.needs_smtputf8());
        self.smtputf8
            || self.sender.address().is_some_and(|a| a.needs_smtputf8())
            || self.recipients.iter().any(of_recipient)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    Mail,
    Rcpt(usize),
    Data,
    EmptyBody,
    /// A chunk that is not the last.
    Chunk,
    /// The end mark, or the last chunk.
    Body,
    /// The same for one of the recipients that were accepted, by LMTP (RFC 2033 §4.2).
    BodyFor(usize),
    Reset,
}

impl Sent {
    fn stage(self) -> Stage {
        match self {
            Sent::Mail => Stage::MailFrom,
            Sent::Rcpt(_) => Stage::RcptTo,
            Sent::Data => Stage::Data,
            Sent::Chunk => Stage::Body,
            Sent::EmptyBody | Sent::Body | Sent::BodyFor(_) => Stage::EndOfMessage,
            Sent::Reset => Stage::Reset,
        }
    }
}

/// Where a transaction stands after it was given a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Replies are awaited, or there is more to send.
    Going,
    /// It is over; the session can go on.
    Over,
    /// It is over and the session with it.
    Broken(Failure),
}

/// How the message follows its envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Carriage {
    /// By DATA, behind the 354.
    Data,
    /// By BDAT, behind the answers to the envelope: what nobody will take does not leave.
    Chunks,
    /// By one BDAT at once behind the envelope's commands (RFC 3030 §4.2, RFC 2920): one round trip. The
    /// message may have been taken from then on, whichever reply is awaited.
    Together,
}

/// Whether a message is small enough to leave together with its envelope.
pub(super) fn is_small(outgoing: &Outgoing) -> bool {
    // MAIL and BDAT are two commands more.
    outgoing.size_octets <= TOGETHER_OCTETS_MAX && outgoing.recipients.len() + 2 <= OUTSTANDING_MAX
}

/// Whether a server says that it does not know the command, rather than that it does not want the
/// message (RFC 5321 §4.2.2, RFC 3463 §3.6).
fn denies_command(reply: &ServerReply) -> bool {
    let of_command = |status: EnhancedStatus| status.subject == 5 && matches!(status.detail, 1 | 2 | 4);
    reply.is_permanent() && (matches!(reply.code, 500..=504) || reply.status.is_some_and(of_command))
}

#[derive(Debug)]
pub(super) struct Transaction {
    outgoing: Outgoing,
    mail_parameters: String,
    passed_on: PassedOn,
    /// Commands at a time.
    window: usize,
    carriage: Carriage,
    /// Whether each recipient that was accepted has its own answer to the message.
    lmtp: bool,
    awaited: VecDeque<Sent>,
    mail_sent: bool,
    rcpts_sent: usize,
    data_sent: bool,
    in_body: bool,
    /// Whether the last octets of the message could not be written.
    cut_short: bool,
    mail_refused: bool,
    /// Whether it ends behind the recipients, without a message.
    is_question: bool,
    /// RCPT accepted, waiting for the message's fate.
    willing: Vec<bool>,
    verdicts: Vec<Option<Verdict>>,
}

impl Transaction {
    pub(super) fn new(
        outgoing: Outgoing,
        mail_parameters: String,
        passed_on: PassedOn,
        pipelining: bool,
        carriage: Carriage,
    ) -> Self {
        let count = outgoing.recipients.len();
        Self {
            outgoing,
            mail_parameters,
            passed_on,
            window: if pipelining { OUTSTANDING_MAX } else { 1 },
            carriage,
            awaited: VecDeque::new(),
            mail_sent: false,
            rcpts_sent: 0,
            data_sent: false,
            in_body: false,
            cut_short: false,
            mail_refused: false,
            lmtp: false,
            is_question: false,
            willing: vec![false; count],
            verdicts: vec![None; count],
        }
    }

    /// The same without a message: whoever is accepted at RCPT is told as accepted, and the transaction
    /// is taken back.
    pub(super) fn into_question(self) -> Self {
        Self {
            is_question: true,
            ..self
        }
    }

    /// The same by LMTP (RFC 2033).
    pub(super) fn into_lmtp(self) -> Self {
        Self { lmtp: true, ..self }
    }

    /// Commands that wait for a reply.
    pub(super) fn awaited(&self) -> usize {
        self.awaited.len()
    }

    /// What the next reply will answer.
    pub(super) fn stage(&self) -> Stage {
        match self.awaited.front() {
            Some(sent) => sent.stage(),
            None if self.in_body => Stage::Body,
            None => Stage::MailFrom,
        }
    }

    /// What was under way if the session ends now.
    pub(super) fn stage_if_lost(&self) -> Stage {
        let is_sent = |sent: &Sent| matches!(sent, Sent::Body | Sent::BodyFor(_));
        match (self.awaited.iter().any(is_sent), self.cut_short) {
            (true, false) => Stage::EndOfMessage,
            (true, true) => Stage::Body,
            (false, _) => self.stage(),
        }
    }

    /// Some of the output was not written, so the end of the message did not leave.
    pub(super) fn unwritten(&mut self) {
        self.cut_short = true;
    }

    /// Whether the message is to be given now. A message that goes together with its envelope is
    /// wanted as soon as all commands were said.
    pub(super) fn wants_body(&mut self) -> bool {
        if self.carriage == Carriage::Together && !self.data_sent {
            self.data_sent = true;
            self.in_body = true;
        }
        self.in_body
    }

    /// Whether another chunk may leave before one is answered.
    pub(super) fn has_room(&self) -> bool {
        let chunks = self.awaited.iter().filter(|sent| **sent == Sent::Chunk);
        chunks.count() < CHUNKS_OUTSTANDING_MAX
    }

    /// The next command line to send, if it is time for one.
    pub(super) fn next_command(&mut self) -> Option<String> {
        if self.awaited.len() >= self.window || self.in_body {
            return None;
        }
        if !self.mail_sent {
            self.mail_sent = true;
            self.awaited.push_back(Sent::Mail);
            return Some(format!(
                "MAIL FROM:{}{}",
                self.outgoing.sender, self.mail_parameters
            ));
        }
        if self.mail_refused || self.data_sent {
            return None;
        }
        if let Some(recipient) = self.outgoing.recipients.get(self.rcpts_sent) {
            let parameters = rcpt_parameters(&self.outgoing.wishes, self.rcpts_sent, self.passed_on);
            self.awaited.push_back(Sent::Rcpt(self.rcpts_sent));
            self.rcpts_sent += 1;
            return Some(format!("RCPT TO:{recipient}{parameters}"));
        }
        if self.carriage != Carriage::Data || self.is_question {
            // BDAT leaves with its chunk.
            return None;
        }
        let hope = self.willing.contains(&true) || self.awaited.iter().any(|s| matches!(s, Sent::Rcpt(_)));
        if hope {
            self.data_sent = true;
            self.awaited.push_back(Sent::Data);
            return Some("DATA".to_owned());
        }
        None
    }

    /// Takes the reply to the oldest command that waits for one. `send` says further commands.
    pub(super) fn reply(&mut self, reply: ServerReply, mut send: impl FnMut(&str)) -> Progress {
        let Some(sent) = self.awaited.pop_front() else {
            // A word while the message is on its way: the server gives up on it.
            let stage = if self.in_body { Stage::Body } else { Stage::Reset };
            let failure = Failure::Refused {
                stage,
                reply: reply.clone(),
            };
            if !reply.is_positive() && !reply.is_intermediate() {
                self.decide(|_| true, &Verdict::of(stage, reply));
            }
            return self.broken(failure);
        };
        if reply.code == 421 && !matches!(sent, Sent::BodyFor(_)) {
            let verdict = Verdict::of(sent.stage(), reply.clone());
            self.decide(|_| true, &verdict);
            return Progress::Broken(Failure::Refused {
                stage: sent.stage(),
                reply,
            });
        }
        // Only DATA asks for more.
        if reply.is_intermediate() != (sent == Sent::Data && reply.code == 354) {
            let stage = match self.stage_if_lost() {
                Stage::EndOfMessage => Stage::EndOfMessage,
                _ => sent.stage(),
            };
            return self.broken(Failure::Unexpected { stage, reply });
        }
        match sent {
            Sent::Mail if !reply.is_positive() => {
                self.mail_refused = true;
                self.decide(|_| true, &Verdict::of(Stage::MailFrom, reply));
            }
            Sent::Mail => {}
            Sent::Rcpt(i) if reply.is_positive() && self.is_question => {
                self.verdicts[i].get_or_insert(Verdict::Accepted(reply));
            }
            Sent::Rcpt(i) if reply.is_positive() => self.willing[i] = true,
            Sent::Rcpt(i) => {
                self.verdicts[i].get_or_insert(Verdict::of(Stage::RcptTo, reply));
            }
            Sent::Data => return self.data_reply(reply, send),
            Sent::Chunk | Sent::Body if self.carriage != Carriage::Data && !reply.is_positive() => {
                return self.chunk_refused(sent.stage(), reply, &mut send);
            }
            Sent::Chunk => {}
            Sent::Body => {
                self.decide(|willing| willing, &Verdict::of(Stage::EndOfMessage, reply));
                return Progress::Over;
            }
            Sent::BodyFor(i) => return self.answer_for(i, reply),
            Sent::EmptyBody => return Progress::Over,
            Sent::Reset if reply.is_positive() => return Progress::Over,
            Sent::Reset => {
                return Progress::Broken(Failure::Refused {
                    stage: Stage::Reset,
                    reply,
                });
            }
        }
        self.all_answered(&mut send)
    }

    fn data_reply(&mut self, reply: ServerReply, mut send: impl FnMut(&str)) -> Progress {
        let open = self.open_recipients();
        if reply.is_intermediate() {
            if open {
                self.in_body = true;
                return Progress::Going;
            }
            if self.lmtp {
                // RFC 2033 §4.2: that MUST be 503; an empty message would have no answer at all.
                let stage = Stage::Data;
                return self.broken(Failure::Unexpected { stage, reply });
            }
            // RFC 2920 §3.1: 354 although nobody is left; the message is sent empty.
            self.awaited.push_back(Sent::EmptyBody);
            send(".");
            return Progress::Going;
        }
        if reply.is_positive() {
            return self.broken(Failure::Unexpected {
                stage: Stage::Data,
                reply,
            });
        }
        self.decide(|willing| willing, &Verdict::of(Stage::Data, reply));
        self.wind_up(&mut send)
    }

    /// RFC 2033 §4.2: the answer for one recipient. Whoever has none when the session ends stays
    /// unanswered: the server may have taken the message for them (RFC 1047).
    fn answer_for(&mut self, i: usize, reply: ServerReply) -> Progress {
        let stage = Stage::EndOfMessage;
        let is_farewell = reply.code == 421;
        self.verdicts[i] = Some(Verdict::of(stage, reply.clone()));
        if is_farewell {
            return self.broken(Failure::Refused { stage, reply });
        }
        match self.awaited.is_empty() {
            true => Progress::Over,
            false => Progress::Going,
        }
    }

    fn chunk_refused(&mut self, stage: Stage, reply: ServerReply, send: &mut impl FnMut(&str)) -> Progress {
        self.in_body = false;
        // A binary message has no other way.
        if !self.outgoing.binary && denies_command(&reply) && self.open_recipients() {
            return self.broken(Failure::ChunkingDenied { reply });
        }
        self.decide(|willing| willing, &Verdict::of(stage, reply.clone()));
        if self.lmtp {
            // How many answers the last chunk has after that is not said anywhere.
            return Progress::Broken(Failure::Refused { stage, reply });
        }
        self.reset(send)
    }

    fn open_recipients(&self) -> bool {
        !self.mail_refused
            && self
                .willing
                .iter()
                .zip(&self.verdicts)
                .any(|(w, v)| *w && v.is_none())
    }

    /// When all is answered: winds up if nobody is left to send to; asks for a message that goes by
    /// BDAT.
    fn all_answered(&mut self, send: &mut impl FnMut(&str)) -> Progress {
        let all_asked = self.mail_refused || self.rcpts_sent == self.outgoing.recipients.len();
        if !self.awaited.is_empty() || !all_asked {
            return Progress::Going;
        }
        if !self.open_recipients() {
            // Of a message that was to go together nothing has left yet.
            self.in_body = false;
            return self.wind_up(send);
        }
        if self.carriage != Carriage::Data && !self.data_sent {
            self.data_sent = true;
            self.in_body = true;
        }
        Progress::Going
    }

    /// Leaves the server without a half-begun transaction.
    fn wind_up(&mut self, send: &mut impl FnMut(&str)) -> Progress {
        if self.mail_refused {
            return Progress::Over;
        }
        self.reset(send)
    }

    /// RFC 3030 §2: after a chunk that failed the transaction is to be reset, once.
    fn reset(&mut self, send: &mut impl FnMut(&str)) -> Progress {
        if !self.awaited.contains(&Sent::Reset) {
            self.awaited.push_back(Sent::Reset);
            send("RSET");
        }
        Progress::Going
    }

    /// A chunk was sent that is not the last.
    pub(super) fn chunk_sent(&mut self) {
        self.awaited.push_back(Sent::Chunk);
    }

    /// The end mark or the last chunk was sent. Answers how many replies it has.
    pub(super) fn body_sent(&mut self) -> usize {
        self.in_body = false;
        let before = self.awaited.len();
        match self.lmtp {
            false => self.awaited.push_back(Sent::Body),
            true => {
                let open = self.willing.iter().zip(&self.verdicts).enumerate();
                let open = open.filter(|(_, (willing, verdict))| **willing && verdict.is_none());
                self.awaited.extend(open.map(|(i, _)| Sent::BodyFor(i)));
            }
        }
        self.awaited.len() - before
    }

    /// The session broke: whoever has no verdict stays unanswered.
    pub(super) fn broken(&mut self, failure: Failure) -> Progress {
        self.decide(|_| true, &Verdict::Unanswered(failure.clone()));
        Progress::Broken(failure)
    }

    fn decide(&mut self, whom: impl Fn(bool) -> bool, verdict: &Verdict) {
        for (willing, slot) in self.willing.iter().zip(&mut self.verdicts) {
            if slot.is_none() && whom(*willing) {
                *slot = Some(verdict.clone());
            }
        }
    }

    pub(super) fn outcome(self) -> Outcome {
        let passed_on = self.passed_on;
        let unanswered = Verdict::Unanswered(Failure::Lost { stage: Stage::Data });
        Outcome {
            passed_on,
            by_chunks: self.carriage != Carriage::Data,
            recipients: self
                .verdicts
                .into_iter()
                .map(|v| v.unwrap_or_else(|| unanswered.clone()))
                .collect(),
        }
    }
}
