//! See `support::fuzz::collection`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::collection(data));
