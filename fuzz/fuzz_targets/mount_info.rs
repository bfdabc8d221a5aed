//! See `support::fuzz::mount_info`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::mount_info(data));
