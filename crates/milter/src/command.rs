//! What the mail server tells a filter. Reading it back is for tests, and for whoever plays a filter.

use crate::flags::{actions, steps};
use crate::packet::{self, Packet, Reader};
use std::net::IpAddr;

/// From where a client came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Family {
    /// It cannot be told.
    Unknown,
    /// An address of the Internet and a port.
    Inet(IpAddr, u16),
    /// A socket in the file system.
    Unix(String),
}

/// A command to a filter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Version, actions and steps that are offered.
    Negotiate {
        /// The version.
        version: u32,
        /// Bits of [`actions`].
        actions: u32,
        /// Bits of [`steps`].
        steps: u32,
    },
    /// Macros for the command that follows; the octet is that command's kind.
    Macros(u8, Vec<(String, String)>),
    /// A client connected.
    Connect {
        /// Its name, or its address in brackets.
        host: String,
        /// Its address.
        from: Family,
    },
    /// It said its name.
    Helo(String),
    /// MAIL: the reverse-path in angle brackets, then the ESMTP parameters.
    Mail(String, Vec<String>),
    /// RCPT: the recipient in angle brackets, then the ESMTP parameters.
    Rcpt(String, Vec<String>),
    /// DATA.
    Data,
    /// A command that the server does not know.
    Unknown(String),
    /// A header field: name and value, lines of the value parted by LF alone.
    Header(Vec<u8>, Vec<u8>),
    /// The header section is whole.
    EndOfHeader,
    /// A piece of the body, at most [`packet::DATA_OCTETS_MAX`] octets.
    Body(Vec<u8>),
    /// The message is whole.
    EndOfMessage,
    /// Forget the message.
    Abort,
    /// The conversation is over.
    Quit,
    /// The client is gone; another follows on this connection.
    QuitNewConnection,
}

/// The kind of a command that a filter may be spared or need not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// [`Command::Connect`].
    Connect,
    /// [`Command::Helo`].
    Helo,
    /// [`Command::Mail`].
    Mail,
    /// [`Command::Rcpt`].
    Rcpt,
    /// [`Command::Data`].
    Data,
    /// [`Command::Unknown`].
    Unknown,
    /// [`Command::Header`].
    Header,
    /// [`Command::EndOfHeader`].
    EndOfHeader,
    /// [`Command::Body`].
    Body,
    /// [`Command::EndOfMessage`].
    EndOfMessage,
}

impl Kind {
    /// The bits that spare it, and that spare its answer.
    #[must_use]
    pub fn bits(self) -> (u32, u32) {
        match self {
            Self::Connect => (steps::NO_CONNECT, steps::NR_CONNECT),
            Self::Helo => (steps::NO_HELO, steps::NR_HELO),
            Self::Mail => (steps::NO_MAIL, steps::NR_MAIL),
            Self::Rcpt => (steps::NO_RCPT, steps::NR_RCPT),
            Self::Data => (steps::NO_DATA, steps::NR_DATA),
            Self::Unknown => (steps::NO_UNKNOWN, steps::NR_UNKNOWN),
            Self::Header => (steps::NO_HEADERS, steps::NR_HEADER),
            Self::EndOfHeader => (steps::NO_END_OF_HEADER, steps::NR_END_OF_HEADER),
            Self::Body => (steps::NO_BODY, steps::NR_BODY),
            Self::EndOfMessage => (0, 0),
        }
    }

    /// The first version of the protocol that has it.
    #[must_use]
    pub fn since_version(self) -> u32 {
        match self {
            Self::Unknown => 3,
            Self::Data => 4,
            _ => 2,
        }
    }
}

impl Command {
    /// Everything that is served, offered.
    #[must_use]
    pub fn offer() -> Self {
        Self::Negotiate {
            version: crate::flags::VERSION,
            actions: actions::ALL,
            steps: steps::ALL,
        }
    }

    /// Its kind; none for those that are always sent and never answered.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Self::Connect { .. } => Kind::Connect,
            Self::Helo(_) => Kind::Helo,
            Self::Mail(..) => Kind::Mail,
            Self::Rcpt(..) => Kind::Rcpt,
            Self::Data => Kind::Data,
            Self::Unknown(_) => Kind::Unknown,
            Self::Header(..) => Kind::Header,
            Self::EndOfHeader => Kind::EndOfHeader,
            Self::Body(_) => Kind::Body,
            Self::EndOfMessage => Kind::EndOfMessage,
            _ => return None,
        })
    }

    /// The octet that says its kind.
    #[must_use]
    pub fn octet(&self) -> u8 {
        match self {
            Self::Negotiate { .. } => b'O',
            Self::Macros(..) => b'D',
            Self::Connect { .. } => b'C',
            Self::Helo(_) => b'H',
            Self::Mail(..) => b'M',
            Self::Rcpt(..) => b'R',
            Self::Data => b'T',
            Self::Unknown(_) => b'U',
            Self::Header(..) => b'L',
            Self::EndOfHeader => b'N',
            Self::Body(_) => b'B',
            Self::EndOfMessage => b'E',
            Self::Abort => b'A',
            Self::Quit => b'Q',
            Self::QuitNewConnection => b'K',
        }
    }

    /// Appends it as a packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut data = Vec::new();
        match self {
            Self::Negotiate {
                version,
                actions,
                steps,
            } => {
                for number in [version, actions, steps] {
                    data.extend_from_slice(&number.to_be_bytes());
                }
            }
            Self::Macros(of, pairs) => {
                data.push(*of);
                for (name, value) in pairs {
                    packet::write_text(&mut data, name.as_bytes());
                    packet::write_text(&mut data, value.as_bytes());
                }
            }
            Self::Connect { host, from } => encode_connect(&mut data, host, from),
            Self::Helo(text) | Self::Unknown(text) => packet::write_text(&mut data, text.as_bytes()),
            Self::Mail(path, parameters) | Self::Rcpt(path, parameters) => {
                packet::write_text(&mut data, path.as_bytes());
                for parameter in parameters {
                    packet::write_text(&mut data, parameter.as_bytes());
                }
            }
            Self::Header(name, value) => {
                packet::write_text(&mut data, name);
                packet::write_text(&mut data, value);
            }
            Self::Body(octets) => return packet::write(out, self.octet(), octets),
            Self::Data
            | Self::EndOfHeader
            | Self::EndOfMessage
            | Self::Abort
            | Self::Quit
            | Self::QuitNewConnection => {}
        }
        packet::write(out, self.octet(), &data);
    }

    /// Reads a packet back; `None` when it is no command.
    #[must_use]
    pub fn decode(packet: &Packet) -> Option<Self> {
        let mut data = Reader(&packet.data);
        let command = match packet.kind {
            b'O' => Self::Negotiate {
                version: data.u32()?,
                actions: data.u32()?,
                steps: data.u32()?,
            },
            b'D' => {
                let of = data.octet()?;
                let texts = data.texts()?;
                let pairs = texts.chunks(2).map(|pair| match pair {
                    [name, value] => Some((text(name)?, text(value)?)),
                    _ => None,
                });
                Self::Macros(of, pairs.collect::<Option<_>>()?)
            }
            b'C' => decode_connect(&mut data)?,
            b'H' => Self::Helo(text(data.text()?)?),
            b'U' => Self::Unknown(text(data.text()?)?),
            b'M' | b'R' => {
                let path = text(data.text()?)?;
                let parameters = data.texts()?.into_iter().map(text).collect::<Option<_>>()?;
                match packet.kind {
                    b'M' => Self::Mail(path, parameters),
                    _ => Self::Rcpt(path, parameters),
                }
            }
            b'L' => Self::Header(data.text()?.to_vec(), data.text()?.to_vec()),
            b'B' => return Some(Self::Body(packet.data.clone())),
            b'T' => Self::Data,
            b'N' => Self::EndOfHeader,
            b'E' => Self::EndOfMessage,
            b'A' => Self::Abort,
            b'Q' => Self::Quit,
            b'K' => Self::QuitNewConnection,
            _ => return None,
        };
        data.is_empty().then_some(command)
    }
}

fn encode_connect(data: &mut Vec<u8>, host: &str, from: &Family) {
    packet::write_text(data, host.as_bytes());
    let (family, port, address) = match from {
        Family::Unknown => return data.push(b'U'),
        Family::Inet(IpAddr::V4(ip), port) => (b'4', *port, ip.to_string()),
        Family::Inet(IpAddr::V6(ip), port) => (b'6', *port, ip.to_string()),
        Family::Unix(path) => (b'L', 0, path.clone()),
    };
    data.push(family);
    data.extend_from_slice(&port.to_be_bytes());
    packet::write_text(data, address.as_bytes());
}

fn decode_connect(data: &mut Reader<'_>) -> Option<Command> {
    let host = text(data.text()?)?;
    let family = data.octet()?;
    if family == b'U' {
        let from = Family::Unknown;
        return Some(Command::Connect { host, from });
    }
    let port = data.u16()?;
    let address = text(data.text()?)?;
    let from = match family {
        b'4' | b'6' => Family::Inet(address.parse().ok()?, port),
        b'L' => Family::Unix(address),
        _ => return None,
    };
    Some(Command::Connect { host, from })
}

fn text(octets: &[u8]) -> Option<String> {
    String::from_utf8(octets.to_vec()).ok()
}
