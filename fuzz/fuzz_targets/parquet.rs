//! See `support::fuzz::parquet`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::parquet(data));
