//! See `support::fuzz::note_file`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::note_file(data));
