//! L7: the rendezvous process.
