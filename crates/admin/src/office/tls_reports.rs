//! Questions about TLS reports (RFC 8460): those that came, and what is counted for those that go.

use super::Office;
use crate::tls_reports::{OutgoingRow, OutgoingView, ReceivedRow, TlsReportsOrder};
use crate::words::{Refusal, Response};
use std::collections::BTreeMap;
use tlsrpt::{Day, Kept, PolicyResults, Row};

/// Reports, or domains, that one answer tells at most.
pub const TLS_ROWS_MAX: usize = 1_000;

impl Office {
    pub(super) async fn tls_reports(&self, order: TlsReportsOrder) -> Result<Response, Refusal> {
        let store = self.store.as_ref();
        match order {
            TlsReportsOrder::Received { domain, limit } => {
                if let Some(domain) = &domain
                    && self.directory.domain(domain).await?.is_none()
                {
                    return Err(Refusal::not_found(format!(
                        "{domain} is not served here; the domains: posthaste domain list"
                    )));
                }
                let kept = tlsrpt::received(store, domain.as_ref(), limit.min(TLS_ROWS_MAX)).await?;
                let rows: Result<_, Refusal> = kept.iter().map(received_row).collect();
                Ok(Response::TlsReports(rows?))
            }
            TlsReportsOrder::Outgoing { today, limit } => {
                let day = Day::of(self.clock.now());
                let after = today.then(|| (Day(day.0.saturating_sub(1)), "\u{10ffff}".to_owned()));
                let limit = limit.clamp(1, TLS_ROWS_MAX);
                let part = tlsrpt::outgoing(store, Day(day.0 + 1), after.as_ref(), limit).await?;
                let rows: Result<_, Refusal> = part.rows.iter().map(|row| self.outgoing_row(row)).collect();
                Ok(Response::TlsOutgoing(OutgoingView {
                    rows: rows?,
                    more: part.next.is_some(),
                }))
            }
        }
    }

    fn outgoing_row(&self, row: &Row) -> Result<OutgoingRow, Refusal> {
        let totals = row.results.totals();
        Ok(OutgoingRow {
            day: row.day.date(),
            domain: row.domain.clone(),
            due: tlsrpt::due(row.day, &row.domain, self.hostname.as_str()),
            successful: totals.successful,
            failed: totals.failed,
            reasons: reasons(&row.results.policies),
            policies: serde_json::to_value(&row.results.policies).map_err(Refusal::failed)?,
        })
    }
}

fn received_row(kept: &Kept) -> Result<ReceivedRow, Refusal> {
    let report = &kept.report;
    let totals = report.totals();
    Ok(ReceivedRow {
        domain: kept.domain.clone(),
        organization: report.organization.clone(),
        signed_by: kept.signed_by.clone(),
        contact: report.contact.clone(),
        day: Day::of(report.range.start).date(),
        received: kept.received,
        message: kept.message,
        successful: totals.successful,
        failed: totals.failed,
        reasons: reasons(&report.policies),
        details_left_out: kept.details_left_out,
        text: tlsrpt::words::tell(report),
        report: serde_json::to_value(report).map_err(Refusal::failed)?,
    })
}

/// Each reason with its count, the most frequent first.
fn reasons(policies: &[PolicyResults]) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for detail in policies.iter().flat_map(|one| &one.details) {
        let count = counts.entry(detail.result.as_str()).or_default();
        *count = count.saturating_add(detail.failed);
    }
    let mut reasons: Vec<_> = counts.into_iter().map(|(word, n)| (word.to_owned(), n)).collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    reasons
}

impl From<tlsrpt::Error> for Refusal {
    fn from(error: tlsrpt::Error) -> Self {
        Self::failed(error)
    }
}
