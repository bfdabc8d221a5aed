//! See `support::fuzz::keys`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::keys(data));
