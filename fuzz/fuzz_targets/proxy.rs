//! Reads arbitrary bytes as a PROXY header, whole and as a reader would.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| listen::proxy::fuzz(data));
