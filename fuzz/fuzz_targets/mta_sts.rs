//! Reads arbitrary octets as an MTA-STS record and as a policy.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mtasts::fuzz(data));
