#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| splitd::config::check::fuzz_experiments_file(data));
