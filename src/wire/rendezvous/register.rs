//! Who a peer is: what it claims, and the two signatures that prove it.

use std::net::SocketAddr;

use super::message;
use crate::id::{Epoch, NetworkId, PeerId, ServerKey};
use crate::wire::{Malformed, Reader, Writer, kind};

/// A Register's length.
pub const REGISTER_LEN: usize = 334;
/// Bytes of a [`Claim`].
pub const CLAIM_LEN: usize = REGISTER_LEN - 128;

/// ```text
/// 0        1        2        3        4        20       36       54            86            118
/// +--------+--------+--------+--------+--------+--------+--------+-------------+-------------+
/// |  0xE7  |   3    |version |   0    | nonce  | cookie | asked  | server key  | ephemeral   |
/// +--------+--------+--------+--------+--------+--------+--------+-------------+-------------+
/// 118           150           182          190          198        202      206         270        334
/// +-------------+-------------+------------+------------+----------+--------+-----------+----------+
/// | network id  | peer id     | number     | boot id    | epoch    | handle | signature | signature|
/// |             |             |            |            |          |        | network's | device's |
/// +-------------+-------------+------------+------------+----------+--------+-----------+----------+
/// ```
/// Each signature covers all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register<'a> {
    /// What is signed.
    pub claim: Claim,
    /// Ed25519 by the network's key.
    pub network_signature: &'a [u8; 64],
    /// Ed25519 by the device's key.
    pub device_signature: &'a [u8; 64],
}

/// The fields of a [`Register`] in front of its signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The sender's protocol version.
    pub version: u8,
    /// The Hello's.
    pub nonce: [u8; 16],
    /// The server's proof that we receive at our address.
    pub cookie: [u8; 16],
    /// As in the Hello.
    pub asked: Option<SocketAddr>,
    /// The server that this is meant for.
    pub server: ServerKey,
    /// Fresh X25519 key of this registration.
    pub ephemeral: [u8; 32],
    /// The network.
    pub network: NetworkId,
    /// The device.
    pub peer: PeerId,
    /// Grows with every registration of the device.
    pub number: u64,
    /// Random for each run of the program.
    pub boot: u64,
    /// Generation of the network's keys.
    pub epoch: Epoch,
    /// Random; names the registration in frames.
    pub handle: u32,
}

impl Claim {
    /// The bytes that the network's key signs, with room for the two signatures.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(REGISTER_LEN);
        w.u8(kind::RENDEZVOUS).u8(message::REGISTER).u8(self.version).u8(0);
        w.bytes(&self.nonce).bytes(&self.cookie).socket_addr(self.asked).bytes(&self.server.0);
        w.bytes(&self.ephemeral).bytes(&self.network.0).bytes(&self.peer.0);
        w.u64(self.number).u64(self.boot).u32(self.epoch.0).u32(self.handle).finish()
    }

    fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(&datagram[2..]);
        let (version, _) = (r.u8()?, r.u8()?);
        Ok(Self {
            version,
            nonce: r.array()?,
            cookie: r.array()?,
            asked: r.socket_addr()?,
            server: ServerKey(r.array()?),
            ephemeral: r.array()?,
            network: NetworkId(r.array()?),
            peer: PeerId(r.array()?),
            number: r.u64()?,
            boot: r.u64()?,
            epoch: Epoch(r.u32()?),
            handle: r.u32()?,
        })
    }
}

impl<'a> Register<'a> {
    pub(super) fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let claim = Claim::parse(datagram)?;
        let (network, device) = datagram
            .get(CLAIM_LEN..REGISTER_LEN)
            .and_then(|signatures| signatures.split_first_chunk())
            .ok_or(Malformed::Truncated)?;
        let device_signature = device.first_chunk().ok_or(Malformed::Truncated)?;
        Ok(Self { claim, network_signature: network, device_signature })
    }

    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.claim.encode();
        bytes.extend_from_slice(self.network_signature);
        bytes.extend_from_slice(self.device_signature);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rendezvous::Message;

    fn claim() -> Claim {
        Claim {
            version: 1,
            nonce: [2; 16],
            cookie: [3; 16],
            asked: Some("198.51.100.1:3478".parse().expect("address")),
            server: ServerKey([4; 32]),
            ephemeral: [5; 32],
            network: NetworkId([6; 32]),
            peer: PeerId([7; 32]),
            number: 0x0809_0a0b_0c0d_0e0f,
            boot: 0x1011_1213_1415_1617,
            epoch: Epoch(0x1819_1a1b),
            handle: 0x1c1d_1e1f,
        }
    }

    #[test]
    fn a_register_is_these_bytes() {
        let register = Register { claim: claim(), network_signature: &[8; 64], device_signature: &[9; 64] };
        let mut expected = vec![0xE7, 3, 1, 0];
        expected.extend([2; 16]);
        expected.extend([3; 16]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 1, 0x0d, 0x96]);
        for fill in 4..8 {
            expected.extend([fill; 32]);
        }
        expected.extend(0x08..=0x1f);
        assert_eq!(claim().encode(), expected);
        assert_eq!(expected.len(), CLAIM_LEN);
        expected.extend([8; 64]);
        expected.extend([9; 64]);
        assert_eq!(expected.len(), REGISTER_LEN);
        assert_eq!(register.encode(), expected);
        assert_eq!(Message::parse(&expected), Ok(Message::Register(register)));
        assert_eq!(Message::parse(&expected[..REGISTER_LEN - 1]), Err(Malformed::Truncated));
    }
}
