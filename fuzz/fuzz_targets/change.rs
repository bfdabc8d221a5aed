//! See `support::fuzz::change`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::change(data));
