//! The buffers of one receiving loop, and the datagrams inside them.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};

use crate::addr::canonical;

/// Buffers that one system call fills at most: what they hold is still in the cache when it is opened.
const BUFFERS: usize = 4;
/// Bytes of one buffer: whatever UDP carries, and the most that the kernel joins.
const BUFFER_LEN: usize = 1 << 16;

/// Datagrams as one call received them. Make one per receiving loop and use it again: its 256 KiB is
/// claimed by the system only as far as traffic ever filled it.
pub struct Batch {
    store: Box<[u8]>,
    meta: [RecvMeta; BUFFERS],
    filled: usize,
}

/// One datagram of a [`Batch`].
#[derive(Debug)]
pub struct Received<'a> {
    /// Who sent it; never v4-mapped.
    pub from: SocketAddr,
    /// The local address it was sent to, where the system tells; never v4-mapped.
    pub local: Option<IpAddr>,
    /// The ECN bits of its TOS or traffic class (RFC 3168 §5), where the system tells; else 0.
    pub ecn: u8,
    /// Its bytes.
    pub payload: &'a mut [u8],
}

impl Batch {
    /// Empty.
    pub fn new() -> Self {
        Self {
            store: vec![0; BUFFERS * BUFFER_LEN].into_boxed_slice(),
            meta: [RecvMeta::default(); BUFFERS],
            filled: 0,
        }
    }

    /// The datagrams that the last [`super::Socket::recv`] brought, in their order.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Received<'_>> {
        let buffers = self.store.chunks_exact_mut(BUFFER_LEN);
        buffers.zip(&self.meta[..self.filled]).flat_map(|(buffer, meta)| {
            let from = canonical(meta.addr);
            let local = meta.dst_ip.map(|ip| ip.to_canonical());
            let ecn = meta.ecn.map_or(0, |ecn| ecn as u8);
            split(&mut buffer[..meta.len.min(BUFFER_LEN)], meta.stride).map(move |payload| Received {
                from,
                local,
                ecn,
                payload,
            })
        })
    }

    /// Takes what the socket has; says how many datagrams that is.
    pub(super) fn fill(&mut self, state: &UdpSocketState, socket: UdpSockRef<'_>) -> io::Result<usize> {
        self.filled = 0;
        let mut chunks = self.store.chunks_exact_mut(BUFFER_LEN);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("the store has this many chunks")));
        self.filled = state.recv(socket, &mut slices, &mut self.meta)?;
        Ok(self.meta[..self.filled].iter().map(|meta| meta.len.div_ceil(stride(meta.len, meta.stride)).max(1)).sum())
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} buffers filled)", self.filled)
    }
}

/// The datagrams that the kernel joined in `bytes`: all of `stride` bytes, the last maybe shorter. An
/// empty datagram is one too.
fn split(bytes: &mut [u8], stride_: usize) -> impl Iterator<Item = &mut [u8]> {
    let stride = stride(bytes.len(), stride_);
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.take()?;
        let (first, others) = bytes.split_at_mut(stride.min(bytes.len()));
        rest = Some(others).filter(|others| !others.is_empty());
        Some(first)
    })
}

/// The length of a datagram among `len` bytes: at least 1, all of them where the kernel names none.
fn stride(len: usize, named: usize) -> usize {
    if named == 0 { len.max(1) } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(len: usize, stride: usize) -> Vec<usize> {
        split(&mut vec![0; len], stride).map(|datagram| datagram.len()).collect()
    }

    #[test]
    fn joined_datagrams_come_apart_at_their_stride() {
        assert_eq!(lengths(3000, 1200), [1200, 1200, 600]);
        assert_eq!(lengths(2400, 1200), [1200, 1200]);
        assert_eq!(lengths(100, 100), [100]);
    }

    #[test]
    fn odd_strides_lose_nothing_and_never_loop() {
        assert_eq!(lengths(0, 0), [0]);
        assert_eq!(lengths(0, 1200), [0]);
        assert_eq!(lengths(7, 0), [7]);
        assert_eq!(lengths(7, 9000), [7]);
    }
}
