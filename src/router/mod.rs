//! L4: overlay address to peer.
