//! One connection's octets: what was read and not used yet, and writing that never waits for a
//! client who waits for us.
//!
//! Promises: an idle connection holds no buffer; while a write is stuck, what the client sends
//! is read (up to a limit), so that two sides with full buffers do not wait for each other for ever.

use listen::Io;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

/// Octets read at once while commands are awaited.
const COMMAND_OCTETS: usize = 4 * 1024;
/// Octets read at once while a message comes in; enough for most messages.
const MESSAGE_OCTETS: usize = 16 * 1024;
/// The same for a message that has filled the buffer once.
const LONG_MESSAGE_OCTETS: usize = 64 * 1024;
/// Octets that are read ahead at most while a write is stuck.
const AHEAD_OCTETS_MAX: usize = 64 * 1024;

/// A connection that is plain or inside TLS.
pub(crate) struct Wire {
    /// None only while a handshake holds it, or after one that failed.
    io: Option<Box<dyn Io>>,
    buffer: Vec<u8>,
    /// Octets of the buffer that were used.
    used: usize,
    /// Whether the last read of a message filled its buffer, so that more is likely to be waiting.
    filled: bool,
}

fn gone() -> io::Error {
    io::Error::from(io::ErrorKind::NotConnected)
}

impl Wire {
    pub(crate) fn new(io: Box<dyn Io>) -> Self {
        Self {
            io: Some(io),
            buffer: Vec::new(),
            used: 0,
            filled: false,
        }
    }

    /// What was read and not used yet.
    pub(crate) fn input(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Notes that this many octets of the input were used.
    pub(crate) fn take(&mut self, octets: usize) {
        self.used += octets;
        if self.used >= self.buffer.len() {
            self.used = 0;
            self.buffer.clear();
        }
    }

    /// Reads what there is. 0 means that the client has closed. Cancel-safe.
    pub(crate) async fn read(&mut self, in_message: bool) -> io::Result<usize> {
        if !in_message && self.buffer.is_empty() {
            // While nothing comes, nothing is held.
            self.buffer = Vec::new();
        }
        let io = self.io.as_mut().ok_or_else(gone)?;
        if !in_message && self.buffer.is_empty() {
            let read = read_first(io.as_mut()).await;
            self.filled = false;
            self.buffer = match read {
                // A client that goes without close_notify has gone all the same.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Vec::new(),
                read => read?,
            };
            return Ok(self.buffer.len());
        }
        let wanted = match (in_message, self.filled) {
            (false, _) => COMMAND_OCTETS,
            (true, false) => MESSAGE_OCTETS,
            (true, true) => LONG_MESSAGE_OCTETS,
        };
        if self.buffer.is_empty() && self.buffer.capacity() != wanted {
            self.buffer = Vec::with_capacity(wanted);
        }
        let read = io.read_buf(&mut self.buffer).await;
        self.filled = in_message && self.buffer.len() >= MESSAGE_OCTETS;
        match read {
            // A client that goes without close_notify has gone all the same.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other,
        }
    }

    /// Writes and flushes; reads ahead when the client does not take what is written.
    pub(crate) async fn write(&mut self, octets: &[u8], within: Duration) -> io::Result<()> {
        let io = self.io.as_mut().ok_or_else(gone)?;
        let (buffer, used) = (&mut self.buffer, self.used);
        let mut rest = octets;
        let work = poll_fn(|cx| {
            loop {
                let step = if rest.is_empty() {
                    Pin::new(&mut *io).poll_flush(cx).map_ok(|()| 0)
                } else {
                    Pin::new(&mut *io).poll_write(cx, rest)
                };
                match step {
                    Poll::Ready(Ok(0)) if rest.is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => {
                        rest = &rest[n..];
                        continue;
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => {}
                }
                if buffer.len() - used >= AHEAD_OCTETS_MAX {
                    return Poll::Pending;
                }
                let mut chunk = [0u8; COMMAND_OCTETS];
                let mut read = ReadBuf::new(&mut chunk);
                match Pin::new(&mut *io).poll_read(cx, &mut read) {
                    Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                        buffer.extend_from_slice(read.filled());
                    }
                    // The client's end is seen by the next read; its other half may still take this.
                    Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                }
            }
        });
        timeout(within, work).await.map_err(|_| timed_out())?
    }

    /// Writes this and does our side of a TLS handshake; where clients log in, what a login can be
    /// bound to comes with it. Nothing is read ahead: what comes next
    /// belongs to the handshake.
    pub(crate) async fn start_tls(
        &mut self,
        octets: &[u8],
        certificates: &tls::Certificates,
        within: Duration,
        for_logins: bool,
    ) -> io::Result<(tls::TlsInfo, Option<listen::LoginChannel>)> {
        if !self.input().is_empty() {
            // RFC 3207 §4.2: octets in clear must not pass for octets inside TLS.
            return Err(io::Error::other("octets in clear before the handshake"));
        }
        let mut io = self.io.take().ok_or_else(gone)?;
        let deadline = Instant::now() + within;
        let first = async {
            io.write_all(octets).await?;
            io.flush().await
        };
        timeout_at(deadline, first).await.map_err(|_| timed_out())??;
        if for_logins {
            let (io, info, channel) = listen::handshake_for_logins(io, certificates, deadline).await?;
            self.io = Some(io);
            return Ok((info, Some(channel)));
        }
        let (io, info) = listen::handshake(io, certificates, deadline).await?;
        self.io = Some(io);
        Ok((info, None))
    }

    /// Ends the connection so that the last reply arrives.
    pub(crate) async fn close(&mut self) {
        if let Some(io) = self.io.take() {
            listen::close(io).await;
        }
    }
}

/// Waits for octets without a buffer to wait with: it is on the stack, and only while something is
/// read. Cancel-safe.
async fn read_first(io: &mut dyn Io) -> io::Result<Vec<u8>> {
    poll_fn(|cx| {
        let mut chunk = [0u8; COMMAND_OCTETS];
        let mut read = ReadBuf::new(&mut chunk);
        match Pin::new(&mut *io).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(read.filled().to_vec())),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn timed_out() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_sides_that_only_write_both_get_on() {
        let (mut client, server) = tokio::io::duplex(1_000);
        let mut wire = Wire::new(Box::new(server));
        let theirs = vec![b'c'; 20_000];
        let ours = vec![b's'; 20_000];
        let write = wire.write(&ours, Duration::from_secs(5));
        let client_side = async {
            // Reads nothing until all of its own is out.
            client.write_all(&theirs).await.unwrap();
            let mut got = vec![0u8; 20_000];
            client.read_exact(&mut got).await.unwrap();
            got
        };
        let (written, got) = tokio::join!(write, client_side);
        written.unwrap();
        assert_eq!(got, ours);
        assert_eq!(wire.input(), theirs);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_left() {
        let (_client, server) = tokio::io::duplex(100);
        let mut wire = Wire::new(Box::new(server));
        let error = wire
            .write(&[0; 1_000], Duration::from_secs(300))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn used_input_goes_and_idle_buffers_are_small() {
        let (mut client, server) = tokio::io::duplex(100_000);
        let mut wire = Wire::new(Box::new(server));
        client.write_all(&[7; 50_000]).await.unwrap();
        assert_eq!(wire.read(true).await.unwrap(), MESSAGE_OCTETS);
        wire.take(MESSAGE_OCTETS);
        let rest = 50_000 - MESSAGE_OCTETS;
        assert_eq!(
            wire.read(true).await.unwrap(),
            rest,
            "a long message comes in larger pieces"
        );
        wire.take(rest - 1);
        assert_eq!(wire.input(), [7]);
        wire.take(1);
        client.write_all(b"x").await.unwrap();
        wire.read(false).await.unwrap();
        assert_eq!((wire.input(), wire.buffer.capacity()), (&b"x"[..], 1));
        wire.take(1);
        let waits = tokio::time::timeout(Duration::from_millis(1), wire.read(false)).await;
        assert!(waits.is_err());
        assert_eq!(wire.buffer.capacity(), 0, "who is idle holds no buffer");
    }
}
