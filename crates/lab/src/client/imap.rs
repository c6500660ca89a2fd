//! An IMAP client: a command, the untagged replies with their literals, the tagged end.

use super::smtp::Login;
use super::wire::{Target, Watch, Wire};
use super::{BLOTTED, ClientError, LITERAL_OCTETS_MAX};

/// What one command brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImapReply {
    /// Whether the tagged reply was `OK`.
    pub ok: bool,
    /// The tagged reply without its tag, for example `OK [READ-WRITE] SELECT done`.
    pub end: String,
    /// The untagged replies, their literals joined in.
    pub untagged: Vec<String>,
    /// The literals alone, in order.
    pub literals: Vec<Vec<u8>>,
}

impl ImapReply {
    /// The reply when it is `OK`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the tagged reply.
    pub fn success(self) -> Result<Self, ClientError> {
        match self.ok {
            true => Ok(self),
            false => Err(ClientError::Refused(self.end)),
        }
    }
}

/// A connection to an IMAP server.
pub struct ImapClient {
    wire: Wire,
    greeting: String,
    commands: u32,
}

impl ImapClient {
    /// Connects and reads the greeting; `tls` from the first octet for port 993.
    ///
    /// # Errors
    /// No connection, a certificate that is not believed, or a greeting other than `* OK`.
    pub async fn connect(target: &Target, watch: Watch, tls: bool) -> Result<Self, ClientError> {
        let mut wire = Wire::connect(target, watch, tls).await?;
        let greeting = wire.read().await?;
        match greeting.starts_with("* OK") || greeting.starts_with("* PREAUTH") {
            true => Ok(Self {
                wire,
                greeting,
                commands: 0,
            }),
            false => Err(ClientError::Refused(greeting)),
        }
    }

    /// What the server said first.
    #[must_use]
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Sends one command without its tag and reads up to the tagged reply.
    ///
    /// # Errors
    /// When the conversation broke. `NO` and `BAD` are replies, not errors.
    pub async fn command(&mut self, command: &str) -> Result<ImapReply, ClientError> {
        self.command_shown(command, command).await
    }

    /// STARTTLS and the handshake (RFC 3501 §6.2.1).
    ///
    /// # Errors
    /// A refusal, or a certificate that is not believed.
    pub async fn start_tls(mut self) -> Result<Self, ClientError> {
        self.command("STARTTLS").await?.success()?;
        self.wire = self.wire.start_tls().await?;
        Ok(self)
    }

    /// LOGIN with both arguments quoted.
    ///
    /// # Errors
    /// When the conversation broke. `NO` is a reply, not an error.
    pub async fn login(&mut self, login: &Login) -> Result<ImapReply, ClientError> {
        let user = quoted(&login.user);
        self.command_shown(
            &format!("LOGIN {user} {}", quoted(login.password.expose())),
            &format!("LOGIN {user} {BLOTTED}"),
        )
        .await
    }

    /// LOGOUT.
    ///
    /// # Errors
    /// When the server did not say goodbye.
    pub async fn logout(mut self) -> Result<ImapReply, ClientError> {
        self.command("LOGOUT").await
    }

    async fn command_shown(&mut self, command: &str, shown: &str) -> Result<ImapReply, ClientError> {
        self.commands += 1;
        let tag = format!("a{}", self.commands);
        self.wire
            .send_shown(&format!("{tag} {command}"), &format!("{tag} {shown}"))
            .await?;
        let mut reply = ImapReply {
            ok: false,
            end: String::new(),
            untagged: Vec::new(),
            literals: Vec::new(),
        };
        let mut octets_left = LITERAL_OCTETS_MAX;
        loop {
            let line = self.line(&mut reply.literals, &mut octets_left).await?;
            if let Some(end) = line.strip_prefix(&tag).and_then(|rest| rest.strip_prefix(' ')) {
                reply.ok = end.starts_with("OK");
                reply.end = end.to_owned();
                return Ok(reply);
            }
            match line.starts_with("* ") {
                true => reply.untagged.push(line),
                false => return Err(ClientError::Protocol(line)),
            }
        }
    }

    /// One response with its literals joined in.
    async fn line(
        &mut self,
        literals: &mut Vec<Vec<u8>>,
        octets_left: &mut usize,
    ) -> Result<String, ClientError> {
        let mut text = String::new();
        loop {
            let line = self.wire.read().await?;
            text.push_str(&line);
            *octets_left = octets_left
                .checked_sub(line.len())
                .ok_or_else(|| ClientError::Protocol("the reply is too long".to_owned()))?;
            let Some(len) = literal_len(&line) else {
                return Ok(text);
            };
            *octets_left = octets_left
                .checked_sub(len)
                .ok_or_else(|| ClientError::Protocol("the literal is too long".to_owned()))?;
            let literal = self.wire.read_literal(len).await?;
            text.push_str(&String::from_utf8_lossy(&literal));
            literals.push(literal);
        }
    }
}

/// The length that a line announces at its end: `{123}`.
fn literal_len(line: &str) -> Option<usize> {
    let (_, digits) = line.strip_suffix('}')?.rsplit_once('{')?;
    digits.parse().ok()
}

/// A quoted string (RFC 3501 §4.3).
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_announced_at_the_end_only() {
        assert_eq!(literal_len("* 1 FETCH (BODY[] {42}"), Some(42));
        for line in ["* OK {42} more", "* OK", "* 1 FETCH {x}", "}", "{}"] {
            assert_eq!(literal_len(line), None, "{line}");
        }
        assert_eq!(quoted("a\"b\\c"), "\"a\\\"b\\\\c\"");
    }
}
