//! See `support::fuzz::settings`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::settings(data));
