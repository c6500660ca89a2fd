//! One thread that serves many sessions of [`Wire`]: epoll, nothing else.
//!
//! Promises: a message is answered when its keeper says so, at once or later from another thread.
//! Never: blocks on a peer; a peer that does not read is dropped when 64 KiB wait for it.

use crate::problem::{Outcome, Trying};
use crate::wire::{After, Wire};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const LISTENER: u64 = 0;
const BELL: u64 = 1;
const FIRST_SESSION: u64 = 2;
/// From here on tokens name further listeners.
const FURTHER_LISTENERS: u64 = 1 << 60;
/// Octets read at once, from whichever session.
const READ_OCTETS: usize = 256 * 1024;
/// Octets that may wait for a peer that does not read.
const UNREAD_OCTETS_MAX: usize = 64 * 1024;

/// Where whole messages go.
pub trait Keeper {
    /// The buffer that the next message's octets are appended to.
    fn buffer(&mut self) -> &mut Vec<u8>;

    /// The buffer now ends with a whole message of `session`. `true`: answer it now; `false`: its number
    /// comes through the [`Bell`] later. `alone` says that no other session is open.
    fn took(&mut self, session: u64, alone: bool) -> bool;

    /// A connection was accepted.
    fn opened(&mut self) {}

    /// All that was there to be read has been read: the moment to pass a batch on.
    fn pause(&mut self) {}

    /// Whether the hub should end: asked several times a second.
    fn enough(&mut self) -> bool {
        false
    }
}

/// Tells the hub from another thread which sessions may be answered, or that it should end.
#[derive(Debug, Clone)]
pub struct Bell {
    fd: Arc<OwnedFd>,
    done: Arc<Mutex<Vec<u64>>>,
    end: Arc<AtomicBool>,
}

impl Bell {
    /// A bell for one hub.
    ///
    /// # Errors
    /// When the kernel gives no eventfd.
    pub fn new() -> Outcome<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).trying(|| "eventfd".into())?;
        Ok(Self {
            fd: Arc::new(fd),
            done: Arc::default(),
            end: Arc::default(),
        })
    }

    /// These sessions' messages are safe.
    pub fn safe(&self, sessions: &mut Vec<u64>) {
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(sessions);
        self.ring();
    }

    /// The hub ends.
    pub fn end(&self) {
        self.end.store(true, Ordering::SeqCst);
        self.ring();
    }

    fn ring(&self) {
        // It only fails when it is ringing already.
        let _ = rustix::io::write(&*self.fd, &1u64.to_ne_bytes());
    }
}

struct Session {
    socket: TcpStream,
    wire: Wire,
    closing: bool,
    waits_for_room: bool,
}

/// The server.
pub struct Hub<K> {
    epoll: OwnedFd,
    listener: TcpListener,
    further: Vec<TcpListener>,
    bell: Bell,
    sessions: HashMap<u64, Session>,
    next: u64,
    scratch: Vec<u8>,
    keeper: K,
}

impl<K: Keeper> Hub<K> {
    /// A hub on a bound listener.
    ///
    /// # Errors
    /// When the kernel refuses epoll.
    pub fn new(listener: TcpListener, bell: Bell, keeper: K) -> Outcome<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).trying(|| "epoll".into())?;
        listener.set_nonblocking(true).trying(|| "listener".into())?;
        for (fd, token) in [
            (rustix::fd::AsFd::as_fd(&listener), LISTENER),
            (rustix::fd::AsFd::as_fd(&*bell.fd), BELL),
        ] {
            epoll::add(
                &epoll,
                fd,
                epoll::EventData::new_u64(token),
                epoll::EventFlags::IN,
            )
            .trying(|| "epoll".into())?;
        }
        Ok(Self {
            epoll,
            listener,
            further: Vec::new(),
            bell,
            sessions: HashMap::new(),
            next: FIRST_SESSION,
            scratch: vec![0; READ_OCTETS],
            keeper,
        })
    }

    /// Accepts at another listener too.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn also(&mut self, listener: TcpListener) -> Outcome<()> {
        listener.set_nonblocking(true).trying(|| "listener".into())?;
        let token = FURTHER_LISTENERS + self.further.len() as u64;
        epoll::add(
            &self.epoll,
            &listener,
            epoll::EventData::new_u64(token),
            epoll::EventFlags::IN,
        )
        .trying(|| "epoll".into())?;
        self.further.push(listener);
        Ok(())
    }

    /// Serves until the bell's [`end`](Bell::end) or the keeper's [`enough`](Keeper::enough); gives the
    /// keeper back.
    ///
    /// # Errors
    /// When epoll fails.
    pub fn run(mut self) -> Outcome<K> {
        let mut room = [const {
            epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }
        }; 256];
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        loop {
            let count = match epoll::wait(&self.epoll, &mut room, Some(&tick)) {
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => 0,
                Err(error) => return Err(crate::problem::Problem(format!("epoll: {error}"))),
            };
            for event in &room[..count] {
                match event.data.u64() {
                    LISTENER => self.accept(None),
                    further @ FURTHER_LISTENERS.. => {
                        self.accept(Some((further - FURTHER_LISTENERS) as usize));
                    }
                    BELL => self.rung(),
                    session => self.read(session),
                }
            }
            self.keeper.pause();
            if self.bell.end.load(Ordering::SeqCst) || self.keeper.enough() {
                return Ok(self.keeper);
            }
        }
    }

    fn accept(&mut self, further: Option<usize>) {
        let listener = |hub: &Self| match further {
            None => hub.listener.accept().ok(),
            Some(at) => hub.further.get(at)?.accept().ok(),
        };
        while let Some((socket, _)) = listener(self) {
            let token = self.next;
            let ready = socket.set_nonblocking(true).is_ok()
                && socket.set_nodelay(true).is_ok()
                && epoll::add(
                    &self.epoll,
                    &socket,
                    epoll::EventData::new_u64(token),
                    epoll::EventFlags::IN,
                )
                .is_ok();
            if !ready {
                continue;
            }
            self.next += 1;
            let mut session = Session {
                socket,
                wire: Wire::new(),
                closing: false,
                waits_for_room: false,
            };
            if session.write(&self.epoll, token) {
                self.sessions.insert(token, session);
                self.keeper.opened();
            }
        }
    }

    fn rung(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell.fd, &mut count);
        let done = std::mem::take(&mut *self.bell.done.lock().unwrap_or_else(PoisonError::into_inner));
        for token in done {
            let Some(session) = self.sessions.get_mut(&token) else {
                continue;
            };
            let after = session.wire.answer(self.keeper.buffer());
            self.follow(token, after);
        }
    }

    fn read(&mut self, token: u64) {
        let Some(session) = self.sessions.get_mut(&token) else {
            return;
        };
        match session.socket.read(&mut self.scratch) {
            Ok(0) => {
                self.sessions.remove(&token);
            }
            Ok(octets) => {
                let after = session.wire.feed(&self.scratch[..octets], self.keeper.buffer());
                self.follow(token, after);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                self.follow(token, After::More);
            }
            Err(_) => {
                self.sessions.remove(&token);
            }
        }
    }

    /// Does what the session asks, then writes what it has to say.
    fn follow(&mut self, token: u64, mut after: After) {
        let alone = self.sessions.len() == 1;
        let Some(session) = self.sessions.get_mut(&token) else {
            return;
        };
        while after == After::Message {
            if !self.keeper.took(token, alone) {
                break;
            }
            after = session.wire.answer(self.keeper.buffer());
        }
        session.closing |= after == After::Close;
        let lives = session.write(&self.epoll, token) && !(session.closing && session.wire.out.is_empty());
        if !lives {
            self.sessions.remove(&token);
        }
    }
}

impl Session {
    /// Writes what can be written; whether the session lives on.
    fn write(&mut self, epoll: &OwnedFd, token: u64) -> bool {
        while !self.wire.out.is_empty() {
            match self.socket.write(&self.wire.out) {
                Ok(octets) => {
                    self.wire.out.drain(..octets);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        let full = !self.wire.out.is_empty();
        if full != self.waits_for_room {
            let wanted = if full {
                epoll::EventFlags::IN | epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            self.waits_for_room = full;
            if epoll::modify(epoll, &self.socket, epoll::EventData::new_u64(token), wanted).is_err() {
                return false;
            }
        }
        self.wire.out.len() <= UNREAD_OCTETS_MAX
    }
}
