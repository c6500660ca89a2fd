//! The proof of power loss: the real store and the real server, in one process, on a disk that
//! forgets what was not synced; cut, started again, and every acknowledged message accounted for.
//!
//! Promises: a run is decided by its seed (one thread, a clock that is moved, dice instead of
//! chance), so a failure can be repeated exactly; whatever was told to anyone (a 250, a listing, a
//! message handed to the next server) is held against what the next life finds.
//!
//! Never: a real disk, a real clock or a network; a word in the server's own code for its sake.

pub mod check;
pub mod client;
pub mod engine;
pub mod era;
pub mod failure;
pub mod hardship;
pub mod house;
pub mod ledger;
pub mod letter;
pub mod life;
pub mod next_server;
pub mod reader;
pub mod run;
pub mod sight;

pub use failure::{Failure, What};
