//! Drives `smtp::fuzz::server` with arbitrary input.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| smtp::fuzz::server(data));
