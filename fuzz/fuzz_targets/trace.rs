//! See `support::fuzz::trace`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::trace(data));
