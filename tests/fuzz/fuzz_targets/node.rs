#![no_main]

#[path = "../targets/live.rs"]
mod live;
#[path = "../../common/nat.rs"]
mod nat;
#[path = "../../sim/mod.rs"]
mod sim;

libfuzzer_sys::fuzz_target!(|data: &[u8]| live::run(live::Victim::Node, data));
