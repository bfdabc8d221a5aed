//! See `support::fuzz::numa_list`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::numa_list(data));
