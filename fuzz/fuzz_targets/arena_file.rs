//! See `support::fuzz::arena_file`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::arena_file(data));
