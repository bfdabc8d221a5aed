//! See `support::fuzz::metrics_address`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::metrics_address(data));
