//! See `support::fuzz::state_file`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::state_file(data));
