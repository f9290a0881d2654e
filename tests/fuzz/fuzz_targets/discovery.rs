#![no_main]

#[path = "../targets/discovery.rs"]
mod discovery;

libfuzzer_sys::fuzz_target!(|data: &[u8]| discovery::run(data));
