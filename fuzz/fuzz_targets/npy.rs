//! See `support::fuzz::npy`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::npy(data));
