//! L6: effects.
