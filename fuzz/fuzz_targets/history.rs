//! See `support::fuzz::history`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::history(data));
