//! BDAT (RFC 3030): a message that comes in chunks of announced lengths.
//!
//! Promises: the octets of a chunk are never taken for commands, whether it is wanted or not; where
//! it cannot be known how many they are, or they are more than manners ask to read, the session ends.

use super::state::{BeginToken, Chunks, MessageToken, RcptGiven, State, Swallow};
use super::{Question, Server, Step};
use crate::command::ChunkSize;
use crate::framer;
use crate::replies;
use crate::reply::Reply;
use crate::tap::Tapped;

impl Server {
    /// Does BDAT. `size` is `None` when the line does not tell how long the chunk is.
    pub(super) fn bdat(&mut self, size: Option<ChunkSize>) -> Option<Step<'static>> {
        let Some(size) = size else {
            self.chunk_of_unknown_length();
            return None;
        };
        if let Err(reply) = self.count_idle_chunk(size) {
            self.drop_transaction(Some(&reply));
            self.say_and_close(&reply);
            return None;
        }
        match self.may_bdat() {
            Err(reply) => {
                let then = std::mem::replace(&mut self.state, State::Asking);
                let swallow = Swallow {
                    left: size.octets,
                    reply,
                    times: 1,
                    // RFC 3030 §2: chunks that were on their way behind a refused one.
                    counts: !self.chunk_refused,
                    drops: false,
                    then,
                };
                self.swallow(swallow);
                None
            }
            Ok(()) => match std::mem::replace(&mut self.state, State::Asking) {
                State::RcptGiven(given) => Some(self.first_chunk(given, size)),
                State::BetweenChunks(chunks) => {
                    self.next_chunk(*chunks, size);
                    None
                }
                _ => None,
            },
        }
    }

    fn may_bdat(&self) -> Result<(), Reply> {
        match &self.state {
            State::BetweenChunks(_) => Ok(()),
            State::RcptGiven(given) if given.given.greeted.extended => Ok(()),
            State::MailGiven(given) if given.greeted.extended => Err(replies::RCPT_FIRST),
            State::Greeted(greeted) if greeted.extended => Err(replies::MAIL_FIRST),
            _ => Err(self.hello_first()),
        }
    }

    /// Octets of a message are progress; chunks without any are talk.
    fn count_idle_chunk(&mut self, size: ChunkSize) -> Result<(), Reply> {
        let is_progress =
            size.octets > 0 && matches!(self.state, State::RcptGiven(_) | State::BetweenChunks(_));
        if !is_progress {
            self.idle_commands += 1;
        }
        if self.idle_commands > self.options.idle_commands_max {
            return Err(replies::TOO_MUCH_IDLE_TALK);
        }
        Ok(())
    }

    /// What follows the line would be taken for commands.
    pub(super) fn chunk_of_unknown_length(&mut self) {
        self.drop_transaction(Some(&replies::CHUNK_SIZE));
        self.say_and_close(&replies::CHUNK_SIZE);
    }

    fn first_chunk(&self, given: RcptGiven, size: ChunkSize) -> Step<'static> {
        let envelope = self.envelope(&given);
        Step::Ask(Question::Begin {
            token: BeginToken {
                given,
                chunk: Some(size),
            },
            envelope,
        })
    }

    /// The driver has answered the question of the first chunk.
    pub(super) fn chunks_begin(&mut self, given: RcptGiven, size: ChunkSize, verdict: Result<(), Reply>) {
        let line_max = self.options.data_line_octets_max.unwrap_or(usize::MAX);
        let chunks = Chunks {
            recipients: given.recipients.len(),
            framer: framer::Chunked::new(given.given.mail.body.is_binary(), line_max),
            greeted: given.given.greeted,
            octets: 0,
            size,
            left: 0,
            refusal: None,
        };
        match verdict {
            Ok(()) => self.next_chunk(chunks, size),
            Err(reply) => self.refuse_chunk(chunks, size, reply, false),
        }
    }

    fn next_chunk(&mut self, mut chunks: Chunks, size: ChunkSize) {
        let size_max = self.options.size_max_octets;
        if size.octets > size_max - chunks.octets.min(size_max) {
            let reply = replies::message_too_large(size_max);
            return self.refuse_chunk(chunks, size, reply, true);
        }
        chunks.size = size;
        chunks.left = size.octets;
        self.state = State::Chunk(Box::new(chunks));
    }

    /// Takes octets of the chunk. `None`: go on.
    pub(super) fn chunk<'a>(&mut self, mut chunks: Box<Chunks>, input: &mut &'a [u8]) -> Option<Step<'a>> {
        if let Some(reply) = chunks.refusal.take() {
            self.give_up(*chunks, reply);
            return None;
        }
        if chunks.left == 0 {
            return self.chunk_end(chunks);
        }
        if input.is_empty() {
            self.state = State::Chunk(chunks);
            return Some(Step::Read);
        }
        let piece = self.cut(&mut chunks.left, input);
        match chunks.framer.watch(piece) {
            Err(fault) => {
                self.give_up(*chunks, super::input::fault_reply(fault));
                None
            }
            Ok(()) => {
                chunks.octets += piece.len() as u64;
                if let Some(tap) = &mut self.tap {
                    tap.body(piece);
                }
                self.state = State::Chunk(chunks);
                Some(Step::Chunk(piece))
            }
        }
    }

    /// As much of the input as belongs to the chunk.
    fn cut<'a>(&mut self, left: &mut u64, input: &mut &'a [u8]) -> &'a [u8] {
        let len = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
        let (piece, rest) = input.split_at(len);
        *input = rest;
        *left -= len as u64;
        self.progress = self.progress.saturating_add(len as u64);
        piece
    }

    fn chunk_end(&mut self, mut chunks: Box<Chunks>) -> Option<Step<'static>> {
        self.progress += 1;
        if !chunks.size.last {
            self.say(&replies::chunk_taken(chunks.size.octets));
            self.state = State::BetweenChunks(chunks);
            return None;
        }
        match chunks.framer.finish() {
            Err(fault) => {
                self.give_up(*chunks, super::input::fault_reply(fault));
                None
            }
            // A text is lines; where DATA would need the CRLF to end, it is put here. Signatures don't
            // mind: both canonical forms of RFC 6376 §3.4 put it there too.
            Ok(true) if chunks.octets + 2 <= self.options.size_max_octets => {
                chunks.octets += 2;
                chunks.framer.end_line();
                self.state = State::Chunk(chunks);
                Some(Step::Chunk(b"\r\n"))
            }
            Ok(true) => {
                let reply = replies::message_too_large(self.options.size_max_octets);
                self.give_up(*chunks, reply);
                None
            }
            Ok(false) => {
                self.tap.iter_mut().for_each(Tapped::body_end);
                self.state = State::Asking;
                Some(Step::Ask(Question::Message {
                    token: MessageToken {
                        greeted: chunks.greeted,
                        recipients: chunks.recipients,
                    },
                    octets: chunks.octets,
                }))
            }
        }
    }

    /// The message is refused while a chunk of it comes in.
    fn give_up(&mut self, chunks: Chunks, reply: Reply) {
        self.tap.iter_mut().for_each(Tapped::body_end);
        let rest = ChunkSize {
            octets: chunks.left,
            ..chunks.size
        };
        self.refuse_chunk(chunks, rest, reply, true);
    }

    /// `drops`: whether the driver must be told that its transaction is over.
    fn refuse_chunk(&mut self, chunks: Chunks, size: ChunkSize, reply: Reply, drops: bool) {
        self.chunk_refused = true;
        // RFC 2033 §4.2: only the last chunk is answered once a recipient.
        let times = if size.last {
            self.replies_due(chunks.recipients)
        } else {
            1
        };
        self.swallow(Swallow {
            left: size.octets,
            reply,
            times,
            counts: true,
            drops,
            then: State::Greeted(chunks.greeted),
        });
    }

    fn swallow(&mut self, swallow: Swallow) {
        self.swallowed = self.swallowed.saturating_add(swallow.left);
        if self.swallowed > self.options.discard_max_octets {
            self.state = swallow.then;
            self.drop_transaction(Some(&swallow.reply));
            if swallow.drops {
                self.dropped = Some(Some(swallow.reply.clone()));
            }
            self.say_and_close(&swallow.reply);
            return;
        }
        self.state = State::Swallow(Box::new(swallow));
    }

    /// Throws away octets of a refused chunk (RFC 3030 §2), then says the refusal. `None`: go on.
    pub(super) fn swallowing<'a>(
        &mut self,
        mut swallow: Box<Swallow>,
        input: &mut &'a [u8],
    ) -> Option<Step<'a>> {
        self.cut(&mut swallow.left, input);
        if swallow.left > 0 {
            self.state = State::Swallow(swallow);
            return Some(Step::Read);
        }
        let Swallow {
            reply,
            times,
            counts,
            drops,
            then,
            ..
        } = *swallow;
        self.state = then;
        if counts {
            self.conclude(std::iter::repeat_n(&reply, times));
        } else {
            let said = self.referenced(&reply);
            self.say(&said);
        }
        if drops {
            self.dropped = Some(Some(reply));
        }
        None
    }
}
