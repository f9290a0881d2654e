//! L2: keys, seals, replay.
