//! See `support::fuzz::snapshot_stream`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::snapshot_stream(data));
