//! XCLIENT in a session: from now on the client is the one that the proxy tells of.

use crate::limit::may_connect;
use crate::session::{LoggedIn, Session};
use listen::Standing;
use mail::EmailAddress;
use smtp::xclient::{Attributes, Told};
use smtp::{Reply, replies};
use std::net::SocketAddr;

impl Session {
    /// Whether the client may speak for others.
    pub(crate) fn may_tell(&self) -> bool {
        let from = &self.ctx.options.xclient_from;
        self.peer.user.is_none()
            && from
                .iter()
                .any(|network| network.contains(self.peer.address.ip()))
    }

    /// Answers XCLIENT: who is logged in from now on. An address that is not known leaves the one that
    /// was there; names are asked of the DNS again, whatever the proxy found.
    pub(crate) async fn told(&mut self, attributes: &Attributes) -> Result<Option<String>, Reply> {
        let ip = attributes.address.and_then(Told::known);
        if let Some(ip) = ip {
            may_connect(&self.ctx, ip)?;
        }
        let login = match &attributes.login {
            Some(Told::This(name)) => Some(self.vouched(name).await?),
            Some(Told::Unavailable | Told::TemporarilyUnavailable) => None,
            None => self.login.take(),
        };
        let port = attributes.port.and_then(Told::known);
        let before = self.peer;
        if ip.is_some() || port.is_some() {
            let ip = ip.unwrap_or(self.peer.address.ip());
            self.peer = SocketAddr::new(ip, port.unwrap_or(0)).into();
        }
        tracing::info!(proxy = %before, peer = %self.peer, ?attributes, "XCLIENT");
        self.connection = None;
        // The certificate is the proxy's, and the filters have met the proxy.
        self.certificate = None;
        Box::pin(self.filter_close()).await;
        // Another client has a journey of its own.
        self.reference = self.ctx.parts.ids.next_id();
        self.is_recorded = false;
        self.login = login;
        Ok(self.login.as_ref().map(|l| l.address.to_string()))
    }

    /// The account for which the proxy vouches.
    async fn vouched(&self, name: &str) -> Result<LoggedIn, Reply> {
        let directory = &self.ctx.parts.directory;
        let address = EmailAddress::parse(name).map_err(|_| replies::XCLIENT_NO_ACCOUNT)?;
        let account = directory.account_by_address(&address).await.map_err(|error| {
            tracing::error!(%error, "the directory could not be read");
            replies::LOOKUP_FAILED
        })?;
        match account {
            Some(account) if !account.suspended => Ok(LoggedIn {
                account: account.id,
                standing: Standing::vouched(directory, account.id),
                address,
            }),
            _ => Err(replies::XCLIENT_NO_ACCOUNT),
        }
    }
}
