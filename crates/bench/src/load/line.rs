//! The octets of one connection of the load, in clear or inside TLS.
//!
//! Promises: never blocks; what is read is plain text; what was taken by `write` reaches the socket before
//! `flush` answers that nothing waits. Never: a look at what the octets say.

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Octets read at once: answers are short.
const READ_OCTETS: usize = 4096;

/// A socket of either kind. It must not block.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl io::Read for Socket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(room),
            Self::Unix(socket) => socket.read(room),
        }
    }
}

impl io::Write for Socket {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(octets),
            Self::Unix(socket) => socket.write(octets),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write_vectored(parts),
            Self::Unix(socket) => socket.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) socket: Socket,
    tls: Option<Box<ClientConnection>>,
}

impl Line {
    /// A connection in clear.
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, tls: None }
    }

    /// Goes on inside TLS. The handshake happens while octets are read and written.
    pub(super) fn start_tls(&mut self, config: &Arc<rustls::ClientConfig>) -> io::Result<()> {
        let name = ServerName::try_from("mail.bench.example").map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Appends what has come to `input`: how many octets of the wire were read, 0 at the end.
    pub(super) fn read(&mut self, input: &mut Vec<u8>) -> io::Result<usize> {
        let mut room = [0; READ_OCTETS];
        let Some(tls) = &mut self.tls else {
            let octets = self.socket.read(&mut room)?;
            input.extend_from_slice(&room[..octets]);
            return Ok(octets);
        };
        let octets = tls.read_tls(&mut self.socket)?;
        tls.process_new_packets().map_err(io::Error::other)?;
        loop {
            match tls.reader().read(&mut room) {
                Ok(0) => return Ok(0),
                Ok(plain) => input.extend_from_slice(&room[..plain]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(octets),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes as many octets as there is room for.
    pub(super) fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.write_vectored(parts);
        };
        let taken = tls.writer().write_vectored(parts)?;
        match self.flush()? {
            // The buffer of the TLS session is full, and so is the socket.
            true if taken == 0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(taken),
        }
    }

    /// Writes what waits inside the TLS session. Whether something still waits.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(false);
        };
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}
