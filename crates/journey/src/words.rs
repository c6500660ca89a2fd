//! The sentence of each event. Pure.
