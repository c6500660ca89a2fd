//! Outbound delivery: route, connect, TLS policy, send, outcome, bounces.
