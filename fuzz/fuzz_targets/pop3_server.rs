//! Drives `pop3::fuzz::server` with arbitrary input.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pop3::fuzz::server(data));
