//! The office: carries out what the operator orders, on the domains' own functions.

mod accounts;
mod addresses;
mod limited;
mod messages;
mod mta_sts;
mod queued;
mod routes;
mod signing;
mod suspended;
mod tls_reports;
mod webhooks;

use crate::audit::Pace;
use crate::words::{Refusal, Request, Response};
use crate::zone::OwnTlsa;
use directory::Directory;
use journey::Journey;
use mail::{Clock, Domain};
use mailbox::Mailboxes;
use queue::{IdSource, Queue};
use std::sync::Arc;
use store::LogStore;

pub use tls_reports::TLS_ROWS_MAX;

/// Accounts, aliases or messages that are read at once.
const PAGE: usize = 500;
/// Queued messages that one answer lists at most; the rest by further questions.
pub const QUEUE_ROWS_MAX: usize = 1_000;
/// Journeys that one answer tells at most.
pub const STORIES_MAX: usize = 100;

/// What the office works with. Cheap to clone.
#[derive(Clone)]
pub struct Office {
    /// The store in which all of it lives.
    pub store: Arc<LogStore>,
    /// Domains, accounts, secrets.
    pub directory: Directory,
    /// The mailboxes.
    pub mailboxes: Mailboxes,
    /// The queue.
    pub queue: Queue,
    /// The journeys.
    pub journey: Journey,
    /// Names for reports; the process's one source.
    pub ids: Arc<IdSource>,
    /// Rates, blocks, and what accounts may send in a day; those of the running services.
    pub limits: limits::Limits,
    /// What is remembered of other domains' MTA-STS policies.
    pub mta_sts: mtasts::Memory,
    /// Fetches them; only where a server runs.
    pub policies: Option<mtasts::Policies>,
    /// What webhooks are to hear of.
    pub outbox: webhook::Outbox,
    /// Who tells them; only where the server runs.
    pub webhooks: Option<webhook::Sender>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The server's own name, for the zone file.
    pub hostname: Domain,
    /// The TLSA record of the certificate that is shown now, for the zone file; only where a server runs.
    pub own_tlsa: Option<Arc<dyn Fn() -> Option<OwnTlsa> + Send + Sync>>,
    /// Held by the one audit that runs.
    pub auditing: Arc<tokio::sync::Mutex<()>>,
}

impl Office {
    /// Carries out one order or answers one question.
    ///
    /// # Errors
    /// A [`Refusal`] that says what happened and what to change. Nothing was changed then.
    pub async fn perform(&self, request: Request) -> Result<Response, Refusal> {
        match request {
            Request::DomainAdd { domain } => self.add_domain(&domain).await,
            Request::DomainList => self.list_domains().await,
            Request::DomainRemove { domain } => self.remove_domain(&domain).await,
            Request::Zone { domain, addresses } => self.zone(&domain, &addresses).await,
            Request::Sign { message, domain } => self.sign(&message, domain).await,
            Request::AccountAdd {
                address,
                name,
                password,
            } => self.add_account(&address, &name, password).await,
            Request::AccountList => self.list_accounts().await,
            Request::AccountShow { address } => self.show_account(&address).await,
            Request::AccountPassword { address, password } => self.set_password(&address, password).await,
            Request::AccountSuspend { address, suspended } => self.suspend(&address, suspended).await,
            Request::AccountRemove { address } => self.remove_account(&address).await,
            Request::AliasAdd { alias, address } => self.add_alias(&alias, &address).await,
            Request::AliasRemove { alias } => self.remove_alias(&alias).await,
            Request::Addresses { order } => self.addresses(order).await,
            Request::SecondFactor { address, on } => self.second_factor(&address, on).await,
            Request::AppPasswordAdd {
                address,
                name,
                scopes,
                lasts_secs,
            } => self.add_app_password(&address, &name, &scopes, lasts_secs).await,
            Request::LoginLog { address } => self.login_log(address.as_ref()).await,
            Request::AppPasswordRevoke { address, number } => {
                self.revoke_app_password(&address, number).await
            }
            Request::QueueList { filter, limit } => self.list_queue(&filter, limit).await,
            Request::QueueShow { id } => self.show_queued(id).await,
            Request::QueueStatus { destinations } => self.queue_status(destinations).await,
            Request::Queue(order) => self.order_queued(&order).await,
            Request::Suspend { what, secs, why, by } => self.suspend_mail(what, secs, why, by).await,
            Request::Resume { what } => self.resume_mail(&what).await,
            Request::Webhooks => Ok(Response::Webhooks(self.webhooks_now().await?)),
            Request::WebhookRetry { name } => self.retry_webhook(&name),
            Request::Suspensions => self.suspensions().await,
            Request::Trace { what, limit } => self.trace(&what, limit).await,
            Request::Block(order) => self.block(order).await,
            Request::MtaSts(order) => self.mta_sts(order).await,
            Request::Suppression(order) => self.suppression(order).await,
            Request::Routes(order) => self.routes(order).await,
            Request::AccountLimit { address, order } => self.limit_account(&address, order).await,
            Request::TlsReports(order) => self.tls_reports(order).await,
            Request::Audit { deep } => {
                let report = self.audit(deep, Pace::new(true)).await?;
                Ok(Response::Audit(Box::new(report)))
            }
            Request::Backup { .. } | Request::Export { .. } => Err(Refusal::invalid(
                "this takes long and is asked for in another way",
            )),
        }
    }
}

impl From<directory::Error> for Refusal {
    fn from(error: directory::Error) -> Self {
        use directory::Error as E;
        match error {
            E::NoSuchDomain(_) => Self::not_found(format!("{error}; add it with: posthaste domain add")),
            E::NoSuchAccount | E::NoSuch(_) | E::NoSuchTarget(_) => Self::not_found(error.to_string()),
            E::Exists(_) | E::InUse(_) | E::Invalid(_) | E::Limit { .. } | E::Loop { .. } => {
                Self::invalid(error.to_string())
            }
            _ => Self::failed(error),
        }
    }
}

impl From<mailbox::Error> for Refusal {
    fn from(error: mailbox::Error) -> Self {
        Self::failed(error)
    }
}

impl From<journey::Error> for Refusal {
    fn from(error: journey::Error) -> Self {
        Self::failed(error)
    }
}

impl From<queue::Error> for Refusal {
    fn from(error: queue::Error) -> Self {
        match error {
            queue::Error::NotQueued => Self::not_found(error.to_string()),
            _ => Self::failed(error),
        }
    }
}
