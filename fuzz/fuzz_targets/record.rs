//! See `support::fuzz::record`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::record(data));
