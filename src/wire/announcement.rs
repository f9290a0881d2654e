//! What a peer says about itself, signed by its device key and passed on by anybody.
//!
//! ```text
//!  0  version u8
//!  1  epoch u32
//!  5  seq u64                     the highest signed one wins
//! 13  peer id 32                  the Ed25519 key that signs
//! 45  x25519 32                   the Noise static key
//! 77  features u32
//! 81  name length u8, name        [a-z0-9-]{1,32}
//!     IPv4 claim u8, address 4    0 none, 1 auto, 2 configured
//!     count u8 (≤ 16), candidates {kind u8, family u8 (4 | 6), address 4 | 16, port u16}
//!     fields of later versions    signed, ignored
//!     signature 64                always the last bytes
//! ```
//!
//! Candidate kinds: 1 host, 2 mapped, 3 reflexive, 5 predicted; others are skipped. The whole is at most
//! [`MAX_SIGNED`] bytes, so that it fits every handshake message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Malformed, Reader, Writer};
use crate::id::{Epoch, PeerId};

/// Largest signed announcement, bytes.
pub const MAX_SIGNED: usize = 504;
/// The Ed25519 signature at its end, bytes.
pub const SIGNATURE: usize = 64;
/// Most candidates of a peer.
pub const MAX_CANDIDATES: usize = 16;
/// Longest name, bytes.
pub const MAX_NAME: usize = 32;

/// What a peer says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Protocol version of its sender.
    pub version: u8,
    /// The generation of network secrets it belongs to.
    pub epoch: Epoch,
    /// Its place in the sender's one sequence of numbers.
    pub seq: u64,
    /// Who speaks.
    pub peer: PeerId,
    /// Its Noise static key.
    pub x25519: [u8; 32],
    /// What it can do beyond this version's base.
    pub features: u32,
    /// Its name, see [`is_name`].
    pub name: String,
    /// The overlay IPv4 address it claims.
    pub v4: V4Claim,
    /// Where it may be reached; at most [`MAX_CANDIDATES`] reach the wire.
    pub candidates: Vec<Candidate>,
}

/// A claim to an overlay IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum V4Claim {
    /// No address.
    None,
    /// A derived one, given up to a holder.
    Auto(Ipv4Addr),
    /// One that its user chose.
    Configured(Ipv4Addr),
}

impl V4Claim {
    /// The address, if one is claimed.
    pub const fn addr(self) -> Option<Ipv4Addr> {
        match self {
            Self::None => None,
            Self::Auto(addr) | Self::Configured(addr) => Some(addr),
        }
    }
}

/// An address where a peer may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// How the peer knows of it.
    pub kind: CandidateKind,
    /// The address; never v4-mapped.
    pub addr: SocketAddr,
}

/// How a peer knows of one of its addresses. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// It is an address of an interface.
    Host = 1,
    /// A router mapped it.
    Mapped = 2,
    /// A rendezvous saw it.
    Reflexive = 3,
    /// It is a guess.
    Predicted = 5,
}

/// Whether `name` may be a peer's or a network's name: `[a-z0-9-]{1,32}`.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// Splits a signed announcement into what is signed and the signature. Refuses what is too long.
pub fn split_signature(signed: &[u8]) -> Result<(&[u8], &[u8; SIGNATURE]), Malformed> {
    if signed.len() > MAX_SIGNED {
        return Err(Malformed::Bad("announcement length"));
    }
    signed.split_last_chunk().ok_or(Malformed::Truncated)
}

impl Announcement {
    /// The bytes before the signature. Names and candidates beyond their limits are cut off.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(MAX_SIGNED);
        w.u8(self.version).u32(self.epoch.0).u64(self.seq).bytes(&self.peer.0).bytes(&self.x25519).u32(self.features);
        let name = &self.name.as_bytes()[..self.name.len().min(MAX_NAME)];
        w.u8(u8::try_from(name.len()).expect("at most MAX_NAME")).bytes(name);
        let (claim, addr) = match self.v4 {
            V4Claim::None => (0, Ipv4Addr::UNSPECIFIED),
            V4Claim::Auto(addr) => (1, addr),
            V4Claim::Configured(addr) => (2, addr),
        };
        w.u8(claim).bytes(&addr.octets());
        put_candidates(&mut w, &self.candidates);
        w.finish()
    }

    /// Reads the bytes before the signature.
    pub fn decode(text: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(text);
        Ok(Self {
            version: r.u8()?,
            epoch: Epoch(r.u32()?),
            seq: r.u64()?,
            peer: PeerId(r.array()?),
            x25519: r.array()?,
            features: r.u32()?,
            name: decode_name(&mut r)?,
            v4: V4Claim::decode(&mut r)?,
            candidates: take_candidates(&mut r)?,
        })
    }
}

/// Candidates alone, as an announcement has them; those beyond [`MAX_CANDIDATES`] are cut off.
pub fn encode_candidates(candidates: &[Candidate]) -> Vec<u8> {
    let mut w = Writer::default();
    put_candidates(&mut w, candidates);
    w.finish()
}

/// Reads what [`encode_candidates`] wrote, but for those of kinds that this version does not know.
pub fn decode_candidates(bytes: &[u8]) -> Result<Vec<Candidate>, Malformed> {
    take_candidates(&mut Reader::new(bytes))
}

fn decode_name(r: &mut Reader<'_>) -> Result<String, Malformed> {
    let len = usize::from(r.u8()?);
    let name = std::str::from_utf8(r.bytes(len)?).ok().filter(|name| is_name(name));
    name.map(str::to_owned).ok_or(Malformed::Bad("name"))
}

/// Up to [`MAX_CANDIDATES`] of them, behind their count.
fn put_candidates(w: &mut Writer, candidates: &[Candidate]) {
    let candidates = &candidates[..candidates.len().min(MAX_CANDIDATES)];
    w.u8(u8::try_from(candidates.len()).expect("at most MAX_CANDIDATES"));
    candidates.iter().for_each(|candidate| candidate.encode(w));
}

/// What [`put_candidates`] put, but for those of kinds that this version does not know.
fn take_candidates(r: &mut Reader<'_>) -> Result<Vec<Candidate>, Malformed> {
    let count = usize::from(r.u8()?);
    if count > MAX_CANDIDATES {
        return Err(Malformed::Bad("candidate count"));
    }
    let mut candidates = Vec::with_capacity(count);
    for _ in 0..count {
        candidates.extend(Candidate::decode(r)?);
    }
    Ok(candidates)
}

impl V4Claim {
    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (claim, addr) = (r.u8()?, Ipv4Addr::from(r.array::<4>()?));
        match claim {
            0 => Ok(Self::None),
            1 => Ok(Self::Auto(addr)),
            2 => Ok(Self::Configured(addr)),
            _ => Err(Malformed::Bad("IPv4 claim")),
        }
    }
}

impl Candidate {
    fn encode(&self, w: &mut Writer) {
        w.u8(self.kind as u8);
        match self.addr.ip().to_canonical() {
            IpAddr::V4(ip) => w.u8(4).bytes(&ip.octets()),
            IpAddr::V6(ip) => w.u8(6).bytes(&ip.octets()),
        };
        w.u16(self.addr.port());
    }

    /// `None`: of a kind that this version does not know.
    fn decode(r: &mut Reader<'_>) -> Result<Option<Self>, Malformed> {
        let kind = CandidateKind::from_wire(r.u8()?);
        let ip = match r.u8()? {
            4 => IpAddr::from(r.array::<4>()?),
            6 => IpAddr::from(r.array::<16>().map(Ipv6Addr::from)?),
            _ => return Err(Malformed::Bad("address family")),
        };
        if ip != ip.to_canonical() {
            return Err(Malformed::Bad("v4-mapped address"));
        }
        let addr = SocketAddr::new(ip, r.u16()?);
        Ok(kind.map(|kind| Self { kind, addr }))
    }
}

impl CandidateKind {
    const fn from_wire(kind: u8) -> Option<Self> {
        match kind {
            1 => Some(Self::Host),
            2 => Some(Self::Mapped),
            3 => Some(Self::Reflexive),
            5 => Some(Self::Predicted),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn example() -> Announcement {
        Announcement {
            version: 1,
            epoch: Epoch(0),
            seq: 0x0102_0304_0506_0708,
            peer: PeerId([0xaa; 32]),
            x25519: [0xbb; 32],
            features: 0x8000_0001,
            name: "alice-2".into(),
            v4: V4Claim::Auto(Ipv4Addr::new(10, 77, 0, 9)),
            candidates: vec![
                Candidate { kind: CandidateKind::Host, addr: "192.0.2.1:4660".parse().expect("v4") },
                Candidate { kind: CandidateKind::Reflexive, addr: "[2001:db8::1]:9".parse().expect("v6") },
            ],
        }
    }

    /// The bytes of [`example`], drawn by hand.
    fn vector() -> Vec<u8> {
        let mut bytes = vec![1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        bytes.extend([0xaa; 32]);
        bytes.extend([0xbb; 32]);
        bytes.extend([0x80, 0, 0, 1, 7]);
        bytes.extend(b"alice-2");
        bytes.extend([1, 10, 77, 0, 9, 2]);
        bytes.extend([1, 4, 192, 0, 2, 1, 0x12, 0x34]);
        bytes.extend([3, 6, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9]);
        bytes
    }

    #[test]
    fn the_vector_holds_in_both_directions() {
        assert_eq!(example().encode(), vector());
        assert_eq!(Announcement::decode(&vector()), Ok(example()));
    }

    #[test]
    fn fields_of_later_versions_are_ignored() {
        let mut bytes = vector();
        bytes.extend([1, 2, 3]);
        assert_eq!(Announcement::decode(&bytes), Ok(example()));
    }

    #[test]
    fn candidates_of_unknown_kinds_are_skipped() {
        let mut bytes = vector();
        let host = bytes.len() - 28;
        bytes[host] = 9;
        let decoded = Announcement::decode(&bytes).expect("decodes");
        assert_eq!(decoded.candidates, example().candidates[1..]);
    }

    #[test]
    fn every_truncation_is_refused() {
        for len in 0..vector().len() {
            assert!(Announcement::decode(&vector()[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn the_largest_announcement_fits() {
        let mut largest = example();
        largest.name = "n".repeat(MAX_NAME);
        largest.candidates = vec![largest.candidates[1]; MAX_CANDIDATES];
        assert_eq!(largest.encode().len() + SIGNATURE, MAX_SIGNED);
        assert_eq!(Announcement::decode(&largest.encode()), Ok(largest));
    }

    #[test]
    fn bad_values_are_named() {
        for (at, value, what) in
            [(82, b'A', "name"), (81, 0, "name"), (89, 3, "IPv4 claim"), (94, 17, "candidate count")]
        {
            let mut bytes = vector();
            bytes[at] = value;
            assert_eq!(Announcement::decode(&bytes), Err(Malformed::Bad(what)), "byte {at}");
        }
        let mut bytes = vector();
        let family = bytes.len() - 19;
        bytes[family] = 5;
        assert_eq!(Announcement::decode(&bytes), Err(Malformed::Bad("address family")));
        bytes[family] = 6;
        bytes[family + 1..family + 17].copy_from_slice(&Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
        assert_eq!(Announcement::decode(&bytes), Err(Malformed::Bad("v4-mapped address")));
    }

    pub(crate) fn any_announcement() -> impl Strategy<Value = Announcement> {
        let kind = prop_oneof![
            Just(CandidateKind::Host),
            Just(CandidateKind::Mapped),
            Just(CandidateKind::Reflexive),
            Just(CandidateKind::Predicted)
        ];
        let candidate = (kind, any::<SocketAddr>())
            .prop_map(|(kind, addr)| Candidate { kind, addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()) });
        let claim = prop_oneof![
            Just(V4Claim::None),
            any::<Ipv4Addr>().prop_map(V4Claim::Auto),
            any::<Ipv4Addr>().prop_map(V4Claim::Configured)
        ];
        (
            (any::<u32>(), any::<u64>(), any::<[u8; 32]>(), any::<[u8; 32]>(), any::<u32>()),
            ("[a-z0-9-]{1,32}", claim, prop::collection::vec(candidate, 0..=MAX_CANDIDATES)),
        )
            .prop_map(|((epoch, seq, peer, x25519, features), (name, v4, candidates))| Announcement {
                version: 1,
                epoch: Epoch(epoch),
                seq,
                peer: PeerId(peer),
                x25519,
                features,
                name,
                v4,
                candidates,
            })
    }

    proptest! {
        #[test]
        fn any_announcement_survives_the_wire(announcement in any_announcement()) {
            prop_assert_eq!(Announcement::decode(&announcement.encode()), Ok(announcement));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Announcement::decode(&bytes);
            let _ = split_signature(&bytes);
        }
    }
}
