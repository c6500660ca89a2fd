//! One client of the crowd: greeted, inside TLS if so wanted; and the slow kinds.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a slow client sends an octet.
const DRIP: Duration = Duration::from_secs(1);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Whereto, wherefrom, and whether inside TLS.
pub(super) struct Door {
    pub(super) to: SocketAddr,
    pub(super) from: IpAddr,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
}

/// A session.
pub(super) struct Talk {
    stream: Option<Box<dyn Stream>>,
    read: Vec<u8>,
}

fn other(words: impl Into<String>) -> io::Error {
    io::Error::other(words.into())
}

async fn connect(to: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    if to.is_ipv4() {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = timeout(PATIENCE, socket.connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Talk {
    /// Connects and reads the greeting, whatever it is.
    pub(super) async fn connect(door: &Door) -> io::Result<(Self, String)> {
        let stream = connect(door.to, door.from).await?;
        let mut talk = Self {
            stream: Some(Box::new(stream)),
            read: Vec::new(),
        };
        let greeting = talk.reply().await?;
        Ok((talk, greeting))
    }

    /// Connects, says EHLO, turns on TLS and says it again if so wanted.
    pub(super) async fn greeted(door: Door) -> io::Result<Self> {
        let (mut talk, greeting) = Self::connect(&door).await?;
        if !greeting.starts_with("220") {
            return Err(other(greeting));
        }
        talk.expect("EHLO crowd.sender.example", "250").await?;
        if let Some(config) = door.tls {
            talk.expect("STARTTLS", "220").await?;
            let stream = talk.stream.take().ok_or_else(|| other("no stream"))?;
            let name = tls::server_name("mail.bench.example").map_err(|e| other(e.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(config);
            let inside = timeout(PATIENCE, connector.connect(name, stream)).await??;
            talk.stream = Some(Box::new(inside));
            talk.expect("EHLO crowd.sender.example", "250").await?;
        }
        // What an idle client holds is not what is measured, but there are many of them.
        talk.read = Vec::new();
        Ok(talk)
    }

    async fn expect(&mut self, line: &str, code: &str) -> io::Result<()> {
        let answer = self.ask(line).await?;
        if answer.starts_with(code) {
            Ok(())
        } else {
            Err(other(answer))
        }
    }

    /// Sends a line and reads the reply.
    pub(super) async fn ask(&mut self, line: &str) -> io::Result<String> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Sends a message; the answer to its end, or the first refusal before.
    pub(super) async fn send(&mut self, from: &str, to: &str) -> io::Result<String> {
        for (line, code) in [
            (format!("MAIL FROM:<{from}>"), "250"),
            (format!("RCPT TO:<{to}>"), "250"),
            ("DATA".to_owned(), "354"),
        ] {
            let answer = self.ask(&line).await?;
            if !answer.starts_with(code) {
                self.ask("RSET").await?;
                return Ok(answer);
            }
        }
        let body = "One of a crowd.\r\n".repeat(60);
        let message = format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: crowd\r\n\r\n{body}.\r\n");
        self.write(message.as_bytes()).await?;
        self.reply().await
    }

    async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or_else(|| other("no stream"))?;
        stream.write_all(octets).await?;
        stream.flush().await
    }

    /// Reads a whole reply; its last line.
    async fn reply(&mut self) -> io::Result<String> {
        loop {
            while let Some(end) = self.read.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                if line.get(3) != Some(&b'-') {
                    return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
            }
            let stream = self.stream.as_mut().ok_or_else(|| other("no stream"))?;
            let read = timeout(PATIENCE, stream.read_buf(&mut self.read)).await??;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// How a client can be slow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slow {
    /// A command, an octet at a time.
    Command,
    /// A message, an octet at a time.
    Message,
    /// A TLS handshake, an octet at a time.
    Handshake,
}

impl Slow {
    pub(super) const ALL: [Self; 3] = [Self::Command, Self::Message, Self::Handshake];
}

/// Is slow until it is stopped or cut off.
pub(super) async fn be_slow(to: SocketAddr, from: IpAddr, kind: Slow) -> io::Result<()> {
    let door = Door { to, from, tls: None };
    let mut talk = Talk::greeted(door).await?;
    let drip: &[u8] = match kind {
        Slow::Command => b"N",
        Slow::Message => {
            talk.expect("MAIL FROM:<slow@sender.example>", "250").await?;
            talk.expect("RCPT TO:<user0@bench.example>", "250").await?;
            talk.expect("DATA", "354").await?;
            b"x"
        }
        Slow::Handshake => {
            talk.expect("STARTTLS", "220").await?;
            // The head of a record of 512 octets.
            talk.write(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await?;
            &[0]
        }
    };
    loop {
        tokio::time::sleep(DRIP).await;
        talk.write(drip).await?;
    }
}
