//! L8: net.toml.
