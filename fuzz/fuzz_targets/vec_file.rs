//! See `support::fuzz::vec_file`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::vec_file(data));
