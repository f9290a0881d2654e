//! The first words: a peer asks, and a rendezvous that keeps no state gives it something that only who reads at that
//! address can show.

use std::net::SocketAddr;

use super::message;
use crate::id::ServerKey;
use crate::wire::{Malformed, Reader, Writer, kind};

/// A Hello's length.
pub const HELLO_LEN: usize = 96;
/// A Cookie's length.
pub const COOKIE_LEN: usize = 86;

/// ```text
/// 0        1        2        3        4        20        38
/// +--------+--------+--------+--------+--------+---------+----------------+
/// |  0xE7  |   1    |version |   0    | nonce  | asked   | zeros to 96    |
/// +--------+--------+--------+--------+--------+---------+----------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's protocol version.
    pub version: u8,
    /// Random; in the answer again.
    pub nonce: [u8; 16],
    /// The address this was sent to; the cookie is good for it alone.
    pub asked: Option<SocketAddr>,
}

impl Hello {
    pub(super) fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() < HELLO_LEN {
            return Err(Malformed::Truncated);
        }
        let mut r = Reader::new(&datagram[2..]);
        let (version, _) = (r.u8()?, r.u8()?);
        Ok(Self { version, nonce: r.array()?, asked: r.socket_addr()? })
    }

    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(HELLO_LEN);
        w.u8(kind::RENDEZVOUS).u8(message::HELLO).u8(self.version).u8(0);
        w.bytes(&self.nonce).socket_addr(self.asked).pad_to(HELLO_LEN).finish()
    }
}

/// ```text
/// 0        1        2        3        4        20       36            68                  86
/// +--------+--------+--------+--------+--------+--------+-------------+-------------------+
/// |  0xE7  |   2    |version |   0    | nonce  | cookie | server key  | observed ^ nonce  |
/// +--------+--------+--------+--------+--------+--------+-------------+-------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The server's protocol version.
    pub version: u8,
    /// The question's.
    pub nonce: [u8; 16],
    /// To be shown in a [`Register`](super::Register).
    pub cookie: [u8; 16],
    /// The server's X25519 key.
    pub server: ServerKey,
    /// Where the question came from.
    pub observed: Option<SocketAddr>,
}

impl Cookie {
    pub(super) fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(&datagram[2..]);
        let (version, _) = (r.u8()?, r.u8()?);
        let nonce = r.array()?;
        let (cookie, server) = (r.array()?, ServerKey(r.array()?));
        let observed = Reader::new(&xor_nonce(r.array()?, &nonce)).socket_addr()?;
        Ok(Self { version, nonce, cookie, server, observed })
    }

    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut plain = Writer::with_capacity(18);
        plain.socket_addr(self.observed);
        let mut observed = [0; 18];
        observed.copy_from_slice(plain.as_slice());
        let mut w = Writer::with_capacity(COOKIE_LEN);
        w.u8(kind::RENDEZVOUS).u8(message::COOKIE).u8(self.version).u8(0).bytes(&self.nonce);
        w.bytes(&self.cookie).bytes(&self.server.0).bytes(&xor_nonce(observed, &self.nonce)).finish()
    }
}

/// Hides an address from NATs that rewrite addresses inside datagrams.
fn xor_nonce(mut bytes: [u8; 18], nonce: &[u8; 16]) -> [u8; 18] {
    for (byte, pad) in bytes.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= pad;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rendezvous::Message;

    #[test]
    fn a_hello_is_these_bytes() {
        let hello = Hello { version: 1, nonce: [0xAA; 16], asked: Some("198.51.100.1:3478".parse().expect("address")) };
        let mut expected = vec![0xE7, 1, 1, 0];
        expected.extend([0xAA; 16]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 1, 0x0d, 0x96]);
        expected.resize(HELLO_LEN, 0);
        assert_eq!(hello.encode(), expected);
        assert_eq!(Message::parse(&expected), Ok(Message::Hello(hello)));
        assert_eq!(Message::parse(&expected[..HELLO_LEN - 1]), Err(Malformed::Truncated));
    }

    #[test]
    fn a_cookie_is_these_bytes_and_shows_no_address_in_clear() {
        let cookie = Cookie {
            version: 1,
            nonce: [0x0F; 16],
            cookie: [0xCC; 16],
            server: ServerKey([0xDD; 32]),
            observed: Some("203.0.113.9:41641".parse().expect("address")),
        };
        let mut expected = vec![0xE7, 2, 1, 0];
        expected.extend([0x0F; 16]);
        expected.extend([0xCC; 16]);
        expected.extend([0xDD; 32]);
        let plain = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 9, 0xa2, 0xa9];
        expected.extend(plain.map(|byte: u8| byte ^ 0x0F));
        assert_eq!(expected.len(), COOKIE_LEN);
        assert_eq!(cookie.encode(), expected);
        assert_eq!(Message::parse(&expected), Ok(Message::Cookie(cookie)));
    }
}
