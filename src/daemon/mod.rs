//! L7: the peer process.
