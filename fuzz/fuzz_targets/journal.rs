//! See `support::fuzz::journal`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::journal(data));
