//! Drives `sasl::fuzz::exchange` with arbitrary input.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sasl::fuzz::exchange(data));
