//! Reports about TLS to other domains (RFC 8460): once a day, to each domain that asks for them and to
//! whose servers we spoke, some time in the four hours behind midnight UTC.
//!
//! Promises: by mail a report goes exactly once, because it is queued by the batch that takes its results
//! out of the store; by POST at least once, again and again for a day until one place has it; a
//! report is signed, has the null reverse-path, and is not itself reported about.
//!
//! Never: a question to a domain before its report is due, a report without results.

use crate::errand::Trouble;
use crate::service::Context;
use dns::DnsError;
use futures_util::future::{BoxFuture, join_all};
use letterbox::{Notice, Noticed};
use mail::{Domain, EmailAddress, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Batch, CommitError};
use tlsrpt::message::Letter;
use tlsrpt::{Collector, Day, Record, Report, Row, Rua};
use tokio::sync::watch;

/// How often what was counted is written down.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked which reports are due.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Days whose results are read at once, and reports that are made at once.
const PAGE: usize = 200;
const AT_ONCE: usize = 8;
/// For how long a report is tried (RFC 8460 §5.5).
const TRIED_FOR: Duration = Duration::from_secs(86_400);
/// The longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(4 * 3_600);
/// Results of days so long past are forgotten: their reports can be of no use any more.
const DAYS_KEPT: u32 = 3;
/// What a report is sent as (RFC 8460 §6.4).
const CONTENT_TYPE: &str = "application/tlsrpt+gzip";

/// Sends octets to an https URI by POST.
pub trait Post: Send + Sync {
    /// The status that the host answered, or why there is none, in words.
    fn post<'a>(
        &'a self,
        uri: &'a str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<u16, String>>;
}

/// Who reports.
#[derive(Clone, Debug, Default)]
pub struct TlsReportOptions {
    /// Our name for people; the domain's name when there is none.
    pub organization: Option<String>,
    /// Whom to ask about a report; the domain's postmaster when there is none.
    pub contact: Option<EmailAddress>,
    /// From whom reports come. Its domain must be served here, because its keys sign them; without
    /// one it is `tlsrpt-noreply` of the domain that is served longest.
    pub from: Option<EmailAddress>,
}

/// What reports are made with.
pub struct TlsReports {
    /// The delivery whose conversations are reported.
    pub deliver: Arc<Context>,
    /// Where they were counted.
    pub collector: Arc<Collector>,
    /// Who reports.
    pub options: TlsReportOptions,
    /// How reports go to https URIs; without it only mail is sent.
    pub post: Option<Arc<dyn Post>>,
}

/// What became of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    /// It went, or nobody wants it: its results are gone.
    ToAnEnd,
    /// It is to be tried again.
    ToNothing,
}

/// Failed tries of a report.
#[derive(Clone, Copy, Debug)]
struct Tries {
    count: u32,
    next: Timestamp,
}

/// Who we are in a report.
struct Sender {
    from: EmailAddress,
    domain: Domain,
    organization: String,
    contact: String,
}

/// Writes results down and reports them until `shutdown` turns true. What is counted after that is
/// left to whoever flushes the collector last.
pub async fn run(reports: TlsReports, mut shutdown: watch::Receiver<bool>) {
    // Side by side: a host that takes its time with a report does not keep results in memory.
    tokio::select! {
        () = write_down(&reports.collector) => {}
        () = report(&reports) => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

async fn write_down(collector: &Collector) {
    loop {
        tokio::time::sleep(FLUSH_EVERY).await;
        if let Err(error) = collector.flush().await {
            tracing::warn!(%error, "results of TLS could not be written down; they stay in memory");
        }
    }
}

async fn report(reports: &TlsReports) {
    let mut tries = HashMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Err(error) = reports.report_what_is_due(&mut tries).await {
            tracing::warn!(%error, "TLS reports wait: the store failed");
        }
    }
}

impl TlsReports {
    /// Looks through the results of past days, and reports those that are due.
    async fn report_what_is_due(
        &self,
        tries: &mut HashMap<(Day, String), Tries>,
    ) -> Result<(), tlsrpt::Error> {
        let store = self.deliver.store.as_ref();
        let now = self.deliver.clock.now();
        let today = Day::of(now);
        tlsrpt::forget_before(store, Day(today.0.saturating_sub(DAYS_KEPT))).await?;
        tries.retain(|(day, _), _| day.0 + DAYS_KEPT >= today.0);
        let mut after = None;
        loop {
            let part = tlsrpt::outgoing(store, today, after.as_ref(), PAGE).await?;
            let is_due = |row: &&Row| {
                let next = tries.get(&(row.day, row.domain.clone())).map(|tries| tries.next);
                now >= next.unwrap_or_else(|| self.due(row))
            };
            let due: Vec<&Row> = part.rows.iter().filter(is_due).collect();
            for rows in due.chunks(AT_ONCE) {
                let came = join_all(rows.iter().map(|row| self.report(row, now))).await;
                for (row, came) in rows.iter().zip(came) {
                    let key = (row.day, row.domain.clone());
                    match came {
                        Came::ToAnEnd => drop(tries.remove(&key)),
                        Came::ToNothing => note_failure(tries, key, now),
                    }
                }
            }
            match part.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn due(&self, row: &Row) -> Timestamp {
        tlsrpt::due(row.day, &row.domain, self.deliver.options.host_name.as_str())
    }

    /// Whether a report has been tried for long enough.
    fn is_over(&self, row: &Row, now: Timestamp) -> bool {
        now > self.due(row).plus(TRIED_FOR)
    }

    /// Makes one report and sends it wherever its domain wants it.
    async fn report(&self, row: &Row, now: Timestamp) -> Came {
        match self.try_report(row, now).await {
            Ok(came) => came,
            // The row has changed, or the store is short of something; the results are still there.
            Err(error) => {
                tracing::warn!(domain = row.domain, %error, "a TLS report could not be sent yet");
                Came::ToNothing
            }
        }
    }

    async fn try_report(&self, row: &Row, now: Timestamp) -> Result<Came, Trouble> {
        let Ok(domain) = Domain::parse(&row.domain) else {
            return self.give_up(row).await;
        };
        let record = match self.record(&domain).await {
            Ok(Some(record)) => record,
            Ok(None) => return self.give_up(row).await,
            Err(error) => {
                tracing::debug!(%domain, %error, "whether a TLS report is wanted could not be found out");
                return match self.is_over(row, now) {
                    true => self.give_up(row).await,
                    false => Ok(Came::ToNothing),
                };
            }
        };
        let Some(sender) = self.sender().await? else {
            tracing::debug!(%domain, "no TLS report: no domain is served here that could sign it");
            return self.give_up(row).await;
        };
        let report = report_of(row, &domain, &sender);
        let mut batch = Batch::new();
        tlsrpt::take_out(&mut batch, row);
        let mailed = self.mail(&mut batch, &record, &report, &domain, &sender).await?;
        let posted = self.post(&record, &report, &domain).await;
        if !mailed && posted == Some(false) && !self.is_over(row, now) {
            return Ok(Came::ToNothing);
        }
        self.deliver.store.commit(batch).await?;
        match mailed || posted == Some(true) {
            true => tracing::info!(%domain, day = row.day.date(), "a TLS report is on its way"),
            false => tracing::warn!(%domain, day = row.day.date(), "a TLS report found nobody who takes it"),
        }
        Ok(Came::ToAnEnd)
    }

    /// Nobody wants it, or nobody can have it: the results go.
    async fn give_up(&self, row: &Row) -> Result<Came, Trouble> {
        let mut batch = Batch::new();
        tlsrpt::take_out(&mut batch, row);
        match self.deliver.store.commit(batch).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(Came::ToAnEnd),
            Err(error) => Err(error.into()),
        }
    }

    /// What the domain asks for.
    async fn record(&self, domain: &Domain) -> Result<Option<Record>, DnsError> {
        let Some(name) = tlsrpt::record::name(domain) else {
            return Ok(None);
        };
        match self.deliver.resolver.txt(&name).await {
            Ok(answer) => Ok(Record::among(&answer.records)),
            Err(DnsError::NoSuchName(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Who we are; `None` when no domain of ours can sign.
    async fn sender(&self) -> Result<Option<Sender>, Trouble> {
        let from = match &self.options.from {
            Some(from) => from.clone(),
            None => {
                let served = self.deliver.directory.domains().await?;
                let Some(first) = served.into_iter().min_by_key(|record| record.created) else {
                    return Ok(None);
                };
                match EmailAddress::parse(&format!("tlsrpt-noreply@{}", first.name)) {
                    Ok(from) => from,
                    Err(_) => return Ok(None),
                }
            }
        };
        let Some(domain) = from.domain().cloned() else {
            return Ok(None);
        };
        let contact = self.options.contact.as_ref().map(ToString::to_string);
        Ok(Some(Sender {
            organization: self
                .options
                .organization
                .clone()
                .unwrap_or_else(|| domain.to_string()),
            contact: contact.unwrap_or_else(|| format!("postmaster@{domain}")),
            from,
            domain,
        }))
    }

    /// Puts the report into the queue for each address of the record. `false`: there was none that it
    /// could go to.
    async fn mail(
        &self,
        batch: &mut Batch,
        record: &Record,
        report: &Report,
        domain: &Domain,
        sender: &Sender,
    ) -> Result<bool, Trouble> {
        let now = self.deliver.clock.now();
        let mut mailed = false;
        for place in &record.rua {
            let Rua::Mail(to) = place else { continue };
            let id = self.deliver.ids.next_id();
            let letter = Letter {
                report,
                domain,
                submitter: &sender.domain,
                from: &sender.from,
                to,
                host_name: &self.deliver.options.host_name,
                id: &id.to_string(),
                now,
            };
            let notice = Notice {
                id,
                domain: &sender.domain,
                to,
                message_id: &letter.message_id(),
                message: &letter.to_message(),
                now,
            };
            match self.deliver.reporter().notice(batch, &notice).await? {
                Noticed::Sent => mailed = true,
                Noticed::Nobody => tracing::debug!(%domain, %to, "no TLS report: the address is nobody here"),
                Noticed::Unsigned => {
                    let signer = &sender.domain;
                    tracing::warn!(%domain, %signer, "no TLS report by mail: the domain that sends it has no key here that signs");
                }
            }
        }
        Ok(mailed)
    }

    /// Sends the report to each URI of the record. `None`: there is none; `Some(false)`: none took it.
    async fn post(&self, record: &Record, report: &Report, domain: &Domain) -> Option<bool> {
        let post = self.post.as_ref()?;
        let uris = record.rua.iter().filter_map(|place| match place {
            Rua::Https(uri) => Some(uri),
            Rua::Mail(_) => None,
        });
        let body = tlsrpt::gzip::pack(&report.to_json());
        let mut posted = None;
        for uri in uris {
            let answer = post.post(uri, CONTENT_TYPE, body.clone()).await;
            let taken = matches!(answer, Ok(200..=299));
            if !taken {
                let why = answer.map_or_else(|why| why, |status| format!("it answered {status}"));
                tracing::info!(%domain, uri, why, "a TLS report was not taken");
            }
            posted = Some(posted.unwrap_or(false) || taken);
        }
        posted
    }
}

fn note_failure(tries: &mut HashMap<(Day, String), Tries>, key: (Day, String), now: Timestamp) {
    let count = tries.get(&key).map_or(0, |tries| tries.count) + 1;
    // RFC 8460 §5.5: exponential.
    let wait = LOOK_EVERY.saturating_mul(1 << count.min(10)).min(WAIT_MAX);
    let next = now.plus(wait);
    tries.insert(key, Tries { count, next });
}

/// The report of a day.
fn report_of(row: &Row, domain: &Domain, sender: &Sender) -> Report {
    Report {
        organization: sender.organization.clone(),
        range: tlsrpt::Range {
            start: row.day.start(),
            end: Timestamp::from_secs(row.day.end().secs() - 1),
        },
        contact: sender.contact.clone(),
        id: format!("{}.{domain}@{}", row.day.date(), sender.domain),
        policies: row.results.policies.clone(),
    }
}
