//! The bench: load generator, bare receiver, disk probe, sink, and Posthaste beside Postfix in one run.
//!
//! It stands beside the house: it knows servers only as processes and as SMTP on loopback.
//! Promises: a figure is measured or it is missing; docs/BENCHMARKS.md says what each one means.
//! Never: sends to an address that is not on loopback; compares figures of different runs.

pub mod account;
pub mod args;
pub mod bare;
pub mod cli;
pub mod compare;
pub mod corpus;
pub mod crowd;
pub mod device;
pub mod disk;
pub mod hub;
pub mod journal;
pub mod load;
pub mod measure;
pub mod problem;
pub mod procfs;
pub mod quantile;
pub mod relay;
pub mod reply;
pub mod report;
pub mod signing;
pub mod sink;
pub mod start;
pub mod syncs;
pub mod table;
pub mod target;
pub mod tracer;
pub mod volume;
pub mod wire;
