//! Probes: is there a path, how long does it take, do full-size packets pass?
//!
//! ```text
//!  0  kind 0xE5
//!  1  type u8           1 request, 2 echo, 3 primed
//!  2  flags u16         0
//!  4  tag u64           names the pair and the direction
//! 12  counter u64       grows; stale ones are dropped
//! 20  nonce u64         the request's, returned by its echo
//! 28  observed 18       where the sender of this message saw its receiver; zeros: unknown
//! 46  zero padding      an echo is as long as its request
//!     MAC 16            over all before it; always the last bytes
//! ```

use std::net::SocketAddr;

use super::{Malformed, Reader, Writer, kind};

/// The shortest probe, bytes.
pub const MIN_LEN: usize = 62;
/// A probe as long as the largest data datagram that a path must carry, bytes.
pub const FULL_LEN: usize = 1432;
/// The MAC at the end, bytes.
pub const MAC: usize = 16;

/// What a probe asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Please echo.
    Request = 1,
    /// The echo of a request.
    Echo = 2,
    /// My NATs are open towards all your candidates: start.
    Primed = 3,
}

/// A probe, without its padding and MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it asks or says.
    pub kind: ProbeKind,
    /// Names the pair and the direction.
    pub tag: u64,
    /// Grows with every probe of its sender.
    pub counter: u64,
    /// Fresh in a request, returned by its echo.
    pub nonce: u64,
    /// Where the sender of this message saw its receiver.
    pub observed: Option<SocketAddr>,
}

impl Probe {
    /// The tag of a probe, which says whose keys verify it. Reads nothing else.
    pub fn peek_tag(bytes: &[u8]) -> Option<u64> {
        let tag = bytes.get(4..12)?.first_chunk()?;
        (bytes.len() >= MIN_LEN && bytes[0] == kind::PROBE).then(|| u64::from_be_bytes(*tag))
    }

    /// The probe in at least `len` bytes, its MAC still zero.
    pub fn encode(&self, len: usize) -> Vec<u8> {
        let len = len.max(MIN_LEN);
        let mut w = Writer::with_capacity(len);
        w.u8(kind::PROBE).u8(self.kind as u8).u16(0).u64(self.tag).u64(self.counter).u64(self.nonce);
        w.socket_addr(self.observed).pad_to(len).finish()
    }

    /// Reads a probe, whose MAC somebody else verifies.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() < MIN_LEN {
            return Err(Malformed::Truncated);
        }
        let mut r = Reader::new(bytes);
        match r.u8()? {
            kind::PROBE => {}
            other => return Err(Malformed::UnknownKind(other)),
        }
        let kind = match r.u8()? {
            1 => ProbeKind::Request,
            2 => ProbeKind::Echo,
            3 => ProbeKind::Primed,
            other => return Err(Malformed::UnknownKind(other)),
        };
        let _flags = r.u16()?;
        Ok(Self { kind, tag: r.u64()?, counter: r.u64()?, nonce: r.u64()?, observed: r.socket_addr()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Probe {
        Probe {
            kind: ProbeKind::Echo,
            tag: 0x0102_0304_0506_0708,
            counter: 0x1112_1314_1516_1718,
            nonce: 0x2122_2324_2526_2728,
            observed: Some("203.0.113.9:41641".parse().expect("address")),
        }
    }

    const VECTOR: [u8; MIN_LEN] = [
        0xe5, 2, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24,
        0x25, 0x26, 0x27, 0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 9, 0xa2, 0xa9, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn the_vector_holds_in_both_directions() {
        assert_eq!(example().encode(0), VECTOR);
        assert_eq!(Probe::decode(&VECTOR), Ok(example()));
        assert_eq!(Probe::peek_tag(&VECTOR), Some(0x0102_0304_0506_0708));
    }

    #[test]
    fn padding_changes_only_the_length() {
        let bytes = example().encode(FULL_LEN);
        assert_eq!(bytes.len(), FULL_LEN);
        assert_eq!(Probe::decode(&bytes), Ok(example()));
    }

    #[test]
    fn what_is_no_probe_is_refused() {
        assert_eq!(Probe::decode(&VECTOR[..MIN_LEN - 1]), Err(Malformed::Truncated));
        assert_eq!(Probe::peek_tag(&VECTOR[..MIN_LEN - 1]), None);
        let mut unknown = VECTOR;
        unknown[1] = 4;
        assert_eq!(Probe::decode(&unknown), Err(Malformed::UnknownKind(4)));
        unknown[0] = 0xe0;
        assert_eq!(Probe::decode(&unknown), Err(Malformed::UnknownKind(0xe0)));
        assert_eq!(Probe::peek_tag(&unknown), None);
    }

    proptest! {
        #[test]
        fn any_probe_survives_the_wire(
            kind in prop_oneof![Just(ProbeKind::Request), Just(ProbeKind::Echo), Just(ProbeKind::Primed)],
            (tag, counter, nonce) in any::<(u64, u64, u64)>(),
            observed in any::<Option<SocketAddr>>(),
            len in 0..2000_usize,
        ) {
            let observed = observed.filter(|a| a.port() != 0)
                .map(|a| SocketAddr::new(a.ip().to_canonical(), a.port()));
            let probe = Probe { kind, tag, counter, nonce, observed };
            let bytes = probe.encode(len);
            prop_assert_eq!(bytes.len(), len.max(MIN_LEN));
            prop_assert_eq!(Probe::decode(&bytes), Ok(probe));
        }

        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Probe::decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = kind::PROBE;
            }
            let _ = (Probe::decode(&bytes), Probe::peek_tag(&bytes));
        }
    }
}
