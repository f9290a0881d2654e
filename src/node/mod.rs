//! L5: the whole peer without I/O.
