//! See `support::fuzz::plugin`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::plugin(data));
