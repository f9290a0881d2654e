//! L2: one peer's keys over time.
