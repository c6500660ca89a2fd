//! One connection of the load: its socket, what was said and what is awaited.
//!
//! Promises: never blocks; reports each message's end exactly once.
//! Never: decides which message is next, or whether to connect again (the hall does).

use super::line::{Line, Socket};
use crate::corpus::{Corpus, Letter};
use crate::reply::{self, Reply};
use rustix::event::epoll::{self, EventData, EventFlags};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One message on its way.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) number: u64,
    /// Whether not even MAIL has been answered.
    pub(super) untouched: bool,
    mail: String,
    rcpts: Vec<String>,
    letter: Letter,
    begun: Instant,
}

impl Errand {
    pub(super) fn new(number: u64, from: &str, to: &[String], letter: Letter) -> Self {
        Self {
            number,
            untouched: true,
            mail: format!("MAIL FROM:<{from}>\r\n"),
            rcpts: to.iter().map(|a| format!("RCPT TO:<{a}>\r\n")).collect(),
            letter,
            begun: Instant::now(),
        }
    }
}

/// What happened.
#[derive(Debug)]
pub(super) enum Step {
    /// Greeting and EHLO are answered.
    Opened,
    /// The final 250 was read.
    Accepted { latency: Duration },
    /// The message was refused; the connection goes on.
    Refused { kind: String },
    /// The connection is over, with the message that it carried.
    Ended { kind: String, errand: Option<Errand> },
}

/// The answer that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Greeting,
    Ehlo,
    StartTls,
    Mail,
    Rcpt,
    Data,
    Final,
    Reset,
    Goodbye,
}

/// What is still to be written.
#[derive(Debug, Default)]
enum Outgoing {
    #[default]
    Nothing,
    Words(Vec<u8>, usize),
    Letter(usize),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conversation {
    line: Line,
    /// For STARTTLS, until it was said.
    tls: Option<Arc<rustls::ClientConfig>>,
    input: Vec<u8>,
    awaited: VecDeque<Awaited>,
    outgoing: Outgoing,
    errand: Option<Errand>,
    rcpts_told: usize,
    refused: Option<String>,
    waits_for_room: bool,
    opening: bool,
    heard: Instant,
}

impl Conversation {
    /// Connects (on loopback this is answered at once) and waits for the greeting.
    pub(super) fn open(
        to: SocketAddr,
        unix: Option<&Path>,
        tls: Option<Arc<rustls::ClientConfig>>,
        epoll: &OwnedFd,
        token: u64,
    ) -> io::Result<Self> {
        let socket = match unix {
            None => {
                let socket = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                Socket::Tcp(socket)
            }
            Some(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_nonblocking(true)?;
                Socket::Unix(socket)
            }
        };
        epoll::add(epoll, &socket, EventData::new_u64(token), EventFlags::IN)?;
        Ok(Self {
            line: Line::new(socket),
            tls,
            input: Vec::new(),
            awaited: VecDeque::from([Awaited::Greeting]),
            outgoing: Outgoing::Nothing,
            errand: None,
            rcpts_told: 0,
            refused: None,
            waits_for_room: false,
            opening: true,
            heard: Instant::now(),
        })
    }

    pub(super) fn is_opening(&self) -> bool {
        self.opening
    }

    /// Open, and nothing is awaited.
    pub(super) fn is_idle(&self) -> bool {
        !self.opening && self.awaited.is_empty()
    }

    pub(super) fn silent_for(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Begins a message.
    pub(super) fn send(
        &mut self,
        mut errand: Errand,
        pipelining: bool,
        corpus: &Corpus,
        epoll: &OwnedFd,
        token: u64,
    ) {
        let mut words = Vec::with_capacity(256);
        words.extend_from_slice(errand.mail.as_bytes());
        self.awaited.push_back(Awaited::Mail);
        self.rcpts_told = 0;
        if pipelining {
            for rcpt in &errand.rcpts {
                words.extend_from_slice(rcpt.as_bytes());
                self.awaited.push_back(Awaited::Rcpt);
            }
            self.rcpts_told = errand.rcpts.len();
            words.extend_from_slice(b"DATA\r\n");
            self.awaited.push_back(Awaited::Data);
        }
        self.refused = None;
        self.heard = Instant::now();
        errand.begun = self.heard;
        self.errand = Some(errand);
        self.outgoing = Outgoing::Words(words, 0);
        // An error shows at the next read.
        let _ = self.write(corpus, epoll, token);
    }

    /// QUIT; the answer ends the connection.
    pub(super) fn say_goodbye(&mut self, corpus: &Corpus, epoll: &OwnedFd, token: u64) {
        self.heard = Instant::now();
        self.say("QUIT\r\n", Awaited::Goodbye);
        // An error shows at the next read.
        let _ = self.write(corpus, epoll, token);
    }

    /// Ends the connection from our side.
    pub(super) fn give_up(&mut self, kind: String) -> Step {
        Step::Ended {
            kind,
            errand: self.errand.take(),
        }
    }

    /// Reads what is there, answers it, writes what can be written.
    pub(super) fn advance(&mut self, corpus: &Corpus, epoll: &OwnedFd, token: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Err(error) = self.write(corpus, epoll, token) {
            steps.push(self.give_up(format!("write: {}", error.kind())));
            return steps;
        }
        match self.line.read(&mut self.input) {
            Ok(0) => {
                steps.push(self.give_up("closed by the server".into()));
                return steps;
            }
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return steps;
            }
            Err(error) => {
                steps.push(self.give_up(format!("read: {}", error.kind())));
                return steps;
            }
        }
        self.heard = Instant::now();
        let mut used = 0;
        loop {
            match reply::cut(&self.input[used..]) {
                Ok(None) => break,
                Ok(Some((reply, octets))) => {
                    used += octets;
                    if let Some(step) = self.hear(reply) {
                        let over = matches!(step, Step::Ended { .. });
                        steps.push(step);
                        if over {
                            return steps;
                        }
                    }
                }
                Err(odd) => {
                    steps.push(self.give_up(odd.to_string()));
                    return steps;
                }
            }
        }
        self.input.drain(..used);
        if let Err(error) = self.write(corpus, epoll, token) {
            steps.push(self.give_up(format!("write: {}", error.kind())));
        }
        steps
    }

    /// One reply, answered by the next words.
    fn hear(&mut self, reply: Reply) -> Option<Step> {
        let Some(awaited) = self.awaited.pop_front() else {
            return Some(self.give_up(format!("unasked: {}", reply::kind(&reply.line))));
        };
        if reply.code == 421 {
            return Some(self.give_up(reply::kind(&reply.line)));
        }
        if let Some(errand) = &mut self.errand {
            errand.untouched = false;
        }
        match awaited {
            Awaited::Greeting | Awaited::Ehlo | Awaited::StartTls if !reply.is(2) => {
                Some(self.give_up(reply::kind(&reply.line)))
            }
            Awaited::Greeting => self.say("EHLO load.sender.example\r\n", Awaited::Ehlo),
            Awaited::Ehlo if self.tls.is_some() => self.say("STARTTLS\r\n", Awaited::StartTls),
            Awaited::StartTls => {
                if let Some(config) = self.tls.take()
                    && let Err(error) = self.line.start_tls(&config)
                {
                    return Some(self.give_up(format!("TLS: {error}")));
                }
                self.say("EHLO load.sender.example\r\n", Awaited::Ehlo)
            }
            Awaited::Ehlo => {
                self.opening = false;
                Some(Step::Opened)
            }
            Awaited::Mail | Awaited::Rcpt => {
                if !reply.is(2) {
                    self.refused.get_or_insert_with(|| reply::kind(&reply.line));
                }
                self.next_question()
            }
            Awaited::Data if reply.is(3) => {
                self.outgoing = Outgoing::Letter(0);
                self.awaited.push_back(Awaited::Final);
                None
            }
            Awaited::Data => {
                self.refused.get_or_insert_with(|| reply::kind(&reply.line));
                self.next_question()
            }
            Awaited::Final => {
                let errand = self.errand.take()?;
                match self.refused.take() {
                    None if reply.is(2) => Some(Step::Accepted {
                        latency: errand.begun.elapsed(),
                    }),
                    refused => {
                        let kind = refused.unwrap_or_else(|| reply::kind(&reply.line));
                        Some(Step::Refused { kind })
                    }
                }
            }
            Awaited::Goodbye => Some(self.give_up("said goodbye".into())),
            Awaited::Reset => {
                self.errand = None;
                let kind = self.refused.take().unwrap_or_default();
                Some(Step::Refused { kind })
            }
        }
    }

    /// After an answer to MAIL, RCPT or DATA: the next command that was not sent ahead.
    fn next_question(&mut self) -> Option<Step> {
        if !self.awaited.is_empty() {
            return None;
        }
        if self.refused.is_some() {
            return self.say("RSET\r\n", Awaited::Reset);
        }
        let errand = self.errand.as_ref()?;
        if let Some(rcpt) = errand.rcpts.get(self.rcpts_told) {
            self.rcpts_told += 1;
            let words = rcpt.clone();
            return self.say(&words, Awaited::Rcpt);
        }
        self.say("DATA\r\n", Awaited::Data)
    }

    fn say(&mut self, words: &str, awaited: Awaited) -> Option<Step> {
        self.outgoing = Outgoing::Words(words.into(), 0);
        self.awaited.push_back(awaited);
        None
    }

    /// Writes on; asks to be told of room when the socket is full.
    fn write(&mut self, corpus: &Corpus, epoll: &OwnedFd, token: u64) -> io::Result<()> {
        let full = loop {
            let wrote = match (&self.outgoing, &self.errand) {
                (Outgoing::Words(words, done), _) => self.line.write(&[IoSlice::new(&words[*done..])]),
                (Outgoing::Letter(done), Some(errand)) => {
                    write_letter(&mut self.line, &errand.letter, corpus, *done)
                }
                (Outgoing::Nothing, _) | (Outgoing::Letter(_), None) => break self.line.flush()?,
            };
            match wrote {
                Ok(octets) => self.wrote(octets),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if full != self.waits_for_room {
            let wanted = if full {
                EventFlags::IN | EventFlags::OUT
            } else {
                EventFlags::IN
            };
            epoll::modify(epoll, &self.line.socket, EventData::new_u64(token), wanted)
                .map_err(io::Error::from)?;
            self.waits_for_room = full;
        }
        Ok(())
    }

    fn wrote(&mut self, octets: usize) {
        match &mut self.outgoing {
            Outgoing::Words(words, done) => {
                *done += octets;
                if *done >= words.len() {
                    self.outgoing = Outgoing::Nothing;
                }
            }
            Outgoing::Letter(done) => {
                *done += octets;
                let whole = self.errand.as_ref().map_or(0, |errand| length(&errand.letter));
                if *done >= whole {
                    self.outgoing = Outgoing::Nothing;
                }
            }
            Outgoing::Nothing => {}
        }
    }
}

fn length(letter: &Letter) -> usize {
    letter.head.len() + letter.body.len() + letter.tail.len()
}

/// Writes a letter from octet `done` on, without copying its parts together.
fn write_letter(line: &mut Line, letter: &Letter, corpus: &Corpus, done: usize) -> io::Result<usize> {
    let mut parts = [
        IoSlice::new(letter.head.as_bytes()),
        IoSlice::new(corpus.at(letter.body.clone())),
        IoSlice::new(letter.tail),
    ];
    let mut rest = &mut parts[..];
    IoSlice::advance_slices(&mut rest, done);
    line.write(rest)
}
