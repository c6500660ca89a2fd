//! The bench: load generator, bare receiver, disk probe, sink, and Posthaste beside Postfix in one run.
//!
//! It stands beside the house: it knows servers only as processes and as SMTP on loopback.
//! Promises: a figure is measured or it is missing; docs/BENCHMARKS.md says what each one means.
//! Never: sends to an address that is not on loopback; compares figures of different runs.

pub mod args;
pub mod bare;
pub mod cli;
pub mod corpus;
pub mod disk;
pub mod hub;
pub mod journal;
pub mod load;
pub mod problem;
pub mod quantile;
pub mod reply;
pub mod sink;
pub mod table;
pub mod wire;
