//! See `support::fuzz::filter`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::filter(data));
