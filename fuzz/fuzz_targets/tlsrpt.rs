//! Drives `tlsrpt::fuzz` with arbitrary input: the record, gzip, the JSON, the message.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tlsrpt::fuzz(data));
