//! See `support::fuzz::acknowledged`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::acknowledged(data));
