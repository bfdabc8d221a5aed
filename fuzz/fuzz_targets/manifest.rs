//! See `support::fuzz::manifest`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::manifest(data));
