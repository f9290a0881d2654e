//! L1: bytes to typed messages and back.
