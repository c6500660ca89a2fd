//! What comes in: whole lines to the commands, pieces of a message to the driver, faults refused.

use super::state::{Body, MessageToken, State};
use super::{Question, Server, Step};
use crate::command::is_bdat;
use crate::framer::{DataFault, DataPiece, LineFault};
use crate::replies;
use crate::reply::Reply;
use crate::tap::BLOTTED;

impl Server {
    /// Takes one line. `None`: there is none yet. `Some(None)`: done, go on.
    pub(super) fn next_line<'a>(&mut self, input: &mut &'a [u8]) -> Option<Option<Step<'a>>> {
        let octets_max = match self.state {
            State::Auth(..) => self.options.auth_octets_max,
            // AUTH with an initial response may be as long as a response of its own.
            _ if self.role.is_submission() => self.options.auth_octets_max,
            _ => self.options.command_octets_max,
        };
        let mut lines = std::mem::take(&mut self.lines);
        let taken = lines.next(input, octets_max, |line| line.map(<[u8]>::to_vec));
        self.lines = lines;
        let line = taken?;
        self.progress += 1;
        Some(match line {
            Ok(line) => self.whole_line(&line, !input.is_empty()),
            Err(fault) => {
                self.faulty_line(fault);
                None
            }
        })
    }

    fn whole_line(&mut self, line: &[u8], more_waits: bool) -> Option<Step<'static>> {
        if matches!(self.state, State::Auth(..)) {
            self.refused.at("AUTH");
            self.hear(BLOTTED.as_bytes());
            return self.auth_response(line);
        }
        self.refused.at_line(line);
        self.hear(&blotted(line));
        if line.len() + 2 > self.options.command_octets_max && is_bdat(line) {
            self.chunk_of_unknown_length();
            return None;
        }
        let is_auth = line.get(..5).is_some_and(|v| v.eq_ignore_ascii_case(b"AUTH "));
        if !is_auth && line.len() + 2 > self.options.command_octets_max {
            self.refuse(&replies::LINE_TOO_LONG);
            return None;
        }
        match crate::command::parse(line) {
            Ok(command) => self.command(command, more_waits),
            Err(reply) => {
                let reply = self.about_no_command(reply);
                self.refuse(&reply);
                None
            }
        }
    }

    fn faulty_line(&mut self, fault: LineFault) {
        let in_auth = matches!(self.state, State::Auth(..));
        self.refused.at(if in_auth { "AUTH" } else { "a command line" });
        let reply = match fault {
            LineFault::TooLong if in_auth => replies::AUTH_LINE_TOO_LONG,
            LineFault::TooLong => replies::LINE_TOO_LONG,
            LineFault::BareLf => replies::BARE_LF,
            LineFault::BareCr => replies::BARE_CR,
            LineFault::Nul => replies::NUL,
            LineFault::OfChunk => replies::CHUNK_SIZE,
        };
        self.hear(b"(a line that is not shown: wrong line ending, zero octet or too long)");
        if let State::Auth(greeted, ..) = &self.state {
            // An exchange that went wrong is over.
            self.state = State::Greeted(greeted.clone());
        } else if fault == LineFault::OfChunk {
            return self.chunk_of_unknown_length();
        }
        self.refuse(&reply);
    }

    /// Takes the next piece of the message. `None`: go on.
    pub(super) fn body<'a>(&mut self, mut body: Box<Body>, input: &mut &'a [u8]) -> Option<Step<'a>> {
        let before = input.len();
        let piece = body.framer.next(input);
        let taken = (before - input.len()) as u64;
        body.wire_octets = body.wire_octets.saturating_add(taken);
        self.progress = self.progress.saturating_add(taken);
        match piece {
            DataPiece::End => return Some(self.body_end(*body)),
            DataPiece::LooseEnd => {
                let reply = body.refusal.or(body.framer.fault().map(fault_reply));
                let reply = reply.unwrap_or(replies::DATA_BARE_LF);
                self.say_and_close(&reply);
                return Some(Step::Dropped(Some(reply)));
            }
            DataPiece::Octets(octets) => self.count(&mut body, octets),
            DataPiece::More => {}
        }
        let options = &self.options;
        let wire_max = options.size_max_octets.saturating_add(options.discard_max_octets);
        if body.wire_octets > wire_max {
            // More was thrown away than manners ask for.
            let reply = replies::message_too_large(options.size_max_octets);
            self.say_and_close(&reply);
            return Some(Step::Dropped(Some(reply)));
        }
        let wanted = body.refusal.is_none();
        self.state = State::Body(body);
        match piece {
            DataPiece::Octets(octets) => wanted.then_some(Step::Chunk(octets)),
            _ => Some(Step::Read),
        }
    }

    fn count(&mut self, body: &mut Body, octets: &[u8]) {
        body.octets = body.octets.saturating_add(octets.len() as u64);
        if body.octets > self.options.size_max_octets {
            let reply = replies::message_too_large(self.options.size_max_octets);
            body.refusal.get_or_insert(reply);
        } else if let Some(tap) = &mut self.tap {
            tap.body(octets);
        }
    }

    fn body_end<'a>(&mut self, body: Body) -> Step<'a> {
        if let Some(tap) = &mut self.tap {
            tap.body_end();
            tap.line(true, b".");
        }
        self.progress += 1;
        match body.refusal.or(body.framer.fault().map(fault_reply)) {
            Some(reply) => {
                self.state = State::Greeted(body.greeted);
                let times = self.replies_due(body.recipients);
                self.conclude(std::iter::repeat_n(&reply, times));
                Step::Dropped(Some(reply))
            }
            None => {
                self.state = State::Asking;
                Step::Ask(Question::Message {
                    token: MessageToken {
                        greeted: body.greeted,
                        recipients: body.recipients,
                    },
                    octets: body.octets,
                })
            }
        }
    }
}

pub(super) fn fault_reply(fault: DataFault) -> Reply {
    match fault {
        DataFault::BareLf => replies::DATA_BARE_LF,
        DataFault::BareCr => replies::DATA_BARE_CR,
        DataFault::Nul => replies::DATA_NUL,
        DataFault::LineTooLong => replies::DATA_LINE_TOO_LONG,
    }
}

/// The line as it may be shown: without the initial response of AUTH.
fn blotted(line: &[u8]) -> Vec<u8> {
    let mut words = line.splitn(3, |b| *b == b' ');
    match (words.next(), words.next(), words.next()) {
        (Some(verb), Some(mechanism), Some(_)) if verb.eq_ignore_ascii_case(b"AUTH") => {
            [verb, b" ", mechanism, b" ", BLOTTED.as_bytes()].concat()
        }
        _ => line.to_vec(),
    }
}
