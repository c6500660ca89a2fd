//! An SMTP and submission client, one command at a time.

use super::wire::{Target, Watch, Wire};
use super::{BLOTTED, ClientError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mail::{EnhancedStatus, Secret};
use std::fmt;

/// Lines of one reply at most.
const REPLY_LINES_MAX: usize = 512;

/// A reply: its code, its enhanced code, its lines.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Reply {
    /// Three digits (RFC 5321 §4.2).
    pub code: u16,
    /// The enhanced status code of the last line, where there is one (RFC 2034).
    pub enhanced: Option<EnhancedStatus>,
    /// The text of each line, code taken off, enhanced code left in.
    pub lines: Vec<String>,
}

impl Reply {
    /// Whether this is exactly that code and that enhanced code (`"5.7.8"`).
    #[must_use]
    pub fn is(&self, code: u16, enhanced: &str) -> bool {
        self.code == code && self.enhanced.is_some_and(|e| e.to_string() == enhanced)
    }

    /// Whether an extension stands in this reply to EHLO.
    #[must_use]
    pub fn offers(&self, keyword: &str) -> bool {
        self.lines.iter().skip(1).any(|line| {
            line.split(' ')
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case(keyword))
        })
    }

    /// Success (2yz or 3yz), or the refusal as an error.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the reply's text.
    pub fn ok(self) -> Result<Self, ClientError> {
        match self.code {
            200..=399 => Ok(self),
            _ => Err(ClientError::Refused(self.to_string())),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" / "))
    }
}

/// A user name and a password.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password; never printed.
    pub password: Secret,
}

/// A connection to an SMTP server.
pub struct SmtpClient {
    wire: Wire,
    greeting: Reply,
}

impl SmtpClient {
    /// Connects and reads the greeting; `tls` from the first octet for port 465.
    ///
    /// # Errors
    /// No connection, a certificate that is not believed, or no SMTP greeting. A greeting that
    /// refuses (554, 421) is not an error: see [`SmtpClient::greeting`].
    pub async fn connect(target: &Target, watch: Watch, tls: bool) -> Result<Self, ClientError> {
        let mut wire = Wire::connect(target, watch, tls).await?;
        let greeting = read_reply(&mut wire).await?;
        Ok(Self { wire, greeting })
    }

    /// What the server said first.
    #[must_use]
    pub fn greeting(&self) -> &Reply {
        &self.greeting
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    /// When the conversation broke. A refusal is a reply, not an error.
    pub async fn command(&mut self, line: &str) -> Result<Reply, ClientError> {
        self.wire.send(line).await?;
        read_reply(&mut self.wire).await
    }

    /// STARTTLS and the handshake; the session starts anew, so EHLO comes next (RFC 3207 §4.2).
    ///
    /// # Errors
    /// A refusal, or a certificate that is not believed.
    pub async fn start_tls(mut self) -> Result<Self, ClientError> {
        self.command("STARTTLS").await?.ok()?;
        self.wire = self.wire.start_tls().await?;
        Ok(self)
    }

    /// AUTH PLAIN with an initial response (RFC 4616).
    ///
    /// # Errors
    /// When the conversation broke. A refusal is a reply, not an error.
    pub async fn auth_plain(&mut self, login: &Login) -> Result<Reply, ClientError> {
        let response = BASE64.encode(format!("\0{}\0{}", login.user, login.password.expose()));
        self.wire
            .send_shown(
                &format!("AUTH PLAIN {response}"),
                &format!("AUTH PLAIN {BLOTTED}"),
            )
            .await?;
        read_reply(&mut self.wire).await
    }

    /// AUTH LOGIN, user and password each on its own line.
    ///
    /// # Errors
    /// When the conversation broke. A refusal is a reply, not an error.
    pub async fn auth_login(&mut self, login: &Login) -> Result<Reply, ClientError> {
        let reply = self.command("AUTH LOGIN").await?;
        if reply.code != 334 {
            return Ok(reply);
        }
        let reply = self.command(&BASE64.encode(&login.user)).await?;
        if reply.code != 334 {
            return Ok(reply);
        }
        self.wire
            .send_blotted(&BASE64.encode(login.password.expose()))
            .await?;
        read_reply(&mut self.wire).await
    }

    /// DATA and the message, dots stuffed (RFC 5321 §4.5.2). Lines of `message` end in LF or CR LF.
    ///
    /// # Errors
    /// When the conversation broke. A refusal of DATA or of the message is a reply.
    pub async fn data(&mut self, message: &str) -> Result<Reply, ClientError> {
        let reply = self.command("DATA").await?;
        if reply.code != 354 {
            return Ok(reply);
        }
        let mut octets = String::with_capacity(message.len() + 64);
        for line in message.lines() {
            self.wire.tell_client(line);
            if line.starts_with('.') {
                octets.push('.');
            }
            octets.push_str(line);
            octets.push_str("\r\n");
        }
        octets.push_str(".\r\n");
        self.wire.tell_client(".");
        self.wire.send_raw(octets.as_bytes()).await?;
        read_reply(&mut self.wire).await
    }

    /// QUIT.
    ///
    /// # Errors
    /// When the server did not say goodbye.
    pub async fn quit(mut self) -> Result<Reply, ClientError> {
        self.command("QUIT").await
    }
}

async fn read_reply(wire: &mut Wire) -> Result<Reply, ClientError> {
    let mut lines = Vec::new();
    loop {
        let line = wire.read().await?;
        let bad = || ClientError::Protocol(format!("`{line}` is no SMTP reply"));
        let (code, rest) = line.split_at_checked(3).ok_or_else(bad)?;
        let code: u16 = code.parse().map_err(|_| bad())?;
        let (more, text) = match rest.as_bytes().first() {
            None => (false, ""),
            Some(b' ') => (false, &rest[1..]),
            Some(b'-') => (true, &rest[1..]),
            Some(_) => return Err(bad()),
        };
        lines.push(text.to_owned());
        if !more {
            return Ok(Reply {
                code,
                enhanced: EnhancedStatus::parse_prefix(text).map(|(status, _)| status),
                lines,
            });
        }
        if lines.len() >= REPLY_LINES_MAX {
            return Err(ClientError::Protocol("a reply has too many lines".to_owned()));
        }
    }
}
