//! The listeners: TCP addresses, Unix sockets, balancers in front, and the socket of `posthaste sendmail`.

use super::cannot_bind;
use crate::cli::Failure;
use crate::settings::{Settings, doors};
use crate::users;
use limits::Network;
use listen::Listener;
use receive::{LocalSender, LocalSenders, SendAs, SenderPattern};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Octets of a socket's path at most (what `sockaddr_un` holds on every system).
const PATH_OCTETS_MAX: usize = 100;
/// The socket of `posthaste sendmail` in the data folder.
const SENDMAIL_SOCKET: &str = "sendmail.sock";
/// Its mode: anybody may connect who can reach it; who may send is decided by whose program it is.
const SENDMAIL_MODE: u32 = 0o666;

/// Sockets that are bound but not served yet.
pub struct Listeners {
    pub smtp: Vec<(smtp::Role, Listener)>,
    pub retrieval: Vec<(retrieve::Protocol, Listener)>,
    pub sendmail: Listener,
    pub https: Vec<Listener>,
    pub bound: BTreeMap<&'static str, Vec<SocketAddr>>,
    /// The Unix sockets, by service.
    pub sockets: Vec<(&'static str, PathBuf)>,
}

impl Listeners {
    /// Binds everything, or says what could not be bound.
    pub async fn bind_all(settings: &Settings) -> Result<Self, Failure> {
        use retrieve::Protocol as P;
        use smtp::Role as R;
        let l = &settings.listen;
        let path = sendmail_socket(settings);
        let sendmail =
            Listener::bind_unix(&path, SENDMAIL_MODE).map_err(|e| no_socket("sendmail", &path, &e))?;
        let mut listeners = Self {
            smtp: Vec::new(),
            retrieval: Vec::new(),
            sendmail,
            https: Vec::new(),
            bound: BTreeMap::new(),
            sockets: Vec::new(),
        };
        let proxies: Arc<[Network]> = doors::networks("listen.proxy_from", &l.proxy_from)
            .map_err(Failure::Settings)?
            .into();
        for (name, role, addresses) in [
            ("smtp", R::Mta, &l.smtp),
            ("submission", R::Submission, &l.submission),
            ("submissions", R::Submissions, &l.submissions),
            ("lmtp", R::Lmtp, &l.lmtp),
        ] {
            for address in addresses {
                let listener = listeners.bind(name, *address).await?;
                listeners.smtp.push((role, listener.behind(proxies.clone())));
            }
        }
        for (name, protocol, addresses) in [
            ("imap", P::Imap, &l.imap),
            ("imaps", P::Imaps, &l.imaps),
            ("pop3", P::Pop3, &l.pop3),
            ("pop3s", P::Pop3s, &l.pop3s),
        ] {
            for address in addresses {
                let listener = listeners.bind(name, *address).await?;
                listeners
                    .retrieval
                    .push((protocol, listener.behind(proxies.clone())));
            }
        }
        for address in &l.https {
            let listener = listeners.bind("https", *address).await?;
            listeners.https.push(listener.behind(proxies.clone()));
        }
        let sockets = &settings.sockets;
        let mode = sockets.mode_bits().map_err(Failure::Settings)?;
        for (name, role, paths) in [
            ("smtp", R::Mta, &sockets.smtp),
            ("submission", R::Submission, &sockets.submission),
            ("lmtp", R::Lmtp, &sockets.lmtp),
        ] {
            for path in paths {
                let listener = Listener::bind_unix(path, mode).map_err(|e| no_socket(name, path, &e))?;
                listeners.smtp.push((role, listener));
                listeners.sockets.push((name, path.clone()));
            }
        }
        Ok(listeners)
    }

    async fn bind(&mut self, name: &'static str, address: SocketAddr) -> Result<Listener, Failure> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| cannot_bind(name, address, &e))?;
        self.bound.entry(name).or_default().push(listener.local_addr()?);
        Ok(listener.into())
    }
}

fn no_socket(name: &str, path: &Path, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another program serves it: stop that, or choose another path",
        std::io::ErrorKind::NotFound => "; make its folder first, for the server's user",
        std::io::ErrorKind::PermissionDenied => "; the server's user must be allowed to write in its folder",
        std::io::ErrorKind::InvalidInput => "; the path is too long for a socket",
        _ => "",
    };
    Failure::Settings(format!("the {name} socket {}: {error}{hint}", path.display()))
}

/// Where `posthaste sendmail` finds the server; a data folder with a very long path keeps it beside its
/// control socket.
pub fn sendmail_socket(settings: &Settings) -> PathBuf {
    if let Some(path) = &settings.sendmail.socket {
        return path.clone();
    }
    let plain = settings.data.join(SENDMAIL_SOCKET);
    if plain.as_os_str().len() <= PATH_OCTETS_MAX {
        return plain;
    }
    admin::control::socket_path(&settings.data, &std::env::temp_dir()).with_extension("sendmail")
}

/// What an address without a domain means for local programs.
pub fn sendmail_domain(settings: &Settings) -> &str {
    settings.sendmail.domain.as_deref().unwrap_or(&settings.hostname)
}

/// Who may send without a login: root and the server's own user as anybody; who is named in the settings
/// as what stands there, and as themselves.
pub fn local_senders(settings: &Settings) -> Result<LocalSenders, Failure> {
    let mut senders = LocalSenders::default();
    for user in &settings.sendmail.user {
        let uid = users::number(&user.name).ok_or_else(|| {
            Failure::Settings(format!(
                "sendmail.user: there is no user \"{}\" on this machine",
                user.name
            ))
        })?;
        let mut may: Vec<SenderPattern> = Vec::new();
        let own = format!("{}@{}", user.name, sendmail_domain(settings));
        may.extend(doors::pattern(&own));
        for from in &user.from {
            may.push(doors::pattern(from).map_err(Failure::Settings)?);
        }
        let sender = LocalSender {
            name: user.name.clone(),
            may: SendAs::These(may),
        };
        senders.users.insert(uid, Arc::new(sender));
    }
    for uid in [0, users::own_number()] {
        let sender = LocalSender {
            name: users::name(uid),
            may: SendAs::Anybody,
        };
        senders.users.insert(uid, Arc::new(sender));
    }
    Ok(senders)
}
