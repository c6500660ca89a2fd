//! A POP3 client: one-line and multi-line replies.

use super::smtp::Login;
use super::wire::{Target, Watch, Wire};
use super::{BLOTTED, ClientError, LITERAL_OCTETS_MAX};

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pop3Reply {
    /// Whether it began with `+OK`.
    pub ok: bool,
    /// The rest of the first line.
    pub text: String,
    /// The lines of a multi-line reply, dots unstuffed (RFC 1939 §3).
    pub lines: Vec<Vec<u8>>,
}

impl Pop3Reply {
    /// The reply when it is `+OK`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the text.
    pub fn success(self) -> Result<Self, ClientError> {
        match self.ok {
            true => Ok(self),
            false => Err(ClientError::Refused(format!("-ERR {}", self.text))),
        }
    }
}

/// A connection to a POP3 server.
pub struct Pop3Client {
    wire: Wire,
    greeting: Pop3Reply,
}

impl Pop3Client {
    /// Connects and reads the greeting; `tls` from the first octet for port 995.
    ///
    /// # Errors
    /// No connection, a certificate that is not believed, or no POP3 greeting.
    pub async fn connect(target: &Target, watch: Watch, tls: bool) -> Result<Self, ClientError> {
        let mut wire = Wire::connect(target, watch, tls).await?;
        let greeting = read_status(&mut wire).await?;
        Ok(Self { wire, greeting })
    }

    /// What the server said first.
    #[must_use]
    pub fn greeting(&self) -> &Pop3Reply {
        &self.greeting
    }

    /// Sends a command whose reply is one line.
    ///
    /// # Errors
    /// When the conversation broke. `-ERR` is a reply, not an error.
    pub async fn command(&mut self, command: &str) -> Result<Pop3Reply, ClientError> {
        self.wire.send(command).await?;
        read_status(&mut self.wire).await
    }

    /// Sends a command whose reply, when `+OK`, has more lines (LIST, UIDL, RETR, TOP, CAPA).
    ///
    /// # Errors
    /// When the conversation broke. `-ERR` is a reply, not an error.
    pub async fn multi_line(&mut self, command: &str) -> Result<Pop3Reply, ClientError> {
        let mut reply = self.command(command).await?;
        let mut octets_left = LITERAL_OCTETS_MAX;
        while reply.ok {
            let line = self.wire.read_octets().await?;
            if line == b"." {
                break;
            }
            octets_left = octets_left
                .checked_sub(line.len() + 2)
                .ok_or_else(|| ClientError::Protocol("the reply is too long".to_owned()))?;
            let unstuffed = line.strip_prefix(b".").unwrap_or(&line);
            reply.lines.push(unstuffed.to_vec());
        }
        Ok(reply)
    }

    /// STLS and the handshake (RFC 2595 §4).
    ///
    /// # Errors
    /// A refusal, or a certificate that is not believed.
    pub async fn start_tls(mut self) -> Result<Self, ClientError> {
        self.command("STLS").await?.success()?;
        self.wire = self.wire.start_tls().await?;
        Ok(self)
    }

    /// USER and PASS.
    ///
    /// # Errors
    /// When the conversation broke. `-ERR` is a reply, not an error.
    pub async fn login(&mut self, login: &Login) -> Result<Pop3Reply, ClientError> {
        let reply = self.command(&format!("USER {}", login.user)).await?;
        if !reply.ok {
            return Ok(reply);
        }
        self.wire
            .send_shown(
                &format!("PASS {}", login.password.expose()),
                &format!("PASS {BLOTTED}"),
            )
            .await?;
        read_status(&mut self.wire).await
    }

    /// QUIT.
    ///
    /// # Errors
    /// When the server did not say goodbye.
    pub async fn quit(mut self) -> Result<Pop3Reply, ClientError> {
        self.command("QUIT").await
    }
}

async fn read_status(wire: &mut Wire) -> Result<Pop3Reply, ClientError> {
    let line = wire.read().await?;
    let (ok, rest) = match (line.strip_prefix("+OK"), line.strip_prefix("-ERR")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(ClientError::Protocol(format!("`{line}` is no POP3 reply"))),
    };
    Ok(Pop3Reply {
        ok,
        text: rest.trim_start().to_owned(),
        lines: Vec::new(),
    })
}
