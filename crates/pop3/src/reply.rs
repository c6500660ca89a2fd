//! The replies, each once, with its response code (RFC 2449 §8, RFC 3206) where one fits.

/// A reply of one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    Greeting { host_name: String },
    Farewell { host_name: String },
    FarewellUncommitted,
    Ok,
    SendPassword,
    LoggedIn { messages: usize, octets: u64 },
    BeginTls,
    Challenge(String),
    Capabilities,
    DropListing { messages: usize, octets: u64 },
    Listing { messages: usize },
    ListingOne { message: u32, text: String },
    Message { octets: u64 },
    Top,
    Deleted { message: u32 },
    Reset { messages: usize, octets: u64 },

    UnknownCommand,
    Usage(&'static str),
    LineTooLong,
    LineMalformed,
    TooManyBadCommands,
    NotNow(&'static str),
    NoSuchMessage,
    MessageDeleted,
    MessageUnavailable,
    TlsActive,
    TlsNotOffered,
    TlsPipelined,
    LoginNeedsTls { stls_offered: bool },
    UnknownMechanism { offered: String },
    BadResponse,
    OtherChannel,
    Cancelled,
    WrongCredentials,
    NeedsAppPassword,
    InUse,
    LoginUnavailable,
    LoginForbidden(String),
    TooManyFailures,
    LoginOver,
}

impl Reply {
    /// The line with its CR LF.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text().as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    fn text(&self) -> String {
        use Reply as R;
        match self {
            R::Greeting { host_name } => format!("+OK {host_name} POP3 server ready"),
            R::Farewell { host_name } => format!("+OK {host_name} POP3 server signing off"),
            R::Ok => "+OK".to_owned(),
            R::SendPassword => "+OK now the password".to_owned(),
            R::LoggedIn { messages, octets } => {
                format!("+OK the maildrop has {messages} messages ({octets} octets)")
            }
            R::BeginTls => "+OK begin TLS negotiation".to_owned(),
            R::Challenge(text) => format!("+ {text}"),
            R::Capabilities => "+OK capability list follows".to_owned(),
            R::DropListing { messages, octets } => format!("+OK {messages} {octets}"),
            R::Listing { messages } => format!("+OK {messages} messages"),
            R::ListingOne { message, text } => format!("+OK {message} {text}"),
            R::Message { octets } => format!("+OK {octets} octets"),
            R::Top => "+OK top of message follows".to_owned(),
            R::Deleted { message } => format!("+OK message {message} deleted"),
            R::Reset { messages, octets } => {
                format!("+OK the maildrop has {messages} messages ({octets} octets)")
            }
            R::LoginForbidden(why) => format!("-ERR [AUTH] {why}"),
            R::UnknownMechanism { offered } => {
                format!("-ERR this way to authenticate is not offered here; use one of: {offered}")
            }
            R::Usage(usage) => format!("-ERR the command is: {usage}"),
            R::NotNow(when) => format!("-ERR not now: {when}"),
            other => other.refusal().to_owned(),
        }
    }

    fn refusal(&self) -> &'static str {
        use Reply as R;
        match self {
            R::UnknownCommand => "-ERR unknown command",
            R::LineTooLong => "-ERR the line is too long",
            R::LineMalformed => "-ERR a line ends with CR LF and holds no NUL",
            R::TooManyBadCommands => "-ERR too many lines that are no POP3; closing",
            R::NoSuchMessage => "-ERR no such message",
            R::MessageDeleted => "-ERR that message is deleted; RSET brings it back",
            R::MessageUnavailable => "-ERR [SYS/TEMP] the message cannot be read now; try again later",
            R::TlsActive => "-ERR TLS is active already",
            R::TlsNotOffered => "-ERR [SYS/PERM] TLS is not available on this server",
            R::TlsPipelined => "-ERR nothing may follow STLS before TLS has begun; closing",
            R::LoginNeedsTls { stls_offered: true } => {
                "-ERR login only inside TLS: send STLS first, or connect to port 995"
            }
            R::LoginNeedsTls { stls_offered: false } => "-ERR login only inside TLS: connect to port 995",
            R::BadResponse => "-ERR that is not a response of this mechanism in base64",
            R::OtherChannel => {
                "-ERR [AUTH] your program sees another TLS connection than we do: somebody may stand between"
            }
            R::Cancelled => "-ERR cancelled",
            R::WrongCredentials => "-ERR [AUTH] user name or password is wrong",
            R::NeedsAppPassword => {
                "-ERR [AUTH] this account has a second factor: mail programs need an app password, not the main one"
            }
            R::InUse => {
                "-ERR [IN-USE] another POP3 session has this maildrop open; try again when it has ended"
            }
            R::LoginUnavailable => "-ERR [SYS/TEMP] login is not possible now; try again later",
            R::TooManyFailures => "-ERR [AUTH] too many failed logins; closing",
            R::LoginOver => "-ERR [AUTH] this login has ended; nothing was removed; log in again",
            R::FarewellUncommitted => {
                "-ERR [SYS/TEMP] the deleted messages could not be removed and are still there"
            }
            _ => "-ERR",
        }
    }
}
