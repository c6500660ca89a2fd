//! Outbound delivery: plan (pure), attempt (I/O), settle (pure and one batch).
//!
//! Promises: a message that was accepted ends exactly once per recipient, as relayed, bounced or
//! expired; the batch that ends it holds the journey's record and the report to the sender. DNS
//! trouble never bounces. A message without a reverse-path never causes a report.
//!
//! Never: a read of a mailbox, a judgement on content, the wall clock (but for waiting).

pub mod attempt;
pub mod chunking;
pub mod control;
mod conversation;
pub mod dial;
mod errand;
mod health;
mod heard;
mod lanes;
mod memory;
pub mod plan;
pub mod pool;
pub mod probe;
pub mod race;
pub mod route;
pub mod security;
pub mod service;
pub mod settle;
mod sites;
pub mod source;
pub mod sts;
mod suspended;
pub mod tls_reports;
mod tls_result;
mod waiting;
pub mod way;
mod work;

pub use dial::{Dialer, Stream, TcpDialer};
pub use letterbox::{Failure, dsn, explain, failure};
pub use route::{Action, Login, Origin, Route, RouteFor, ServerName, TlsPolicy};
pub use service::{Context, Options, Parts, run};
pub use sites::SiteLimit;
pub use tls_reports::{Post, TlsReportOptions, TlsReports};
pub use tls_result::{TlsResult, Under};
