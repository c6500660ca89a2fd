//! Stored values: a version byte and JSON.
