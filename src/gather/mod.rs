//! L3: candidates.
