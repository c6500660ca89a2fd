//! HTTPS at the edge: a client for one question, MTA-STS policies fetched with it, and the listener
//! that serves the policies of our own domains (RFC 8461 §3.3).
//!
//! Promises: every question has limits of time and octets and follows no redirect; the listener
//! answers GET and HEAD of the paths that it knows, and nothing else; connections are bounded.
//!
//! Never: a cookie, a redirect, HTTP without TLS, a decision about mail.

pub mod client;
pub mod fetch;
pub mod host;

pub use client::{Answer, Ask, AskError, Client};
pub use fetch::PolicyFetcher;
pub use host::{PolicyHost, serve};
