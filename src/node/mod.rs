//! L5: the whole peer without I/O. The only place where sessions, paths, rendezvous and router meet.

pub mod status;
