//! See `support::fuzz::embedding`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::embedding(data));
