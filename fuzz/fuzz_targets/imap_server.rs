//! Drives `imap::fuzz::server` with arbitrary input.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imap::fuzz::server(data));
