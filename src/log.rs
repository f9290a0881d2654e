//! L8: where logs go.
