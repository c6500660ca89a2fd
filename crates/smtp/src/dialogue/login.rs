//! A client of SCRAM within a dialogue: what it says depends on what the server said, so that no
//! file can hold it.

use super::Runner;
use mail::Secret;
use sasl::client::{Bind, Scram};
use sasl::{Binding, Mechanism};

/// `(login by M as A with P)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScriptedLogin {
    mechanism: Mechanism,
    user: String,
    password: String,
    twist: Option<Twist>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Twist {
    /// The client sees another channel than the server does.
    BoundElsewhere,
    /// The client was not shown that binding is offered.
    Unaware,
}

impl ScriptedLogin {
    /// Reads what stands behind `login by`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (text, twist) = match text.split_once(", ") {
            None => (text, None),
            Some((text, "bound elsewhere")) => (text, Some(Twist::BoundElsewhere)),
            Some((text, "unaware of binding")) => (text, Some(Twist::Unaware)),
            Some(_) => return None,
        };
        let words: Vec<&str> = text.split(' ').collect();
        let [mechanism, "as", user, "with", password] = words[..] else {
            return None;
        };
        let mechanism = Mechanism::parse(mechanism)?;
        mechanism.scram()?;
        Some(Self {
            mechanism,
            user: user.to_owned(),
            password: password.to_owned(),
            twist,
        })
    }
}

impl Runner<'_> {
    /// Goes through the exchange until the server says something that is no challenge. Whether the
    /// server knows the password too is checked.
    pub(super) fn log_in(&mut self, login: &ScriptedLogin) -> Result<(), String> {
        let (hash, bound) = login.mechanism.scram().ok_or("not a mechanism of SCRAM")?;
        let bind = match login.twist {
            _ if bound => Bind::By(Binding::Exporter),
            Some(Twist::Unaware) => Bind::Unoffered,
            _ => Bind::Cannot,
        };
        let mut channel = self.peer.channel();
        if login.twist == Some(Twist::BoundElsewhere) {
            channel.exporter = Some([0xee; 32]);
        }
        let password = Secret::new(&*login.password);
        let client = Scram::new(hash, &login.user, password, "theclientspart", bind, &channel);
        let first = sasl::encode(client.first());
        self.peer
            .send(format!("AUTH {} {first}\r\n", login.mechanism).as_bytes())?;
        let Some(challenge) = self.challenge()? else {
            return Ok(());
        };
        let (proven, last) = client
            .last(&challenge)
            .ok_or("the server's first message is none")?;
        self.peer.send(format!("{}\r\n", sasl::encode(last)).as_bytes())?;
        let Some(challenge) = self.challenge()? else {
            return Ok(());
        };
        if !proven.is_right(&challenge) {
            return Err("the server does not know the password".to_owned());
        }
        self.peer.send(b"\r\n")
    }

    /// The server's challenge; `None` when its reply is none, which is kept for the next `S:`.
    fn challenge(&mut self) -> Result<Option<Vec<u8>>, String> {
        let said = self.next()?.ok_or("the server closed the connection")?;
        match said.strip_prefix("334 ") {
            Some(text) => {
                let octets = sasl::decode(text.as_bytes());
                octets
                    .map(Some)
                    .ok_or_else(|| "a challenge is no base64".to_owned())
            }
            None => {
                self.ahead = Some(said);
                Ok(None)
            }
        }
    }
}
