//! What tests add to the laboratory of the library, which is here under the same name.
//!
//! - [`cable`]: a link that does nothing for the kernel.
//! - [`mapper`]: routers that nobody should have.
//! - [`programs`]: the program under test.
//! - [`party`]: programs that look for each other.
//! - [`pulse`]: pings ten a second, and the silences between their answers.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test binary that includes this module uses a part of it"
)]
#![allow(clippy::disallowed_methods, reason = "a laboratory measures real time")]

pub mod cable;
#[path = "odd_mapper.rs"]
pub mod mapper;
pub mod party;
#[path = "under_test.rs"]
pub mod programs;
pub mod pulse;

pub use punchlan::lab::*;
