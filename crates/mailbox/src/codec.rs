//! The bytes of stored values.
