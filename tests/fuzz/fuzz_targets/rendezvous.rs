#![no_main]

#[path = "../targets/live.rs"]
mod live;
#[path = "../../sim/mod.rs"]
mod sim;

use punchlan::nat::model as nat;

libfuzzer_sys::fuzz_target!(|data: &[u8]| live::run(live::Victim::Rendezvous, data));
