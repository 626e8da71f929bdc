#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| splitd::exposure::fuzz::fuzz_ring(data));
