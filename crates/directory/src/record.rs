//! What an address record holds.
