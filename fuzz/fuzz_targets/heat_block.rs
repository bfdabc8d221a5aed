//! See `support::fuzz::heat_block`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::heat_block(data));
