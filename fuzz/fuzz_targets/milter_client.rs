//! Drives `milter::fuzz::client` with arbitrary input.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| milter::fuzz::client(data));
