//! Where reception asks the limits: at the connection, at MAIL, at RCPT. The answers are replies.

use crate::Context;
use crate::session::Session;
use limits::{Exceeded, Refused};
use listen::{Full, Peer, Seat};
use mail::EmailAddress;
use smtp::{Reply, replies};
use std::net::IpAddr;

/// A seat for a client that is neither blocked nor comes too often, while there is one. A program that came
/// through a Unix socket has no address that could be blocked.
pub(crate) fn enter(ctx: &Context, peer: Peer) -> Result<Seat<'_>, Reply> {
    let ip = peer.address.ip();
    if peer.user.is_none() {
        may_connect(ctx, ip)?;
    }
    ctx.gate.enter(ip).map_err(|full| match full {
        Full::Total => replies::TOO_MANY_CONNECTIONS,
        Full::Address => replies::TOO_MANY_CONNECTIONS_FROM_YOU,
        Full::Network => replies::TOO_MANY_CONNECTIONS_FROM_YOUR_NETWORK,
    })
}

/// Whether that address may connect now: whether it is blocked, or comes too often.
pub(crate) fn may_connect(ctx: &Context, ip: IpAddr) -> Result<(), Reply> {
    let asked = ctx.limits.connect(ip, ctx.parts.clock.now());
    asked.map_err(|refused| match refused {
        Refused::Blocked(block) => replies::blocked(block.until, block.why),
        Refused::TooOften(over) => replies::connections_too_often(over.scope.words(), over.until),
    })
}

impl Session {
    fn login_name(&self) -> Option<String> {
        self.login.as_ref().map(|l| l.address.to_string())
    }

    /// Whether the client may begin a message now.
    pub(crate) fn may_send(&self) -> Result<(), Reply> {
        let limits = &self.ctx.limits;
        if !limits.counts_messages() {
            return Ok(());
        }
        let now = self.ctx.parts.clock.now();
        limits
            .message(self.ip(), self.login_name().as_deref(), now)
            .map_err(|over| replies::messages_too_often(over.scope.words(), over.max, over.until))
    }

    /// Whether the client may name a recipient now.
    pub(crate) fn may_name(&self) -> Result<(), Reply> {
        let limits = &self.ctx.limits;
        if !limits.counts_recipients() {
            return Ok(());
        }
        let now = self.ctx.parts.clock.now();
        limits
            .recipient(self.ip(), self.login_name().as_deref(), now)
            .map_err(|over| replies::recipients_too_often(over.scope.words(), over.max, over.until))
    }

    /// Counts an unknown recipient of a stranger. Whoever only asks for addresses hears that it is
    /// blocked.
    pub(crate) async fn named_nobody(&self) -> Option<Reply> {
        // A server of our own names whom others wrote to.
        if self.is_ours() || self.was_judged_before() || self.peer.user.is_some() {
            return None;
        }
        let now = self.ctx.parts.clock.now();
        let block = self.ctx.limits.unknown_recipient(self.ip(), now).await?;
        Some(replies::blocked(block.until, block.why))
    }

    /// Whether a recipient elsewhere was refused as unknown before, and is not to be tried again for the
    /// login. `None`: it may be tried.
    pub(crate) async fn suppressed(&self, recipient: &EmailAddress) -> Result<Option<Reply>, Reply> {
        let Some(login) = &self.login else {
            return Ok(None);
        };
        let now = self.ctx.parts.clock.now();
        let login = login.address.to_string();
        let found = self.ctx.limits.suppressed(&login, recipient, now).await;
        let found = found.map_err(|error| {
            tracing::error!(%error, "the suppressed addresses could not be read");
            replies::LOOKUP_FAILED
        })?;
        Ok(found.map(|s| replies::suppressed(recipient, &s.host, s.from, s.until)))
    }

    /// Takes a recipient elsewhere from what the login may send today. Strangers have no such day.
    pub(crate) async fn take_of_today(&mut self, recipient: &EmailAddress) -> Result<(), Reply> {
        let (Some(login), Some(transaction)) = (&self.login, &mut self.transaction) else {
            return Ok(());
        };
        let failed = |error: limits::Error| {
            tracing::error!(%error, "what the account has sent today could not be read");
            replies::LOOKUP_FAILED
        };
        let held = match &mut transaction.held {
            Some(held) => held,
            none => {
                let now = self.ctx.parts.clock.now();
                none.insert(self.ctx.limits.hold(login.account, now).await.map_err(failed)?)
            }
        };
        let taken = held.take(recipient).await.map_err(failed)?;
        taken.map_err(|exceeded| match exceeded {
            Exceeded::Messages { max, until } => {
                replies::account_messages_per_day(&login.address, max, until)
            }
            Exceeded::FirstRecipients { max, until } => {
                replies::account_first_recipients_per_day(&login.address, max, until)
            }
        })
    }
}
