//! Content filters: which there are, how they are reached, what their failure means.
//!
//! Strategy: one connection for each session and filter, opened at the first MAIL; filters are asked
//! one after the other, each sees the message as the one before it left it. A fault of a filter is
//! answered by `on_failure` and by nothing else: it never loses a message, never delivers one twice,
//! never holds a session longer than the time limits.

mod chain;
mod link;
mod stages;

pub(crate) use chain::Chain;
pub(crate) use stages::Filtered;

use listen::Io;
use smtp::Role;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Where a filter listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FilterAddress {
    /// `inet:host:port`.
    Inet {
        /// A name or an address.
        host: String,
        /// Its port.
        port: u16,
    },
    /// `unix:/path`.
    Unix(PathBuf),
}

impl FilterAddress {
    /// Reads `inet:host:port` (brackets around an IPv6 address) or `unix:/path`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(PathBuf::from(path))),
                false => Err("the path of the socket must be absolute: unix:/run/filter.sock"),
            };
        }
        let wrong = "write inet:host:port or unix:/path";
        let rest = text.strip_prefix("inet:").ok_or(wrong)?;
        let (host, port) = rest.rsplit_once(':').ok_or(wrong)?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(wrong)?;
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(wrong);
        }
        Ok(Self::Inet {
            host: host.to_owned(),
            port,
        })
    }
}

/// What happens to mail when the filter cannot be asked, is too slow or breaks the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnFailure {
    /// 451: the client tries again later.
    #[default]
    Defer,
    /// As if there were no such filter.
    Accept,
    /// 550.
    Refuse,
}

/// When a filter sees a stranger's message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum When {
    /// Every message, also one that our own judging would refuse; the filter's refusal comes first.
    #[default]
    Before,
    /// Only what our own judging lets in.
    After,
}

/// A content filter.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Its name in logs and journeys.
    pub name: String,
    /// Where it listens.
    pub address: FilterAddress,
    /// For which services it is asked.
    pub roles: Vec<Role>,
    /// What its failure means. Default defer.
    pub on_failure: OnFailure,
    /// When it sees a stranger's message. Default before our own judging.
    pub when: When,
    /// How long connecting may take. Default 10 seconds.
    pub connect_timeout: Duration,
    /// How long an answer to a command may take. Default 30 seconds.
    pub command_timeout: Duration,
    /// How long an answer to a part of the message may take; twice as long for all of them together,
    /// however often it says that it works on it. Default 300 seconds.
    pub content_timeout: Duration,
}

impl Filter {
    /// A filter with the defaults, for mail from strangers and submissions.
    #[must_use]
    pub fn new(name: impl Into<String>, address: FilterAddress) -> Self {
        Self {
            name: name.into(),
            address,
            roles: vec![Role::Mta, Role::Submission, Role::Submissions],
            on_failure: OnFailure::default(),
            when: When::default(),
            connect_timeout: Duration::from_secs(10),
            command_timeout: Duration::from_secs(30),
            content_timeout: Duration::from_secs(300),
        }
    }
}

/// A connection to a filter.
pub trait FilterIo: Io + Sync {}
impl<T: Io + Sync> FilterIo for T {}

/// A connection that is being made.
pub type FilterDialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn FilterIo>>> + Send + 'a>>;

/// Makes connections to filters.
pub trait FilterDialer: Send + Sync {
    /// Connects. Time limits are the caller's; dropping the future gives up.
    fn dial<'a>(&'a self, to: &'a FilterAddress) -> FilterDialing<'a>;
}

/// Connections by TCP and by sockets in the file system. Names are looked up by the system, so that
/// `localhost` and the names of a container network do.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketDialer;

impl FilterDialer for SocketDialer {
    fn dial<'a>(&'a self, to: &'a FilterAddress) -> FilterDialing<'a> {
        Box::pin(async move {
            Ok(match to {
                FilterAddress::Inet { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    // Commands are small and wait for their answers.
                    stream.set_nodelay(true)?;
                    Box::new(stream) as Box<dyn FilterIo>
                }
                FilterAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_filters() {
        let inet = |host: &str, port| {
            Ok(FilterAddress::Inet {
                host: host.into(),
                port,
            })
        };
        assert_eq!(
            FilterAddress::parse("inet:localhost:11332"),
            inet("localhost", 11_332)
        );
        assert_eq!(FilterAddress::parse("inet:[::1]:8891"), inet("::1", 8_891));
        assert_eq!(
            FilterAddress::parse("unix:/run/x.sock"),
            Ok(FilterAddress::Unix("/run/x.sock".into()))
        );
        for bad in [
            "localhost:1",
            "inet:localhost",
            "inet::1",
            "inet:a:0",
            "inet:a:b",
            "unix:run/x",
            "",
        ] {
            assert!(FilterAddress::parse(bad).is_err(), "{bad}");
        }
    }
}
