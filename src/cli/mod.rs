//! L8: the command line.
