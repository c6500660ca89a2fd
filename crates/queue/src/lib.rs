//! The spool: messages and errands, their schedule, leases and ends.
