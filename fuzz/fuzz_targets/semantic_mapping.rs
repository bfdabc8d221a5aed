//! See `support::fuzz::semantic_mapping`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::semantic_mapping(data));
