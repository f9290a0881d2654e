//! L3: channels.
