//! Truncated HMAC-SHA256 in handshake messages and probes: written into the bytes, checked in constant time.

use ring::hmac;
use subtle::ConstantTimeEq as _;

/// Bytes of a MAC.
pub const LEN: usize = 16;

/// The MAC of `message`.
pub fn mac(key: &[u8], message: &[u8]) -> [u8; LEN] {
    let full = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    *full.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

/// Whether `tag` is the MAC of `message`.
pub fn check(key: &[u8], message: &[u8], tag: &[u8; LEN]) -> bool {
    mac(key, message).ct_eq(tag).into()
}

/// Replaces the last bytes of `message` by the MAC of what is before them.
///
/// # Panics
/// If the message has no room for it.
pub fn write_last(key: &[u8], message: &mut [u8]) {
    let (text, tag) = message.split_last_chunk_mut::<LEN>().expect("the message has room for its MAC");
    *tag = mac(key, text);
}

/// Whether the last bytes of `message` are the MAC of what is before them.
pub fn check_last(key: &[u8], message: &[u8]) -> bool {
    message.split_last_chunk::<LEN>().is_some_and(|(text, tag)| check(key, text, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mac_is_hmac_sha256_cut_to_16_bytes() {
        // RFC 4231, test case 2.
        let expected = [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7];
        assert_eq!(mac(b"Jefe", b"what do ya want for nothing?"), expected);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let mut message = [7; 40];
        write_last(b"key", &mut message);
        assert!(check_last(b"key", &message));
        assert!(!check_last(b"kez", &message));
        for i in 0..message.len() {
            let mut changed = message;
            changed[i] ^= 1;
            assert!(!check_last(b"key", &changed), "byte {i}");
        }
        assert!(!check_last(b"key", &message[..15]));
    }
}
