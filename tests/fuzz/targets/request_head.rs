#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| splitd::http::fuzz::fuzz_request_head(data));
