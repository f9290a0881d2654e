//! The Internet checksum (RFC 1071).

/// The one's complement sum of `bytes` as big-endian words, folded into 16 bits; `start` is added.
pub(crate) fn sum(bytes: &[u8], start: u32) -> u16 {
    // In the machine's own byte order, four bytes at a time: the sum is the same but for the order (RFC 1071 §2).
    let mut total: u64 = 0;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        total += u64::from(u32::from_ne_bytes(chunk.try_into().expect("four bytes")));
    }
    let mut last = [0; 4];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    let folded = fold(total);
    fold(u64::from(u16::from_be_bytes(folded.to_ne_bytes())) + u64::from(start))
}

/// The one's complement sum of a few words.
pub(crate) fn add<const N: usize>(words: [u16; N]) -> u16 {
    fold(words.into_iter().map(u64::from).sum())
}

/// Adds the carries until none is left.
fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).expect("folded")
}

/// The sum of the pseudo-header of TCP or UDP (RFC 9293 §3.1, RFC 8200 §8.1): `addresses` are source and
/// destination, `len` the bytes from the transport header on.
pub(crate) fn pseudo(addresses: &[u8], protocol: u8, len: usize) -> u16 {
    let len = u32::try_from(len).expect("a packet is short");
    sum(addresses, u32::from(protocol) + (len >> 16) + (len & 0xffff))
}

/// Whether the whole checksum of TCP or UDP is right: `part` is what it covers, with a pseudo-header.
pub(crate) fn is_right(addresses: &[u8], protocol: u8, part: &[u8]) -> bool {
    sum(part, pseudo(addresses, protocol, part.len()).into()) == 0xffff
}

/// Replaces the partial checksum at `offset` of the transport part, which begins at `start`, by the whole one.
pub(crate) fn finish(packet: &mut [u8], start: usize, offset: usize) {
    let Some(part) = packet.get_mut(start..).filter(|part| part.len() >= offset + 2) else { return };
    // Zero would say that there is no checksum; both zeros of one's complement are equal to the receiver.
    let checksum = match !sum(part, 0) {
        0 => 0xffff,
        other => other,
    };
    part[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
}
