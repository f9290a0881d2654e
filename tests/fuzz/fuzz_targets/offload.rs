#![no_main]

#[path = "../targets/offload.rs"]
mod offload;

libfuzzer_sys::fuzz_target!(|data: &[u8]| offload::run(data));
