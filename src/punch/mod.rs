//! L3: one peer's paths.
