//! See `support::fuzz::heat`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::heat(data));
