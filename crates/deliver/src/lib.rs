//! Outbound delivery: plan (pure), attempt (I/O), settle (pure and one batch).
//!
//! Promises: a message that was accepted ends exactly once per recipient, as relayed, bounced or
//! expired; the batch that ends it holds the journey's record and the report to the sender. DNS
//! trouble never bounces. A message without a reverse-path never causes a report.
//!
//! Never: a read of a mailbox, a judgement on content, the wall clock (but for waiting).

pub mod attempt;
mod backlog;
pub mod chunking;
mod conversation;
pub mod dial;
mod errand;
mod heard;
pub mod plan;
pub mod route;
pub mod security;
pub mod service;
pub mod settle;
pub mod sts;
mod suspended;
pub mod way;
mod work;

pub use dial::{Dialer, Stream, TcpDialer};
pub use letterbox::{Failure, dsn, explain, failure};
pub use route::{Login, Route, RouteFor, ServerName, TlsPolicy};
pub use service::{Context, Options, Parts, run};
